"""Who is admitted: the cohorts, as distributions of patient factors, and where their numbers come from.

A factor is mean + female * sex + per_year * (age - 60) + sd * z with z a truncated standard normal (`Spread`);
`cohorts.sample_factors` samples them.

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
from dataclasses import dataclass, field

from world_models.oracles.ecg_drug.electrolytes import MAGNESIUM_MMOL_L, POTASSIUM_MMOL_L
from world_models.oracles.ecg_drug.hepatic import HEPATIC

__all__ = ["COHORTS", "ECGDrugCohort", "Spread"]


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
