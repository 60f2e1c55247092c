"""Who is admitted: patient factors sampled from a cohort, the same for every world that is given the same key.

The oracle and the learned world both sample here, so that patient i of one is patient i of the other (paired trials).
A factor is mean + female * sex + per_year * (age - 60) + sd * z with z a truncated standard normal; hepatic clearances
and serum creatinine are sampled so on the log scale and burden on the logit scale, where sd and slopes act too. The
z of the three hepatic clearances correlate (`hepatic.SHARED`); the creatinine clearance follows from creatinine, age,
weight and sex (`renal`); a sampled QTcF follows potassium and magnesium (`electrolytes`).

Sources of the table (numbers without one are assumptions within the label's limits):
- healthy: baseline intervals and rate as fitted from the trial in `TrialModel.baseline` (NCT01873950; 18 to 35 years).
- typical: age, women's share: consecutive dofetilide initiations, 61 +- 10 years, 79 % men (doi
  10.1111/j.1540-8159.2007.00902.x); median 62.5, quartiles 55 and 69 (doi 10.1016/j.hrthm.2018.01.029 (k)).
  QTcF by age and sex as in 946 sinus ECGs of a hospital (Chapman-Shaoxing, `benchmarks.ecg_drug.cohorts`), cut at 440
  ms, the label's limit for starting; so is the rate. Burden: between paroxysmal and persistent.
- paroxysmal: mean burden 17 % (HARMONY, doi 10.1161/CIRCEP.115.002856 (k), figure verified: 17.4 %).
- persistent: two thirds of the time in the arrhythmia (device cohort before ablation, median 67.5 %).
- The T wave: mean, spread, sex and age of the 161 adults of PTB-XL's folds 1 to 6 (one ECG a patient, NORM with
  likelihood 80 or more), read by `ecg.t_wave`: amplitude 445 uV in the median, women 21 % lower, 5 % less in ten years;
  LRD_30 is 0.47 of Tpeak-Tend. Long QT: flat, broad and skewed T waves (k: as in LQT2). Heart failure: lower ones (k).
- heart-failure: dose-adjusted by renal function in DIAMOND (doi 10.1111/j.1527-5299.2001.00243.x); age 70, a quarter
  women (k); QRS and QTcF longer (k). Torsades risk at the same QTcF such that DIAMOND's 3 % is met.
- creatinine: 0.95 mg/dL in men, four fifths in women, a quarter more in heart failure (k). Hepatic clearance:
  quinidine's is a third lower at 60 to 69 than at 23 to 29 (Ochs 1978 (k)), verapamil's falls with age too (Abernethy
  1986 (k)), ranolazine's does not (label); all are lower in heart failure (labels).
- potassium, magnesium: within what a label asks for before starting, wider in heart failure (k). systolic pressure:
  treated outpatients, lower in heart failure (k). sinus_disease_share (k). verapamil_reflex: volunteers speed up by 7
  bpm at the peak of 120 mg, patients slow down by a few bpm (k).
- repolarisation_sensitivity: ms of QTc per ng/mL against the trial's volunteers, with some 29 on dofetilide; label: 15
  to 25, Allen 2000: 13 to 14. So 0.7; failing hearts 0.85, long-QT patients 1 (assumptions).
- long-qt: QTcF 450 to 530 ms, no drug should be started in them by label: a test of restraint.
- poor-metaboliser: hepatic clearances 0.25 to 0.6 of the trial's (CYP3A4 inhibitors, poor livers): assumption.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale
from world_models.inputs import checked_factors
from world_models.oracles.cohort import cohort_named, cut_normal, normal_cdf
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.electrolytes import MAGNESIUM_MMOL_L, POTASSIUM_MMOL_L, resting_qtcf_ms
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
        "baseline_fibrillation_rate_bpm", "bpm", 60.0, 180.0, (), "ventricular rate in fibrillation, without drugs"
    ),
)

JT_PEAK_C_MS = (100.0, 430.0)  # what the four baseline intervals together must leave for the J-Tpeak interval


@dataclass(frozen=True, slots=True)
class Spread:
    """A factor's distribution: mean + female * sex + per_year * (age - 60) + sd * z, z normal cut at z_range."""

    mean: float
    sd: float
    female: float = 0.0  # added in women
    per_year: float = 0.0  # added per year above 60
    z_range: tuple[float, float] = (-2.5, 2.5)


_HEPATIC = (Spread(-0.05, 0.15), Spread(-0.20, 0.20, per_year=-0.005), Spread(-0.25, 0.20, per_year=-0.005))
_CLINIC_QTCF = Spread(411.0, 19.7, female=11.0, per_year=0.44)


