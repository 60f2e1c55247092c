"""What is wanted of a hospital stay: to go home, stable until then, unharmed, and without needless tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinenv.envs.ehr_ward import orders as rules
from clinenv.envs.ehr_ward.columns import COLUMNS, VITAL_NOISE
from clinenv.envs.ehr_ward.event_view import EventsView
from clinenv.envs.ehr_ward.note_view import NoteView
from clinenv.envs.ehr_ward.rewards import DAY_DOLLARS, UNIT_DOLLARS, RewardWeights, harms, price, stability
from clinenv.envs.ehr_ward.years_left import qalys_left
from clinenv.task import Actions, Column, Losses, Outcomes, Record, Task
from clinenv.view import View
from clinenv.worth import DOLLARS_PER_QALY
from world_models.protocol import Chart, WorldModel
from world_models.quantities.ward import INQUIRIES, ORDERS, inquiry_index

__all__ = ["EHRWardTask"]

_HORIZON_HOURS = 336.0
_QALY = DOLLARS_PER_QALY / UNIT_DOLLARS  # units of the return
_HOURS_PER_YEAR = 8766.0
_PAINTED = ("inquiry_age_hours", "inquiry_seen", "alive", "discharged")
# vital signs that are charted by hand: name, place among the inquiries, value that an unknown one reads
_READ = tuple((n, inquiry_index(n), float(INQUIRIES[inquiry_index(n)].typical)) for n in VITAL_NOISE)


@dataclass(frozen=True)
class EHRWardTask(Task):
    """A stay of up to 14 days, until discharge or death. Judged from the chart alone, the same in every world."""

    actions: Actions = rules.SWITCHES
    weights: RewardWeights = field(default_factory=RewardWeights)
    horizon_hours: float = _HORIZON_HOURS
    name: str = "EHRWard"
    oracle: str = "ward-oracle"
    refuses: bool = True
    orders: tuple[str, ...] = tuple(q.name for q in ORDERS)
    observation: tuple[Column, ...] = COLUMNS
    records: tuple[Record, ...] = ()
    losses: Losses | None = Losses(tuple(q.order for q in INQUIRIES), {"some": 0.1, "much": 0.3})
    trend: tuple[str, ...] = (
        "heart_rate_bpm", "map_mmhg", "spo2_percent", "temperature_c", "potassium_mmol_l", "creatinine_mg_dl",
        "glucose_mg_dl", "haemoglobin_g_dl", "lactate_mmol_l", "white_cells_k_ul",
    )  # fmt: skip

    def views(self) -> Mapping[str, Callable[[WorldModel, Task], View]]:
        """ "events" and "text": see `event_view` and `note_view`."""
        return {"events": EventsView, "text": NoteView}

    def recalled(self, world: WorldModel) -> tuple[str, ...]:
        """The hour, `trend`, and what says of which values they are known."""
        return ("hours", *self.trend, *_PAINTED)

    def paint(self, episodes: Any, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
        """uint8 [H, W, 3]: the patient's chart; see `clinenv.rendering.ward_chart`."""
        from clinenv.rendering.ward_chart import ward_frame

        return ward_frame(episodes, moments, row)

    def reward(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """Terms [B]: survival, stay, stability, tests, treatments, in 10,000 US dollars or tenths of a QALY.

        action [B, A]: what was carried out.
        """
        w = self.weights
        hours = after["hours"] - before["hours"]
        tests, treatments = price(action, hours)
        died = (before["alive"] - after["alive"]).clamp(min=0.0)
        was_here = 1.0 - (1.0 - before["alive"]).maximum(before["discharged"])
        here = 1.0 - (1.0 - after["alive"]).maximum(after["discharged"])
        unstable = (1.0 - stability(after)) * here
        return {
            "survival": died * qalys_left(after) * (-_QALY * w.survival),
            "stay": was_here * hours * (-DAY_DOLLARS / (24.0 * UNIT_DOLLARS) * w.stay),
            "stability": unstable * hours * (-_QALY / _HOURS_PER_YEAR * w.stability),
            "tests": tests * (-w.tests / UNIT_DOLLARS),
            "treatments": treatments * (-w.treatments / UNIT_DOLLARS),
        }

    def cost(self, before: Chart, action: Tensor, after: Chart) -> Tensor:
        """Harm charted in the step: the sum of its parts."""
        glucose, potassium, pressure = harms(before, after).values()
        return glucose + potassium + pressure

    def cost_parts(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """hypoglycaemia, hyperkalaemia, hypotension; see `rewards.harms`."""
        return harms(before, after)

    def outcomes(self, before: Chart, action: Tensor, after: Chart) -> Outcomes:
        """Totals: died, discharged, and hours, the length of the stay."""
        died = (before["alive"] - after["alive"]).clamp(min=0.0)
        left = (after["discharged"] - before["discharged"]).clamp(min=0.0)
        return Outcomes({"died": died, "discharged": left, "hours": after["hours"] - before["hours"]}, {})

    def terminated(self, chart: Chart) -> Tensor:
        """bool [B]: death or discharge."""
        return (chart["alive"] < 0.5) | (chart["discharged"] > 0.5)

    def admissible(self, chart: Chart) -> Tensor:
        """bool [B, A]; see `orders`."""
        return rules.admissible(chart)

    def refused(self, chart: Chart, action: Tensor, admissible: Tensor) -> Tensor:
        """bool [B, A]; see `orders`."""
        return rules.refused(chart, action, admissible)

    def reasons(self, chart: Chart, action: Tensor) -> list[list[tuple[str, str]]]:
        """Why each order was refused; see `orders`."""
        return rules.reasons(chart, action)

    def reread(self, chart: Chart) -> Chart:
        """Readings follow no other here; a value nobody charted has no reading error."""
        seen = chart["inquiry_seen"] > 0.5
        return {**chart, **{name: torch.where(seen[:, i], chart[name], typical) for name, i, typical in _READ}}

    def read_at(self, chart: Chart) -> dict[str, Tensor]:
        """int64 [B] by measure: the minute at which the charted value was read, for those with a reading error."""
        drawn = chart["hours"].unsqueeze(-1) - chart["inquiry_age_hours"]
        minute = (drawn * 60.0).round().to(torch.int64)
        return {name: minute[:, i] for name, i, _ in _READ}
