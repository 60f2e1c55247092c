"""Intervals of figures over seeds and patients: both are drawn anew, each on its own, as every seed meets all patients.

A bootstrap of crossed factors (Owen 2007, doi 10.1214/07-AOAS122; the "pigeonhole" bootstrap): a resample is some of
the seeds by some of the patients, with replacement. With three seeds the seeds' part is coarse; with one seed the
interval says nothing about another training.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from agents.planning.risk import CVaR
from world_models import bootstrap
from world_models.bootstrap import Interval

__all__ = ["RESAMPLES", "crossed_cvar", "crossed_mean", "crossed_ratio"]

RESAMPLES = 1000


@lru_cache(maxsize=16)
def _drawn(count: int, what: str) -> Tensor:
    """int64 [RESAMPLES, count]: the same for every figure of so many seeds or patients."""
    return bootstrap.resamples(count, RESAMPLES, 0, f"leaderboard/{what}")


@lru_cache(maxsize=16)
def _weights(count: int, what: str) -> Tensor:
    """float64 [RESAMPLES, count]: the share that each seed or patient has in each resample."""
    drawn = _drawn(count, what)
    ones = torch.ones(drawn.shape, dtype=torch.float64)
    return torch.zeros(RESAMPLES, count, dtype=torch.float64).scatter_add_(1, drawn, ones) / count


def crossed_mean(values: Tensor) -> Interval:
    """The mean of values [S, N] of S seeds and N patients, with its 95 % interval."""
    values = values.to(torch.float64)
    seeds, patients = values.shape
    means = ((_weights(seeds, "seeds") @ values) * _weights(patients, "patients")).sum(-1)
    return Interval(float(values.mean()), *bootstrap.percentile_interval(means))


def crossed_ratio(above: Tensor, below: Tensor) -> Interval:
    """The mean of above [S, N] as a share of the mean of below [N], the same patients, with its 95 % interval."""
    above, below = above.to(torch.float64), below.to(torch.float64)
    patients = _weights(len(below), "patients")
    top, bottom = ((_weights(len(above), "seeds") @ above) * patients).sum(-1), patients @ below
    return Interval(float(above.mean() / below.mean()), *bootstrap.percentile_interval(top / bottom))


def crossed_cvar(values: Tensor, alpha: float) -> Interval:
    """The mean of the lowest share alpha of values [S, N], over all seeds together, with its 95 % interval."""
    values = values.to(torch.float64)
    seeds, patients = values.shape
    chosen = _drawn(seeds, "seeds").unsqueeze(-1) * patients + _drawn(patients, "patients").unsqueeze(1)
    tail = CVaR(alpha)
    point, again = tail(values.flatten()), tail(values.flatten()[chosen.flatten(1)])
    return Interval(float(point), *bootstrap.percentile_interval(again))
