"""Exponential smoothing with a damped drift (Holt 1957, doi 10.1016/j.ijforecast.2003.09.015; Gardner & McKenzie 1985,
doi 10.1287/mnsc.31.10.1237), for results at irregular times.

After a result z that came `gap` hours after the one before, with expectation f = level + drift S(gap):

    level <- f + alpha (z - f);    drift <- D(gap) drift + beta ((level - old level) / gap - D(gap) drift)

where D(h) = damping^h and S(h) = (1 - damping^h) / (-ln damping) is the drift's sum over h hours. Level, drift and
forecasts are on the item's z scale. Alpha, beta and damping are chosen per item for the least absolute error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.people.prediction import Scale
from benchmarks.people.rules import Table, fitted, medians, with_errors
from benchmarks.people.slots import Places, grouped, joined
from world_models.ehr_world.records import cut
from world_models.ehr_world.set_outcome.marginal import Marginal
from world_models.ehr_world.set_outcome.stay_tensors import Charted, Stays, charted

__all__ = ["CHOICES", "Holt", "Smoothed", "chosen", "forecasts", "smooth"]

# alpha, beta, damping per hour; alpha 1 and beta 0 is the last value
CHOICES = tuple(
    (alpha, beta, damping)
    for alpha, beta, damping in itertools.product((0.2, 0.35, 0.5, 0.65, 0.8, 1.0), (0.0, 0.1, 0.3), (0.8, 0.95))
    if beta > 0 or damping == 0.8
)


class Smoothed(NamedTuple):
    """Level and drift an hour [B, T, I] after each position, z scale."""

    level: Tensor
    drift: Tensor


def smooth(chart: Charted, z: Tensor, setting: Tensor, hours_per_step: float) -> Smoothed:
    """Of a chart whose values are z [B, T, I]; `setting` [I, 3]: alpha, beta, damping of each item."""
    alpha, beta, damping = setting.unbind(-1)
    log_d = damping.log()
    level, drift, known = torch.zeros_like(z[:, 0]), torch.zeros_like(z[:, 0]), torch.zeros_like(chart.seen[:, 0])
    drawn = torch.zeros_like(level)
    out = []
    for t in range(z.shape[1]):
        now = (t - chart.age[:, t]) * hours_per_step
        gap = (now - drawn).clamp_min(0.25)
        decay = (gap * log_d).exp()
        expected = level + drift * (1 - decay) / -log_d
        new = expected + alpha * (z[:, t] - expected)
        steep = decay * drift + beta * ((new - level) / gap - decay * drift)
        came = chart.fresh[:, t]
        drift = torch.where(came & known, steep, drift)
        level = torch.where(came, torch.where(known, new, z[:, t]), level)
        drawn, known = torch.where(came, now, drawn), known | came
        out.append((level, drift))
    return Smoothed(torch.stack([a for a, _ in out], 1), torch.stack([b for _, b in out], 1))


def forecasts(
    stays: Stays, places: Places, settings: Sequence[Tensor], scale: Scale, hours_per_step: float
) -> list[Tensor]:
    """For each of `settings` [I, 3] what it foretells, [N] on the z scale; NaN where nothing was known at the origin.
    Every place has the origin of all, or the position before it."""
    out = [torch.full_like(places.age, float("nan"), dtype=torch.float64) for _ in settings]
    begin = int(places.origin[0]) if len(places.origin) else 0
    one = bool((places.origin == begin).all())
    item = torch.arange(len(scale.grid))
    for part, mine, at in grouped(stays, places):
        chart = charted(cut(part, begin) if one else part)
        z = scale.z(chart.value, item).float()
        where, lead = (mine.row, mine.origin, mine.item), mine.age.double() * hours_per_step
        ends = scale.low[mine.item], scale.high[mine.item]
        for one_out, setting in zip(out, settings, strict=True):
            kept = smooth(chart, z, setting.float(), hours_per_step)
            log_d = setting[mine.item, 2].log()
            told = kept.level[where].double() + kept.drift[where].double() * (1 - (lead * log_d).exp()) / -log_d
            told = torch.maximum(torch.minimum(told, ends[1]), ends[0])
            one_out[at] = torch.where(mine.given.isnan(), float("nan"), told)
    return out


def chosen(pairs: Sequence[tuple[Stays, Places]], scale: Scale, hours_per_step: float) -> Tensor:
    """[I, 3]: for each item the setting of CHOICES with the least mean absolute error on these places."""
    items = len(scale.grid)
    settings = [torch.tensor(c, dtype=torch.float64).expand(items, -1) for c in CHOICES]
    errors = torch.zeros(len(CHOICES), items, dtype=torch.float64)
    for stays, places in pairs:
        z, known = scale.z(places.y, places.item), ~places.given.isnan()
        for row, told in zip(errors, forecasts(stays, places, settings, scale, hours_per_step), strict=True):
            row.index_add_(0, places.item[known], (told - z).abs()[known])
    return torch.tensor(CHOICES, dtype=torch.float64)[errors.argmin(0)]


class Holt(NamedTuple):
    """Smoothing with chosen settings and fitted errors."""

    setting: Tensor  # [I, 3]
    median: Tensor
    table: Table
    lost: Table
    hours_per_step: float

    @classmethod
    def learned(cls, pairs: list[tuple[Stays, Places]], setting: Tensor, scale: Scale, hours_per_step: float) -> Holt:
        """With these settings, its errors fitted to the places of all pairs."""
        places = joined([p for _, p in pairs])
        told = torch.cat([forecasts(s, p, [setting], scale, hours_per_step)[0] for s, p in pairs])
        median = medians(places, scale)
        middle = torch.where(told.isnan(), median[places.item], told)
        nothing = torch.full_like(places.given, math.nan)
        table = fitted(places, middle, places.given, scale, hours_per_step)
        lost = fitted(places, median[places.item], nothing, scale, hours_per_step)
        return cls(setting, median, table, lost, hours_per_step)

    def says(self, stays: Stays, places: Places, scale: Scale) -> Marginal:
        """Its distributions at places of these stays."""
        told = forecasts(stays, places, [self.setting], scale, self.hours_per_step)[0]
        middle = torch.where(told.isnan(), self.median[places.item], told)
        return with_errors(middle, places.given, places, self.table, self.lost, scale, self.hours_per_step)
