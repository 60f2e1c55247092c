"""Rollout: take the base policy's decision, unless an edit of it, followed by the policy itself, is surely better.

Bertsekas & Castanon 1999 (doi 10.1023/A:1009634810396): one step of policy improvement, made online for the patient at
hand. Candidates are what is done from now until the next plan; after that the policy goes on, in closed loop, in each
imagined future. With dozens of concurrent orders, edits of one order each are tried first, on the same futures, and
those that gain are then tried together (one component at a time: Bertsekas 2020, arXiv 1910.00120).

An edit has to gain more than its standard error does (`caution`): the futures differ by single deaths that no edit
caused, and the best of many by chance is not good. So where nothing is sure, the policy is followed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.planning.believer import Believer, Moment
from agents.planning.budget import Budget, Meter
from agents.planning.edits import Edits, edits_of
from agents.planning.imagination import Imagination, Value
from agents.planning.objective import Objective, ReturnAndCost
from agents.planning.policy_here import Narrowing, PolicyHere
from agents.planning.report import PlanReport, blank_report
from agents.planning.rollout_trial import Trial
from agents.protocol import Agent, menu_of, to_orders
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.protocol import Chart

__all__ = ["RolloutConfig", "RolloutPlanner"]


@dataclass(frozen=True)
class RolloutConfig:
    """How hard to think: about (edits + 1) * particles * horizon steps are imagined a decision, and a little more."""

    horizon: int = 12  # steps looked ahead, the policy's included
    particles: int = 8  # imagined futures of each edit
    edits: int = 48  # single edits tried at most; with a budget as many as it pays for
    replan_every: int = 6  # steps that an edit holds for, and from one plan to the next
    screen: float = 0.5  # standard errors that the gain of a single edit must exceed to be tried together with others
    caution: float = 2.0  # and that of what is carried out, on futures that had no part in finding it
    joint: int = 12  # single edits at most that are tried together
    finals: int = 2  # times as many futures, not seen before, on which the finalists are compared
    discount: float = 1.0  # per step

    def __post_init__(self) -> None:
        for name in ("horizon", "edits", "replan_every", "joint", "finals"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.particles < 2:
            raise ValueError(f"particles must be at least 2, got {self.particles}: one alone has no standard error")
        if self.replan_every > self.horizon:
            raise ValueError(f"replan_every ({self.replan_every}) is past the horizon ({self.horizon}); lower it")
        if min(self.caution, self.screen) < 0:
            raise ValueError(f"screen and caution must be 0 or more, got {self.screen} and {self.caution}")


class RolloutPlanner(Believer):
    """An agent that improves on another by rollouts in an imagined world.

    Args:
        simulator: the world it believes in and the task it is judged by.
        policy: the base policy, an agent of the same task; it is copied.
        config: how hard to think.
        objective: of imagined returns and costs; None: the mean return.
        edits: what may be edited; None: what the kind of action suggests (`edits_of`).
        value: of the chart at the horizon, chart -> [B]; None: nothing follows.
        budget, seed, max_rows, sees, state_of, episode_hours: see `WorldPlanner` and `Believer`.
        name: for tables.
    """

    def __init__(
        self,
        simulator: Simulator,
        policy: Agent,
        config: RolloutConfig | None = None,
        objective: Objective | None = None,
        edits: Edits | None = None,
        value: Value | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        max_rows: int = 16_384,
        name: str | None = None,
        sees: Sequence[str] | None = None,
        state_of: Callable[[], Any] | None = None,
        episode_hours: float | None = None,
    ) -> None:
        self.config = c = config or RolloutConfig()
        # groups of patients large enough to fill `max_rows` with the policy's own futures
        super().__init__(simulator, c.replan_every, 4 * c.particles, seed, max_rows, sees, state_of, episode_hours)
        self._max_rows = max_rows
        self.objective: Objective = objective or ReturnAndCost()
        self.value, self.budget, self.name = value, budget, name or f"rollout of {policy.name}"
        self.report: PlanReport | None = None
        self._edits = edits_of(simulator) if edits is None else edits
        self._menu = menu_of(simulator)
        # one copy sees patients, one their futures
        self._live, self._imagined = Narrowing(copy.deepcopy(policy)), copy.deepcopy(policy)
        self._chosen = torch.zeros(0, 0)  # bool [B, E]: the edits that hold

    # ---- the agent -------------------------------------------------------------------------------------------------

    def reset(self, mask: Tensor | None = None) -> None:
        """See `Believer.reset`."""
        super().reset(mask)
        self._live.reset(mask)

    def _blank(self, patients: int) -> None:
        device = self.simulator.device
        self._chosen = torch.zeros(patients, len(self._edits), dtype=torch.bool, device=device)
        self.report = blank_report(patients, self.config.horizon, device)

    def _narrow(self, rows: Tensor) -> None:
        self._live.narrow(rows)
        self._chosen, self.report = self._chosen[rows], tree.take(self.report, rows)

    def _decide(self, chart: Chart, step: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [B, A] twice: the policy's orders on the chart, edited."""
        assert self.report is not None
        self.report = self.report._replace(decided=step == 0)
        orders = self._edits.applied(to_orders(self._live.act(chart), self._menu), self._chosen, step)
        return orders, orders

    # ---- the plan --------------------------------------------------------------------------------------------------

    def _plan(self, moment: Moment) -> None:
        c, rows = self.config, moment.rows
        meter = Meter(self.budget, len(rows))
        policy = PolicyHere(self._imagined, moment.history, self._menu)
        futures = keys.fold(moment.key, "particles")
        rest = (self.objective, c.particles, c.discount, policy, self.value)
        imagined = Imagination(self.simulator, moment.state, moment.chart, futures, *rest)
        found = Trial(imagined, policy, self._edits, c, meter, self._max_rows).solve(moment.key)
        self._chosen[rows] = found.chosen
        r = self.report
        assert r is not None
        r.transitions[rows], r.milliseconds[rows] = found.transitions, meter.milliseconds
        r.promised[rows], r.rewards[rows], r.costs[rows] = found.promised, found.course.rewards, found.course.costs
