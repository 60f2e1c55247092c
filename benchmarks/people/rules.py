"""Rules of thumb: last value, first value, the item's median; their errors are those of the patients learned from.

The error of a rule is Laplace, and a share of the mass lies on the cell of the value it repeats. Both are fitted per
item and per age of that value by expectation-maximisation: a report equal to the old one is either said again or met by
chance.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.people.prediction import Scale, laplace, said_again
from benchmarks.people.slots import Places
from world_models.ehr_world.set_outcome.marginal import Marginal

__all__ = ["AGES_H", "Rule", "Table", "fitted", "guess", "medians"]

AGES_H = (1.5, 2.5, 4.5, 8.5, 12.5, 24.5, 48.5)  # ends of the age groups
ROUNDS = 25
FEWEST = 100  # values that a group counts as much as all of the item's
LEAST_SPREAD = 0.01  # standard deviations


class Table(NamedTuple):
    """Errors by item and age group, [I, G]."""

    spread: Tensor  # mean absolute error where the report was not simply said again
    share: Tensor  # of reports that were


def medians(places: Places, scale: Scale) -> Tensor:
    """[I] median of the values on the z scale; 0 where there are none."""
    z, out = scale.z(places.y, places.item), torch.zeros(len(scale.grid), dtype=torch.float64)
    for i in places.item.unique().tolist():
        out[i] = z[places.item == i].median()
    return out


def age_group(age_steps: Tensor, hours_per_step: float) -> Tensor:
    """int64 [N] group of each age."""
    return torch.bucketize(age_steps.double() * hours_per_step, torch.tensor(AGES_H, dtype=torch.float64))


def fitted(places: Places, middle: Tensor, report: Tensor, scale: Scale, hours_per_step: float) -> Table:
    """The errors of guesses `middle` [N] (z scale) that may repeat `report` [N] (unit; NaN: none)."""
    groups, items = len(AGES_H) + 1, len(scale.grid)
    item, z = places.item, scale.z(places.y, places.item)
    low, high = scale.cell(report.nan_to_num(0.0), item)
    same = ~report.isnan() & (scale.grid[item] > 0) & (z >= low) & (z <= high)
    group = item * groups + age_group(places.age, hours_per_step)
    count = torch.zeros(items * groups, dtype=torch.float64).index_add(0, group, torch.ones_like(z))
    far, width = (z - middle).abs(), high - low

    def pooled(x: Tensor) -> Tensor:
        """Means by group, drawn to the item's."""
        total = torch.zeros(items * groups, dtype=torch.float64).index_add(0, group, x).view(items, groups)
        n = count.view(items, groups)
        whole = (total.sum(1) / n.sum(1).clamp_min(1)).unsqueeze(1)
        return ((total + FEWEST * whole) / (n + FEWEST)).flatten()

    again = same.double() * 0.9
    share, spread = pooled(again), torch.ones(items * groups, dtype=torch.float64)
    for _ in range(ROUNDS):
        spread = (pooled((1 - again) * far) / (1 - share).clamp_min(1e-3)).clamp_min(LEAST_SPREAD)
        chance = (1 - share[group]) * (-far / spread[group]).exp() / (2 * spread[group])
        again = torch.where(same, share[group] / width / (share[group] / width + chance).clamp_min(1e-12), 0.0)
        share = pooled(again)
    return Table(spread.view(items, groups), share.view(items, groups))


class Rule(NamedTuple):
    """A fitted rule: what it repeats, its errors, and what it says where it knows nothing."""

    kind: str  # "last_value", "first_value" or "item_median"
    median: Tensor  # [I] z scale
    table: Table
    lost: Table  # of the median, where the rule knows no value
    hours_per_step: float

    @classmethod
    def learned(cls, kind: str, places: Places, scale: Scale, hours_per_step: float) -> Rule:
        """Fitted to these places."""
        median = medians(places, scale)
        middle, report = guess(kind, places, median, scale)
        nothing = torch.full_like(report, float("nan"))
        return cls(
            kind,
            median,
            fitted(places, middle, report, scale, hours_per_step),
            fitted(places, median[places.item], nothing, scale, hours_per_step),
            hours_per_step,
        )

    def says(self, places: Places, scale: Scale) -> Marginal:
        """Its distributions."""
        middle, report = guess(self.kind, places, self.median, scale)
        return with_errors(middle, report, places, self.table, self.lost, scale, self.hours_per_step)


def with_errors(
    middle: Tensor, report: Tensor, places: Places, table: Table, lost: Table, scale: Scale, hours_per_step: float
) -> Marginal:
    """Laplace around `middle`, a share on the cell of `report`; errors of `lost` where there is no report."""
    at = (places.item, age_group(places.age, hours_per_step))
    none = report.isnan()
    spread = torch.where(none, lost.spread[at], table.spread[at])
    return said_again(laplace(middle, spread, scale, places.item), table.share[at], report, scale, places.item)


def guess(kind: str, places: Places, median: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    """The middle [N] (z scale) and the report [N] that may be said again (NaN: none)."""
    report = {"last_value": places.given, "first_value": places.first}.get(
        kind, torch.full_like(places.given, float("nan"))
    )
    middle = torch.where(report.isnan(), median[places.item], scale.z(report.nan_to_num(0.0), places.item))
    return middle, report
