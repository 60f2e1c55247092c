"""How long people live: the one life table, for the clinic's oracle and for what a death on the ward costs.

US Social Security Administration, period life table 2017 (table 4C6 of the 2020 Trustees Report). Between its decades
the logarithm of the rate rises in a line; below the first decade and above the last one the nearest line goes on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["LIFE_TABLE", "deaths_per_year"]

LIFE_TABLE: dict[int, tuple[float, float]] = {  # deaths per 1,000 within a year of that birthday: men, women
    40: (2.48, 1.43),
    50: (5.00, 3.12),
    60: (11.52, 6.89),
    70: (22.89, 15.29),
    80: (58.21, 42.77),
    90: (165.5, 131.4),
    100: (354.2, 307.7),
}
_AGES = tuple(LIFE_TABLE)


def deaths_per_year(age_years: Tensor, female: bool) -> Tensor:
    """Death rate [...] per year at these ages [...], of men or of women."""
    logs = [math.log(-math.log1p(-both[int(female)] / 1000.0)) for both in LIFE_TABLE.values()]
    slopes = [(b - a) / (y - x) for a, b, x, y in zip(logs, logs[1:], _AGES, _AGES[1:], strict=False)]
    decade = torch.bucketize(age_years, age_years.new_tensor(_AGES[1:-1]), right=True)
    at, since, slope = (age_years.new_tensor(x)[decade] for x in (logs[:-1], _AGES[:-1], slopes))
    # a year's chance belongs to the middle of the year
    return torch.exp(at + (age_years - 0.5 - since) * slope)
