"""The language model: a cache that survives steps changes nothing, outcomes always parse, a row is itself alone."""

from __future__ import annotations

import pytest
import torch

from tests.ehr_world.causal_stays import stay, stays
from world_models import keys, tree
from world_models.ehr_world.causal_lm.codec import NarrativeCodec, TextCodec, encode, train_tokenizer
from world_models.ehr_world.causal_lm.grammar import OutcomeLogits
from world_models.ehr_world.causal_lm.model import CausalLM, LMState, collate, outcome_loss, qwen3, squeeze
from world_models.ehr_world.causal_lm.parse import parse
from world_models.ehr_world.causal_lm.text import Narrative, NarrativeError, NarrativeStep, render
from world_models.ehr_world.causal_lm.tokens import QuantileCodec

HOURS = 4.0


@pytest.fixture(scope="module", params=["text", "quantile"])
def lm(request: pytest.FixtureRequest) -> CausalLM:
    codec: NarrativeCodec = QuantileCodec.fit(stays(12))
    if request.param == "text":
        codec = TextCodec(train_tokenizer([render(s) for s in stays(12)], 400))
    return wild(CausalLM.from_config(qwen3(codec.size, 32, 2, 4), codec, seed=1))


def wild(lm: CausalLM) -> CausalLM:
    """Large random weights: logits far apart, so that nothing is right by being flat."""
    with torch.no_grad():
        for parameter in lm.model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8)
    return lm


def tell(lm: CausalLM, told: list[Narrative], count: int) -> LMState:
    """The first `count` steps told, fed at each step."""
    state = lm.start(told, keys.from_seed(5, len(told)))
    for t in range(count):
        state = lm.remember(state, [n.steps[t] for n in told], HOURS)
        state, _ = lm.feed(state)
    return state


def test_a_cache_that_survives_gives_the_logits_of_recomputing(lm: CausalLM) -> None:
    told = stays(3)
    state = lm.start(told, keys.from_seed(5, 3))
    widths: list[int] = []
    hook = lm.model.register_forward_pre_hook(
        lambda _, args, kw: widths.append(kw["input_ids"].shape[1]), with_kwargs=True
    )
    for t in range(4):
        state = lm.remember(state, [n.steps[t] for n in told], HOURS)
        before = state.position
        state, logits = lm.feed(state)
        assert widths.pop() == int((state.position - before).max()), "only the new tokens were fed"
        for row, narrative in enumerate(told):
            ids = encode(lm.codec, narrative._replace(steps=narrative.steps[: t + 1])).ids
            assert int(state.position[row]) == len(ids)
            with torch.no_grad():
                fresh = lm.model(input_ids=torch.tensor([ids])).logits[0, -1]
            widths.pop()
            torch.testing.assert_close(logits[row], fresh, rtol=1e-4, atol=1e-4)
        if t == 1:
            wide = state.mask.shape[1]
            state = squeeze(state)
            assert state.mask.shape[1] == int(state.position.max()) < wide
    hook.remove()


def test_outcomes_always_parse_and_rows_are_themselves_alone(lm: CausalLM) -> None:
    told = stays(5)
    key = keys.from_seed(11, 5)
    state = lm.start(told, key)
    alone = [lm.start([n], key[i : i + 1]) for i, n in enumerate(told)]
    done: list[list[NarrativeStep]] = [[] for _ in told]
    for t in range(3):
        orders = [n.steps[t].orders() for n in told]
        state, steps = lm.step(state, orders, HOURS, temperature=2.0)
        for i, step in enumerate(steps):
            assert [a.item for a in step.asked] == [a.item for a in orders[i].asked] and all(
                a.known for a in step.asked
            )
            alone[i], (single,) = lm.step(alone[i], [orders[i]], HOURS, temperature=2.0)
            assert single == step
            done[i].append(step)
    for narrative, steps in zip(told, done, strict=True):
        whole = narrative._replace(steps=tuple(steps))
        assert parse(render(whole)) == whole


def test_luck_is_the_key_and_a_branch_does_not_disturb(lm: CausalLM) -> None:
    told = stays(2)
    state = tell(lm, told, 1)
    orders = [n.steps[1] for n in told]
    held = tree.copy(state)
    after, first = lm.step(state, orders, HOURS)
    _, again = lm.step(state, orders, HOURS)
    assert first == again
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(held), tree.leaves(state), strict=True)), (
        "a state was changed"
    )
    assert int(after.t[0]) == orders[0].number
    many = lm.fork(state, 8, keys.from_seed(100, 16))
    _, samples = lm.step(many, [o for o in orders for _ in range(8)], HOURS, temperature=3.0)
    assert len(set(samples[:8])) > 1, "samples of one stay differ by key"
    _, likeliest = lm.step(state, orders, HOURS, temperature=0.0)
    _, other_key = lm.step(state._replace(key=state.key + 1), orders, HOURS, temperature=0.0)
    assert likeliest == other_key


