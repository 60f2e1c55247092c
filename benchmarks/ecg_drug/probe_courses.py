"""What the probes of the drug oracle stand on: regimens played through, figures with intervals, rows of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.common.intervals import Interval, percentile_interval, resamples
from world_models import keys
from world_models.oracles.ecg_drug.world import ECGDrugOracle

__all__ = ["Course", "Regimen", "mean", "play", "quotient", "row", "slope"]

SEED = 60_000  # of the first patient
RESAMPLED = 1000


@dataclass(frozen=True, slots=True)
class Regimen:
    """`mg` of `drug` every `every_h` hours, `doses` times at most, the first at `start_h`."""

    drug: str
    mg: float
    every_h: float = 12.0
    start_h: float = 0.0
    doses: int = 1_000_000


class Course(NamedTuple):
    """B patients at T + 1 hours, the admission included: hours [T + 1]; all else [T + 1, B] or [T + 1, B, D]."""

    hours: Tensor
    chart: dict[str, Tensor]
    concentration: Tensor  # ng/mL
    hazard_per_h: Tensor  # of torsades
    drugs: tuple[str, ...]

    def of(self, drug: str) -> Tensor:
        """Plasma concentration [T + 1, B]."""
        return self.concentration[..., self.drugs.index(drug)]

    def at(self, hour: float) -> int:
        """The index of the visit nearest to this hour."""
        return int((self.hours - hour).abs().argmin())

    def torsades(self) -> Tensor:
        """Chance [B] of torsades by the end."""
        step = self.hours[1] - self.hours[0]
        return -(-0.5 * step * (self.hazard_per_h[1:] + self.hazard_per_h[:-1]).sum(0)).expm1()


KEPT = ("qtcf_ms", "pr_ms", "heart_rate_bpm", "systolic_bp_mmhg", "av_block", "arrhythmia_burden")


def play(
    cohort: str,
    regimens: tuple[Regimen, ...],
    hours: float,
    patients: int,
    hours_per_step: float = 2.0,
    fixed: Mapping[str, float] | None = None,
) -> Course:
    """The patients of SEED in a cohort under these regimens. `fixed` factors are everybody's.

    The same patients with the same random numbers stand in every course of a cohort and step: differences are paired.
    """
    world = ECGDrugOracle(cohort, hours_per_step=hours_per_step)
    given = {name: torch.full((patients,), value) for name, value in (fixed or {}).items()}
    state = world.initial(keys.from_seed(SEED, patients), given)
    steps = round(hours / hours_per_step)
    charts, levels, hazards = [world.observe(state)], [state.concentration], [state.rhythm.hazard_per_h]
    for step in range(steps):
        dose = torch.zeros(patients, len(world.drugs))
        for regimen in regimens:
            since = round((step * hours_per_step - regimen.start_h) / hours_per_step)
            every = round(regimen.every_h / hours_per_step)
            if since >= 0 and since % every == 0 and since // every < regimen.doses:
                dose[:, world.drugs.index(regimen.drug)] = regimen.mg
        state = world.transition(state, dose)
        charts.append(world.observe(state))
        levels.append(state.concentration)
        hazards.append(state.rhythm.hazard_per_h)
    at_start = ("age_years", "sex_female", "creatinine_clearance_ml_min")
    chart = {name: torch.stack([c[name] for c in charts]) for name in (*KEPT, *at_start)}
    moments = torch.arange(steps + 1) * hours_per_step
    return Course(moments, chart, torch.stack(levels), torch.stack(hazards), world.drugs)


def _drawn(count: int) -> Tensor:
    return resamples(count, RESAMPLED)


def mean(values: Tensor) -> Interval:
    """Mean over patients [B], with its interval."""
    values = values.double()
    return Interval(float(values.mean()), *percentile_interval(values[_drawn(len(values))].mean(1)))


def quotient(above: Tensor, below: Tensor) -> Interval:
    """Ratio of two means: of the same patients where there are as many, else of two groups."""
    above, below = above.double(), below.double()
    tops, bottoms = above[_drawn(len(above))].mean(1), below[_drawn(len(below))].mean(1)
    return Interval(float(above.mean() / below.mean()), *percentile_interval(tops / bottoms))


def slope(change: Tensor, level: Tensor) -> Interval:
    """Slope through the origin of change [T, B] on level [T, B], resampled by patient."""
    products, squares = (change * level).double().sum(0), (level * level).double().sum(0)
    drawn = _drawn(len(products))
    spread = products[drawn].sum(1) / squares[drawn].sum(1)
    return Interval(float(products.sum() / squares.sum()), *percentile_interval(spread))


def row(
    about: str, probe: str, found: Interval, low: float, high: float, unit: str, source: str, scale: float = 1.0
) -> dict[str, Any]:
    """A row of the table: what was simulated, beside what is published."""
    value, least, most = (scale * x for x in found)
    return {
        "about": about, "probe": probe, "unit": unit, "simulated": value, "simulated_low": least,
        "simulated_high": most, "low": low, "high": high, "within": low <= value <= high, "source": source,
    }  # fmt: skip
