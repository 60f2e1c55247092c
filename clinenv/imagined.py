"""Imagined courses: what a planner is told of a plan's futures, and how one future is added up.

Rare events can be drawn, as they strike in an environment, or taken at their chances (`accrue_expected`). Drawn, a few
particles see a death of one in a thousand hardly ever, and no gradient passes. At their chances, a future's return is
its expectation over the events given all else of the course (Rao-Blackwell): the mean over particles is the same, its
variance smaller, and what moves a chance moves the return. Only means may be taken of such futures: the spread that the
events themselves make is no longer in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from clinenv.task import Task
from world_models.protocol import Chart, Fates, TellsFates

if TYPE_CHECKING:
    from clinenv.simulator import Simulator

__all__ = ["EVENTS", "Accrue", "ExpectedStep", "Imagined", "accrue_drawn", "accrue_expected", "expected_step", "total"]

EVENTS = ("drawn", "expected")


class Imagined(NamedTuple):
    """What a planner is told about its candidates."""

    returns: Tensor  # float32 [B, K, P]: discounted sum of rewards until the horizon or the end
    costs: Tensor  # float32 [B, K, P]: plain sum of costs
    terminated: Tensor  # bool [B, K, P]: the task ended within the horizon; events expected: float32, its chance
    # Futures stand in runs of so many that share a belief (what is not known of the patient) and differ by chance
    # alone. 1: each has a belief of its own.
    chances: int = 1
    members: Tensor | None = None  # int64 [B, P]: the member of an ensemble that each lives in; None: one world


# (simulator, state, chart, plans [R, H, A], discount) -> return, cost and end [R] of one plan a row
Accrue = Callable[["Simulator", Any, Chart, Tensor, float], tuple[Tensor, Tensor, Tensor]]


def accrue_drawn(
    simulator: Simulator, state: Any, chart: Chart, actions: Tensor, discount: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, cost and end bool [R] of one plan [R, H, A] a row, its events as they are drawn."""
    alive = ~simulator.task.terminated(chart)
    returns = torch.zeros(alive.shape, device=alive.device)
    costs = torch.zeros_like(returns)
    weight = 1.0
    for step in range(actions.shape[1]):
        out = simulator.step(state, chart, actions[:, step])
        returns = returns + torch.where(alive, out.reward, 0.0) * weight
        costs = costs + torch.where(alive, out.cost, 0.0)
        alive = alive & ~out.terminated
        state, chart, weight = out.state, out.chart, weight * discount
    return returns, costs, ~alive


def accrue_expected(
    simulator: Simulator, state: Any, chart: Chart, actions: Tensor, discount: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the events that the world tells the chances of (`TellsFates`) taken at them; the end is the chance
    of it.

    A step is judged once as if nothing had struck and once for each event; the course goes on without one, weighed by
    the chance that it does. Exact for events that end the task; one that does not is held to leave the rest of the
    course as it would have been.
    """
    there = (~simulator.task.terminated(chart)).to(torch.float32)  # [R] the chance that the task has not ended
    returns = torch.zeros_like(there)
    costs = torch.zeros_like(there)
    weight = 1.0
    for step in range(actions.shape[1]):
        state, chart, reward, cost, goes_on = expected_step(simulator, state, chart, actions[:, step])
        returns = returns + torch.where(there > 0, there * reward, 0.0) * weight
        costs = costs + torch.where(there > 0, there * cost, 0.0)
        there, weight = there * goes_on, weight * discount
    return returns, costs, 1.0 - there


class ExpectedStep(NamedTuple):
    """A step with its events taken at their chances."""

    state: Any  # as if no event had struck
    chart: Chart  # of it
    reward: Tensor  # [R] expected
    cost: Tensor  # [R] expected
    goes_on: Tensor  # [R] the chance that the task has not ended


def expected_step(simulator: Simulator, state: Any, chart: Chart, action: Tensor) -> ExpectedStep:
    """One step of R patients under action [R, A] in a world that tells the chances of its events."""
    world = simulator.world
    assert isinstance(world, TellsFates)  # as the simulator has seen to
    given, _ = simulator.carried_out(chart, action)
    fates = world.fates(state, world.transition(state, given))
    spared = simulator.world.observe(fates.spared)
    reward, cost, goes_on = _expected(simulator.task, (chart, given, spared), fates)
    if simulator.wary is not None:
        pays, outside = simulator.wary(fates.spared)
        reward = reward + pays
        goes_on = goes_on if outside is None else torch.where(outside, 0.0, goes_on)
    return ExpectedStep(fates.spared, spared, reward, cost, goes_on)


def _expected(task: Task, moved: tuple[Chart, Tensor, Chart], fates: Fates) -> tuple[Tensor, Tensor, Tensor]:
    """Reward, cost and chance of going on [R] of a step, over its events; moved: before, what was given, after."""
    before, given, spared = moved
    outcomes = [(1.0 - total(fates.chances), spared)]
    for name, chance in fates.chances.items():
        outcomes.append((chance, {**spared, name: torch.full_like(spared[name], fates.values[name])}))
    reward, cost, goes_on = (torch.zeros_like(outcomes[0][0]) for _ in range(3))
    for chance, after in outcomes:
        reward = reward + chance * total(task.reward(before, given, after))
        cost = cost + chance * task.cost(before, given, after)
        goes_on = goes_on + torch.where(task.terminated(after), 0.0, chance)
    return reward, cost, goes_on


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """Explicit adds in the parts' own order: the same bits whatever the batch."""
    first, *others = parts.values()
    for value in others:
        first = first + value
    return first
