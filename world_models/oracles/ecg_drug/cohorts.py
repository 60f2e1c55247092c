"""Who is admitted: patient factors sampled from a cohort, the same for every world that is given the same key.

The oracle and the learned world both sample here, so that patient i of one is patient i of the other (paired trials).
A factor is mean + female * sex + per_year * (age - 60) + sd * z with z a truncated standard normal; hepatic clearances
and serum creatinine are sampled so on the log scale and burden on the logit scale, where sd and slopes act too. The
z of the three hepatic clearances correlate (`hepatic.SHARED`); the creatinine clearance follows from creatinine, age,
weight and sex (`renal`); a sampled QTcF follows potassium and magnesium (`electrolytes`).

The cohorts, and where their numbers come from, stand in `cohort_table`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale
from world_models.inputs import checked_factors
from world_models.oracles.cohort import cohort_named, cut_normal, normal_cdf
from world_models.oracles.ecg_drug.cohort_table import COHORTS, ECGDrugCohort, Spread
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.electrolytes import resting_qtcf_ms
from world_models.oracles.ecg_drug.hepatic import HEPATIC, SHARED
from world_models.oracles.ecg_drug.population import TrialModel
from world_models.oracles.ecg_drug.renal import creatinine_clearance
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS, from_scale
from world_models.quantity import Quantity, by_name
from world_models.rounding import expit

__all__ = ["COHORTS", "FACTORS", "ECGDrugCohort", "Spread", "sample_factors", "jt_peak_c"]

FACTORS: tuple[Quantity, ...] = (
    Quantity("age_years", "a", 18.0, 100.0, (), "age"),
    Quantity("sex_female", "bool", 0.0, 1.0, (), "1 if female"),
    Quantity("weight_kg", "kg", 30.0, 200.0, (), "body weight"),
    Quantity("baseline_heart_rate_bpm", "bpm", 40.0, 140.0, (), "sinus rate of the admission ECG"),
    Quantity("baseline_pr_ms", "ms", 80.0, 350.0, (), "PR of the admission ECG"),
    Quantity("baseline_qrs_ms", "ms", 60.0, 180.0, (), "QRS of the admission ECG"),
    Quantity("baseline_qtcf_ms", "ms", 320.0, 560.0, (), "QTcF of the admission ECG, before any dose"),
    Quantity("baseline_tpeak_tend_ms", "ms", 40.0, 160.0, (), "Tpeak-Tend of the admission ECG"),
    Quantity("baseline_t_amplitude_uv", "uV", 20.0, 3000.0, (), "T amplitude (vector) of the admission ECG"),
    Quantity("baseline_t_asymmetry", "1", 0.0, 3.0, (), "T asymmetry of the admission ECG"),
    Quantity("baseline_t_flatness", "1", 0.02, 0.98, (), "T flatness of the admission ECG"),
    Quantity("baseline_erd_30_ms", "ms", 4.0, 250.0, (), "ERD_30 of the admission ECG"),
    Quantity("baseline_lrd_30_ms", "ms", 4.0, 200.0, (), "LRD_30 of the admission ECG"),
    Quantity("creatinine_clearance_ml_min", "mL/min", 5.0, 250.0, (), "by Cockcroft and Gault; of dofetilide"),
    Quantity("potassium_mmol_l", "mmol/L", 1.5, 9.0, (), "serum potassium, constant over the stay"),
    Quantity("magnesium_mmol_l", "mmol/L", 0.2, 3.0, (), "serum magnesium, constant over the stay"),
    Quantity("baseline_systolic_bp_mmhg", "mmHg", 60.0, 230.0, (), "systolic pressure at admission"),
    *(Quantity(f"{d}_clearance", "1", 0.1, 4.0, (), f"of {d}, against the fitted population") for d in HEPATIC),
    Quantity("admission_clock_hour", "h", 0.0, 24.0, (), "hour of the day at t = 0"),
    Quantity("baseline_burden", "fraction", 0.0, 1.0, (), "share of time in the arrhythmia before treatment"),
    Quantity(
        "baseline_fibrillation_rate_bpm", "bpm", 40.0, 210.0, (), "ventricular rate in fibrillation, without drugs"
    ),
)

JT_PEAK_C_MS = (100.0, 430.0)  # what the four baseline intervals together must leave for the J-Tpeak interval


# Sampled as Spreads, in this order (age first: the others follow it; those on another scale last), then as uniforms.
_INTERVALS = tuple(f"baseline_{n}" for n in ("heart_rate_bpm", "pr_ms", "qrs_ms", "qtcf_ms", "tpeak_tend_ms"))
_T_WAVE = ("t_amplitude", "t_asymmetry", "t_flatness", "erd_30", "lrd_30_share")
_FIBRILLATION_RATE = "baseline_fibrillation_rate_bpm"
ERD_WITH_FLATNESS = 0.75  # correlation in PTB-XL's normal ECGs (161 adults of folds 1 to 6)
LRD_SHARE = (0.33, 0.68)  # of Tpeak-Tend: what can be drawn (`ecg.t_synthesis`)
_BLOOD = ("potassium_mmol_l", "magnesium_mmol_l", "baseline_systolic_bp_mmhg")
_LIVER = tuple(f"{d}_clearance" for d in HEPATIC)
_LOGS = (*_LIVER, "serum_creatinine_mg_dl")
_LAST = ("cyp3a4", *_LOGS, "baseline_burden")
_UNIFORM = ("sex_female", "admission_clock_hour")
_HIDDEN = (Quantity("cyp3a4", "1", -5.0, 5.0), Quantity("serum_creatinine_mg_dl", "mg/dL", 0.2, 15.0))  # on the way


class _Columns(NamedTuple):
    """A cohort as columns of numbers: n Spreads sampled at once. Every tensor float32 [n, 1]."""

    names: tuple[str, ...]
    purposes: tuple[str, ...]  # of the n normals, then of the uniforms
    chance: Tensor  # of the normal's lower cut
    width: Tensor  # chance between the cuts
    sd: Tensor
    mean: Tensor
    female: Tensor
    per_year: Tensor
    low: Tensor  # bounds of the factor
    high: Tensor


def _bounds(factor: str) -> tuple[float, float]:
    quantity = by_name((*FACTORS, *_HIDDEN), factor)
    return quantity.low, quantity.high


@lru_cache(maxsize=64)
def _columns(who: ECGDrugCohort, device: torch.device) -> _Columns:
    sampled = () if who.from_trial else (*_INTERVALS, *_T_WAVE)
    names = ("age_years", "weight_kg", *sampled, _FIBRILLATION_RATE, *_BLOOD, *_LAST)
    liver = dict(zip(_LIVER, who.hepatic_clearance, strict=True)) | {"cyp3a4": Spread(0.0, 1.0)}
    spreads: list[Spread] = [liver[name] if name in liver else getattr(who, name) for name in names]
    cuts = [(normal_cdf(s.z_range[0]), normal_cdf(s.z_range[1])) for s in spreads]
    # the T wave's factors are bounded once they are in their own units
    limits = [(-math.inf, math.inf) if n in _T_WAVE else _bounds(n) for n in names]
    table = (
        [low for low, _ in cuts], [high - low for low, high in cuts],
        [s.sd for s in spreads], [s.mean for s in spreads], [s.female for s in spreads], [s.per_year for s in spreads],
        [low for low, _ in limits], [high for _, high in limits],
    )  # fmt: skip
    with torch.inference_mode(False):  # kept beyond this call, so it must also serve where gradients are taken
        columns = torch.tensor(table, dtype=torch.float32, device=device).unsqueeze(-1)
    return _Columns(names, tuple(f"cohort/{name}" for name in (*names, *_UNIFORM)), *columns)


def jt_peak_c(qtcf_ms: Tensor, qrs_ms: Tensor, tpeak_tend_ms: Tensor, heart_rate_bpm: Tensor) -> Tensor:
    """J-Tpeak c [B] in ms that the other intervals leave: (QTcF RR^(1/3) - QRS - Tpeak-Tend) / RR^0.58."""
    log = log_rr(heart_rate_bpm)
    return (qtcf_ms * qt_scale(log) - qrs_ms - tpeak_tend_ms) / jt_peak_scale(log)


def sample_factors(
    cohort: str | ECGDrugCohort, key: Tensor, given: Mapping[str, Tensor] | None = None, trial: TrialModel | None = None
) -> dict[str, Tensor]:
    """Every factor of `FACTORS` for patients with these keys, float32 [B] each.

    Args:
        cohort: a name of `COHORTS`, or a ECGDrugCohort.
        key: int64 [B].
        given: factors that are known, [B]. What depends on age and sex follows those given.
        trial: the fitted trial, for cohorts with `from_trial`; loaded from the shipped fit when None.

    Raises:
        ValueError: an unknown cohort or factor, a value out of bounds, or baseline intervals that leave no room for
            the J-Tpeak interval.
    """
    who = cohort_named(COHORTS, cohort)
    given = checked_factors(FACTORS, given, key.shape[0], key.device)

    def settle(name: str, sampled: Tensor) -> Tensor:
        return given.get(name, sampled)

    c = _columns(who, key.device)
    count = len(c.names)
    u = keys.uniforms(key, 0, c.purposes).T.contiguous()  # rows are factors: each [B] is one run of memory
    z = ((u[:count] * c.width + c.chance) * 2.0 - 1.0).erfinv() * math.sqrt(2.0)
    shared = c.names.index(_LAST[0])
    liver, logs = slice(shared + 1, shared + 1 + len(_LIVER)), slice(shared + 1, shared + 1 + len(_LOGS))
    z[liver] = z[liver] * math.sqrt(1.0 - SHARED) + z[shared] * math.sqrt(SHARED)
    value = z * c.sd + c.mean
    sex = settle("sex_female", (u[count] < who.share_female).to(torch.float32))
    age = settle("age_years", (value[0] + sex * c.female[0]).clamp(c.low[0], c.high[0]))
    value = value + sex * c.female + (age - 60.0) * c.per_year
    value[logs] = value[logs].exp()
    value[-1].copy_(expit(value[-1]))
    value = value.clamp(c.low, c.high)
    start, end = who.admission_clock_hour
    clock = (u[count + 1] * (end - start) + start).clamp(0.0, 24.0)
    out = {"age_years": age, "sex_female": sex, "admission_clock_hour": settle("admission_clock_hour", clock)}
    out.update((name, settle(name, value[i])) for i, name in enumerate(c.names) if i > 0 and name not in _T_WAVE)
    clearance = creatinine_clearance(age, sex, out["weight_kg"], out["serum_creatinine_mg_dl"])
    out["creatinine_clearance_ml_min"] = settle(
        "creatinine_clearance_ml_min", clearance.clamp(*_bounds("creatinine_clearance_ml_min"))
    )
    if not who.from_trial:
        qtcf = _sampled_qtcf(who, out, u[c.names.index("baseline_qtcf_ms")])
        out["baseline_qtcf_ms"] = settle("baseline_qtcf_ms", qtcf)
    if who.from_trial:
        for name, sampled in _trial_baseline(trial or TrialModel.load(device=key.device), key, out).items():
            out[name] = settle(name, sampled.clamp(*_bounds(name)))
    _fit_t_peak(out, given)
    t_wave = _trial_t_wave(out) if who.from_trial else _sampled_t_wave(out, dict(zip(c.names, value, strict=True)), c)
    for name, sampled in t_wave.items():
        out[name] = settle(name, sampled.clamp(*_bounds(name)))
    return {q.name: out[q.name] for q in FACTORS}


def _sampled_qtcf(who: ECGDrugCohort, out: dict[str, Tensor], u: Tensor) -> Tensor:
    """QTcF [B] of people with this age, sex, potassium and magnesium from uniforms [B]: cut at the cohort's limit."""
    law, quantity = who.baseline_qtcf_ms, by_name(FACTORS, "baseline_qtcf_ms")
    mean = law.mean + out["sex_female"] * law.female + (out["age_years"] - 60.0) * law.per_year
    mean = mean + resting_qtcf_ms(out["potassium_mmol_l"], out["magnesium_mmol_l"])
    return cut_normal(u, mean, law.sd, law.z_range, who.qtcf_limit_ms).clamp(quantity.low, quantity.high)


