"""The imagined futures of one decision: what the planners score, step through and report.

All of them come from keys of the planner's own. Equal looks are equal luck, so plans, policies and edits of them are
compared on the same particles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.planning.objective import ChanceConstraint, Objective, ReturnAndCost
from agents.planning.policy_here import PolicyHere
from clinenv.imagined import ExpectedStep, Imagined, expected_step
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.protocol import Chart

__all__ = ["Course", "Followed", "Imagination", "Value", "follow"]
__all__ += ["imagined_step", "mean_course", "utility"]

Value = Callable[[Chart], Tensor]  # chart of B patients -> [B] undiscounted return to go

# (step, chart [R], rows int64 [R] of those that were begun with) -> orders float32 [R, A]
Decide = Callable[[int, Chart, Tensor], Tensor]


class Course(NamedTuple):
    """The mean imagined course of a plan, step by step; after an end, 0 counts."""

    rewards: Tensor  # float32 [B, H]
    costs: Tensor  # float32 [B, H]


class Followed(NamedTuple):
    """Courses under a rule. R rows, H steps; after the end rewards, costs and orders are 0. Where the simulator takes
    events at their chances, rewards and costs are expected, and the end is the chance of it."""

    returns: Tensor  # float32 [R], discounted, with the value at the horizon where one was given
    rewards: Tensor  # float32 [R, H]
    costs: Tensor  # float32 [R, H]
    orders: Tensor  # float32 [R, H, A] as they were given, refused or not
    terminated: Tensor  # bool [R], or float32


@dataclass(frozen=True)
class Imagination:
    """A belief about B patients, and the world in which their futures are imagined."""

    simulator: Simulator
    state: Any
    chart: Chart
    key: Tensor  # int64 [B] of the futures
    objective: Objective
    particles: int
    discount: float = 1.0
    policy: PolicyHere | None = None  # what a policy would do, at this moment of its patients' courses
    value: Value | None = None  # of what follows after the horizon

    @property
    def patients(self) -> int:
        """B."""
        return self.key.shape[0]

    def only(self, rows: Tensor) -> Imagination:
        """The same of some patients, int64 [N], without the policy."""
        state, chart = tree.take(self.state, rows), tree.take(self.chart, rows)
        return replace(self, state=state, chart=chart, key=self.key[rows], policy=None)

    def score(self, orders: Tensor, look: int) -> Tensor:
        """[B, K]: the objective of plans given as orders [B, K, H, A]."""
        return self.objective(self.imagine(orders, look))

    def imagine(self, orders: Tensor, look: int) -> Imagined:
        """Returns and costs [B, K, P] of orders [B, K, H, A]; returns hold the value at the horizon."""
        key = keys.fold(self.key, look)
        return self.simulator.imagine(self.state, self.chart, orders, self.particles, key, self.discount)

    def futures(self, particles: int, look: int) -> tuple[Any, Chart]:
        """State and chart of so many particles a patient, [B * particles]: their unknowns and luck sampled anew."""
        each = torch.arange(self.patients * particles, device=self.key.device)
        key = keys.fold(keys.fold(self.key, look), "followed")[each // particles]
        state = self.simulator.world.rekey(tree.repeat(self.state, particles), keys.fold(key, each % particles))
        return state, tree.repeat(self.chart, particles)

    def policy_orders(self, steps: int, count: int, look: int) -> Tensor:
        """Orders [B, count, steps, A] that the policy gives in so many imagined futures of each patient."""
        assert self.policy is not None
        state, chart = self.futures(count, look)
        decide, narrow = self.policy.begin(count), self.policy.narrow
        followed = follow(self.simulator, state, chart, decide, steps, narrow=narrow)
        return followed.orders.unflatten(0, (self.patients, count))

    def course(self, orders: Tensor, look: int) -> Course:
        """The mean course of orders [B, H, A] over the particles, without the value."""
        state, chart = self.futures(self.particles, look)
        plan = tree.repeat(orders, self.particles)
        followed = follow(self.simulator, state, chart, lambda h, _, rows: plan[rows, h], plan.shape[1])
        return mean_course(followed, self.particles)


def utility(objective: Objective, returns: Tensor, costs: Tensor) -> Tensor:
    """What single courses are worth, of returns and costs [...]: the objective without its risk, which is of many."""
    if isinstance(objective, ChanceConstraint):
        return returns - objective.multiplier * (costs > objective.limit).to(returns.dtype)
    return returns - objective.cost_weight * costs if isinstance(objective, ReturnAndCost) else returns


def mean_course(followed: Followed, particles: int) -> Course:
    """Over the particles of each patient."""
    rewards, costs = (x.unflatten(0, (-1, particles)).mean(1) for x in (followed.rewards, followed.costs))
    return Course(rewards, costs)


@torch.no_grad()
def follow(
    simulator: Simulator,
    state: Any,
    chart: Chart,
    decide: Decide,
    steps: int,
    discount: float = 1.0,
    value: Value | None = None,
    narrow: Callable[[Tensor], None] | None = None,
) -> Followed:
    """Courses of R patients under a rule that sees each chart, at most `steps` long.

    Args:
        narrow: told the rows int64 that go on, of those before, whenever more than half of them have ended; without it
            all are carried to the end.
    """
    count, device = simulator.task.clock(chart).shape[0], simulator.device
    rows = torch.arange(count, device=device)
    there = (~simulator.over(state, chart)).to(torch.float32)  # [R] the chance that the course goes on
    returns, ended = torch.zeros(count, device=device), 1.0 - there
    rewards, costs = torch.zeros(count, steps, device=device), torch.zeros(count, steps, device=device)
    given = torch.zeros(count, steps, len(simulator.task.orders), device=device)
    for step in range(steps):
        if narrow is not None and float((there > 0).to(torch.float32).mean()) < 0.5:
            kept = (there > 0).nonzero().squeeze(1)
            narrow(kept)
            state, chart, rows, there = tree.take(state, kept), tree.take(chart, kept), rows[kept], there[kept]
        if not bool((there > 0).any()):
            break
        orders = decide(step, chart, rows)
        state, chart, reward, cost, goes_on = imagined_step(simulator, state, chart, orders)
        here = there > 0
        given[rows, step] = torch.where(here.unsqueeze(1), orders, 0.0)
        rewards[rows, step] = torch.where(here, there * reward, 0.0)
        costs[rows, step] = torch.where(here, there * cost, 0.0)
        returns[rows] += discount**step * rewards[rows, step]
        there = there * goes_on
        ended[rows] = 1.0 - there
    if value is not None and len(rows):
        returns[rows] += torch.where(there > 0, discount**steps * there * value(chart), 0.0)
    return Followed(returns, rewards, costs, given, ended > 0.5 if simulator.events == "drawn" else ended)


def imagined_step(simulator: Simulator, state: Any, chart: Chart, orders: Tensor) -> ExpectedStep:
    """A step as the simulator imagines it: with its events drawn, or at their chances."""
    if simulator.events == "expected":
        return expected_step(simulator, state, chart, orders)
    out = simulator.step(state, chart, orders)
    return ExpectedStep(out.state, out.chart, out.reward, out.cost, (~out.terminated).to(torch.float32))
