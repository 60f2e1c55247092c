"""Which bands of the learned world are calibrated, and for whom: the tables behind its conformal buffers.

`calibrate_bands` (`band_calibration`) fits them, `ECGWorldModel.calibrated` applies them. A group is a drug, a dose (a
label's largest single one, or half of it and less) and a sex, "nothing" being courses without a drug; the last row of
the shifts is that of all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg_wm.conformal import Conformal
from world_models.ecg_wm.latent import T_WAVE
from world_models.protocol import Chart, Treated
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["BANDS", "BAND_LEVEL", "BAND_OF", "GROUPS", "LARGEST_MG", "OVER_A_COURSE", "corrected", "group_of"]
__all__ += ["over_a_course"]

BAND_LEVEL = 0.9
BANDS = (0.5 * (1 - BAND_LEVEL), 0.5 * (1 + BAND_LEVEL))  # the quantiles of the samples that are corrected
AT_A_VISIT: tuple[str, ...] = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtcf_ms", "jt_peak_ms", "jt_peak_c_ms")
AT_A_VISIT += ("tpeak_tend_ms", *T_WAVE, "systolic_bp_mmhg")
# of a whole course after the first dose: what drugs are compared by
OVER_A_COURSE = ("peak_qtcf_ms", "rise_qtcf_ms", "peak_pr_ms", "least_heart_rate_bpm", "mean_arrhythmia_burden")
BAND_OF = (*AT_A_VISIT, *OVER_A_COURSE)
NOTHING = "nothing"
_SEXES = ("men", "women")
DOSES = ("half", "full")
HALF_BELOW = 0.75  # of the largest single dose: menus have halves and wholes, and the two thirds of verapamil
LARGEST_MG = {drug.name: drug.largest_single_mg for drug in ANTIARRHYTHMICS}
TREATED = tuple(f"{drug}/{dose}/{sex}" for drug in DRUGS for dose in DOSES for sex in _SEXES)
GROUPS = (*(f"{NOTHING}/{sex}" for sex in _SEXES), *TREATED)


def group_of(whom: Treated) -> int:
    """Place in GROUPS; -1 where sex, drug or its dose is not known, or the drug is none of the table."""
    drug, dose_mg, female = whom
    if female is None or drug is None:
        return -1
    if drug == NOTHING:
        return int(female)
    if drug not in DRUGS or dose_mg is None:
        return -1
    dose = DOSES[dose_mg >= HALF_BELOW * LARGEST_MG[drug]]
    return GROUPS.index(f"{drug}/{dose}/{_SEXES[female]}")


def corrected(shift: Tensor, name: str, low: Tensor, high: Tensor, whom: Treated) -> tuple[Tensor, Tensor]:
    """A band's ends [...] by the shifts [len(BAND_OF), len(GROUPS) + 1], which are in half-widths of the band.

    What has no calibration comes back as it is.
    """
    if name not in BAND_OF:
        return low, high
    bands = Conformal(BAND_LEVEL, True, GROUPS, {name: shift[BAND_OF.index(name)].to(low)})
    return bands.band(name, low, high, torch.full_like(low, group_of(whom), dtype=torch.int64))


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
