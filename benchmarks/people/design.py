"""What gradient boosting reads of a place: the item's own course, all items' last values, orders, the patient, time.

Everything is as it stood at the place's origin, but the orders of the place's own step and of those since the origin:
they are given, as they are to a world. What is not known is NaN, which the trees take as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.people.prediction import Scale
from benchmarks.people.slots import Places, grouped
from world_models.ehr_world.records import cut
from world_models.ehr_world.set_outcome import trends
from world_models.ehr_world.set_outcome.stay_tensors import Charted, Stays, charted

__all__ = ["Design", "design", "table"]

DAY_H = 24.0
NAN = float("nan")


class Design(NamedTuple):
    """Features of N places at P positions."""

    own: Tensor  # [N, A] of the place's item
    common: Tensor  # [P, C] of the position
    at: Tensor  # int64 [N] the place's position in `common`
    base: Tensor  # [N] z of the value known; NaN: none


def table(found: Design, which: Tensor, columns: Tensor) -> Tensor:
    """[M, A + C'] of the places at `which` int64 [M], with these of the common columns."""
    return torch.cat([found.own[which], found.common[found.at[which]][:, columns]], 1)


def design(stays: Stays, places: Places, scale: Scale, hours_per_step: float) -> Design:
    """The features of these places; every place has the origin of all, or the position before it."""
    begin = int(places.origin[0]) if len(places.origin) else 0
    one = bool((places.origin == begin).all())
    pieces = []
    for part, mine, at in grouped(stays, places):
        shown = cut(part, begin) if one else part
        pieces.append((_part(part, charted(shown), mine, scale, hours_per_step), at))
    own = torch.empty(len(places.y), pieces[0][0].own.shape[1])
    base, where = torch.empty(len(own)), torch.empty(len(own), dtype=torch.int64)
    before = 0
    for piece, at in pieces:
        own[at], base[at], where[at] = piece.own, piece.base, piece.at + before
        before += len(piece.common)
    return Design(own, torch.cat([p.common for p, _ in pieces]), where, base)


def _part(part: Stays, chart: Charted, places: Places, scale: Scale, hours_per_step: float) -> Design:
    item = torch.arange(len(scale.grid))
    z = scale.z(chart.value, item).float()
    where = (places.row, places.origin.clamp_max(z.shape[1] - 1), places.item)
    base = torch.where(chart.seen[where], z[where], NAN)
    own = _course(chart, z, where, base, hours_per_step)
    age = places.age.unsqueeze(1) * hours_per_step
    own = torch.cat([base.unsqueeze(1), age, own], 1)
    count = part.value.shape[1]
    numbers, at = torch.unique(places.row * count + places.place, return_inverse=True)
    origin = torch.zeros(len(numbers), dtype=torch.int64)
    origin[at] = where[1]
    common = _common(part, chart, z, numbers // count, numbers % count, origin, hours_per_step)
    return Design(own, common, at, base)


def _course(chart: Charted, z: Tensor, where: tuple[Tensor, ...], base: Tensor, hours_per_step: float) -> Tensor:
    """[N, A] how the item went, differences to the value known."""
    kept = trends.trends(chart, z)[where]
    several = kept[:, trends.COUNT] > 1.5
    values = (trends.BEFORE, trends.FIRST, trends.FAST, trends.SLOW, trends.ALL)
    far = kept[:, values] - base.unsqueeze(1)
    gap = torch.where(several, kept[:, trends.GAP] * hours_per_step, NAN)
    place = torch.arange(z.shape[1]).view(1, -1, 1)
    last = torch.cummax(torch.where(chart.fresh, place, -1), 1).values

    def earlier(index: Tensor) -> Tensor:
        """The result charted before the one at these positions; -1: none."""
        found = torch.gather(last, 1, (index - 1).clamp_min(0))
        return torch.where(index > 0, found, -1)

    second = earlier(last)
    third = earlier(second)[where]
    z3 = torch.where(third >= 0, z[where[0], third.clamp_min(0), where[2]], NAN)
    hours3 = torch.where(third >= 0, (last[where] - third) * hours_per_step, NAN)
    came = torch.where(chart.fresh, z, NAN)
    least = torch.cummin(came.nan_to_num(torch.inf), 1).values[where]
    most = torch.cummax(came.nan_to_num(-torch.inf), 1).values[where]
    slope = _slope(chart, z, hours_per_step)[where]
    rest = [
        gap,
        (base - kept[:, trends.BEFORE]) / gap,
        z3 - base,
        hours3,
        (base - z3) / hours3,
        (z3 + kept[:, trends.BEFORE] + base) / 3 - base,
        least - base,
        most - base,
        slope,
        kept[:, trends.COUNT],
        kept[:, trends.CHANGE],
        kept[:, trends.SAME],
    ]
    none = torch.where(base.isnan().unsqueeze(1), NAN, 0.0)
    return torch.cat([far, torch.stack(rest, 1)], 1).nan_to_num(NAN, NAN, NAN) + none


def _slope(chart: Charted, z: Tensor, hours_per_step: float) -> Tensor:
    """[B, T, I] least squares' slope an hour through all results so far; NaN below two."""
    came = chart.fresh.double()
    hours = (torch.arange(z.shape[1]).view(1, -1, 1) - chart.age).double() * hours_per_step
    n, t, y = (torch.cumsum(came * x, 1) for x in (torch.ones_like(hours), hours, z.double()))
    tt, ty = torch.cumsum(came * hours * hours, 1), torch.cumsum(came * hours * z.double(), 1)
    below = n * tt - t * t
    return torch.where((n > 1) & (below > 1e-6), (n * ty - t * y) / below.clamp_min(1e-6), NAN).float()


def _common(
    part: Stays, chart: Charted, z: Tensor, row: Tensor, place: Tensor, origin: Tensor, hours_per_step: float
) -> Tensor:
    """[P, C] of positions."""
    seen = chart.seen[row, origin]
    value = torch.where(seen, z[row, origin], NAN)
    lead = (place - origin).unsqueeze(1)
    age = torch.where(seen, (chart.age[row, origin] + lead) * hours_per_step, NAN)
    day = round(DAY_H / hours_per_step)
    total = torch.cat([torch.zeros_like(part.given[:, :1]), part.given.cumsum(1)], 1)  # [:, t]: before step t
    asked = torch.cat([torch.zeros_like(part.given[:, :1, :1]), part.asked.sum(2, keepdim=True).cumsum(1)], 1)
    early = (origin + 1 - day).clamp_min(0)
    return torch.cat(
        [
            value,
            age,
            part.given[row, place],
            total[row, place] - total[row, origin + 1],  # between the origin and the step
            total[row, origin + 1] - total[row, early],  # the day before
            part.asked[row, place].float(),  # what else the step asks for
            asked[row, origin + 1] - asked[row, early],
            part.static[row],
            (place * hours_per_step).unsqueeze(1),
            lead * hours_per_step,
        ],
        1,
    )
