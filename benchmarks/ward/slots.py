"""Slots on which rivals are compared: the same ordered inquiries of the same patients for every one, and their scores.

A slot is an inquiry of a step that had a result. Per patient whole steps are drawn until they hold enough slots, so
that the sets of a step stay whole for the energy score, and one step with a culture more, of which only cultures are
judged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.ward.fidelity_tables import first_value
from benchmarks.ward.scores import MOVED, energy, pinball_crps, point_scores
from world_models import keys
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted
from world_models.ehr_world.vocabulary import Vocabulary, from_z, report_grid, to_z

__all__ = ["Known", "SlotPrediction", "Slots", "all_slots", "label_scores", "score", "simple", "slots_of", "some_slots"]

BASELINES = ("last_value", "first_value", "item_mean", "item_median")
MISSING = 1e30  # what an answer that did not come counts as: wrong by any measure
AVERAGE = ("s10", "s15", "s25", "status_f1", "label_precision", "label_recall", "label_f1")


class Slots(NamedTuple):
    """N slots of B stays, sorted by stay, step and item."""

    row: Tensor  # int64 [N] stay
    place: Tensor  # int64 [N] position
    item: Tensor  # int64 [N]
    y: Tensor  # [N] what came: in the item's unit, or a label's class
    last: Tensor  # [N] charted before the step; NaN: none
    first: Tensor  # [N] first value of the stay drawn before the step; NaN: none
    given: Tensor  # [N] charted at position `begin`, for full trajectories; NaN: none
    group: Tensor  # int64 [N] number of the step's set, 0 .. G - 1

    def take(self, which: Tensor) -> Slots:
        """Some of the slots; sets are numbered anew."""
        part = Slots(*(x[which] for x in self))
        return part._replace(group=torch.unique(part.group, return_inverse=True)[1])


class SlotPrediction(NamedTuple):
    """What a rival says of N slots; None where its form does not give it."""

    point: Tensor  # [N] median in the item's unit, likeliest class of a label; NaN: no answer
    quantiles: Tensor | None = None  # [N, 19] at `scores.LEVELS`, z scale
    nll: Tensor | None = None  # [N] of the slot alone, z scale
    crps: Tensor | None = None  # [N] where it does not follow from the quantiles
    paths: Tensor | None = None  # [P, N] joint samples of each set, z scale
    nll_joint: Tensor | None = None  # [N] parts whose mean is nats a value of the whole sets
    inside: Tensor | None = None  # [N] 1 where an 80 % interval holds the value

    def save(self) -> dict[str, Tensor]:
        """Its tensors by name, those that it has."""
        return {n: x.contiguous() for n, x in self._asdict().items() if x is not None}


class Known:
    """What every rival may know of the items: the vocabulary's scales, and from training stays middles and grids."""

    def __init__(self, words: Vocabulary, stays: Stays) -> None:
        self.words, self.scale = words, words.scale_table()
        self.label = words.is_label()
        there = stays.asked & ~stays.value.isnan()
        z, chart = to_z(stays.value, self.scale), charted(stays)
        seen = torch.cat([torch.zeros_like(chart.seen[:, :1]), chart.seen[:, :-1]], 1) & there
        last = torch.cat([torch.zeros_like(z[:, :1]), to_z(chart.value, self.scale)[:, :-1]], 1)
        columns = [stays.value[..., i][there[..., i]] for i in range(len(self.scale))]
        self.median = torch.tensor(
            [float(c.median()) if len(c) else i.typical for c, i in zip(columns, words.items, strict=True)]
        )
        self.mean = torch.tensor(
            [float(c.mean()) if len(c) else i.typical for c, i in zip(columns, words.items, strict=True)]
        )
        self.median[self.label], self.mean[self.label] = 0.0, 0.0
        self.grid = torch.tensor([report_grid(c.double()) if len(c) else 0.0 for c in columns])
        first = to_z(first_value(stays)[0], self.scale).unsqueeze(1)
        middle = to_z(self.median, self.scale), to_z(self.mean, self.scale)
        guesses = dict(zip(BASELINES, (last, first, middle[1], middle[0]), strict=True))
        self.spread = {}  # mean error of each baseline by item: the scale of its Laplace distribution
        for name, guess in guesses.items():
            error = torch.where(seen, (z - guess).abs(), 0.0).nan_to_num(0.0)
            self.spread[name] = (error.sum((0, 1)) / seen.sum((0, 1)).clamp_min(1)).clamp_min(0.02)
        nan = float("nan")
        self.normal = torch.tensor([i.normal if i.normal and not i.labels else (nan, nan) for i in words.items])

    def z(self, slots: Slots) -> Tensor:
        """The slots' values [N] on their items' z scales."""
        return to_z(slots.y, self.scale[slots.item])

    def rounded(self, slots: Slots) -> Tensor:
        """z [N] spread evenly over what rounds to the reported number."""
        even = keys.uniform(keys.from_seed(88, 1), 0, "slots", (len(slots.y),))[0] - 0.5
        return to_z(slots.y + even * self.grid[slots.item], self.scale[slots.item])

    def edges(self, item: int, low: float, inner: list[float], high: float) -> Tensor:
        """z of a value's bins, moved to halfway between reported numbers."""
        half = float(self.grid[item]) / 2
        raw = torch.tensor([low - half, *(e - half for e in inner), high + half])
        if half == 0:
            raw[-1] += 1e-6 * max(1.0, abs(high))
        return to_z(raw, self.scale[item])


