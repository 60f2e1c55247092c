"""What is wanted of ten years in a cardiology clinic: life, little disease, little treatment, few visits, no
bleeding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinenv.envs.ecg_progression import rewards as r
from clinenv.envs.ecg_progression.rewards import HORIZON_YEARS, RewardWeights
from clinenv.patients import Patients
from clinenv.task import Actions, Column, Levels, Outcomes, Record, Task
from clinenv.view import ChartView, View
from clinenv.worth import present, present_years
from world_models.protocol import Chart, WorldModel
from world_models.quantities.progression import DEVICES, INTERVALS_MONTHS, ORDERS, PROCEDURES, TREATMENTS

__all__ = ["COLUMNS", "LEVELS", "LabelsView", "ECGProgressionTask"]

LEVELS = Levels(
    {**{name: (0.0, 1.0) for name in TREATMENTS}, "months_to_next_visit": INTERVALS_MONTHS},
    once=PROCEDURES,
    interval="months_to_next_visit",
)

COLUMNS: tuple[Column, ...] = (
    Column("age_years", 60.0, 20.0),
    Column("sex_female", 0.5, 0.5),
    Column("years", 5.0, 5.0, bounds=(0.0, 12.0)),  # ten, and at most one interval of the menu past it
    Column("months_since_visit", 6.0, 6.0),
    Column("probe", 0.5, 0.5),
    Column("treated", 0.5, 0.5),
    Column("bleeding", 0.5, 0.5),
)

_HOURS_PER_YEAR = 8766.0
_STEP_HOURS = _HOURS_PER_YEAR / 2
_COLUMN = {q.name: i for i, q in enumerate(ORDERS)}
# done once: what it is called, and what stands in its way
_ONCE: dict[str, tuple[str, tuple[str, ...]]] = {
    "pacemaker": ("a pacemaker", ("pacemaker", "crt")),
    "icd": ("a defibrillator", ("icd",)),
    "crt": ("resynchronisation", ("crt",)),
    "valve_replacement": ("a new aortic valve", ("valve_replacement",)),
}
assert set(DEVICES) < set(_ONCE)


class LabelsView(ChartView):
    """observation="labels": the recorded diagnoses beside the ECG's reading."""

    def _columns(self, task: Task) -> tuple[Column, ...]:
        return (*task.observation, Column("condition", 0.5, 0.5))


