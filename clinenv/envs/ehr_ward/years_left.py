"""Quality-adjusted life years that a patient of the ward has before him, by what the chart says of age, sex and chronic
disease: what a death in hospital costs.

Mortality: Gompertz's law, fitted to the remaining years at 50, 65, 75 and 85 of the US life table of 2019 (Arias & Xu
2022, National Vital Statistics Reports 70-19 (k): men 29.9, 18.2, 11.3, 6.0; women 33.5, 20.8, 13.1, 7.0), times the
hazard ratio of each chronic disease: kidney 1.6 (glomerular filtration near 45 mL/min: CKD Prognosis Consortium 2010,
doi 10.1016/S0140-6736(10)60674-5 (k)), diabetes 1.8 (Emerging Risk Factors Collaboration 2011, doi
10.1056/NEJMoa1008862 (k)), heart failure 2.4 (k).

Quality: EQ-5D of Americans by age (Hanmer 2006, doi 10.1177/0272989X06290497 (k)), times 1 less the disability weight
of each disease, the Global Burden of Disease's as in the clinic (Salomon 2015, doi 10.1016/S2214-109X(15)00069-8 (k)):
kidney 0.0 (stage 3), diabetes 0.049 (uncomplicated), heart failure 0.072 (moderate).

Not counted: what the acute illness takes from the years after it. Survivors of sepsis live shorter lives than others of
their age, so a death averted is worth somewhat less than is said here.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from clinenv.worth import present_years
from world_models.protocol import Chart

__all__ = ["qalys_left"]

# deaths a year at 65, and growth of its logarithm a year of age: men, women
_GOMPERTZ = ((0.0136, 0.0990), (0.0086, 0.1077))
_HAZARD_RATIO = (1.6, 1.8, 2.4)  # kidney, diabetes, heart failure
_DISABILITY = (0.0, 0.049, 0.072)
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
            level, growth = _GOMPERTZ[has[0]]
            health = 1.0
            for ill, ratio, weight in zip(has[1:], _HAZARD_RATIO, _DISABILITY, strict=True):
                level, health = level * (ratio if ill else 1.0), health * (1.0 - weight * ill)
            # chance to live from one age to another, by the integral of Gompertz's law
            cumulative = (level / growth) * (
                ((at - 65.0) * growth).exp() - ((ages - 65.0) * growth).exp().unsqueeze(-1)
            )
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
