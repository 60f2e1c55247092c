"""What of a ward's chart is shown in the flat observation, and on which scale.

A value that was never resulted reads `typical`, its flag `inquiry_seen` 0 and its age the cap (14 days): a policy can
tell a normal potassium from one that nobody measured. Skewed measures are shown by their logarithm.
"""

from __future__ import annotations

import math

from clinenv.task import Column
from world_models.quantities.ward import INQUIRIES, MAX_AGE_HOURS, MAX_HOURS_SINCE, Inquiry

__all__ = ["COLUMNS", "STATIC_COLUMNS", "VITAL_NOISE"]

# SD of a vital sign's charting by hand (k): a hurried count, a rounded pressure, a probe that slipped
VITAL_NOISE = {
    "heart_rate_bpm": 3.0,
    "map_mmhg": 3.0,
    "sbp_mmhg": 4.0,
    "dbp_mmhg": 3.0,
    "respiratory_rate_min": 2.0,
    "spo2_percent": 1.0,
    "temperature_c": 0.2,
}

_SKEWED = (
    "urea_nitrogen_mg_dl",
    "creatinine_mg_dl",
    "glucose_mg_dl",
    "alt_u_l",
    "bilirubin_mg_dl",
    "beta_hydroxybutyrate_mmol_l",
    "crp_mg_l",
    "troponin_ng_l",
    "bnp_pg_ml",
    "white_cells_k_ul",
    "platelets_k_ul",
    "inr",
    "ptt_s",
    "lactate_mmol_l",
    "po2_mmhg",
)
_FEW = {
    "gcs": (12.0, 3.0),
    "blood_culture": (2.0, 2.0),
    "urine_culture": (2.0, 2.0),
    "urine_output_ml_h": (100.0, 150.0),
}

STATIC_COLUMNS: tuple[Column, ...] = (
    Column("age_years", 60.0, 20.0),
    Column("sex_female", 0.5, 0.5),
    Column("weight_kg", 80.0, 25.0),
    Column("chronic_kidney_disease", 0.5, 0.5),
    Column("diabetes", 0.5, 0.5),
    Column("chronic_heart_failure", 0.5, 0.5),
    Column("complaint", 0.5, 0.5),
)


def _column(q: Inquiry) -> Column:
    """Centred in the reference range; two of its widths further reads 1."""
    noise = VITAL_NOISE.get(q.name, 0.0)
    if q.name in _FEW:
        centre, scale = _FEW[q.name]
        return Column(q.name, centre, scale, noise, bounds=(0.0, 1000.0) if q.name == "urine_output_ml_h" else None)
    low, high = (max(float(v), 0.5 * float(q.typical)) if q.name in _SKEWED else float(v) for v in q.normal)
    if q.name in _SKEWED:
        width = max(math.log(high / low), 0.5)
        return Column(q.name, round(math.sqrt(low * high), 3), round(width * 2.0, 3), noise, log=True)
    return Column(q.name, round((low + high) / 2.0, 3), round((high - low) * 2.0, 3), noise)


COLUMNS: tuple[Column, ...] = (
    *STATIC_COLUMNS,
    Column("hours", 168.0, 168.0, bounds=(0.0, 1000.0)),
    *(_column(q) for q in INQUIRIES),
    Column("inquiry_age_hours", MAX_AGE_HOURS / 2.0, MAX_AGE_HOURS / 2.0),
    Column("inquiry_seen", 0.5, 0.5),
    Column("inquiry_pending", 0.5, 0.5),
    Column("treatment_share", 0.5, 0.5),
    Column("treatment_age_hours", MAX_HOURS_SINCE / 2.0, MAX_HOURS_SINCE / 2.0),
)
