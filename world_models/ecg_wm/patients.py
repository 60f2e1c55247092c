"""What a patient is to the model: covariates, the baseline's chart, the log of doses."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.intervals import jt_peak_scale, log_rr, qt_scale
from world_models.ecg_wm.state import ECGWorldState
from world_models.protocol import Chart

__all__ = ["baseline_chart", "log_dose", "patient_features"]


def patient_features(state: ECGWorldState) -> Tensor:
    """Covariates [B, 5] on a unit scale: age, sex, log weight, log metaboliser (0 where unknown), is it known."""
    known = ~state.metaboliser.isnan()
    metaboliser = torch.where(known, state.metaboliser, 1.0).log()
    return torch.stack(
        [
            (state.age_years - 50) / 20,
            state.sex_female - 0.5,
            (state.weight_kg / 75).log() * 4,
            metaboliser,
            known.to(metaboliser),
        ],
        dim=-1,
    )


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


def log_dose(log: Tensor, t: Tensor, dose: Tensor) -> Tensor:
    """The log [B, W, D] with `dose` [B, D] added at step t [B], and the place of the next step emptied."""
    batch, window, drugs = log.shape
    kept = log.clone(memory_format=torch.contiguous_format)
    steps = kept.view(-1, drugs)
    first = torch.arange(0, batch * window, window, device=log.device)
    steps.index_add_(0, first + torch.remainder(t, window), dose)
    steps.index_fill_(0, first + torch.remainder(t + 1, window), 0.0)
    return kept