def test_steps_without_inquiries_and_uneven_batches(lm: CausalLM) -> None:
    told = stays(2)
    state = lm.start(told, keys.from_seed(5, 2))
    quiet = NarrativeStep(0, (), told[0].steps[1].given)
    state, steps = lm.step(state, [quiet, told[1].steps[0]], HOURS)
    assert steps[0] == quiet and all(a.known for a in steps[1].asked)
    state, steps = lm.step(state, [quiet._replace(number=1), quiet._replace(number=2)], HOURS)
    state, steps = lm.step(state, [n.steps[-1] for n in told], HOURS)
    assert all(a.known for s in steps for a in s.asked)


def test_likelihoods_are_those_of_the_loss(lm: CausalLM) -> None:
    told = stays(3)
    scores = lm.score(told)
    assert [[(s.number, a.item) for s in n.steps for a in s.asked] for n in told] == [
        [x[:2] for x in row] for row in scores
    ]
    with torch.no_grad():
        loss = outcome_loss(lm.model, *collate([encode(lm.codec, n) for n in told], lm.codec.pad))
        one = outcome_loss(lm.model, *collate([encode(lm.codec, told[1])], lm.codec.pad))
    assert sum(x[2] for row in scores for x in row) == pytest.approx(float(loss), rel=1e-4)
    assert sum(x[2] for x in scores[1]) == pytest.approx(float(one), rel=1e-4)


def test_orders_have_no_loss(lm: CausalLM) -> None:
    ids, mask, labels = collate([encode(lm.codec, stay(1))], lm.codec.pad)
    logits = lm.model(input_ids=ids, attention_mask=mask).logits
    logits.retain_grad()

    class Given:
        def __call__(self, **_: object) -> object:
            return type("Out", (), {"logits": logits})

    outcome_loss(Given(), ids, mask, labels).backward()
    pulled = logits.grad[0].abs().sum(-1) > 0
    assert torch.equal(pulled[:-1], labels[0, 1:] >= 0) and not pulled[-1] and 0 < pulled.float().mean() < 0.6


def test_a_model_on_disk_is_the_same_model(lm: CausalLM, tmp_path) -> None:  # noqa: ANN001
    lm.save(tmp_path)
    again = CausalLM.from_folder(tmp_path)
    told = stays(2)
    for one, other in zip(again.score(told), lm.score(told), strict=True):
        assert [x[2] for x in one] == pytest.approx([x[2] for x in other], rel=1e-5)
    same = CausalLM.from_config(qwen3(lm.codec.size, 32, 2, 4), lm.codec, seed=1).model.state_dict()
    assert all(torch.equal(v * (8 if v.ndim >= 2 else 1), lm.model.state_dict()[k]) for k, v in same.items())


def test_transformers_generate_takes_the_grammar_too(lm: CausalLM) -> None:
    told = stay(1)
    item = told.steps[0].asked[0].item
    ids = lm.codec.context(told) + lm.codec.orders(told.steps[0], -1, HOURS) + lm.codec.ask(item)
    for seed_logits in (0.5, 3.0):
        guard = OutcomeLogits(lm.codec.automaton, [lm.codec.kind(item)], len(ids), lm.codec.longest, lm.codec.pad)
        out = lm.model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            logits_processor=[guard],
            max_new_tokens=lm.codec.longest + 1,
            do_sample=False,
            repetition_penalty=seed_logits,
            eos_token_id=lm.codec.pad,
            pad_token_id=lm.codec.pad,
        )[0, len(ids) :].tolist()
        assert out[-1] == lm.codec.pad and lm.codec.decode(item, out[:-1]).known


def test_what_cannot_be_is_refused(lm: CausalLM, tmp_path) -> None:  # noqa: ANN001
    told = stay(0)
    with pytest.raises(ValueError, match="do not belong together"):
        CausalLM.from_config(qwen3(20, 32, 1, 4), lm.codec)
    with pytest.raises(ValueError, match="needs full attention"):
        CausalLM.from_config(
            {**qwen3(lm.codec.size, 32, 2, 4), "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            lm.codec,
        )
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        CausalLM.from_folder(tmp_path / "Qwen3-0.6B")
    with pytest.raises(FileNotFoundError, match="no config.json"):
        CausalLM.from_folder(tmp_path, codec=lm.codec)
    with pytest.raises(ValueError, match="2 stays need 2 keys"):
        lm.start([told, told], keys.from_seed(0, 1))
    state = lm.start([told], keys.from_seed(0, 1))
    with pytest.raises(NarrativeError, match="no outcome yet"):
        lm.remember(state, [told.steps[0].orders()], HOURS)
    short = CausalLM.from_config(qwen3(lm.codec.size, 32, 1, 4, context=12), lm.codec)
    with pytest.raises(ValueError, match="and the model 12 positions"):
        tell(short, [told], 4)