def slots_of(stays: Stays, chosen: Tensor, begin: int = 0) -> Slots:
    """The slots of bool [B, T, I] that had a result."""
    row, place, item = (chosen & stays.asked & ~stays.value.isnan()).nonzero(as_tuple=True)
    chart = charted(stays)
    before = (place - 1).clamp_min(0)
    nan = float("nan")
    last = torch.where(chart.seen[row, before, item] & (place > 0), chart.value[row, before, item], nan)
    first, at = first_value(stays)
    first = torch.where(at[row, item] < place, first[row, item], nan)
    given = torch.where(chart.seen[row, begin, item], chart.value[row, begin, item], nan)
    group = torch.unique(row * stays.value.shape[1] + place, return_inverse=True)[1]
    return Slots(row, place, item, stays.value[row, place, item], last, first, given, group)


def some_slots(stays: Stays, label: Tensor, per_patient: int, seed: int) -> Slots:
    """Whole steps of each stay, drawn at random until they hold `per_patient` numbers, and a step with a culture."""
    there = stays.asked & ~stays.value.isnan() & stays.valid.unsqueeze(-1)
    there[:, 0] = False  # the admission's own position has no history
    chance = torch.rand(there.shape[:2], generator=torch.Generator().manual_seed(seed))
    count = (there & ~label).sum(-1)
    order = torch.where(count > 0, chance, 2.0).argsort(1)
    before = torch.gather(count, 1, order).cumsum(1) - torch.gather(count, 1, order)
    step = torch.zeros_like(there[..., 0]).scatter(1, order, before < per_patient) & (count > 0)
    culture = (there & label).any(-1)
    drawn = torch.where(culture, chance, 2.0).argmin(1)
    extra = torch.zeros_like(step)
    extra[torch.arange(len(drawn)), drawn] = culture.any(1)
    return slots_of(stays, there & ((step.unsqueeze(-1) & ~label) | ((step | extra).unsqueeze(-1) & label)))


def all_slots(stays: Stays, begin: int) -> Slots:
    """Every slot after position `begin`."""
    late = torch.arange(stays.value.shape[1]) > begin
    return slots_of(stays, late.view(1, -1, 1) & stays.valid.unsqueeze(-1) & torch.ones_like(stays.asked), begin)


def simple(name: str, slots: Slots, known: Known, full: bool = False) -> SlotPrediction:
    """A baseline without a model: last value (full trajectory: the last one given), first value, mean, median."""
    middle = known.mean if name == "item_mean" else known.median
    guess = {"last_value": slots.given if full else slots.last, "first_value": slots.first}.get(name)
    plain = middle[slots.item]
    point = plain if guess is None else torch.where(guess.isnan(), known.median[slots.item], guess)
    zhat, scale = to_z(point, known.scale[slots.item]), known.spread[name][slots.item]
    error = known.z(slots) - zhat
    levels = torch.linspace(0.05, 0.95, 19)
    shape = -(levels - 0.5).sign() * torch.log1p(-2 * (levels - 0.5).abs())
    nll = (2 * scale).log() + error.abs() / scale
    crps = error.abs() + scale * (-error.abs() / scale).exp() - 0.75 * scale
    return SlotPrediction(point, zhat.unsqueeze(-1) + scale.unsqueeze(-1) * shape, nll, crps, zhat.unsqueeze(0), nll)