@dataclass(frozen=True, slots=True)
class ECGDrugCohort:
    """Who is admitted. Clearances are in log multipliers, creatinine in log mg/dL, `baseline_burden` in logit."""

    name: str
    meaning: str
    age_years: Spread
    share_female: float
    weight_kg: Spread
    baseline_burden: Spread
    from_trial: bool = False  # intervals and rate from the fitted trial's baseline instead of the five below
    baseline_heart_rate_bpm: Spread = field(default=Spread(70.0, 13.0, female=2.0, z_range=(-1.6, 2.8)))
    baseline_pr_ms: Spread = field(default=Spread(172.0, 22.0, female=-6.0, per_year=0.5))
    baseline_qrs_ms: Spread = field(default=Spread(96.0, 9.0, female=-6.0))
    baseline_qtcf_ms: Spread = field(default=_CLINIC_QTCF)
    qtcf_limit_ms: float | None = None  # nobody with a longer QTcF is admitted
    baseline_tpeak_tend_ms: Spread = field(default=Spread(78.0, 8.0, female=-4.0))
    # the T wave on its measures' working scales (`scales`): log, root, plain, log, and the log of LRD_30 / Tpeak-Tend
    t_amplitude: Spread = field(default=Spread(6.11, 0.32, female=-0.24, per_year=-0.005))
    t_asymmetry: Spread = field(default=Spread(0.425, 0.12, female=-0.02, per_year=0.001))
    t_flatness: Spread = field(default=Spread(0.434, 0.053, female=-0.044))
    erd_30: Spread = field(default=Spread(3.75, 0.167, female=-0.115, per_year=0.0015))
    lrd_30_share: Spread = field(default=Spread(-0.76, 0.107))
    # Awake and at rest, without drugs that slow it: 96 +- 12 over the day (RATAF, Ulimoen 2013, doi
    # 10.1016/j.amjcard.2012.09.020 (k)); 91 (quartiles 76, 109) on 1,364 ECGs of Chapman-Shaoxing, treated or not.
    baseline_fibrillation_rate_bpm: Spread = field(default=Spread(108.0, 15.0, z_range=(-2.2, 2.5)))
    admission_clock_hour: tuple[float, float] = (8.0, 12.0)  # uniform: elective admission in the morning
    torsades_risk: float = 1.0  # factor on the hazard of torsades at the same QTcF and heart rate
    repolarisation_sensitivity: float = 0.7  # drugs' effect on repolarisation at the same concentration, trial's: 1
    verapamil_reflex: float = -0.15  # its effect on the sinus rate, against the trial's volunteers
    sinus_disease_share: float = 0.025  # of patients whose sinus node verapamil slows
    serum_creatinine_mg_dl: Spread = field(default=Spread(math.log(0.95), 0.16, female=-0.23, per_year=0.002))
    hepatic_clearance: tuple[Spread, ...] = _HEPATIC  # of the drugs of `hepatic.HEPATIC`
    potassium_mmol_l: Spread = field(default=Spread(4.15, 0.35, z_range=(-2.2, 2.5)))
    magnesium_mmol_l: Spread = field(default=Spread(0.83, 0.07))
    baseline_systolic_bp_mmhg: Spread = field(default=Spread(132.0, 15.0, per_year=0.3, z_range=(-1.7, 2.5)))


_ADULT_WEIGHT = Spread(88.0, 15.0, female=-14.0)
_LABEL_LIMIT_MS = 440.0  # dofetilide's, for starting
_SLOW_LIVER = Spread(math.log(0.4), 0.15, z_range=(-2.5, 2.0))

