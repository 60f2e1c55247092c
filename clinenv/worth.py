"""What health is worth in money, and the future in the present: one figure each, for every task that weighs them.

A QALY is worth 100,000 US dollars. Where one figure is needed, Neumann, Cohen & Weinstein 2014 (doi
10.1056/NEJMp1405158) advise 100,000 or 150,000. The lower is taken: it lies in what ACC and AHA call intermediate
value (50,000 to 150,000: Anderson 2014, doi 10.1161/CIR.0000000000000042 (k)), and beside what American health care
forgoes for a QALY (104,000: Vanness 2021, doi 10.7326/M20-1392 (k)). Years to come count less by 3 % for each year that
they lie ahead, health as money (Sanders 2016, doi 10.1001/jama.2016.12195 (k)).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["DISCOUNT_PER_YEAR", "DOLLARS_PER_QALY", "in_qaly", "present", "present_years"]

DOLLARS_PER_QALY = 100_000.0
DISCOUNT_PER_YEAR = 0.03
_RATE = math.log1p(DISCOUNT_PER_YEAR)


def in_qaly(dollars: float) -> float:
    """QALYs worth as much as these US dollars."""
    return dollars / DOLLARS_PER_QALY


def present(years: Tensor) -> Tensor:
    """What one lost or gained in so many `years` [...] counts today."""
    return torch.exp(years * -_RATE)


def present_years(start: Tensor, stop: Tensor) -> Tensor:
    """What the years [...] from `start` to `stop`, counted from today, count today; `stop` not before `start`."""
    return present(start) * -torch.expm1((stop - start) * -_RATE) * (1.0 / _RATE)