def label_scores(y: Tensor, told: Tensor) -> dict[str, float]:
    """Precision, recall and F1 over all cultures together: a hit is the right organism, class 0 is no growth."""
    told = torch.where(told.isnan(), 0.0, told)
    hit = float(((y > 0) & (told == y)).sum())
    found = {
        "label_precision": hit / max(1.0, float((told > 0).sum())),
        "label_recall": hit / max(1.0, float((y > 0).sum())),
    }
    total = sum(found.values())
    found["label_f1"] = 2 * found["label_precision"] * found["label_recall"] / total if total else 0.0
    return found | {"labels": len(y), "labels_positive": int((y > 0).sum())}


def score(name: str, slots: Slots, said: SlotPrediction, known: Known, full: bool = False) -> dict[str, float | str]:
    """One row of a table; `full`: of a full trajectory, where the last value is the last one given. `average` is the
    mean of AVERAGE, as the paper does not say of which columns its own is; NaN where there are no cultures with
    growth."""
    number = ~known.label[slots.item]
    s, p = (
        slots.take(number),
        SlotPrediction(*(None if x is None else x[..., number] if i == 4 else x[number] for i, x in enumerate(said))),
    )
    lost = p.point.isnan()
    low, high = known.normal[s.item].unbind(-1)
    row: dict[str, float | str] = {"model": name}
    row |= point_scores(s.y, torch.where(lost, MISSING, p.point), s.last, s.item, low, high)
    if bool(lost.any()):  # no answer tells of no abnormal value either
        usual = torch.where(lost, (low + high) / 2, p.point)
        row["status_f1"] = point_scores(s.y, usual, s.last, s.item, low, high)["status_f1"]
    moved = ((s.y - s.last).abs() > MOVED * s.last.abs()) & (s.y != 0) & (s.last != 0)
    if bool(moved.any()):
        there = torch.where(lost, MISSING, p.point)[moved]
        row["high_sensitivity_smape"] = float(
            (2 * (s.y[moved] - there).abs() / (s.y[moved].abs() + there.abs() + 1e-8)).mean()
        )
    row |= label_scores(slots.y[~number], said.point[~number])
    row["average"] = sum(float(row[n]) for n in AVERAGE) / len(AVERAGE) if row["labels_positive"] else float("nan")
    row["answered"] = float((~lost).float().mean())
    z = known.z(s)
    if p.nll is not None:
        row["nll"] = float(p.nll.mean())
    if p.nll_joint is not None:
        row["nll_joint"] = float(p.nll_joint.mean())
    crps = p.crps if p.crps is not None else None if p.quantiles is None else pinball_crps(p.quantiles, z)
    if crps is not None:
        row["crps"] = float(crps.mean())
        plain = simple("last_value", s, known, full)
        row["skill_against_last_value"] = 1 - float(crps.mean()) / float(plain.crps.mean())
    if p.quantiles is not None:
        near = known.rounded(s)
        row["coverage80"] = float(((near >= p.quantiles[:, 1]) & (near <= p.quantiles[:, 17])).float().mean())
    elif p.inside is not None:
        row["coverage80"] = float(p.inside.mean())
    paths = p.paths if p.paths is not None else to_z(p.point, known.scale[s.item]).unsqueeze(0)
    if not bool(lost.any()):
        row["energy"] = float(energy(paths, z, s.group, int(s.group.max()) + 1).mean())
    return row


def from_paths(z: Tensor, slots: Slots, known: Known) -> SlotPrediction:
    """A prediction from joint samples [P, N] on the z scale (classes for labels) alone: median and fair CRPS."""
    count = len(z)
    middle = (z.median(0).values - z.neg().median(0).values) / 2
    point = from_z(middle, known.scale[slots.item])
    label = known.label[slots.item]
    point[label] = z[:, label].mode(0).values
    y = known.z(slots)
    apart = (z.unsqueeze(0) - z.unsqueeze(1)).abs().sum((0, 1)) / max(1, count * (count - 1))
    return SlotPrediction(point, None, None, (z - y).abs().mean(0) - apart / 2 if count > 1 else None, z)
