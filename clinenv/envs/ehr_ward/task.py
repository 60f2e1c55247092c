"""What is wanted of a hospital stay: to go home, stable until then, unharmed, and without needless tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clinenv.envs.ehr_ward import orders as rules
from clinenv.envs.ehr_ward.columns import COLUMNS, VITAL_NOISE
from clinenv.envs.ehr_ward.events import EventsView
from clinenv.envs.ehr_ward.note import NoteView
from clinenv.envs.ehr_ward.rewards import RewardWeights, harm, price, stability
from clinenv.rewards import share_of_time
from clinenv.task import Actions, Column, Losses, Outcomes, Record, View
from world_models.protocol import Chart
from world_models.quantities.ward import INQUIRIES, ORDERS, inquiry_index

__all__ = ["EHRWardTask"]

_HORIZON_HOURS = 336.0


@dataclass(frozen=True)
class EHRWardTask:
    """A stay of up to 14 days, until discharge or death. Judged from the chart alone, the same in every world."""

    actions: Actions = rules.SWITCHES
    weights: RewardWeights = field(default_factory=RewardWeights)
    horizon_hours: float = _HORIZON_HOURS
    name: str = "EHRWard"
    oracle: str = "ward-oracle"
    orders: tuple[str, ...] = tuple(q.name for q in ORDERS)
    observation: tuple[Column, ...] = COLUMNS
    records: tuple[Record, ...] = ()
    losses: Losses = Losses(tuple(q.order for q in INQUIRIES), {"some": 0.1, "much": 0.3})
    trend: tuple[str, ...] = (
        "heart_rate_bpm", "map_mmhg", "spo2_percent", "temperature_c", "potassium_mmol_l", "creatinine_mg_dl",
        "glucose_mg_dl", "haemoglobin_g_dl", "lactate_mmol_l", "white_cells_k_ul",
    )  # fmt: skip

    @property
    def views(self) -> Mapping[str, Callable[..., View]]:
        return {"events": EventsView, "text": NoteView}

    def reward(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """Terms [B]: survival, discharge, stability, tests, treatments. action [B, A]: what was carried out."""
        w = self.weights
        hours = after["hours"] - before["hours"]
        tests, treatments = price(action, hours)
        died = (before["alive"] - after["alive"]).clamp(min=0.0)
        left = (after["discharged"] - before["discharged"]).clamp(min=0.0)
        here = 1.0 - (1.0 - after["alive"]).maximum(after["discharged"])
        unstable = (1.0 - stability(after)) * here
        return {
            "survival": died * -w.survival,
            "discharge": left * w.discharge,
            "stability": share_of_time(unstable, hours, _HORIZON_HOURS) * -w.stability,
            "tests": tests * (-0.001 * w.tests),
            "treatments": treatments * (-0.001 * w.treatments),
        }

    def cost(self, before: Chart, action: Tensor, after: Chart) -> Tensor:
        """Harm charted in the step; see `rewards.harm`."""
        return harm(before, after)

    def clock(self, chart: Chart) -> Tensor:
        """Hours [B] since admission."""
        return chart["hours"]

    def outcomes(self, before: Chart, action: Tensor, after: Chart) -> Outcomes:
        """Totals: died, discharged, and hours, the length of the stay."""
        died = (before["alive"] - after["alive"]).clamp(min=0.0)
        left = (after["discharged"] - before["discharged"]).clamp(min=0.0)
        return Outcomes({"died": died, "discharged": left, "hours": after["hours"] - before["hours"]}, {})

    def terminated(self, chart: Chart) -> Tensor:
        return (chart["alive"] < 0.5) | (chart["discharged"] > 0.5)

    def admissible(self, chart: Chart) -> Tensor:
        """bool [B, A]; see `orders`."""
        return rules.admissible(chart)

    def refused(self, chart: Chart, action: Tensor) -> Tensor:
        """bool [B, A]; see `orders`."""
        return rules.refused(chart, action)

    def reasons(self, chart: Chart, action: Tensor) -> list[list[tuple[str, str]]]:
        """Why each order was refused; see `orders`."""
        return rules.reasons(chart, action)

    def reread(self, chart: Chart) -> Chart:
        """Readings follow no other here; a value nobody charted has no reading error."""
        seen = {name: chart["inquiry_seen"][:, inquiry_index(name)] > 0.5 for name in VITAL_NOISE}
        typical = {name: float(INQUIRIES[inquiry_index(name)].typical) for name in VITAL_NOISE}
        return {**chart, **{name: torch.where(seen[name], chart[name], typical[name]) for name in VITAL_NOISE}}

    def read_at(self, chart: Chart) -> dict[str, Tensor]:
        """int64 [B] by measure: the minute at which the charted value was read, for those with a reading error."""
        drawn = chart["hours"].unsqueeze(-1) - chart["inquiry_age_hours"]
        minute = (drawn * 60.0).round().to(torch.int64)
        return {name: minute[:, inquiry_index(name)] for name in VITAL_NOISE}
