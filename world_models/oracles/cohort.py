"""What the cohorts of all oracles share: how one is named, and how a normal is cut to a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["cohort_named", "normal_cdf"]

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
