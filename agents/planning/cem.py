"""The cross-entropy method over plans, for a batch of patients at once.

Rubinstein 1999, doi 10.1023/A:1010091220143: sample plans, keep the best, refit the proposal to them, repeat. It knows
no world and no kind of plan: a `Problem` scores a plan, and the controller makes one from imagined returns and a risk;
a `PlanSpace` knows what a plan is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.planning.plan_config import PlanConfig
from agents.planning.problem import ChosenPlan, Optimiser, Problem, first_plans, gather, repeats, second_look

__all__ = ["CEM", "CEMConfig"]


@dataclass(frozen=True)
class CEMConfig(PlanConfig):
    """How hard to think: about candidates * particles * horizon * iterations steps are imagined a decision."""

    iterations: int = 2  # refits; with a budget there are as many as it pays for
    elites: int = 6  # plans the proposal is refitted to
    smoothing: float = 0.2  # weight of the old proposal in a refit
    floor: float = 0.02  # weight of the uniform distribution in a refit

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("iterations", "elites"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.elites > self.candidates:
            raise ValueError(f"elites ({self.elites}) cannot outnumber candidates ({self.candidates}); lower elites")
        if not 0.0 <= self.smoothing < 1.0 or not 0.0 <= self.floor < 1.0:
            raise ValueError(f"smoothing and floor must be in [0, 1), got {self.smoothing} and {self.floor}")

    def optimiser(self) -> Optimiser:
        """`CEM`."""
        return CEM(self)


class CEM:
    """The optimiser."""

    def __init__(self, config: CEMConfig) -> None:
        self.config = config

    def plan(self, problem: Problem) -> ChosenPlan:
        """See `Optimiser`; with a budget, rounds go on until it is used up."""
        c, belief, kept = self.config, problem.belief, self.config.finalists + 2
        plans = first_plans(problem, belief, c.candidates, kept, self._beta)
        best, scores = plans[:, :0], torch.zeros(plans.shape[0], 0, device=plans.device)
        iteration = 0
        while plans.shape[1]:
            # The old elites compete again: equal looks meet equal chance.
            found = torch.cat([scores, problem.evaluate(plans, 0)], 1)
            plans = torch.cat([best, plans], 1)
            # A plan that appears twice would fill the finalists with itself, so it counts once.
            found = found.masked_fill(repeats(plans), -torch.inf)
            scores, index = found.topk(min(max(c.elites, c.finalists), plans.shape[1]), dim=1)
            best = gather(plans, index)
            belief = self._refit(problem, belief, plans, found, best)
            iteration += 1
            if problem.meter.budget is None and iteration == c.iterations:
                break
            plans = self._next(problem, belief, iteration, problem.affords(self._population(iteration), kept))
        return second_look(problem, best, scores, belief, c.finalists)

    _beta = 0.0  # of the samples' noise

    def _population(self, iteration: int) -> int:
        """Plans of a round."""
        return self.config.candidates

    def _next(self, problem: Problem, belief: Tensor, iteration: int, count: int) -> Tensor:
        """Plans [B, count, places] of a round after the first."""
        return problem.space.sample(problem.key, iteration, belief, count, self._beta)

    def _refit(self, problem: Problem, belief: Tensor, plans: Tensor, scores: Tensor, best: Tensor) -> Tensor:
        """The belief after plans [B, K, places] had scores [B, K], of which the `best` [B, E, places] come first."""
        return problem.space.refit(best[:, : self.config.elites], belief, self.config.smoothing, self.config.floor)
