"""Planning by gradients: uphill in the orders of a plan, through a learned world that can be differentiated.

Adam (Kingma & Ba 2015, arXiv 1412.6980) from the best of a round of sampled plans, in shares of each order's largest
amount. What can be ordered comes in steps, so each point is rounded to the nearest plan of the space; the score is that
of the rounded plan, and its gradient is taken for the unrounded one's (straight through: Bengio 2013, arXiv 1308.3432).
A gradient knows nothing of events that are drawn and of costs that count; the second look does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.planning.plan_config import PlanConfig
from agents.planning.problem import ChosenPlan, Optimiser, Problem, first_plans, gather, repeats, second_look

__all__ = ["GradientConfig", "GradientPlanner"]

_DECAYS, _LEAST = (0.9, 0.999), 1e-8  # Adam's


@dataclass(frozen=True)
class GradientConfig(PlanConfig):
    """`candidates` sampled plans, then `ascents` steps from the best `starts` of them."""

    ascents: int = 8  # steps; with a budget there are as many as it pays for
    starts: int = 6  # plans that are led uphill
    step_size: float = 0.1  # of Adam, in shares of the largest amount

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ascents < 1 or not 1 <= self.starts <= self.candidates or not self.step_size > 0:
            raise ValueError(f"need ascents >= 1, starts from 1 to candidates, and step_size above 0, got {self}")

    def optimiser(self) -> Optimiser:
        """`GradientPlanner`."""
        return GradientPlanner(self)


class GradientPlanner:
    """The optimiser. The problem's score must pass gradients: `Simulator(..., grad=True)`.

    Raises:
        ValueError: from `plan`, where it passes none.
    """

    def __init__(self, config: GradientConfig) -> None:
        self.config = config

    def plan(self, problem: Problem) -> ChosenPlan:
        """See `Optimiser`."""
        c, space, belief, kept = self.config, problem.space, problem.belief, self.config.finalists + 2
        plans = first_plans(problem, belief, c.candidates, kept)
        scores = problem.evaluate(plans, 0).masked_fill(repeats(plans), -torch.inf)
        best_scores, index = scores.topk(min(max(c.starts, c.finalists), plans.shape[1]), dim=1)
        best = gather(plans, index)
        orders = space.orders(best[:, : c.starts])
        scale = _largest(problem).expand_as(orders)
        x = torch.where(scale > 0, orders / scale.clamp_min(1e-9), 0.0)
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        step = 0
        while problem.affords(x.shape[1], kept) == x.shape[1]:
            found, seen, slope = self._slope(problem, x, scale)
            best, best_scores = _better(best, best_scores, found, seen)
            step += 1
            if problem.meter.budget is None and step > c.ascents:
                break
            first = _DECAYS[0] * first + (1.0 - _DECAYS[0]) * slope
            second = _DECAYS[1] * second + (1.0 - _DECAYS[1]) * slope.square()
            ahead, size = first / (1.0 - _DECAYS[0] ** step), (second / (1.0 - _DECAYS[1] ** step)).sqrt()
            x = (x + c.step_size * ahead / (size + _LEAST)).clamp(0.0, 1.0)
        return second_look(problem, best, best_scores, belief, c.finalists)

    @staticmethod
    def _slope(problem: Problem, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The plans [B, S, places] nearest to shares x [B, S, H, A], their scores [B, S], and the gradient by x."""
        plans = problem.space.nearest(x * scale)
        rounded = problem.space.orders(plans)
        with torch.enable_grad(), problem.meter.spending(x.shape[1] * problem.each):
            free = (x * scale).requires_grad_()
            scores = problem.score(free + (rounded - free).detach(), 0)
            if not scores.requires_grad:
                raise ValueError(
                    "the imagined world passes no gradients: build the planner's Simulator with grad=True, in a "
                    "learned world"
                )
            (slope,) = torch.autograd.grad(scores.sum(), free)
        # a course that left the numbers behind says nothing of where to go
        return plans, scores.detach(), slope.nan_to_num(0.0, 0.0, 0.0) * scale


def _largest(problem: Problem) -> Tensor:
    """Amounts float32 [A] that the anchors, the likeliest plans that there are, reach; 0: cannot be ordered."""
    orders = problem.space.orders(problem.space.anchors().unsqueeze(0).expand(problem.patients, -1, -1))
    return orders.amax((0, 1, 2))


def _better(best: Tensor, scores: Tensor, plans: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """The best plans and their scores, once others are among them; each counts once."""
    every, all_scores = torch.cat([best, plans], 1), torch.cat([scores, seen], 1)
    all_scores, index = all_scores.masked_fill(repeats(every), -torch.inf).topk(best.shape[1], dim=1)
    return gather(every, index), all_scores
