"""What an optimiser is handed, and what it gives back: the one protocol between the planners and all that they plan in.

An optimiser knows no world and no kind of action. Its `Problem` scores orders and says what a plan is (`PlanSpace`);
whoever searches step by step (`tree_search`, `rollout_policy`) finds the imagined world behind it in `imagination`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from agents.planning.budget import Meter
from agents.planning.plan_space import PlanSpace
from world_models import keys

if TYPE_CHECKING:
    from agents.planning.imagination import Imagination

__all__ = ["ChosenPlan", "Optimiser", "Problem", "ScoreOrders", "first_plans", "gather", "repeats", "second_look"]

# (orders [B, K, H, A], look) -> scores [B, K], higher is better. Equal looks must meet equal chance, so that plans of
# different calls can be compared; another look is an independent one.
ScoreOrders = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Problem:
    """One decision for each of B patients."""

    space: PlanSpace
    key: Tensor  # int64 [B] of the sampling; those of the imagined futures are the score's own
    score: ScoreOrders
    start: Tensor | None = None  # [B, places, ...] proposal, such as the last one some steps later; None: the prior
    proposals: Tensor | None = None  # plans [B, N, places] that are tried besides; the first is a policy's own
    each: int = 1  # transitions that scoring one plan takes
    meter: Meter = field(default_factory=Meter)
    imagination: Imagination | None = None

    @property
    def patients(self) -> int:
        """B."""
        return self.key.shape[0]

    @property
    def belief(self) -> Tensor:
        """The proposal [B, places, ...] to begin with."""
        return self.space.prior(self.patients) if self.start is None else self.start

    def evaluate(self, plans: Tensor, look: int) -> Tensor:
        """Scores [B, K] of plans [B, K, places]."""
        with self.meter.spending(plans.shape[1] * self.each):
            scores = self.score(self.space.orders(plans), look)
        self.meter.plans += plans.shape[1]
        return scores

    def affords(self, plans: int, kept: int = 0) -> int:
        """How many of `plans` plans may still be scored if `kept` more shall be later; the first one always may."""
        return max(self.meter.affords(plans, self.each, kept), 0 if self.meter.plans else 1)


class ChosenPlan(NamedTuple):
    """What was decided for a batch."""

    plan: Tensor  # [B, places], see the plan space
    belief: Tensor  # [B, places, ...]: the last proposal, for a warm start
    score: Tensor  # [B]: of the plan chosen, in the look that chose it
    orders: Tensor  # float32 [B, H, A] of the plan
    elites: Tensor | None = None  # plans [B, E, places], best first: tried again at the next decision


@runtime_checkable
class Optimiser(Protocol):
    """Finds a good plan for each patient."""

    def plan(self, problem: Problem) -> ChosenPlan:
        """The best plan found. Row i of a batch is decided as it would be alone."""


def gather(plans: Tensor, index: Tensor) -> Tensor:
    """plans [B, K, places] at index [B, E] -> [B, E, places]."""
    return plans.gather(1, index.unsqueeze(-1).expand(-1, -1, plans.shape[-1]))


def repeats(plans: Tensor) -> Tensor:
    """bool [B, K]: an earlier plan of the same patient is equal."""
    # Told by a wrapping sum over the bits: comparing all places of all pairs takes gigabytes for plans of 84 steps.
    words = plans.to(torch.float32).contiguous().view(torch.int32).to(torch.int64)
    salt = keys.bits(torch.zeros(1, dtype=torch.int64, device=plans.device), 0, "planning/equal", plans.shape[-1:])
    code = (words * (salt | 1)).sum(-1)
    equal = code.unsqueeze(2) == code.unsqueeze(1)  # [B, K, K]
    earlier = torch.ones(equal.shape[1:], dtype=torch.bool, device=plans.device).tril(-1)
    return (equal & earlier).any(-1)


def first_plans(problem: Problem, belief: Tensor, candidates: int, kept: int, beta: float = 0.0) -> Tensor:
    """Plans [B, K, places] of a first round: the anchors, the proposals, the belief's likeliest, then samples of it.

    Args:
        candidates: K, unless the anchors and proposals are more than that.
        kept: plans that shall be scored after all rounds (`second_look`).
        beta: of the samples' noise, see `PlanSpace.sample`.
    """
    space, patients = problem.space, problem.patients
    fixed = space.anchors().unsqueeze(0).expand(patients, -1, -1)
    parts = [fixed[:, :1]]
    if problem.proposals is not None:
        parts.append(problem.proposals.to(fixed.dtype))
    # the likeliest plan of a warm start is worth a place of its own
    parts += [space.likeliest(belief).unsqueeze(1), fixed[:, 1:]]
    sure = sum(part.shape[1] for part in parts)
    parts.append(space.sample(problem.key, 0, belief, max(candidates - sure, 1), beta))
    plans = torch.cat(parts, 1)
    return plans[:, : problem.affords(plans.shape[1], kept)]


def second_look(problem: Problem, plans: Tensor, scores: Tensor, belief: Tensor, finalists: int) -> ChosenPlan:
    """The choice among the best plans [B, E, places] with scores [B, E], best first.

    With `finalists` the best so many are scored once more on an independent look, beside doing nothing and what the
    policy proposes: that guards against a winner by chance.
    """
    final = plans[:, :1]
    score = scores[:, 0]
    if finalists:
        # first what is the least: of plans that are as good as another, that is carried out
        parts = [problem.space.anchors()[:1].unsqueeze(0).expand(problem.patients, -1, -1), plans[:, :finalists]]
        if problem.proposals is not None:
            parts.insert(0, problem.proposals[:, :1].to(plans.dtype))
        final = torch.cat(parts, 1)
        final = final[:, : max(problem.affords(final.shape[1]), 1)]
        score, index = problem.evaluate(final, 1).max(1)
        final = gather(final, index.unsqueeze(1))
    plan = final[:, 0]
    return ChosenPlan(plan, belief, score, problem.space.orders(plan), plans)