def _trial_baseline(trial: TrialModel, key: Tensor, out: dict[str, Tensor]) -> dict[str, Tensor]:
    """Admission ECG of the trial's people: own mean + this stay's shift + time of day + rest before the dose +
    variation at t = 0, added on the working scales."""
    who = keys.fold(key, "cohort/trial")
    parts = (
        trial.baseline(who, out["sex_female"], out["age_years"]),
        trial.day_shift(who),
        trial.time_of_day(out["admission_clock_hour"]),
        trial.residual(key, 0),  # of the key itself: it is the variation the oracle's admission ECG has
    )
    levels = torch.stack([parts[0][n] + parts[1][n] + parts[2][n] + parts[3][n] for n in ENDPOINTS], -1)
    now = from_scale(levels + trial.before_dosing)
    base = {n: now[:, i].contiguous() for i, n in enumerate(ENDPOINTS)}
    log = log_rr(base["heart_rate_bpm"])
    qt = base["qrs_ms"] + base["jt_peak_c_ms"] * jt_peak_scale(log) + base["tpeak_tend_ms"]
    base["qtcf_ms"] = qt / qt_scale(log)
    return {f"baseline_{n}": v for n, v in base.items() if n != "jt_peak_c_ms"}


def _within_tail(lrd_ms: Tensor, tail_ms: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(lrd_ms, LRD_SHARE[0] * tail_ms), LRD_SHARE[1] * tail_ms)