@dataclass(frozen=True)
class ECGProgressionTask(Task):
    """Years of visits, each ordering treatments and the time to the next. Judged from the chart alone.

    Raises:
        ValueError: horizon_years is not above 0, or above the ten years that the environment shows.
    """

    actions: Actions = LEVELS
    weights: RewardWeights = field(default_factory=RewardWeights)
    observation: tuple[Column, ...] = COLUMNS
    # The task ends itself at ten years. Worlds count steps of six months, so this leaves room for a visit a month.
    horizon_hours: float = HORIZON_YEARS * 12 * _STEP_HOURS
    name: str = "ECGProgression"
    oracle: str = "progression-oracle"
    refuses: bool = True
    orders: tuple[str, ...] = tuple(q.name for q in ORDERS)
    records: tuple[Record, ...] = ()
    trend: tuple[str, ...] = ("age_years", "years")
    horizon_years: float = HORIZON_YEARS  # after which the task ends itself; intervals count as far as they lie within

    def __post_init__(self) -> None:
        if not 0.0 < self.horizon_years <= HORIZON_YEARS:
            raise ValueError(
                f"horizon_years={self.horizon_years!r} must be above 0 and at most {HORIZON_YEARS:g}; give 2, say"
            )

    def clock(self, chart: Chart) -> Tensor:
        """Hours [B] since the first visit."""
        return chart["years"] * _HOURS_PER_YEAR

    def reward(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """Terms [B] in QALYs: disease_burden, death, treatment_burden, visits, bleeding. action [B, A]: carried out.

        An interval counts as far as it lies within the horizon, and as it counts at the first visit. Who died in it is
        taken to have died in its middle, and loses all of the years that were left.
        """
        w = self.weights
        died = (after["dead"] - before["dead"]).clamp(min=0.0)
        start, end = r.within(before["years"], after["years"], died, self.horizon_years)
        lived = present_years(start, end) * (1.0 - before["dead"])
        sick_before = r.burden(before["condition"], action)
        sick_after = torch.where(died > 0.5, sick_before, r.burden(after["condition"], action))
        lost = present_years(end, torch.full_like(end, self.horizon_years))
        here = (1.0 - before["dead"]) * present(start)  # what is paid once, at the begin
        return {
            "disease_burden": lived * (sick_before + sick_after) * (-0.5 * w.disease_burden),
            "death": died * lost * -w.death,
            "treatment_burden": (r.drug_burden(action) * lived + r.procedure_burden(action) * here)
            * -w.treatment_burden,
            "visits": here * (-r.VISIT_QALY * w.visits),
            "bleeding": after["bleeding"] * here * (-r.BLEEDING_QALY * w.bleeding),
        }

    def cost(self, before: Chart, action: Tensor, after: Chart) -> Tensor:
        """Harm [B]: 1 for a major bleed, 1 for each treatment that a recorded condition forbids."""
        parts = self.cost_parts(before, action, after)
        return parts["bleed"] + parts["contraindicated"]

    def cost_parts(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """bleed, contraindicated [B]."""
        here = 1.0 - before["dead"]
        contraindicated = r.contraindicated(before["condition"], before["treated"], action)
        return {"bleed": after["bleeding"] * here, "contraindicated": contraindicated * here}

    def terminated(self, chart: Chart) -> Tensor:
        """Death, or the end of the horizon (to an hour: years are sums of months)."""
        return (chart["dead"] > 0.5) | (chart["years"] >= self.horizon_years - 1e-4)

    def outcomes(self, before: Chart, action: Tensor, after: Chart) -> Outcomes:
        """Total: died."""
        return Outcomes({"died": (after["dead"] - before["dead"]).clamp(min=0.0)}, {})

    def admissible(self, chart: Chart) -> Tensor:
        """bool [B, A]: everything but a second device of a kind, a pacemaker beside resynchronisation, another valve.

        Only what was done can refuse an order. Were it the conditions (no cardioversion without an arrhythmia), the
        mask would tell a policy the diagnosis that it is to read from the ECG.
        """
        allowed = torch.ones(chart["treated"].shape[0], len(ORDERS), dtype=torch.bool, device=chart["treated"].device)
        for order, (_, bars) in _ONCE.items():
            for treatment in bars:
                allowed[:, _COLUMN[order]] &= chart["treated"][:, TREATMENTS.index(treatment)] < 0.5
        return allowed

    def reasons(self, chart: Chart, action: Tensor) -> list[list[tuple[str, str]]]:
        """Why each order was refused."""
        refused = self.refused(chart, action, self.admissible(chart))
        told: list[list[tuple[str, str]]] = [[] for _ in range(len(action))]
        for order, (name, _) in _ONCE.items():
            for row in refused[:, _COLUMN[order]].nonzero()[:, 0].tolist():
                had = chart["treated"][row, TREATMENTS.index(order)] > 0.5
                has = name if bool(had) else "resynchronisation, which paces,"
                told[row].append((order, f"the patient has {has} already"))
        return told

    def views(self) -> Mapping[str, Callable[[WorldModel, Task], View]]:
        """ "labels", and what the drug environments know: "ecg" and "latent"."""
        from clinenv.envs.ecg_drug.views import ECG_VIEWS

        return {"labels": LabelsView, **ECG_VIEWS}

    def patients_of(self, folder: str | Path, world: WorldModel) -> Patients:
        """The WFDB records of a folder, for worlds that read them."""
        from clinenv.envs.ecg_drug.recorded import RecordedPatients

        return RecordedPatients(folder, world)

    def recalled(self, world: WorldModel) -> tuple[str, ...]:
        """What the time line and the map of latents show."""
        return ("years", "age_years", "probe", "condition", "treated", "bleeding", "dead", "latent")

    def paint(self, episodes: Any, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
        """uint8 [H, W, 3]: see `clinenv.rendering.progression_chart`."""
        from clinenv.rendering.progression_chart import progression_frame

        return progression_frame(episodes, moments, row)
