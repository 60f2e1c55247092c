"""Random shooting: sample plans from the prior and carry out the best. The yardstick for cleverer planners."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agents.planning.plan_config import PlanConfig
from agents.planning.problem import ChosenPlan, Optimiser, Problem, first_plans, gather, repeats, second_look

__all__ = ["RandomShooting", "ShootingConfig"]


@dataclass(frozen=True)
class ShootingConfig(PlanConfig):
    """`iterations` rounds of `candidates` plans."""

    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")

    def optimiser(self) -> Optimiser:
        """`RandomShooting`."""
        return RandomShooting(self)


class RandomShooting:
    """Never learns from a score: all plans come from the belief it is given."""

    def __init__(self, config: ShootingConfig) -> None:
        self.config = config

    def plan(self, problem: Problem) -> ChosenPlan:
        """See `Optimiser`; with a budget, rounds go on until it is used up."""
        c, belief = self.config, problem.belief
        keep = max(c.finalists, 1)
        plans = first_plans(problem, belief, c.candidates, c.finalists + 2)
        best, scores, look = plans[:, :0], plans.new_zeros(plans.shape[0], 0, dtype=torch.float32), 0
        while plans.shape[1]:
            found = torch.cat([scores, problem.evaluate(plans, 0)], 1)
            plans = torch.cat([best, plans], 1)
            found = found.masked_fill(repeats(plans), -torch.inf)
            scores, index = found.topk(min(keep, plans.shape[1]), dim=1)
            best, look = gather(plans, index), look + 1
            if problem.meter.budget is None and look == c.iterations:
                break
            wanted = problem.affords(c.candidates, c.finalists + 2)
            plans = problem.space.sample(problem.key, look, belief, wanted)
        return second_look(problem, best, scores, belief, c.finalists)
