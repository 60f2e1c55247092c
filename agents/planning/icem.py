"""iCEM: the cross-entropy method as it is used in real time.

Pinneri 2020, arXiv 2008.06389: coloured noise along the steps of a plan, fewer plans each round, the elites of the last
decision (moved on by the steps carried out) and of the last round tried again, and the belief's likeliest plan tried in
each round. What is carried out is the best plan found, not the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.planning.cem import CEM, CEMConfig
from agents.planning.problem import Optimiser, Problem

__all__ = ["ICEM", "ICEMConfig"]


@dataclass(frozen=True)
class ICEMConfig(CEMConfig):
    """Defaults are the paper's."""

    beta: float = 2.0  # exponent of the noise's power spectrum over the steps; 0 white
    decay: float = 1.25  # each round samples this factor fewer plans, never fewer than twice the elites
    smoothing: float = 0.1
    keep_elites: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0 or self.decay < 1:
            raise ValueError(f"need beta >= 0 and decay >= 1, got {self.beta} and {self.decay}")

    def optimiser(self) -> Optimiser:
        """`ICEM`."""
        return ICEM(self)


class ICEM(CEM):
    """The optimiser. Elites of the last decision come as `Problem.proposals`."""

    config: ICEMConfig

    def __init__(self, config: ICEMConfig) -> None:
        super().__init__(config)
        self._beta = config.beta

    def _population(self, iteration: int) -> int:
        c = self.config
        return max(int(c.candidates / c.decay**iteration), min(2 * c.elites, c.candidates))

    def _next(self, problem: Problem, belief: Tensor, iteration: int, count: int) -> Tensor:
        if count < 2:
            return super()._next(problem, belief, iteration, count)
        likeliest = problem.space.likeliest(belief).unsqueeze(1)
        return torch.cat([likeliest, super()._next(problem, belief, iteration, count - 1)], 1)
