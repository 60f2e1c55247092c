"""The figures of the ECG-WM paper's tables: on other patients and by label rules it does not tell, so beside ours and
never compared. Percentages as shares."""

from __future__ import annotations

from typing import Any

__all__ = ["REMARK", "paper_rows"]

REMARK = "paper's own figure, other data"
# latent MSE, MAE, signal MSE, MAE: MIMIC-IV-ECG
_ERRORS = {
    "Qwen2.5-VL-7B": (2.148, 0.368, 0.195, 0.201),
    "GPT-5 mini": (0.719, 0.166, 0.066, 0.128),
    "GPT-4o": (0.550, 0.414, 0.578, 0.386),
    "GPT-3.5": (0.424, 0.285, 0.265, 0.232),
    "GLM-4.5": (0.095, 0.164, 0.062, 0.125),
    "MedGemma": (5.655, 0.899, 0.561, 0.349),
    "ECG-WM": (0.045, 0.159, 0.053, 0.110),
}
# accuracy and recall in per cent of QTc, PR, Tpeak-Tend: ECGRDVQ and ECGDMMLD
_CLASSES = {
    "WGAN": (75.23, 77.23, 57.67, 58.04, 85.49, 87.35),
    "StyleGAN": (72.71, 74.29, 52.15, 55.35, 88.71, 90.35),
    "ECG ODE-GAN": (72.81, 73.95, 54.63, 56.16, 87.03, 88.19),
    "TTS-CGAN": (86.43, 87.21, 70.09, 72.82, 83.43, 85.48),
    "CECG-GAN": (79.92, 82.75, 61.08, 60.62, 89.29, 91.26),
    "DiffuSETS": (86.81, 90.07, 72.62, 74.20, 89.84, 92.10),
    "DADM": (89.46, 93.69, 68.02, 72.26, 91.63, 93.04),
    "ECG-WM": (90.55, 96.26, 76.04, 80.84, 94.70, 95.06),
}
# Pearson, Spearman, sign agreement, MAE, RMSE of delta-risk: 200 of MIMIC-IV-ECG, other drugs
_RISK = {"ECG-WM": (0.620, 0.598, 0.76, 0.0973, 0.1253), "DADM": (0.266, 0.255, 0.58, 0.1291, 0.1625)}
_NAMES = {
    1: ("latent_mse", "latent_mae", "signal_mse", "signal_mae"),
    2: ("accuracy_qtc", "recall_qtc", "accuracy_pr", "recall_pr", "accuracy_tpeak_tend", "recall_tpeak_tend"),
    3: ("pearson", "spearman", "sign_agreement", "mae", "rmse"),
}


def paper_rows(table: int) -> list[dict[str, Any]]:
    """The paper's rows of its table 1, 2 or 3, each with the remark."""
    source = {1: _ERRORS, 2: _CLASSES, 3: _RISK}[table]
    unit = 0.01 if table == 2 else 1.0
    return [
        {
            "model": model,
            "remark": REMARK,
            **{n: round(v * unit, 6) for n, v in zip(_NAMES[table], values, strict=True)},
        }
        for model, values in source.items()
    ]
