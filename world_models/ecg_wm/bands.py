"""Which bands of the learned world are calibrated, and for whom: the tables behind its conformal buffers.

`calibrate_bands` (`band_calibration`) fits them, `ECGWorldModel.calibrated` applies them. A group is a drug and a sex,
"nothing" being courses without a drug; the last row of the shifts is that of all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg_wm.conformal import Conformal
from world_models.ecg_wm.latent import T_WAVE
from world_models.protocol import Chart
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["BANDS", "BAND_LEVEL", "BAND_OF", "GROUPS", "OVER_A_COURSE", "bands_of", "group_of", "over_a_course"]

BAND_LEVEL = 0.9
BANDS = (0.5 * (1 - BAND_LEVEL), 0.5 * (1 + BAND_LEVEL))  # the quantiles of the samples that are corrected
AT_A_VISIT = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtcf_ms", "jt_peak_ms", "jt_peak_c_ms", "tpeak_tend_ms")
AT_A_VISIT += (*T_WAVE, "systolic_bp_mmhg")
# of a whole course after the first dose: what drugs are compared by
OVER_A_COURSE = ("peak_qtcf_ms", "rise_qtcf_ms", "peak_pr_ms", "least_heart_rate_bpm", "mean_arrhythmia_burden")
BAND_OF = (*AT_A_VISIT, *OVER_A_COURSE)
NOTHING = "nothing"
_SEXES = ("men", "women")
GROUPS = tuple(f"{drug}/{sex}" for drug in (NOTHING, *DRUGS) for sex in _SEXES)


def group_of(drug: str | None, female: bool | None) -> int:
    """Place in GROUPS; -1 where drug or sex is not known, or the drug is none of the table."""
    name = f"{drug}/{_SEXES[bool(female)]}"
    return GROUPS.index(name) if female is not None and name in GROUPS else -1


def bands_of(shift: Tensor) -> Conformal:
    """The calibration of shifts [len(BAND_OF), len(GROUPS) + 1], in half-widths of the samples' band."""
    return Conformal(BAND_LEVEL, True, GROUPS, dict(zip(BAND_OF, shift, strict=True)))


def over_a_course(charts: list[Chart]) -> dict[str, Tensor]:
    """OVER_A_COURSE [B] of charts, the first of which is before any dose; NaN where a measure never was there."""

    def over(name: str) -> Tensor:
        return torch.stack([chart[name] for chart in charts[1:]])

    qtcf, pr = over("qtcf_ms"), over("pr_ms")
    highest = torch.where(pr.isnan(), -torch.inf, pr).amax(0)
    return {
        "peak_qtcf_ms": qtcf.amax(0),
        "rise_qtcf_ms": qtcf.amax(0) - charts[0]["baseline_qtcf_ms"],
        "peak_pr_ms": torch.where(highest.isinf(), torch.nan, highest),
        "least_heart_rate_bpm": over("heart_rate_bpm").amin(0),
        "mean_arrhythmia_burden": over("arrhythmia_burden").mean(0),
    }
