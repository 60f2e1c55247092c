"""The cross-entropy method over menu plans, for a batch of patients at once.

Rubinstein 1999, doi 10.1023/A:1010091220143: draw plans, keep the best, refit the proposal to them, repeat. It knows
no world: an `Evaluate` gives the score of a plan, and the controller makes one from imagined returns and a risk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from agents.planning import proposals

__all__ = ["CEM", "CEMConfig", "Evaluate", "Plan"]

# (plans int64 [B, K, H], round) -> scores [B, K], higher is better. Equal rounds must meet equal luck, so that plans
# of different calls can be compared; another round is an independent look.
Evaluate = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class CEMConfig:
    """How hard to think: about candidates * particles * horizon * iterations steps are imagined a decision."""

    horizon: int = 8  # steps looked ahead
    candidates: int = 32  # plans drawn in an iteration (in the first one the anchors count among them)
    particles: int = 6  # imagined futures of each plan
    iterations: int = 2  # refits; 1 is random shooting
    elites: int = 6  # plans the proposal is refitted to
    smoothing: float = 0.2  # weight of the old proposal in a refit
    floor: float = 0.02  # weight of the uniform distribution in a refit
    nothing: float = 0.7  # prior probability of "nothing" at a step
    every: tuple[int, ...] = (6,)  # anchors: each order at every n-th step (6 steps of 2 h: twice a day)
    finalists: int = 4  # best plans that get an independent second look (0: none); guards against the lucky winner
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


class Plan(NamedTuple):
    """What was decided for a batch."""

    steps: Tensor  # int64 [B, H] rows of the menu, or [B, H * D] levels
    probabilities: Tensor  # [B, H, M] or [B, H * D, M]: the last proposal, for a warm start
    score: Tensor  # [B]: of the plan chosen, in the look that chose it


class CEM:
    """The optimiser. `choices` is the number of rows in the menu, whose row 0 is "nothing"; or the table [D, M, A] of
    a task's levels, whose plans are int64 [B, K, H * D] (or [B, K, D] with `hold`)."""

    def __init__(self, config: CEMConfig, choices: int | Tensor) -> None:
        self.config = config
        self.choices = choices
        self.decisions = 1 if config.hold else config.horizon  # steps a plan decides of
        self._possible: Tensor | None = None
        if isinstance(choices, Tensor):
            self._possible = (~choices[:, :, 0].isnan()).repeat(self.decisions, 1)
        elif config.hold:
            raise ValueError("hold is for tasks whose action is a level of each order; a menu has no such plan")

    def prior(self, patients: int, device: torch.device | str = "cpu") -> Tensor:
        """[B, H, M]: the proposal before anything is known."""
        if isinstance(self.choices, Tensor):
            return proposals.level_prior(patients, self.decisions, self.choices, self.config.nothing)
        return proposals.prior(patients, self.config.horizon, self.choices, self.config.nothing, device)

    def _anchors(self, device: torch.device) -> Tensor:
        if isinstance(self.choices, Tensor):
            counts = tuple((~self.choices[:, :, 0].isnan()).sum(-1).tolist())
            return proposals.level_anchors(counts, self.decisions, device)
        return proposals.anchors(self.choices, self.config.horizon, self.config.every, device)

    def plan(self, evaluate: Evaluate, key: Tensor, start: Tensor | None = None) -> Plan:
        """The best plan found for each patient.

        Args:
            evaluate: scores of plans.
            key: int64 [B], the luck of the drawing (the imagined futures' luck is `evaluate`'s own).
            start: [B, H, M] proposal to start from, such as the last one shifted; None is the prior.
        """
        c = self.config
        patients = key.shape[0]
        belief = self.prior(patients, key.device) if start is None else start
        fixed = self._anchors(key.device).unsqueeze(0).expand(patients, -1, -1)

        best_plans = best_scores = None
        for iteration in range(c.iterations):
            if iteration == 0:
                # The likeliest plan of a warm start is worth a place of its own beside the anchors.
                likeliest = belief.argmax(-1).unsqueeze(1)
                drawn = proposals.sample(key, iteration, belief, max(c.candidates - fixed.shape[1] - 1, 1))
                plans = torch.cat([fixed, likeliest, drawn], dim=1)
            else:
                plans = proposals.sample(key, iteration, belief, c.candidates)
            scores = evaluate(plans, 0)
            if best_plans is not None:  # the old elites compete again: equal rounds meet equal luck
                plans, scores = torch.cat([best_plans, plans], 1), torch.cat([best_scores, scores], 1)
            # A plan that appears twice would fill the finalists with itself, so it counts once.
            keep = min(max(c.elites, c.finalists), plans.shape[1])
            scores = torch.where(_repeats(plans), torch.full_like(scores, -torch.inf), scores)
            best_scores, index = scores.topk(keep, dim=1)
            best_plans = _gather(plans, index)
            belief = proposals.refit(best_plans[:, : c.elites], belief, c.smoothing, c.floor, self._possible)

        if c.finalists == 0:
            return Plan(best_plans[:, 0], belief, best_scores[:, 0])
        final = torch.cat([best_plans[:, : c.finalists], fixed[:, :1]], dim=1)  # "nothing" is always a finalist
        scores = evaluate(final, 1)
        score, index = scores.max(1)
        return Plan(_gather(final, index.unsqueeze(1)).squeeze(1), belief, score)


def _gather(plans: Tensor, index: Tensor) -> Tensor:
    """plans [B, K, H] at index [B, E] -> [B, E, H]."""
    return plans.gather(1, index.unsqueeze(-1).expand(-1, -1, plans.shape[-1]))


def _repeats(plans: Tensor) -> Tensor:
    """bool [B, K]: an earlier plan of the same patient is equal."""
    equal = (plans.unsqueeze(2) == plans.unsqueeze(1)).all(-1)  # [B, K, K]
    earlier = torch.ones(equal.shape[1:], dtype=torch.bool, device=plans.device).tril(-1)
    return (equal & earlier).any(-1)
