"""Health that a disease takes while it is there: one figure each, for every task that weighs it.

Disability weights of the Global Burden of Disease 2019 (doi 10.1016/S0140-6736(20)30925-9, appendix), the health states
of Salomon 2015 (doi 10.1016/S2214-109X(15)00069-8). 0 is full health, 1 is death.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HEART_FAILURE", "HEALTH_STATE", "over_grades"]

HEALTH_STATE: dict[str, float] = {
    "heart failure, mild": 0.041,
    "heart failure, moderate": 0.072,
    "heart failure, severe": 0.179,
    "angina, mild": 0.033,
    "angina, moderate": 0.080,
    "infarction, days 1 and 2": 0.432,
    "infarction, days 3 to 28": 0.074,
    "atrial fibrillation with symptoms": 0.224,
    "stroke, mild": 0.019,
    "stroke, moderate": 0.070,
    "stroke, moderate with cognition": 0.316,
    "stroke, severe": 0.552,
    "claudication": 0.014,
    "acute episode, moderate": 0.051,
    "anxiety about a diagnosis": 0.012,
    "diabetes, uncomplicated": 0.049,
    "chronic kidney disease, stage 3": 0.0,
}


def over_grades(shares: Mapping[str, float]) -> float:
    """Mean weight of a disease, to three places, by the shares of those who have it in each health state.

    Raises:
        ValueError: the shares do not sum to 1.
    """
    if abs(sum(shares.values()) - 1.0) > 1e-6:
        raise ValueError(f"shares {dict(shares)} sum to {sum(shares.values()):g}; they must sum to 1")
    return round(sum(HEALTH_STATE[name] * share for name, share in shares.items()), 3)


# Of all who have it: a third in each grade (assumed).
HEART_FAILURE = over_grades({f"heart failure, {grade}": 1 / 3 for grade in ("mild", "moderate", "severe")})
