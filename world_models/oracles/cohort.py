"""What the cohorts of all oracles share: how one is named, and how a normal is cut to a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

__all__ = ["cohort_named", "cut_normal", "normal_cdf"]

C = TypeVar("C")


def cohort_named(cohorts: Mapping[str, C], cohort: str | C) -> C:
    """The cohort of that name among an oracle's own; a cohort object is handed through.

    Raises:
        ValueError: there is none; the message lists the names there are.
    """
    kind = type(next(iter(cohorts.values())))
    if isinstance(cohort, kind):
        return cohort
    if not isinstance(cohort, str) or cohort not in cohorts:
        raise ValueError(
            f"no cohort {cohort!r}; there are: {', '.join(cohorts)} (or pass a {kind.__name__} of your own)"
        )
    return cohorts[cohort]


def normal_cdf(z: float) -> float:
    """Chance that a standard normal lies below z."""
    return 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))


def cut_normal(u: Tensor, mean: Tensor, sd: float, z_range: tuple[float, float], highest: float | None) -> Tensor:
    """Normals [B] of these means [B] from uniforms u [B], cut to z_range and, where given, at a highest value.

    Where the mean lies so far above `highest` that under a per cent is left, the lowest per cent is taken instead.
    """
    below, above = (normal_cdf(z) for z in z_range)
    width = (u * 0.0 + above) - below
    if highest is not None:
        top = ((highest - mean) * (1.0 / (sd * math.sqrt(2.0)))).erf() * 0.5 + 0.5
        width = top.clamp(below + 0.01, above) - below
    return ((u * width + below) * 2.0 - 1.0).erfinv() * math.sqrt(2.0) * sd + mean
