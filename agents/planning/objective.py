"""What a planner makes of imagined futures: one number a plan, higher is better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from agents.planning.risk import Mean, Risk, StructuredRisk, scored
from clinenv.imagined import Imagined

__all__ = ["ChanceConstraint", "Objective", "ReturnAndCost"]


class Objective(Protocol):
    """Anything called as below."""

    def __call__(self, imagined: Imagined) -> Tensor:
        """Scores [B, K] of K plans of B patients from their imagined futures [B, K, P].

        Raises:
            ValueError: futures that cannot be judged so; the message says how to imagine them.
        """


@dataclass(frozen=True)
class ReturnAndCost:
    """A risk of the return, and `cost_weight` times one of minus the cost.

    Raises:
        ValueError: a negative cost_weight, which would reward harm.
    """

    risk: Risk | StructuredRisk = field(default_factory=Mean)
    cost_weight: float = 0.0  # what one unit of safety cost is worth in return (a Lagrange multiplier, 0 ignores cost)
    cost_risk: Risk | StructuredRisk = field(default_factory=Mean)

    def __post_init__(self) -> None:
        if self.cost_weight < 0:
            raise ValueError(f"cost_weight must be 0 or more, got {self.cost_weight}; a negative one would reward harm")

    def __call__(self, imagined: Imagined) -> Tensor:
        score = scored(self.risk, imagined.returns, imagined)
        if not self.cost_weight:
            return score
        return score + self.cost_weight * scored(self.cost_risk, -imagined.costs, imagined)


@dataclass(frozen=True)
class ChanceConstraint:
    """A risk of the return under P(cost > limit) <= alpha, by the Lagrangian: risk - multiplier * (P - alpha).

    The multiplier is what a whole chance is worth in return. It is not searched in a decision, where the few futures of
    one plan say little of a small chance, but over the decisions of many patients: `agents.planning.dual_ascent`.

    Raises:
        ValueError: alpha is not in [0, 1), limit or multiplier is negative or not finite.
    """

    limit: float = 0.0  # of the cost, within the planner's horizon
    alpha: float = 0.05  # how often it may be exceeded
    multiplier: float = 0.0
    risk: Risk | StructuredRisk = field(default_factory=Mean)

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha < 1.0:
            raise ValueError(f"alpha must be at least 0 and below 1, got {self.alpha}; 0.05 allows it in one of twenty")
        for name in ("limit", "multiplier"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value}")

    def __call__(self, imagined: Imagined) -> Tensor:
        score = scored(self.risk, imagined.returns, imagined)
        if not self.multiplier:
            return score
        exceeded = (imagined.costs > self.limit).to(score.dtype).mean(-1)
        return score - self.multiplier * (exceeded - self.alpha)
