"""What a patient is to the model: covariates and the baseline's chart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale
from world_models.protocol import Chart

__all__ = ["baseline_chart", "patient_features", "told_metaboliser"]


# Round numbers near an adult's middle and spread: they only set the scale the networks see.
MIDDLE_AGE_YEARS, AGE_SPREAD_YEARS = 50.0, 20.0
MIDDLE_WEIGHT_KG, LOG_WEIGHT_SPREAD = 75.0, 0.25


def patient_features(age_years: Tensor, sex_female: Tensor, weight_kg: Tensor, metaboliser: Tensor) -> Tensor:
    """Covariates [B, 5] on a unit scale: age, sex, log weight, log metaboliser (0 where NaN), whether that is known."""
    known = ~metaboliser.isnan()
    log_metaboliser = torch.where(known, metaboliser, 1.0).log()
    return torch.stack(
        [
            (age_years - MIDDLE_AGE_YEARS) / AGE_SPREAD_YEARS,
            sex_female - 0.5,
            (weight_kg / MIDDLE_WEIGHT_KG).log() / LOG_WEIGHT_SPREAD,
            log_metaboliser,
            known.to(log_metaboliser),
        ],
        dim=-1,
    )


def told_metaboliser(given: Mapping[str, Tensor], unknown: Tensor) -> Tensor:
    """The one clearance multiplier [B] that these weights know: the geometric mean of those given, else `unknown`.

    They were trained when the oracle had one multiplier for all drugs; the next ones take each drug's own.
    """
    logs = [value.log() for name, value in given.items() if name.endswith("_clearance")]
    return unknown if not logs else (sum(logs[1:], logs[0]) / len(logs)).exp()


def baseline_chart(f: dict[str, Tensor]) -> Chart:
    """Chart of the baseline from the factors: J-Tpeak is what QTcF, QRS and Tpeak-Tend leave."""
    log = log_rr(f["baseline_heart_rate_bpm"])
    qt = f["baseline_qtcf_ms"] * qt_scale(log)
    jt = qt - f["baseline_qrs_ms"] - f["baseline_tpeak_tend_ms"]
    return {
        "heart_rate_bpm": f["baseline_heart_rate_bpm"],
        "pr_ms": f["baseline_pr_ms"],
        "qrs_ms": f["baseline_qrs_ms"],
        "jt_peak_c_ms": jt / jt_peak_scale(log),
        "tpeak_tend_ms": f["baseline_tpeak_tend_ms"],
        "arrhythmia_burden": f["baseline_burden"],
    }
