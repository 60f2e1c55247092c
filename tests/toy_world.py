"""A small honest world for tests: each drug decays with one half-life, the intervals follow the amounts linearly.

It keeps every rule of `world_models.protocol`, so what is built on worlds can be tested without a trained one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.protocol import Chart, Factors
from world_models.quantities.ecg_drug import MEASURES, ORDERS
from world_models.quantity import Quantity
from world_models.rounding import power

# per mg on board: effect on J-Tpeak c, Tpeak-Tend, PR (ms), log burden; and half-life (h)
_DRUGS = (
    (0.002, 0.006, 0.0, -0.0008, 6.0),
    (80.0, 70.0, 0.0, -2.0, 9.0),
    (0.0, 0.02, 0.25, -0.004, 6.0),
    (0.06, 0.12, 0.0, -0.003, 7.0),
)
LATENT = Quantity("latent", "1", -10.0, 10.0, (6,), "the state's intervals, scaled", on_request=True)
FACTORS = (
    Quantity("age_years", "a", 18.0, 100.0),
    Quantity("sex_female", "bool", 0.0, 1.0),
    Quantity("weight_kg", "kg", 40.0, 160.0),
    Quantity("baseline_qtcf_ms", "ms", 340.0, 560.0),
    Quantity("baseline_pr_ms", "ms", 100.0, 300.0),
    Quantity("baseline_heart_rate_bpm", "bpm", 45.0, 120.0),
    Quantity("metaboliser", "1", 0.25, 4.0),
    Quantity("admission_clock_hour", "h", 0.0, 23.99),
    Quantity("baseline_burden", "fraction", 0.0, 1.0),
)
# Of what it has no model: the same for everyone, at all times.
CONSTANT = {
    "creatinine_clearance_ml_min": 90.0,
    "potassium_mmol_l": 4.2,
    "magnesium_mmol_l": 0.85,
    "t_asymmetry": 0.2,
    "t_flatness": 0.43,
    "erd_30_ms": 45.0,
    "lrd_30_ms": 32.0,
    "systolic_bp_mmhg": 130.0,
    "atrial_fibrillation": 0.0,
    "av_block": 0.0,
}
_FIXED = tuple(factor.name for factor in FACTORS)


class ToyState(NamedTuple):
    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    patient: Tensor  # float32 [B, F] in the order of FACTORS
    on_board: Tensor  # float32 [B, 4] mg
    total: Tensor  # float32 [B, 4] mg
    since: Tensor  # float32 [B, 4] h
    torsades: Tensor  # bool [B]


class ToyWorld:
    """Linear drug effects with exponential decay; torsades by a hazard that grows with QTcF."""

    name = "toy"
    orders = ORDERS
    factors = FACTORS
    hours_per_step = 2.0

    def __init__(self, device: str = "cpu", latent: bool = True, hazard: float = 0.02, cohort: str = "typical") -> None:
        self.device = torch.device(device)
        self.measures = (*MEASURES, LATENT) if latent else MEASURES
        self.hazard = hazard  # of torsades in a step at QTcF 500 ms
        self.cohort = cohort
        self.initial_calls: list[int] = []  # rows made by each call of `initial`

    def _drawn(self, key: Tensor) -> dict[str, Tensor]:
        n = keys.normal(key, 0, "toy patient", (6,))
        u = keys.uniform(key, 0, "toy patient u", (3,))
        long_qt = 60.0 if self.cohort == "long-qt" else 0.0
        return {
            "age_years": (60 + 12 * n[:, 0]).clamp(18, 100),
            "sex_female": (u[:, 0] < 0.5).float(),
            "weight_kg": (75 + 12 * n[:, 1]).clamp(40, 160),
            "baseline_qtcf_ms": (410 + long_qt + 18 * n[:, 2]).clamp(340, 560),
            "baseline_pr_ms": (165 + 18 * n[:, 3]).clamp(100, 300),
            "baseline_heart_rate_bpm": (70 + 9 * n[:, 4]).clamp(45, 120),
            "metaboliser": torch.exp(0.25 * n[:, 5]).clamp(0.25, 4),
            "admission_clock_hour": u[:, 1] * 23.99,
            "baseline_burden": 0.2 + 0.7 * u[:, 2],
        }

    def initial(self, key: Tensor, factors: Factors | None = None) -> ToyState:
        drawn = {**self._drawn(key), **checked_factors(self.factors, factors, len(key), self.device)}
        self.initial_calls.append(len(key))
        zero = torch.zeros(len(key), 4, device=self.device)
        patient = torch.stack([drawn[name].to(torch.float32) for name in _FIXED], -1)
        never = torch.full_like(zero, 96.0)
        return ToyState(key, torch.zeros_like(key), patient, zero, zero.clone(), never, key != key)

    def read(self, chart: Chart) -> dict[str, Tensor]:
        return {"baseline_qtcf_ms": chart["qtcf_ms"].clamp(340, 560)}

    def transition(self, state: ToyState, action: Tensor) -> ToyState:
        action = checked_orders(self.orders, action, len(state.key), self.device)
        half_lives = torch.tensor([d[4] for d in _DRUGS], device=self.device)
        clearance = state.patient[:, _FIXED.index("metaboliser"), None]
        board = (state.on_board + action) * torch.exp(-math.log(2.0) * self.hours_per_step * clearance / half_lives)
        since = torch.where(action > 0, 0.0, state.since) + self.hours_per_step
        moved = state._replace(
            t=state.t + 1, on_board=board, total=(state.total + action).clamp(max=1e6), since=since.clamp(max=96.0)
        )
        qtcf = self._intervals(moved)["qtcf_ms"]
        chance = (self.hazard * torch.exp((qtcf - 500.0) / 20.0)).clamp(max=0.9)
        struck = keys.bernoulli(state.key, moved.t, "toy torsades", chance)
        return moved._replace(torsades=state.torsades | struck)

    def _intervals(self, state: ToyState) -> dict[str, Tensor]:
        patient = dict(zip(_FIXED, state.patient.unbind(-1), strict=True))

        def effect(index: int) -> Tensor:
            total = state.on_board[:, 0] * _DRUGS[0][index]
            for drug in range(1, 4):
                total = total + state.on_board[:, drug] * _DRUGS[drug][index]
            return total

        wobble = keys.normal(state.key, state.t, "toy wobble", (3,))
        rate = (patient["baseline_heart_rate_bpm"] + 2.0 * wobble[:, 0]).clamp(20, 250)
        rr = 60.0 / rate
        qrs = torch.full_like(rate, 95.0) + wobble[:, 1]
        tpeak_tend = (85.0 + effect(1)).clamp(20, 400)
        jt_c = patient["baseline_qtcf_ms"] - 95.0 - 85.0 + effect(0)
        jt = (jt_c * power(rr, 1 / 3)).clamp(50, 800)
        qt = qrs + jt + tpeak_tend * power(rr, 1 / 3)
        return {
            "heart_rate_bpm": rate,
            "pr_ms": (patient["baseline_pr_ms"] + effect(2) + wobble[:, 2]).clamp(60, 600),
            "qrs_ms": qrs,
            "qt_ms": qt.clamp(150, 1000),
            "qtcf_ms": (qt / power(rr, 1 / 3)).clamp(200, 1000),
            "jt_peak_ms": jt,
            "jt_peak_c_ms": (jt / power(rr, 0.58)).clamp(50, 800),
            "tpeak_tend_ms": (tpeak_tend * power(rr, 1 / 3)).clamp(20, 400),
            "t_amplitude_uv": (550.0 - 2.0 * effect(1)).clamp(20, 3000),
            "arrhythmia_burden": (patient["baseline_burden"] * torch.exp(effect(3))).clamp(0, 1),
        }

    def observe(self, state: ToyState, also: Sequence[str] = ()) -> Chart:
        check_also(self.measures, also)
        patient = dict(zip(_FIXED, state.patient.unbind(-1), strict=True))
        hours = state.t.to(torch.float32) * self.hours_per_step
        intervals = self._intervals(state)
        chart = {
            **{name: patient[name] for name in ("age_years", "sex_female", "weight_kg", "baseline_qtcf_ms")},
            "hours": hours,
            "clock_hour": torch.remainder(patient["admission_clock_hour"] + hours, 24.0),
            **intervals,
            **{name: torch.full_like(hours, value) for name, value in CONSTANT.items()},
            "torsades": state.torsades.to(torch.float32),
            "total_dose_mg": state.total,
            "hours_since_dose": state.since,
        }
        if "ecg_mv" in also:
            seconds = torch.arange(5000, device=self.device) / 500.0
            phase = (seconds * chart["heart_rate_bpm"][:, None] / 60.0) % 1.0
            spike = torch.exp(-((phase - 0.3) ** 2) / 0.0002) + 0.3 * torch.exp(-((phase - 0.6) ** 2) / 0.004)
            chart["ecg_mv"] = spike[:, None, :] * torch.linspace(0.4, 1.5, 12, device=self.device)[:, None]
        if "latent" in also:
            rows = [intervals[n] / 100.0 for n in ("pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms", "heart_rate_bpm")]
            chart["latent"] = torch.stack([*rows, chart["torsades"]], -1).clamp(-10, 10)
        return chart

    def rekey(self, state: ToyState, key: Tensor) -> ToyState:
        patient = state.patient.clone()
        patient[:, _FIXED.index("metaboliser")] = self._drawn(key)["metaboliser"]
        return state._replace(key=key, patient=patient)

    def spread(self, state: ToyState) -> Mapping[str, Tensor]:
        return {name: torch.full_like(state.patient[:, 0], sd) for name, sd in (("qtcf_ms", 5.0), ("pr_ms", 4.0))}

    def support(self, state: ToyState) -> Tensor:
        return (state.total < 10_000.0).all(-1)
