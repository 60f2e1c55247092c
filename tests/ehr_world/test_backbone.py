"""Both backbones: steps against the parallel pass, rows against the single, what is carried, what a config may say."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from tests.ehr_world.ward_small import CONFIG, some_stays, tiny, words
from world_models import catalog, checkpoint, keys, tree
from world_models.ehr_world import finish, train
from world_models.ehr_world.set_outcome.backbone import WINDOW, Recurrent, Transformer
from world_models.ehr_world.set_outcome.config import BACKBONES, SetOutcomeConfig
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.testing import random_orders


def backbone(name: str) -> tuple[Recurrent | Transformer, int]:
    """With random weights, and the width of what it begins with."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = Recurrent(16, 2) if name == "gru" else Transformer(16, 2)
    return made.eval().requires_grad_(False), 32 if name == "gru" else 16


SHIFT = torch.linspace(-1.0, 2.0, 16)  # not a constant: a norm would take that out


def digests(width: int, count: int, batch: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, count, 16, generator=draw), torch.randn(batch, width, generator=draw)


@pytest.mark.parametrize("count", [12, WINDOW + 40])
@pytest.mark.parametrize("name", BACKBONES)
def test_steps_equal_the_parallel_pass_and_a_recalled_cache_goes_on(name: str, count: int) -> None:
    """Also beyond the window, from ends that differ row by row."""
    net, width = backbone(name)
    x, first = digests(width, count)
    before, after = net.whole(x, first)
    last = torch.tensor([0, 3, count // 2, count - 2, count - 1])
    recalled, carried = net.recall(x, first, last), net.begin(first)
    for t in range(count):
        place = torch.full((5,), t)
        torch.testing.assert_close(net.top(carried), before[:, t], rtol=1e-5, atol=1e-5)
        top, carried = net.step(x[:, t], carried, place)
        torch.testing.assert_close(top, after[:, t], rtol=1e-5, atol=1e-5)
        assert torch.equal(top, net.top(carried))
        here = last == t
        for a, b in zip(tree.leaves(recalled), tree.leaves(carried), strict=True):
            torch.testing.assert_close(a[here], b[here], rtol=1e-5, atol=1e-5)
    mixed, _ = net.step(x[:, 0], recalled, last + 1)  # rows of different age side by side
    for row in range(5):
        alone, _ = net.step(x[row : row + 1, 0], tree.take(recalled, slice(row, row + 1)), last[row : row + 1] + 1)
        torch.testing.assert_close(mixed[row : row + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_position_knows_nothing_of_later_ones_and_of_all_earlier_ones(name: str) -> None:
    net, width = backbone(name)
    x, first = digests(width, 9)
    _, plain = net.whole(x, first)
    other = x.clone()
    other[:, 4] += SHIFT
    _, changed = net.whole(other, first)
    assert torch.equal(changed[:, :4], plain[:, :4])
    assert bool(((changed[:, 4:] - plain[:, 4:]).abs().amax(-1) > 1e-5).all())
    _, begun = net.whole(x, first + torch.linspace(-1.0, 2.0, width))
    assert bool(((begun - plain).abs().amax(-1) > 1e-5).all())


def test_the_transformer_looks_back_a_window_and_no_further() -> None:
    net = backbone("transformer")[0]
    one, (x, first) = Transformer(16, 1), digests(16, WINDOW + 5, 1)
    one.load_state_dict({n: p for n, p in net.state_dict().items() if not n.startswith("layers.1")})
    one.requires_grad_(False)
    other = x.clone()
    other[:, 3] += SHIFT
    far = (one.whole(other, first)[1] - one.whole(x, first)[1]).abs().amax(-1)[0]
    assert float(far[3 + WINDOW - 1]) > 0.0 and float(far[3 + WINDOW :].amax()) == 0.0


@pytest.mark.parametrize("name", BACKBONES)
def test_patients_are_picked_repeated_and_put_back_with_what_is_carried(name: str) -> None:
    model = tiny(0, name)
    state = model.initial(keys.from_seed(4, 4))
    for t in range(3):
        state = model.transition(state, random_orders(model, state.key, t, share=0.3, given=0.3))
    young = model.initial(keys.from_seed(90, 1))
    mixed = tree.put(state, torch.tensor([2]), young)  # as an environment begins a row anew
    action = random_orders(model, mixed.key, 9, share=0.3, given=0.3)
    after = model.transition(mixed, action)
    alone = model.transition(young, action[2:3])
    for a, b in zip(tree.leaves(tree.take(after, slice(2, 3))), tree.leaves(alone), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3, equal_nan=True)
    many = model.transition(tree.repeat(mixed, 3), action.repeat_interleave(3, 0))
    for a, b in zip(tree.leaves(tree.take(many, slice(0, None, 3))), tree.leaves(after), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("name", BACKBONES)
def test_training_lowers_the_loss_and_the_world_loads_again(name: str, tmp_path) -> None:
    stays, config = some_stays(), dataclasses.replace(CONFIG, backbone=name)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = SetOutcome(config, words())
    before = finish.measure(net, stays)["nll"]
    train.train_net(net, stays, stays, 25, 8, tmp_path / "work", 5e-3)
    assert finish.measure(net, stays)["nll"] < before - 0.1
    model, _ = finish.finish(net, stays, stays, tmp_path / "world", "command", "source")
    loaded = catalog.load(tmp_path / "world")
    assert loaded.config.backbone == name
    key = keys.from_seed(8, 3)
    action = random_orders(model, key, 0, share=0.3, given=0.3)
    a, b = (m.observe(m.transition(m.initial(key), action)) for m in (model, loaded))
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_a_config_without_the_field_is_a_gru_and_an_unknown_one_is_refused(tmp_path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = SetOutcome(CONFIG, words())
    assert {n.split(".")[0] for n in net.state_dict() if "weight_hh" in n} == {"gru"}
    model = tiny()
    plain = {"kind": "ehr-set-outcome", **dataclasses.asdict(CONFIG), "vocabulary": words().to_json()}
    del plain["backbone"]
    checkpoint.save_checkpoint(tmp_path / "old", model.state_dict(), plain, "card")
    loaded = catalog.load(tmp_path / "old")
    assert loaded.config.backbone == "gru"
    key = keys.from_seed(8, 3)
    a, b = (m.observe(m.initial(key)) for m in (model, loaded))
    assert all(torch.equal(a[n], b[n]) for n in a)
    with pytest.raises(ValueError, match="unknown backbone 'lstm'; there are: gru, transformer"):
        SetOutcomeConfig(backbone="lstm")
    with pytest.raises(ValueError, match="layers=0 must be a whole number, 1 or more"):
        SetOutcomeConfig(layers=0)
    checkpoint.save_checkpoint(tmp_path / "other", model.state_dict(), {**plain, "backbone": "transformer"}, "card")
    with pytest.raises(ValueError, match="train it again"):
        catalog.load(tmp_path / "other")
    assert json.loads((tmp_path / "old" / "config.json").read_text()).keys() == {*plain, "seal_sha256"}
