"""Quality-adjusted life years that a patient of the ward has before him, by what the chart says of age, sex and chronic
disease: what a death in hospital costs.

Mortality: the life table (`world_models.life_table`), times the hazard ratio of each chronic disease: kidney 1.6
(glomerular filtration near 45 mL/min: CKD Prognosis Consortium 2010, doi 10.1016/S0140-6736(10)60674-5 (k)), diabetes
1.8 (Emerging Risk Factors Collaboration 2011, doi 10.1056/NEJMoa1008862 (k)), heart failure 2.4 (k).

Quality: EQ-5D of Americans by age (Hanmer 2006, doi 10.1177/0272989X06290497 (k)), times 1 less the disability weight
of each disease, as in the clinic (`clinenv.disability`): kidney disease of stage 3, diabetes without complications,
heart failure as the mean of its grades.

Not counted: what the acute illness takes from the years after it. Survivors of sepsis live shorter lives than others of
their age, so a death averted is worth somewhat less than is said here.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from clinenv.disability import HEALTH_STATE, HEART_FAILURE
from clinenv.worth import present_years
from world_models.life_table import deaths_per_year
from world_models.protocol import Chart

__all__ = ["qalys_left"]

_HAZARD_RATIO = (1.6, 1.8, 2.4)  # kidney, diabetes, heart failure
_DISABILITY = (HEALTH_STATE["chronic kidney disease, stage 3"], HEALTH_STATE["diabetes, uncomplicated"], HEART_FAILURE)
_QUALITY = (0.92, 0.90, 0.87, 0.84, 0.82, 0.79, 0.74)  # in the twenties, ..., from eighty on
_YOUNGEST, _OLDEST, _LAST = 18, 100, 115
_STEP_YEARS = 0.125
_DIGITS = 1e-3  # the table is rounded, so that it is the same on every processor
_CHRONIC = ("sex_female", "chronic_kidney_disease", "diabetes", "chronic_heart_failure")


@lru_cache(maxsize=8)
def _table(device: torch.device) -> Tensor:
    """Present QALYs left [16, ages]: rows by the bits of _CHRONIC, columns by whole years from _YOUNGEST."""
    with torch.inference_mode(False):
        ahead = torch.arange(0.0, _LAST - _YOUNGEST, _STEP_YEARS, dtype=torch.float64)
        ages = torch.arange(_YOUNGEST, _OLDEST + 1, dtype=torch.float64)
        quality = torch.tensor(_QUALITY, dtype=torch.float64)
        at = ages.unsqueeze(-1) + ahead + 0.5 * _STEP_YEARS  # [ages, steps]
        norm = quality[((at / 10.0).floor() - 2.0).clamp(0, len(_QUALITY) - 1).to(torch.int64)]
        counts = present_years(ahead, ahead + _STEP_YEARS)
        rows = []
        for bits in range(16):
            has = [bits >> shift & 1 for shift in (3, 2, 1, 0)]
            rate, health = deaths_per_year(at, bool(has[0])), 1.0
            for ill, ratio, weight in zip(has[1:], _HAZARD_RATIO, _DISABILITY, strict=True):
                rate, health = rate * (ratio if ill else 1.0), health * (1.0 - weight * ill)
            # chance to live from an age to the middle of each step, by the sum of the rates between
            cumulative = (rate.cumsum(-1) - 0.5 * rate) * _STEP_YEARS
            rows.append((torch.exp(-cumulative) * norm * health * counts * (at < _LAST)).sum(-1))
        table = (torch.stack(rows) / _DIGITS).round() * _DIGITS
        return table.to(device, torch.float32)


def qalys_left(chart: Chart) -> Tensor:
    """Present QALYs [B] that lie before patients of these charts, had they gone home today."""
    kinds = [(chart[name] > 0.5).to(torch.int64) for name in _CHRONIC]
    row = kinds[0] * 8 + kinds[1] * 4 + kinds[2] * 2 + kinds[3]
    age = chart["age_years"].clamp(_YOUNGEST, _OLDEST)
    year = age.floor().clamp_max(_OLDEST - 1.0)
    column, part = (year - _YOUNGEST).to(torch.int64), age - year
    table = _table(age.device)
    return table[row, column] * (1.0 - part) + table[row, column + 1] * part
