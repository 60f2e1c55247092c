"""Model predictive path integral control: all plans of a round count, by the exponential of their score.

Williams 2017, doi 10.1109/ICRA.2017.7989202 (information-theoretic form): weight exp(score / temperature). Here the
temperature is in standard deviations of the round's scores, so that it means the same whatever a return is measured in,
and the belief of a categorical plan is refitted by weighted frequencies, the same cross-entropy projection. No hard
threshold, so a noisy score moves the belief less than it moves CEM's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.planning.cem import CEM, CEMConfig
from agents.planning.problem import Optimiser, Problem

__all__ = ["MPPI", "MPPIConfig"]


@dataclass(frozen=True)
class MPPIConfig(CEMConfig):
    """`elites` are only what the second look chooses from."""

    temperature: float = 0.3  # standard deviations of the scores; near 0 only the best plan counts
    beta: float = 0.0  # of the noise along the steps, as in iCEM

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0 or self.beta < 0:
            raise ValueError(f"temperature must be above 0 and beta 0 or more, got {self.temperature}, {self.beta}")

    def optimiser(self) -> Optimiser:
        """`MPPI`."""
        return MPPI(self)


class MPPI(CEM):
    """The optimiser."""

    config: MPPIConfig

    def __init__(self, config: MPPIConfig) -> None:
        super().__init__(config)
        self._beta = config.beta

    def _refit(self, problem: Problem, belief: Tensor, plans: Tensor, scores: Tensor, best: Tensor) -> Tensor:
        there = scores.isfinite()
        count = there.sum(1, keepdim=True)
        mean = scores.masked_fill(~there, 0.0).sum(1, keepdim=True) / count
        spread = ((scores - mean).masked_fill(~there, 0.0).square().sum(1, keepdim=True) / count).sqrt()
        scaled = (scores - scores.amax(1, keepdim=True)) / (self.config.temperature * spread.clamp_min(1e-9))
        weights = torch.softmax(scaled, 1)
        return problem.space.refit(plans, belief, self.config.smoothing, self.config.floor, weights)