COHORTS: dict[str, ECGDrugCohort] = {
    c.name: c
    for c in (
        ECGDrugCohort(
            "healthy",
            "young volunteers as in the fitted trial, hardly any arrhythmia",
            age_years=Spread(27.0, 5.5, z_range=(-1.6, 1.5)),
            share_female=0.5,
            weight_kg=Spread(72.0, 8.0, female=-5.0),
            baseline_burden=Spread(-4.5, 0.5),
            from_trial=True,
            admission_clock_hour=(8.0, 9.0),
            # The fit holds the spread that liver, kidneys and electrolytes make in people like these.
            repolarisation_sensitivity=1.0,
            verapamil_reflex=1.0,
            sinus_disease_share=0.0,
            serum_creatinine_mg_dl=Spread(math.log(0.92), 0.06, female=-0.28, z_range=(-2.0, 2.0)),
            hepatic_clearance=(Spread(0.0, 0.0),) * len(HEPATIC),
            potassium_mmol_l=Spread(POTASSIUM_MMOL_L, 0.0),
            magnesium_mmol_l=Spread(MAGNESIUM_MMOL_L, 0.0),
            baseline_systolic_bp_mmhg=Spread(121.0, 8.0, female=-6.0, z_range=(-1.6, 2.0)),
        ),
        ECGDrugCohort(
            "typical",
            "adults admitted to start an antiarrhythmic for atrial fibrillation, within the dofetilide label's limits",
            age_years=Spread(61.0, 10.0),
            share_female=0.3,
            weight_kg=_ADULT_WEIGHT,
            baseline_burden=Spread(-0.2, 0.9),
            qtcf_limit_ms=_LABEL_LIMIT_MS,
        ),
        ECGDrugCohort(
            "paroxysmal",
            "as typical, with a sixth of the time in the arrhythmia",
            age_years=Spread(63.0, 10.0),
            share_female=0.42,
            weight_kg=_ADULT_WEIGHT,
            baseline_burden=Spread(-1.75, 0.7),
            qtcf_limit_ms=_LABEL_LIMIT_MS,
        ),
        ECGDrugCohort(
            "persistent",
            "as typical, with two thirds of the time in the arrhythmia",
            age_years=Spread(66.0, 9.0),
            share_female=0.27,
            weight_kg=_ADULT_WEIGHT,
            baseline_burden=Spread(0.85, 0.8),
            qtcf_limit_ms=_LABEL_LIMIT_MS,
        ),
        ECGDrugCohort(
            "elderly",
            "70 years and over: slower clearance, longer PR and QTcF",
            age_years=Spread(78.0, 5.0, z_range=(-1.6, 2.8)),
            share_female=0.5,
            weight_kg=Spread(78.0, 13.0, female=-12.0),
            baseline_burden=Spread(0.1, 0.9),
            baseline_heart_rate_bpm=Spread(71.0, 12.0, female=2.0, z_range=(-1.7, 2.8)),
            serum_creatinine_mg_dl=Spread(math.log(1.0), 0.2, female=-0.23, per_year=0.002),
            sinus_disease_share=0.05,
        ),
        ECGDrugCohort(
            "long-qt",
            "QTcF 450 to 530 ms at admission: the labels forbid starting dofetilide",
            age_years=Spread(48.0, 15.0, z_range=(-2.0, 2.3)),
            share_female=0.6,
            weight_kg=_ADULT_WEIGHT,
            baseline_burden=Spread(-0.5, 0.9),
            baseline_heart_rate_bpm=Spread(63.0, 9.0, female=2.0),
            baseline_qtcf_ms=Spread(476.0, 18.0, female=6.0, z_range=(-1.4, 2.5)),
            baseline_tpeak_tend_ms=Spread(92.0, 12.0),
            t_asymmetry=Spread(0.52, 0.14),
            t_flatness=Spread(0.47, 0.06),
            erd_30=Spread(3.95, 0.2),
            repolarisation_sensitivity=1.0,
        ),
        ECGDrugCohort(
            "heart-failure",
            "reduced ejection fraction: wide QRS, long QTcF, poor renal clearance",
            age_years=Spread(69.0, 9.0),
            share_female=0.27,
            weight_kg=Spread(80.0, 15.0, female=-11.0),
            baseline_burden=Spread(0.5, 0.9),
            baseline_heart_rate_bpm=Spread(74.0, 11.0),
            baseline_pr_ms=Spread(186.0, 27.0, per_year=0.5),
            baseline_qrs_ms=Spread(112.0, 17.0, female=-5.0, z_range=(-2.0, 2.5)),
            baseline_qtcf_ms=Spread(428.0, 18.0, female=6.0, z_range=(-2.5, 2.0)),
            baseline_tpeak_tend_ms=Spread(90.0, 11.0),
            t_amplitude=Spread(5.9, 0.4, female=-0.2, per_year=-0.005),
            torsades_risk=3.0,
            repolarisation_sensitivity=0.85,
            sinus_disease_share=0.04,
            serum_creatinine_mg_dl=Spread(math.log(1.18), 0.25, female=-0.23, per_year=0.002),
            hepatic_clearance=(Spread(-0.15, 0.2), *(Spread(m, 0.25, per_year=-0.005) for m in (-0.4, -0.45))),
            potassium_mmol_l=Spread(4.25, 0.45, z_range=(-2.2, 2.5)),
            magnesium_mmol_l=Spread(0.80, 0.09),
            baseline_systolic_bp_mmhg=Spread(123.0, 14.0, z_range=(-1.3, 2.5)),
        ),
        ECGDrugCohort(
            "poor-metaboliser",
            "as typical, with a quarter to 0.6 of the liver's clearance",
            age_years=Spread(61.0, 10.0),
            share_female=0.3,
            weight_kg=_ADULT_WEIGHT,
            baseline_burden=Spread(-0.2, 0.9),
            qtcf_limit_ms=_LABEL_LIMIT_MS,
            hepatic_clearance=(_SLOW_LIVER,) * len(HEPATIC),
        ),
        ECGDrugCohort(
            "bradycardia",
            "as typical, with a sinus rate of 45 to 60: more torsades at the same QTcF",
            age_years=Spread(65.0, 9.0),
            share_female=0.35,
            weight_kg=_ADULT_WEIGHT,
            baseline_burden=Spread(-0.2, 0.9),
            qtcf_limit_ms=_LABEL_LIMIT_MS,
            baseline_heart_rate_bpm=Spread(52.0, 4.0, z_range=(-1.75, 2.0)),
            sinus_disease_share=0.15,
        ),
    )
}


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
