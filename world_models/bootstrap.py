"""The percentile bootstrap: resamples as functions of a seed, and the 95 % interval of what they give."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys

__all__ = ["RESAMPLES", "TAILS", "Interval", "percentile_interval", "resamples"]

TAILS = (0.025, 0.975)  # of a 95 % interval
RESAMPLES = 2000


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f} - {self.high:.3f}]"


def resamples(count: int, number: int = RESAMPLES, seed: int = 0, purpose: str = "judge/bootstrap") -> Tensor:
    """int64 [number, count]: rows of indices below `count`, with replacement; a function of the arguments alone."""
    return keys.bits(keys.from_seed(seed, number), 0, purpose, (count,)) % count


def percentile_interval(values: Tensor) -> tuple[float, float]:
    """The middle 95 % of a statistic's values [R] over the resamples; NaN where there are none."""
    if not len(values):
        return float("nan"), float("nan")
    low, high = torch.quantile(values, torch.tensor(TAILS, dtype=values.dtype)).tolist()
    return low, high
