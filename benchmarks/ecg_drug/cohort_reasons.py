"""Why a generated median lies far from the real one, and what a cohort's laws would be if the real ECGs gave them.

`explained` goes through the causes that can be tested, in a fixed order, and names the first that brings the difference
within half an SD. What none of them brings there is the cohort's own value: those rows are for `proposals`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.ecg_drug.cohort_strata import FEWEST, HALF_SD, RATES, Generated

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BY_DESIGN", "FACTORS", "explained", "law", "proposals", "rate_law"]

# (cohort, measures): the cohort is chosen by them, or by a disease the real table has no stratum of
BY_DESIGN = {
    ("bradycardia", "heart_rate_bpm"): "design: admitted for a sinus rate of 45 to 60",
    ("long-qt", "qtcf_ms"): "design: admitted for a QTcF of 450 to 530 ms",
    ("heart-failure", "qrs_ms"): "disease: wide QRS of heart failure, of which the real table has no stratum",
    ("heart-failure", "qtcf_ms"): "disease: long QTcF of heart failure, of which the real table has no stratum",
}
RESTING = "trial: volunteers of 18 to 35 lying at rest are slower than young people recorded in a hospital"
VOLUNTEERS = "trial: the volunteers' own value, by the trial's convention"
SLOWED = "mean: the cohort's own rate; whether drugs slow it, as before antiarrhythmics they often do, no table says"
OWN = "mean: the cohort's own value"
FACTORS = {  # of the proposals: measure -> the cohort's factor
    "heart_rate_bpm": "baseline_heart_rate_bpm",
    "qrs_ms": "baseline_qrs_ms",
    "qtcf_ms": "baseline_qtcf_ms",
}
MIDDLE_AGE = 60.0  # where `cohorts.Spread` has its mean
SD_QUANTILES = (0.1587, 0.8413)  # of a normal, one SD below and above
LEAST_MS = 0.5  # residuals smaller than this weigh no more
ROUNDS = 50


# ---- why


def explained(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `cohort_strata.compared` with a column `why`: empty where the medians are within half an SD."""
    corrected = {_place(row): row for row in rows if row["measure"] == "qtcf_ms"}
    return [row | {"why": _why(row, corrected[_place(row)]) if row["over_half_sd"] else ""} for row in rows]


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    return row["cohort"], row["rhythm"], row["sex"], row["age"]


def _why(row: dict[str, Any], corrected: dict[str, Any]) -> str:
    """The cause of one row; `corrected` is the row of QTcF in the same stratum."""
    measure = row["measure"]
    if measure == "qt_ms":
        if corrected["over_half_sd"]:
            return f"as QTcF: {_why(corrected, corrected)}"
        return f"rate: QT follows it; QTcF is {corrected['difference_sd']:+.2f} SD apart"
    if (row["cohort"], measure) in BY_DESIGN:
        return BY_DESIGN[row["cohort"], measure]
    if row["cohort"] == "healthy" and measure == "heart_rate_bpm":
        return RESTING
    for column, cause in (
        (
            "admissible_sd",
            "selection: {:+.2f} SD beside the real ECGs that the cohort admits",
        ),
        ("reader_sd", "convention: {:+.2f} SD with the drawn ECGs read as a reader marks"),
        ("both_sd", "selection and convention: {:+.2f} SD without both"),
    ):
        if abs(row[column]) <= HALF_SD:
            return cause.format(row[column])
    if row["cohort"] == "healthy":
        return VOLUNTEERS
    if row["admissible_ecgs"] < FEWEST:
        return f"untested: under {FEWEST} real ECGs are such as the cohort admits"
    return SLOWED if measure == "heart_rate_bpm" else OWN


# ---- what the real ECGs would give


def law(frame: pd.DataFrame, measure: str) -> dict[str, float]:
    """Median of a measure at 60 in men, what is added in women and per year above 60, by least absolute deviations,
    and the SD around it (half the middle 68 %): the form of `cohorts.Spread`."""
    value = frame[measure].to_numpy(dtype=np.float64)
    years = frame["age_years"].to_numpy(dtype=np.float64) - MIDDLE_AGE
    table = np.stack([np.ones_like(years), frame["sex_female"].to_numpy(dtype=np.float64), years], axis=1)
    weight = np.ones_like(value)
    for _ in range(ROUNDS):  # reweighted least squares
        root = np.sqrt(weight)[:, None]
        found = np.linalg.lstsq(table * root, value * root[:, 0], rcond=None)[0]
        weight = 1.0 / np.maximum(np.abs(value - table @ found), LEAST_MS)
    low, high = np.quantile(value - table @ found, SD_QUANTILES)
    mean, female, per_year = (float(x) for x in found)
    return {"mean": mean, "sd": float(high - low) / 2.0, "female": female, "per_year": per_year}


def rate_law(frame: pd.DataFrame) -> dict[str, float]:
    """Mean and SD of the normal that sinus rates come from when only those within the sinus rhythm's limits are seen:
    maximum likelihood. Women and years add nothing here (`female` and `per_year` are 0)."""
    from scipy.optimize import minimize
    from scipy.stats import norm

    rate = frame["heart_rate_bpm"].to_numpy(dtype=np.float64)
    low, high = (edge + half for edge, half in zip(RATES["sinus rhythm"], (-0.5, 0.5), strict=True))

    def minus_log_likelihood(parameters: np.ndarray) -> float:
        mean, sd = parameters[0], math.exp(parameters[1])
        seen = norm.cdf(high, mean, sd) - norm.cdf(low, mean, sd)
        return float(-norm.logpdf(rate, mean, sd).sum() + len(rate) * math.log(max(seen, 1e-300)))

    start = np.array([np.median(rate), math.log(rate.std())])
    mean, log_sd = minimize(minus_log_likelihood, start, method="Nelder-Mead").x
    return {"mean": float(mean), "sd": math.exp(log_sd), "female": 0.0, "per_year": 0.0}


def proposals(real: pd.DataFrame, cohorts: Iterable[Generated]) -> list[dict[str, Any]]:
    """One row a cohort and factor: its law as generated and that of the real ECGs in sinus rhythm, of the cohort's
    ages; cohorts with under FEWEST of those are left out. Generated QRS and QTcF are the chart's, by its convention;
    the real ones the machine's."""
    rows = []
    sinus = real[real["rhythm"] == "sinus rhythm"]
    for cohort in cohorts:
        ages = cohort.frame["age_years"]
        beside = sinus[sinus["age_years"].between(ages.quantile(0.05), ages.quantile(0.95))]
        if len(beside) < FEWEST:
            continue
        for measure, factor in FACTORS.items():
            there = rate_law(beside) if measure == "heart_rate_bpm" else law(beside, measure)
            here = law(cohort.frame[~cohort.frame["fibrillates"]], measure)
            row = {"cohort": cohort.name, "factor": factor, "real_ecgs": len(beside)}
            row |= {f"{name}_now": value for name, value in here.items()}
            rows.append(row | {f"{name}_real": value for name, value in there.items()})
    return rows