def _trial_t_wave(out: dict[str, Tensor]) -> dict[str, Tensor]:
    """LRD_30 of the trial's people within what their Tpeak-Tend leaves."""
    name = "baseline_lrd_30_ms"
    return {name: _within_tail(out[name], out["baseline_tpeak_tend_ms"])}


def _sampled_t_wave(out: dict[str, Tensor], value: dict[str, Tensor], c: _Columns) -> dict[str, Tensor]:
    """The T wave's factors from what was sampled on working scales.

    Flat waves are broad (ERD_30 goes with flatness), and LRD_30 is a share of Tpeak-Tend.
    """
    at = {name: i for i, name in enumerate(c.names)}
    female, years = out["sex_female"], out["age_years"] - 60.0

    def deviation(name: str) -> Tensor:
        i = at[name]
        return (value[name] - c.mean[i] - female * c.female[i] - years * c.per_year[i]) / c.sd[i]

    own = math.sqrt(1.0 - ERD_WITH_FLATNESS**2)
    together = ERD_WITH_FLATNESS * deviation("t_flatness") + own * deviation("erd_30")
    erd = value["erd_30"] + (together - deviation("erd_30")) * c.sd[at["erd_30"]]
    tail = out["baseline_tpeak_tend_ms"]
    found = (
        value["t_amplitude"].exp(),
        value["t_asymmetry"].clamp_min(0.0) * value["t_asymmetry"].clamp_min(0.0),
        value["t_flatness"],
        erd.exp(),
        _within_tail(tail * value["lrd_30_share"].exp(), tail),
    )
    return {f"baseline_{name}": x for name, x in zip(T_ENDPOINTS, found, strict=True)}


