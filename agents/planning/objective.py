"""What a planner makes of imagined futures: one number a plan, higher is better."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from agents.planning.risk import Mean, Risk
from clinenv.simulator import Imagined

__all__ = ["Objective", "ReturnAndCost"]


class Objective(Protocol):
    """Anything called as below."""

    def __call__(self, imagined: Imagined) -> Tensor:
        """Scores [B, K] of K plans of B patients from their imagined futures [B, K, P]."""


@dataclass(frozen=True)
class ReturnAndCost:
    """A risk of the return, and `cost_weight` times one of minus the cost.

    Raises:
        ValueError: a negative cost_weight, which would reward harm.
    """

    risk: Risk = field(default_factory=Mean)
    cost_weight: float = 0.0  # what one unit of safety cost is worth in return (a Lagrange multiplier, 0 ignores cost)
    cost_risk: Risk = field(default_factory=Mean)

    def __post_init__(self) -> None:
        if self.cost_weight < 0:
            raise ValueError(f"cost_weight must be 0 or more, got {self.cost_weight}; a negative one would reward harm")

    def __call__(self, imagined: Imagined) -> Tensor:
        score = self.risk(imagined.returns)
        return score + self.cost_weight * self.cost_risk(-imagined.costs) if self.cost_weight else score
