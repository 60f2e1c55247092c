"""The cross-entropy method over plans, for a batch of patients at once.

Rubinstein 1999, doi 10.1023/A:1010091220143: sample plans, keep the best, refit the proposal to them, repeat. It knows
no world and no kind of plan: an `EvaluatePlans` gives the score of a plan, and the controller makes one from imagined
returns and a risk; a `PlanSpace` knows what a plan is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from agents.planning.plan_space import PlanSpace

__all__ = ["CEM", "CEMConfig", "ChosenPlan", "EvaluatePlans"]

# (plans [B, K, places], look) -> scores [B, K], higher is better. Equal looks must meet equal chance, so that plans of
# different calls can be compared; another look is an independent one.
EvaluatePlans = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class CEMConfig:
    """How hard to think: about candidates * particles * horizon * iterations steps are imagined a decision."""

    horizon: int = 8  # steps looked ahead
    candidates: int = 32  # plans sampled in an iteration (in the first one the anchors count among them)
    particles: int = 6  # imagined futures of each plan
    iterations: int = 2  # refits; 1 is random shooting
    elites: int = 6  # plans the proposal is refitted to
    smoothing: float = 0.2  # weight of the old proposal in a refit
    floor: float = 0.02  # weight of the uniform distribution in a refit
    nothing: float = 0.7  # prior probability of "nothing" at a step
    every: tuple[int, ...] = (6,)  # anchors: each order at every n-th step (6 steps of 2 h: twice a day)
    finalists: int = 4  # best plans that get an independent second look (0: none); guards against a winner by chance
    replan_every: int = 1  # steps carried out before the next plan
    discount: float = 1.0  # per step
    hold: bool = False  # levels: a plan is one decision, held for the horizon (acts are done at the first step only)

    def __post_init__(self) -> None:
        for name in ("horizon", "candidates", "particles", "iterations", "elites", "replan_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.elites > self.candidates:
            raise ValueError(f"elites ({self.elites}) cannot outnumber candidates ({self.candidates}); lower elites")
        if self.replan_every > self.horizon:
            raise ValueError(f"replan_every ({self.replan_every}) is past the horizon ({self.horizon}); lower it")
        if not 0.0 <= self.smoothing < 1.0 or not 0.0 <= self.floor < 1.0:
            raise ValueError(f"smoothing and floor must be in [0, 1), got {self.smoothing} and {self.floor}")


class ChosenPlan(NamedTuple):
    """What was decided for a batch."""

    plan: Tensor  # [B, places], see the plan space
    belief: Tensor  # [B, places, ...]: the last proposal, for a warm start
    score: Tensor  # [B]: of the plan chosen, in the look that chose it


class CEM:
    """The optimiser."""

    def __init__(self, config: CEMConfig, space: PlanSpace) -> None:
        self.config, self.space = config, space

    def plan(self, evaluate: EvaluatePlans, key: Tensor, start: Tensor | None = None) -> ChosenPlan:
        """The best plan found for each patient.

        Args:
            evaluate: scores of plans.
            key: int64 [B], random keys of the sampling (those of the imagined futures are `evaluate`'s own).
            start: [B, places, ...] proposal to start from, such as the last one, some steps later; None is the prior.
        """
        c = self.config
        patients = key.shape[0]
        belief = self.space.prior(patients) if start is None else start
        fixed = self.space.anchors().unsqueeze(0).expand(patients, -1, -1)

        best_plans, best_scores = fixed[:, :0], torch.zeros(patients, 0, device=key.device)
        for iteration in range(c.iterations):
            plans = self._candidates(key, iteration, belief, fixed)
            scores = evaluate(plans, 0)
            # The old elites compete again: equal looks meet equal chance.
            plans, scores = torch.cat([best_plans, plans], 1), torch.cat([best_scores, scores], 1)
            # A plan that appears twice would fill the finalists with itself, so it counts once.
            keep = min(max(c.elites, c.finalists), plans.shape[1])
            scores = torch.where(_repeats(plans), torch.full_like(scores, -torch.inf), scores)
            best_scores, index = scores.topk(keep, dim=1)
            best_plans = _gather(plans, index)
            belief = self.space.refit(best_plans[:, : c.elites], belief, c.smoothing, c.floor)

        if c.finalists == 0:
            return ChosenPlan(best_plans[:, 0], belief, best_scores[:, 0])
        final = torch.cat([best_plans[:, : c.finalists], fixed[:, :1]], dim=1)  # "nothing" is always a finalist
        scores = evaluate(final, 1)
        score, index = scores.max(1)
        return ChosenPlan(_gather(final, index.unsqueeze(1)).squeeze(1), belief, score)

    def _candidates(self, key: Tensor, iteration: int, belief: Tensor, fixed: Tensor) -> Tensor:
        """Plans [B, K, places] of an iteration; in the first the anchors `fixed` [B, N, places] are among them."""
        if iteration > 0:
            return self.space.sample(key, iteration, belief, self.config.candidates)
        # The likeliest plan of a warm start is worth a place of its own beside the anchors.
        likeliest = self.space.likeliest(belief).unsqueeze(1)
        sampled = self.space.sample(key, iteration, belief, max(self.config.candidates - fixed.shape[1] - 1, 1))
        return torch.cat([fixed, likeliest, sampled], dim=1)


def _gather(plans: Tensor, index: Tensor) -> Tensor:
    """plans [B, K, places] at index [B, E] -> [B, E, places]."""
    return plans.gather(1, index.unsqueeze(-1).expand(-1, -1, plans.shape[-1]))


def _repeats(plans: Tensor) -> Tensor:
    """bool [B, K]: an earlier plan of the same patient is equal."""
    equal = (plans.unsqueeze(2) == plans.unsqueeze(1)).all(-1)  # [B, K, K]
    earlier = torch.ones(equal.shape[1:], dtype=torch.bool, device=plans.device).tril(-1)
    return (equal & earlier).any(-1)