def _fit_t_peak(out: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Where J-Tpeak c is out of range a sampled Tpeak-Tend gives way, or a sampled QTcF; refuse if both are given."""
    low, high = JT_PEAK_C_MS
    rate, tail = out["baseline_heart_rate_bpm"], out["baseline_tpeak_tend_ms"]
    log = log_rr(rate)
    scale = jt_peak_scale(log)
    rest = (out["baseline_qtcf_ms"] * qt_scale(log) - out["baseline_qrs_ms"]) / scale
    quantity = by_name(FACTORS, "baseline_tpeak_tend_ms")
    fitted = torch.minimum(torch.maximum(tail, (rest - high) * scale), (rest - low) * scale)
    if "baseline_tpeak_tend_ms" in given:
        fitted = tail
        if "baseline_qtcf_ms" not in given:  # then the sampled QTcF gives way instead
            rest = torch.minimum(torch.maximum(rest, tail / scale + low), tail / scale + high)
            longer, bounds = (
                (rest * scale + out["baseline_qrs_ms"]) / qt_scale(log),
                by_name(FACTORS, "baseline_qtcf_ms"),
            )
            out["baseline_qtcf_ms"] = longer.clamp(bounds.low, bounds.high)
            rest = (out["baseline_qtcf_ms"] * qt_scale(log) - out["baseline_qrs_ms"]) / scale
    fitted = fitted.clamp(quantity.low, quantity.high)
    out["baseline_tpeak_tend_ms"] = fitted
    if not given:
        return
    left = rest - fitted / scale
    outside = (left < low - 1.0) | (left > high + 1.0)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        qtcf, qrs, tpte, bpm, jtpc = (
            x[row].item() for x in (out["baseline_qtcf_ms"], out["baseline_qrs_ms"], fitted, rate, left)
        )
        raise ValueError(
            f"patient {row}: QTcF {qtcf:.0f}, QRS {qrs:.0f} and Tpeak-Tend {tpte:.0f} ms at {bpm:.0f} bpm leave "
            f"J-Tpeak c {jtpc:.0f} ms, outside {low:g} to {high:g}; change or leave out one of these factors"
        )
