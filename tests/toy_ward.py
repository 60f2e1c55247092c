"""A small honest ward for tests: every measure drifts towards a set point that a few treatments move.

It keeps every rule of `world_models.protocol`, measures and takes what the ward worlds do, and can start from a record,
so that what is built on wards can be tested without a trained one and a hundred times faster than in the oracle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.inputs import admit, check_also, checked_factors, checked_orders
from world_models.protocol import Chart, Factors, History
from world_models.quantities.ward import (
    COMPLAINTS,
    INQUIRIES,
    INTERVENTIONS,
    MAX_AGE_HOURS,
    MAX_HOURS_SINCE,
    MEASURES,
    ORDERS,
    STATIC,
    inquiry_index,
    intervention_index,
)
from world_models.quantity import Quantity

_I, _J = len(INQUIRIES), len(INTERVENTIONS)
_LOW = torch.tensor([float(q.low) for q in INQUIRIES])
_LOW = torch.where(
    _LOW.double() < torch.tensor([float(q.low) for q in INQUIRIES], dtype=torch.float64),
    torch.nextafter(_LOW, torch.tensor(torch.inf)),
    _LOW,
)
_HIGH = torch.tensor([float(q.high) for q in INQUIRIES])
_TYPICAL = torch.tensor([float(q.typical) for q in INQUIRIES])
_WIDTH = torch.tensor([max(float(q.normal[1] - q.normal[0]), 0.1) for q in INQUIRIES])
_LARGEST = torch.tensor([float(q.high) for q in INTERVENTIONS])
_VITAL = torch.tensor([q.kind == "vital" for q in INQUIRIES])
_CULTURE = torch.tensor([q.kind == "culture" for q in INQUIRIES])
# treatment, measure, by how many widths the standard amount moves it
_EFFECTS = (
    ("potassium_chloride_mmol", "potassium_mmol_l", 1.2),
    ("insulin_units_h", "glucose_mg_dl", -1.5),
    ("dextrose_g", "glucose_mg_dl", 1.0),
    ("norepinephrine_ug_kg_min", "map_mmhg", 0.8),
    ("metoprolol_mg", "map_mmhg", -1.0),
)


class ToyWardState(NamedTuple):
    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    start_h: Tensor  # [B]
    static: Tensor  # [B, 6]
    complaint: Tensor  # [B, 6]
    body: Tensor  # [B, I] what a test now would show
    value: Tensor  # [B, I]
    drawn_h: Tensor  # [B, I]
    seen: Tensor  # bool [B, I]
    pending: Tensor  # bool [B, I]
    coming: Tensor  # [B, I]
    coming_h: Tensor  # [B, I]
    given: Tensor  # [B, J]
    since_h: Tensor  # [B, J]
    alive: Tensor  # bool [B]
    home: Tensor  # bool [B]


class ToyWard:
    """Vital signs come at once, cultures after three steps, other results at the end of the next step."""

    name = "toy-ward"
    measures: tuple[Quantity, ...] = MEASURES
    orders = ORDERS
    factors: tuple[Quantity, ...] = STATIC

    def __init__(self, device: str = "cpu", hours_per_step: float = 4.0, hazard: float = 0.02, leaves: float = 0.02):
        self.device = torch.device(device)
        self.hours_per_step = float(hours_per_step)
        self.hazard, self.leaves = hazard, leaves

    def initial(self, key: Tensor, factors: Factors | None = None) -> ToyWardState:
        factors = checked_factors(self.factors, factors, len(key), self.device)
        u = keys.uniform(key, 0, "toy ward static", (len(STATIC),))
        low = torch.tensor([q.low for q in STATIC])
        high = torch.tensor([q.high for q in STATIC])
        static = low + (high - low) * u
        flags = torch.tensor([q.unit == "bool" for q in STATIC])
        static = torch.where(flags, (u < 0.5).float(), static)
        for i, q in enumerate(STATIC):
            if q.name in factors:
                static[:, i] = factors[q.name]
        why = keys.bits(key, 0, "toy ward complaint") % len(COMPLAINTS)
        complaint = (why.unsqueeze(-1) == torch.arange(len(COMPLAINTS))).float()
        body = _TYPICAL + _WIDTH * keys.normal(key, 0, "toy ward body", (_I,)) * 0.8
        body = torch.where(_CULTURE, 0.0, body).clamp(_LOW, _HIGH)
        nil, no = torch.zeros(len(key), _I), torch.zeros(len(key), _I, dtype=torch.bool)
        vital = _VITAL.expand(len(key), -1)
        here = torch.ones(len(key), dtype=torch.bool)
        return ToyWardState(
            key,
            torch.zeros_like(key),
            torch.zeros(len(key)),
            static,
            complaint,
            body,
            torch.where(vital, body, _TYPICAL),
            nil,
            vital.clone(),
            no,
            nil.clone(),
            nil.clone(),
            torch.zeros(len(key), _J),
            torch.full((len(key), _J), MAX_HOURS_SINCE),
            here,
            ~here,
        )

    def read(self, chart: Chart) -> dict[str, Tensor]:
        return {q.name: chart[q.name] for q in STATIC if q.name in chart}

    def _hours(self, state: ToyWardState) -> Tensor:
        return state.start_h + state.t.to(torch.float32) * self.hours_per_step

    def transition(self, state: ToyWardState, action: Tensor) -> ToyWardState:
        action = checked_orders(self.orders, action, len(state.key), self.device)
        asked, given = (action[:, :_I] >= 0.5) & ~state.pending, action[:, _I:]
        start, t = self._hours(state).unsqueeze(-1), state.t + 1
        end = start + self.hours_per_step
        drift = keys.normal(state.key, t, "toy ward drift", (_I,)) * _WIDTH * 0.1
        body = state.body + (_TYPICAL - state.body) * 0.03 + drift
        push = torch.zeros_like(body)
        for treatment, measure, widths in _EFFECTS:
            j, i = intervention_index(treatment), inquiry_index(measure)
            push[:, i] = push[:, i] + given[:, j] / float(INTERVENTIONS[j].standard) * widths * float(_WIDTH[i])
        body = torch.where(_CULTURE, 0.0, (body + push)).clamp(_LOW, _HIGH)
        at_end = _VITAL.expand_as(asked)
        drawn = torch.where(at_end, end.expand_as(body), (start + 1.0).expand_as(body))
        waits = state.pending | asked
        coming = torch.where(asked, body, state.coming)
        coming_h = torch.where(asked, drawn, state.coming_h)
        delay = torch.where(_CULTURE, 3.0 * self.hours_per_step, torch.where(_VITAL, 0.0, self.hours_per_step))
        came = waits & (coming_h + delay <= end)
        dies = keys.uniform(state.key, t, "toy ward death") < self.hazard
        leaves = (keys.uniform(state.key, t, "toy ward home") < self.leaves) & ~dies
        moved = state._replace(
            body=body,
            value=torch.where(came, coming, state.value),
            drawn_h=torch.where(came, coming_h, state.drawn_h),
            seen=state.seen | came,
            pending=waits & ~came,
            coming=coming,
            coming_h=coming_h,
            given=given,
            since_h=torch.where(given > 0, 0.0, (state.since_h + self.hours_per_step).clamp_max(MAX_HOURS_SINCE)),
            alive=~dies,
            home=leaves,
        )
        return tree.where(state.alive & ~state.home, moved, state)._replace(t=t)

    def observe(self, state: ToyWardState, also: Sequence[str] = ()) -> Chart:
        check_also(self.measures, also)
        hours = self._hours(state)
        age = torch.where(state.seen, hours.unsqueeze(-1) - state.drawn_h, MAX_AGE_HOURS)
        chart = {
            **{q.name: state.static[:, i].contiguous() for i, q in enumerate(STATIC)},
            "complaint": state.complaint,
            "hours": hours,
            "alive": state.alive.float(),
            "discharged": state.home.float(),
            **{q.name: state.value[:, i].contiguous() for i, q in enumerate(INQUIRIES)},
            "inquiry_age_hours": age.clamp(0.0, MAX_AGE_HOURS),
            "inquiry_seen": state.seen.float(),
            "inquiry_pending": state.pending.float(),
            "treatment_share": state.given / _LARGEST,
            "treatment_age_hours": state.since_h,
        }
        if "diagnosis" in also:
            chart["diagnosis"] = state.complaint
        return chart

    def rekey(self, state: ToyWardState, key: Tensor) -> ToyWardState:
        return state._replace(key=key)

    def spread(self, state: ToyWardState) -> Mapping[str, Tensor]:
        return {"map_mmhg": torch.full_like(state.start_h, 4.0)}

    def support(self, state: ToyWardState) -> Tensor:
        return state.alive.clone()


class InferringToyWard(ToyWard):
    """A toy ward that can start from a record, as a learned one does."""

    config = None

    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> ToyWardState:
        last = {name: value[:, -1] for name, value in history.charts.items()}
        state = admit(self, key, self.read(last))
        seen = last["inquiry_seen"] > 0.5
        value = torch.stack([last[q.name] for q in INQUIRIES], -1)
        value = torch.where(seen, value.nan_to_num(0.0), _TYPICAL)
        start = last["hours"]
        return state._replace(
            start_h=start,
            value=value,
            body=value.clone(),
            seen=seen,
            drawn_h=torch.where(seen, start.unsqueeze(-1) - last["inquiry_age_hours"], 0.0),
            pending=last["inquiry_pending"] > 0.5,
            coming=value.clone(),
            coming_h=start.unsqueeze(-1).expand_as(value),
            given=last["treatment_share"] * _LARGEST,
            since_h=last["treatment_age_hours"].clone(),
        )
