"""Learned wards and simple guesses on recorded stays: every slot's prediction, and the scores of them.

A slot is one number that a recorded order returned. Next step: predicted from the true history. Full trajectory: the
record up to position `begin` is given, then the world lives by its own outcomes under the recorded orders, doses and
length of stay; the prediction is the mixture of the PATHS' distributions, its point the median. Ahead: the same record
and orders are given, and every later slot is foretold from them alone, in one pass, no outcome being told. Beside the
world: `last_value` (full trajectory: the last one given), `first_value` (the stay's first, wherever it was drawn: in a
full trajectory it may have seen more of the record than the world has), `item_median`; a guess that knows no value yet
gives the item's median. Their distributions are Laplace, of the training patients' mean error. Medians, errors and
scales are those of training; nothing is fitted here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.intervals import RESAMPLES, paired_difference
from benchmarks.ward.fidelity_tables import HIGH_80, LOW_80, MEDIAN, PATHS_SEED, by_length
from benchmarks.ward.scores import CLOSE, LEVELS, MOVED, pinball_crps, point_scores
from world_models import keys, tree
from world_models.ehr_world.records import Guesses, StayRecords, cut, first_value, numbers
from world_models.ehr_world.set_outcome.inference import believe
from world_models.ehr_world.set_outcome.losses import forced
from world_models.ehr_world.set_outcome.marginal import Marginal
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.vocabulary import from_z, to_z

__all__ = [
    "GUESSES",
    "PATHS",
    "Slots",
    "ahead_slots",
    "differences",
    "joined",
    "next_slots",
    "path_slots",
    "restrict",
    "scores",
]

GUESSES = ("last_value", "first_value", "item_median")
PATHS = 16
# columns [N]: y item last subject stay place, and point/ nll/ crps/ inside/ of every predictor; quantiles/model [N, 19]
Slots = dict[str, Tensor]


def _grid(model: EHRWorldModel) -> Tensor:
    """[I] step of the reported numbers: the vocabulary's, or, of weights that do not tell it, from their bins, whose
    edges lie halfway between reports. 0: no step."""
    if bool((model.net.grid > 0).any()):
        return model.net.grid
    edges, scale = model.net.edges, model.net.scale
    out = torch.zeros(len(edges))
    for i in range(len(edges)):
        inner = from_z(edges[i].unique()[1:-1].double(), scale[i].double())
        for step in (1.0, 0.1, 0.01, 0.001):
            off = inner / step - 0.5
            slack = 1e-3 + 5e-6 * inner.abs() / step  # edges are held as float32 logarithms
            if len(inner) and bool(((off - off.round()).abs() < slack).all()) and float(slack.amax()) < 0.2:
                out[i] = step
                break
    return out


def _columns(
    model: EHRWorldModel,
    guesses: Guesses,
    grid: Tensor,
    marginal: Marginal,
    y: Tensor,
    item: Tensor,
    known: dict[str, Tensor],
    stream: int,
) -> Slots:
    """Predictions of N slots: the world's, and the guesses' from `known` name -> value (NaN: none)."""
    net = model.net
    scale, edges = net.scale[item], net.edges[item]
    z = to_z(y, scale)
    q = marginal.quantile(LEVELS.expand(len(y), -1))
    # an interval's coverage of rounded numbers means nothing where one report holds half the mass: spread them evenly
    even = keys.uniform(keys.from_seed(88), stream, "even", (len(y),))[0] - 0.5
    spread = to_z(y + even * grid[item], scale)
    inside = torch.maximum(torch.minimum(z, edges[:, -1]), edges[:, 0])
    out = {
        "y": y,
        "item": item,
        "point/model": from_z(q[:, MEDIAN], scale),
        "nll/model": -marginal.log_density(inside),
        "crps/model": pinball_crps(q, z),
        "quantiles/model": q,
        "inside/model": ((spread >= q[:, LOW_80]) & (spread <= q[:, HIGH_80])).float(),
        "low/model": from_z(q[:, LOW_80], scale),
        "high/model": from_z(q[:, HIGH_80], scale),
        "error/model": (q[:, MEDIAN] - z).abs(),
        "point/model_hits": _most_hits(marginal, q, scale),
    }
    median = guesses.median[item]
    for name in GUESSES:
        value = known.get(name, torch.full_like(y, float("nan")))
        lacks = value.isnan()
        guess = torch.where(lacks, median, to_z(value, scale))
        error = torch.where(lacks, guesses.item_median[item], getattr(guesses, name)[item])
        d = z - guess
        out[f"point/{name}"] = torch.where(lacks, from_z(median, scale), value)
        out[f"error/{name}"] = d.abs()
        out[f"nll/{name}"] = (2 * error).log() + d.abs() / error
        out[f"crps/{name}"] = d.abs() + error * (-d.abs() / error).exp() - 0.75 * error
        out[f"inside/{name}"] = ((spread - guess).abs() <= error * math.log(5.0)).float()
    return out


def _most_hits(marginal: Marginal, q: Tensor, scale: Tensor, k: float = CLOSE) -> Tensor:
    """The point [N] that is likeliest to lie within k of the value, |yhat - y| <= k |y|: the best of 19 quantiles."""
    point, edges = from_z(q, scale.unsqueeze(1)), marginal.edges
    chances = []
    for p in point.unbind(1):
        near, far = p / (1 + k), p / (1 - k)
        low, high = torch.minimum(near, far), torch.maximum(near, far)
        high, low = (torch.maximum(torch.minimum(to_z(x, scale), edges[:, -1]), edges[:, 0]) for x in (high, low))
        chances.append(marginal.cdf(high) - marginal.cdf(low))
    # of equal chances the one nearest the median
    odds = torch.stack(chances, 1) - 1e-6 * (LEVELS - 0.5).abs()
    return torch.gather(point, 1, odds.argmax(1, keepdim=True)).squeeze(1)


def joined(found: list[Slots]) -> Slots:
    """The slots of several chunks, columns concatenated."""
    return {n: torch.cat([f[n] for f in found]) for n in found[0]}


def restrict(slots: Slots, keep: Tensor) -> Slots:
    """The slots for which `keep` bool [N] holds."""
    return {n: x[keep] for n, x in slots.items()}


@torch.no_grad()
def next_slots(model: EHRWorldModel, records: StayRecords, guesses: Guesses, chunk: int = 24) -> Slots:
    """Every numeric slot after admission, predicted from the true history."""
    net, grid, found = model.net, _grid(model), []
    for rows, part in by_length(records.stays, chunk):
        run = forced(net, part)
        keep = ~run.z.isnan() & ~net.label[run.item] & (run.place > 0)
        row, place, item = run.row[keep], run.place[keep], run.item[keep]
        chart = charted(part)
        first, at = first_value(part)
        seen = chart.seen[row, place - 1, item]
        last = torch.where(seen, chart.value[row, place - 1, item], float("nan"))
        start = torch.where(at[row, item] < place, first[row, item], float("nan"))
        slots = _columns(
            model,
            guesses,
            grid,
            run.outcome.marginal.take(keep),
            part.value[row, place, item],
            item,
            {"last_value": last, "first_value": start},
            int(rows[0]),
        )
        found.append(slots | {"last": last, "subject": records.subject[rows[row]], "stay": rows[row], "place": place})
    return joined(found)


@torch.no_grad()
def path_slots(
    model: EHRWorldModel,
    records: StayRecords,
    guesses: Guesses,
    begin: int = 1,
    paths: int = PATHS,
    chunk: int = 24,
    firsts: bool = False,
) -> Slots:
    """Numeric slots after position `begin`, under the recorded orders. With `firsts`, the first result of every
    inquiry is charted as recorded at the end of its step, whenever that was: the world then knows what `first_value`
    knows."""
    grid, found = _grid(model), []
    longer = (records.stays.valid.sum(1) > begin + 1).nonzero().squeeze(1)
    chunks = by_length(tree.take(records.stays, longer), chunk)
    for rows, part in tqdm(chunks, total=-(-len(longer) // chunk), desc="paths", leave=False):
        rows = longer[rows]
        given = cut(part, begin)
        batch, count, _ = part.value.shape
        key = keys.fold(keys.fold(keys.from_seed(PATHS_SEED, batch * paths), "paths"), rows.repeat(paths))
        key = keys.fold(key, torch.arange(paths).repeat_interleave(batch))
        many = Stays(*(x.repeat(paths, *[1] * (x.ndim - 1)) for x in given))
        state = model.resample_pending(believe(model, many, key, torch.zeros(len(key))))
        there = numbers(model.vocabulary, part)
        on = torch.ones(len(key), dtype=torch.bool)
        shown, chart = charted(given), charted(part)
        first, at = first_value(part)
        for t in range(begin + 1, count):
            here = part.valid[:, t].nonzero().squeeze(1)
            if len(here) < batch:  # those who left need no paths: stays are sorted, so the rest come first
                batch = len(here)
                stay_on = (torch.arange(len(state.key)) % (len(state.key) // paths)) < batch
                state, on = tree.take(state, stay_on), on[stay_on]
                part, there = tree.take(part, slice(0, batch)), there[:batch]
            state = state._replace(alive=on, home=~on)  # the record goes on
            doses = part.given[:, t].repeat(paths, 1)
            row, item = there[:, t].nonzero(as_tuple=True)
            if len(row):
                many_row = (torch.arange(paths).unsqueeze(1) * batch + row).flatten()
                out = model.outcomes(state, state.t + 1, doses, many_row, item.repeat(paths), recorded=True)
                mass = out.marginal.masses().view(paths, len(row), -1).mean(0)
                mixed = Marginal(mass.log(), out.marginal.edges[: len(row)])  # even inside its bins
                seen = shown.seen[row, -1, item]
                last = torch.where(seen, shown.value[row, -1, item], float("nan"))
                start = torch.where(at[row, item] < t, first[row, item], float("nan"))
                slots = _columns(
                    model,
                    guesses,
                    grid,
                    mixed,
                    part.value[row, t, item],
                    item,
                    {"last_value": last, "first_value": start},
                    int(rows[0]) * 100 + t,
                )
                before = torch.where(chart.seen[row, t - 1, item], chart.value[row, t - 1, item], float("nan"))
                slots |= {"last": before, "given": last, "subject": records.subject[rows[row]], "stay": rows[row]}
                found.append(slots | {"place": torch.full_like(row, t)})
            new = there[:, t] & (at[:batch] == t) if firsts else torch.zeros_like(there[:, t])
            ask = (part.asked[:, t] & ~new).float().repeat(paths, 1)
            state = model.transition(state, torch.cat([ask, doses], -1), recorded=True)
            if bool(new.any()):
                new, value = new.repeat(paths, 1), part.value[:, t].repeat(paths, 1)
                drawn_h = ((t - 1) * model.hours_per_step + model.offset_h).expand_as(value)
                state = model.shown(state, new, value, drawn_h, torch.full_like(state.drawn_step, t))
    if not found:
        raise ValueError(f"no stay goes on after position {begin}: nothing can be foretold; give longer stays")
    return joined(found)


@torch.no_grad()
def ahead_slots(
    model: EHRWorldModel, records: StayRecords, guesses: Guesses, begin: int = 1, chunk: int = 24, firsts: bool = False
) -> Slots:
    """Every numeric slot after position `begin`, foretold from the record up to it and the orders since. With
    `firsts`, the first result of every inquiry is told as well, once its step is over: the world then knows what
    `first_value` knows."""
    net, grid, found = model.net, _grid(model), []
    longer = (records.stays.valid.sum(1) > begin + 1).nonzero().squeeze(1)
    for rows, part in by_length(tree.take(records.stays, longer), chunk):
        rows = longer[rows]
        place = torch.arange(part.value.shape[1]).view(1, -1, 1)
        first, at = first_value(part)
        untold = (place > begin) & ~((place == at.unsqueeze(1)) & firsts)
        told = part._replace(value=torch.where(untold, float("nan"), part.value))
        run = forced(net, told)
        y = part.value[run.row, run.place, run.item]
        keep = ~y.isnan() & ~net.label[run.item] & (run.place > begin)
        row, place, item = run.row[keep], run.place[keep], run.item[keep]
        chart, shown = charted(part), charted(told)
        given = torch.where(shown.seen[row, place - 1, item], shown.value[row, place - 1, item], float("nan"))
        start = torch.where(at[row, item] < place, first[row, item], float("nan"))
        slots = _columns(
            model,
            guesses,
            grid,
            run.outcome.marginal.take(keep),
            y[keep],
            item,
            {"last_value": given, "first_value": start},
            int(rows[0]),
        )
        last = torch.where(chart.seen[row, place - 1, item], chart.value[row, place - 1, item], float("nan"))
        slots |= {"last": last, "given": given, "subject": records.subject[rows[row]], "stay": rows[row]}
        found.append(slots | {"place": place})
    if not found:
        raise ValueError(f"no stay goes on after position {begin}: nothing can be foretold; give longer stays")
    return joined(found)


def normal_of(model: EHRWorldModel) -> Tensor:
    """Reference ranges [I, 2]; NaN where there is none."""
    none = (float("nan"), float("nan"))
    return torch.tensor([i.normal if i.normal and not i.labels else none for i in model.vocabulary.items])


def scores(slots: Slots, who: str, normal: Tensor) -> dict[str, float]:
    """Every score of one predictor; `nll_macro` and `s25_macro` are means over items."""
    item = slots["item"]
    low, high = normal[item].unbind(-1)
    row = point_scores(slots["y"], slots[f"point/{who}"], slots["last"], item, low, high)
    for name, column in (("nll", "nll"), ("crps", "crps"), ("coverage80", "inside")):
        if f"{column}/{who}" in slots:
            row[name] = float(slots[f"{column}/{who}"].mean())
    if f"nll/{who}" in slots:
        items, place = torch.unique(item, return_inverse=True)
        total = torch.zeros(len(items)).index_add(0, place, slots[f"nll/{who}"])
        row["nll_macro"] = float((total / torch.bincount(place)).mean())
    return row


def _parts(slots: Slots, who: str, people: Tensor, count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Sum and number [patients] of what each score is a mean of."""
    y, last = slots["y"], slots["last"]
    hit = ((slots[f"point/{who}"] - y).abs() <= CLOSE * y.abs()).double()
    known = y != 0
    moved = ((y - last).abs() > MOVED * last.abs()) & known & (last != 0)
    out = {}
    for name, value, counted in (
        ("s25", hit, known),
        ("high_sensitivity_s25", hit, moved),
        ("nll", slots.get(f"nll/{who}"), torch.ones_like(known)),
        ("crps", slots.get(f"crps/{who}"), torch.ones_like(known)),
    ):
        if value is not None:
            total = torch.zeros(count, dtype=torch.float64).index_add(0, people, value.double() * counted)
            out[name] = total, torch.zeros(count, dtype=torch.float64).index_add(0, people, counted.double())
    return out


def differences(
    slots: Slots, one: str, other: str, number: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Score -> difference one - other with its 95 % interval, the same patients resampled for both, and how many they
    are."""
    _, people = torch.unique(slots["subject"], return_inverse=True)
    count = int(people.amax()) + 1
    mine, theirs = _parts(slots, one, people, count), _parts(slots, other, people, count)
    out = {}
    for name in mine:
        if name in theirs:
            (a, n), (b, _) = mine[name], theirs[name]
            found = paired_difference(a, b, n, number, seed)
            out[name] = {"difference": found.value, "low": found.low, "high": found.high, "patients": count}
    return out
