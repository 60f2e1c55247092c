"""What a patient is to the model: covariates and the baseline's chart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale
from world_models.protocol import Chart

__all__ = ["CLEARANCES", "COVARIATES", "baseline_chart", "patient_features"]

COVARIATES: tuple[str, ...] = (
    "age_years",
    "sex_female",
    "weight_kg",
    "creatinine_clearance_ml_min",
    "potassium_mmol_l",
)
COVARIATES += ("magnesium_mmol_l",)  # which stand in every chart
# Multipliers of hepatic clearance: nobody reads them off a chart, NaN where they are not known.
CLEARANCES = ("ranolazine_clearance", "verapamil_clearance", "quinidine_clearance")
# Round numbers near an adult's middle and spread: they only set the scale the networks see.
MIDDLE_AGE_YEARS, AGE_SPREAD_YEARS = 50.0, 20.0
MIDDLE_WEIGHT_KG, LOG_WEIGHT_SPREAD = 75.0, 0.25
MIDDLE_RENAL_ML_MIN, LOG_RENAL_SPREAD = 85.0, 0.4
MIDDLE_POTASSIUM_MMOL_L, POTASSIUM_SPREAD = 4.2, 0.5
MIDDLE_MAGNESIUM_MMOL_L, MAGNESIUM_SPREAD = 0.85, 0.12


def patient_features(who: Mapping[str, Tensor]) -> Tensor:
    """Covariates [B, 12] on a unit scale: COVARIATES, then log CLEARANCES (0 where NaN), then which are known."""
    clearance = torch.stack([who[name] for name in CLEARANCES], dim=-1)
    known = ~clearance.isnan()
    fixed = torch.stack(
        [
            (who["age_years"] - MIDDLE_AGE_YEARS) / AGE_SPREAD_YEARS,
            who["sex_female"] - 0.5,
            (who["weight_kg"] / MIDDLE_WEIGHT_KG).log() / LOG_WEIGHT_SPREAD,
            (who["creatinine_clearance_ml_min"] / MIDDLE_RENAL_ML_MIN).log() / LOG_RENAL_SPREAD,
            (who["potassium_mmol_l"] - MIDDLE_POTASSIUM_MMOL_L) / POTASSIUM_SPREAD,
            (who["magnesium_mmol_l"] - MIDDLE_MAGNESIUM_MMOL_L) / MAGNESIUM_SPREAD,
        ],
        dim=-1,
    )
    return torch.cat([fixed, torch.where(known, clearance, 1.0).log(), known.to(fixed.dtype)], dim=-1)


def baseline_chart(f: Mapping[str, Tensor]) -> Chart:
    """Chart of the baseline from the factors, in both rhythms: J-Tpeak is what QTcF, QRS and Tpeak-Tend leave."""
    log = log_rr(f["baseline_heart_rate_bpm"])
    qt = f["baseline_qtcf_ms"] * qt_scale(log)
    jt = qt - f["baseline_qrs_ms"] - f["baseline_tpeak_tend_ms"]
    return {
        "heart_rate_bpm": f["baseline_heart_rate_bpm"],
        "pr_ms": f["baseline_pr_ms"],
        "qrs_ms": f["baseline_qrs_ms"],
        "jt_peak_c_ms": jt / jt_peak_scale(log),
        "tpeak_tend_ms": f["baseline_tpeak_tend_ms"],
        "t_amplitude_uv": f["baseline_t_amplitude_uv"],
        "t_asymmetry": f["baseline_t_asymmetry"],
        "t_flatness": f["baseline_t_flatness"],
        "erd_30_ms": f["baseline_erd_30_ms"],
        "lrd_30_ms": f["baseline_lrd_30_ms"],
        "systolic_bp_mmhg": f["baseline_systolic_bp_mmhg"],
        "fibrillation_rate_bpm": f["baseline_fibrillation_rate_bpm"],
        "arrhythmia_burden": f["baseline_burden"],
    }
