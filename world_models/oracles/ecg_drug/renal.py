"""The kidneys: creatinine clearance from what is weighed and measured, and dofetilide's clearance from it.

    creatinine clearance (mL/min) = (140 - age) * weight / (72 * serum creatinine in mg/dL), times 0.85 in women

(Cockcroft & Gault 1976, doi 10.1159/000180580), with the actual body weight, as the dofetilide label has it.

About 80 % of a dose of dofetilide is found in the urine, four fifths of it unchanged, of which over 90 % is absorbed
(Tikosyn label, section Metabolism and Excretion): 0.8 * 0.8 / 0.92 = 0.7 of its clearance is the kidneys'. That share
follows the creatinine clearance up to the normal one; beyond it nothing is gained, for the trial's people, whose
creatinine clearances differ as healthy people's do, differ by 8 % in their clearance of dofetilide. "Normal" is 90
mL/min (KDIGO's G1) at 70 kg and grows with weight as the fitted clearance does, so that weight does not count twice.
Women clear 12 to 18 % less after correction for weight and creatinine clearance (label); the trial shows none of that,
so it holds in cohorts other than the trial's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.fit.kinetics import ALLOMETRY, REFERENCE_WEIGHT_KG
from world_models.rounding import power

__all__ = ["NORMAL_ML_MIN", "RENAL_SHARE", "creatinine_clearance", "dofetilide_clearance"]

RENAL_SHARE = 0.7  # of dofetilide's clearance
NORMAL_ML_MIN = 90.0  # at REFERENCE_WEIGHT_KG
WOMENS_CLEARANCE = 0.85  # of men's, of the same weight and creatinine clearance


def creatinine_clearance(age_years: Tensor, sex_female: Tensor, weight_kg: Tensor, creatinine_mg_dl: Tensor) -> Tensor:
    """Cockcroft and Gault's creatinine clearance [B] in mL/min from age, sex, weight and serum creatinine [B]."""
    men = (140.0 - age_years) * weight_kg / (creatinine_mg_dl * 72.0)
    return men * (1.0 - 0.15 * sex_female)


def dofetilide_clearance(
    creatinine_clearance_ml_min: Tensor, sex_female: Tensor, weight_kg: Tensor, volunteers: bool
) -> Tensor:
    """Multiplier [B] of dofetilide's fitted clearance: 1 where the kidneys are normal.

    Args:
        creatinine_clearance_ml_min, sex_female, weight_kg: [B].
        volunteers: the trial's own people, in whom women clear as much as men.
    """
    normal = NORMAL_ML_MIN * power(weight_kg / REFERENCE_WEIGHT_KG, ALLOMETRY["clearance"])
    share = (creatinine_clearance_ml_min / normal).clamp_max(1.0)
    clearance = 1.0 - RENAL_SHARE * (1.0 - share)
    if volunteers:
        return clearance
    return clearance * torch.where(sex_female > 0.5, WOMENS_CLEARANCE, 1.0)
