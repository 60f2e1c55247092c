"""Normal values and conversions that several organs use. Adult values, all (k)."""

from __future__ import annotations

__all__ = [
    "BICARBONATE_MMOL_L", "FREE_CALCIUM_MG_DL", "L_H_PER_ML_MIN", "PER_80_KG", "POTASSIUM_MMOL_L", "SODIUM_MMOL_L",
    "TEMPERATURE_C", "VENTILATED_L_MIN",
]  # fmt: skip

SODIUM_MMOL_L = 140.0
POTASSIUM_MMOL_L = 4.2
BICARBONATE_MMOL_L = 24.0
FREE_CALCIUM_MG_DL = 6.2
TEMPERATURE_C = 36.9
PER_80_KG = 0.0125  # a weight in kg as a share of 80 kg, for which the ward's diet and metabolism are stated
L_H_PER_ML_MIN = 0.06  # a clearance or filtration in mL/min as L/h
VENTILATED_L_MIN = 0.5  # a machine's minute volume above which it breathes for the patient
