"""WorldPlanner: an Agent that keeps a belief about each patient and plans in a world model.

At each visit it forms the belief from what the charts showed and what was given (`infer` of a learned world), imagines
the futures of many plans in the `Simulator` (same task, same reward as the one that judges it), and carries out the
first step of the plan whose risk-adjusted return is best. Any optimiser may search, for any kind of action.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agents.planning.believer import Believer, Moment
from agents.planning.budget import Budget, Meter
from agents.planning.dose_plans import DosePlans, dose_menu
from agents.planning.imagination import Course, Imagination, Value
from agents.planning.level_plans import LevelPlans, SwitchPlans, acts, fixed_levels
from agents.planning.menu_plans import MenuPlans
from agents.planning.objective import Objective, ReturnAndCost
from agents.planning.plan_config import PlanConfig
from agents.planning.plan_space import PlanSpace
from agents.planning.policy_here import PolicyHere
from agents.planning.presets import config_of
from agents.planning.problem import Optimiser, Problem
from agents.planning.report import PlanReport, blank_report
from agents.planning.risk import Mean, Risk
from agents.planning.schedule_plans import SchedulePlans
from agents.planning.value import WithValue
from agents.protocol import Agent, menu_of
from clinenv.simulator import Simulator
from clinenv.task import Doses, Levels, Menu
from world_models import keys, tree

__all__ = ["WorldPlanner", "plan_space"]

DOSE_SHARES = (0.125, 0.25, 0.5, 1.0)  # of the largest amount, that a schedule of a continuous dose chooses from


class WorldPlanner(Believer):
    """Plans for a batch of patients by search over imagined futures.

    Args:
        simulator: the world it believes in and the task it is judged by; with `grad=True` for a planner by gradients.
        config: how hard to think: "fast", "small" or "careful" (`presets`, which depend on the task), or a config.
        risk: how samples of the return become one number.
        cost_weight: what one unit of safety cost is worth in return (a Lagrange multiplier, 0 ignores cost).
        cost_risk: how samples of minus the cost become one number. `MeanMinusSigma(lam)` here charges
            mu + lam * sigma of the cost, the uncertainty-aware risk score of the ECG-WM paper.
        seed, max_rows, sees, state_of, episode_hours: see `Believer`.
        name: for tables; None: the planner's.
        fixed: levels only: orders that every plan gives at one of their amounts, and that are not searched. By default
            the order that says how long a step lasts, at its middle amount: plans of different length are not
            comparable, and a plan that cannot react to what a visit shows sees no use in one.
        planner: which one, where `config` is the name of a preset: "shooting", "cem", "icem", "mppi", "gradient",
            "tree" or "inverse"; or an object with `plan(problem)`, which then does the search.
        budget: of one decision; None: what the config says.
        policy: an agent of the same task whose orders, rolled out in the imagined world, are proposed as plans; around
            them, plans are sampled as edits. It is reset and shown other patients: use it nowhere else.
        proposals: imagined futures of each patient in which the policy is followed, each a proposal.
        value: of what follows after the horizon, chart -> [B] (`value.ValueNetwork`).
        objective: what is made of imagined returns and costs; instead of risk, cost_weight and cost_risk.

    Raises:
        ValueError: an unknown preset or planner, a negative cost_weight, `fixed` names an order or an amount that is
            not among the levels, or an objective beside a risk.
    """

    def __init__(
        self,
        simulator: Simulator,
        config: PlanConfig | str = "small",
        risk: Risk | None = None,
        cost_weight: float = 0.0,
        cost_risk: Risk | None = None,
        seed: int = 0,
        max_rows: int = 65_536,
        name: str | None = None,
        fixed: Mapping[str, float] | None = None,
        sees: Sequence[str] | None = None,
        planner: str | Optimiser = "cem",
        budget: Budget | None = None,
        policy: Agent | None = None,
        proposals: int = 1,
        value: Value | None = None,
        objective: Objective | None = None,
        state_of: Callable[[], Any] | None = None,
        episode_hours: float | None = None,
    ) -> None:
        if isinstance(config, str):
            config = config_of(simulator.task, planner if isinstance(planner, str) else "cem", config)
        if objective is not None and (risk is not None or cost_risk is not None or cost_weight):
            raise ValueError("give an objective, or risk, cost_weight and cost_risk; together one would be ignored")
        if proposals < 1:
            raise ValueError(f"proposals must be at least 1, got {proposals}; leave the policy out for none")
        super().__init__(simulator, config.replan_every, config.rows, seed, max_rows, sees, state_of, episode_hours)
        self.config, self.budget, self.value = config, budget, value
        self.objective = objective or ReturnAndCost(risk or Mean(), cost_weight, cost_risk or Mean())
        self._optimiser = config.optimiser() if isinstance(planner, str) else planner
        self.name = name or type(self._optimiser).__name__
        self.report: PlanReport | None = None  # of the last decisions
        simulator = self.simulator  # whose task may end sooner
        self._space = plan_space(simulator, config, fixed)
        self._policy, self._proposals = copy.deepcopy(policy), proposals
        self._menu = menu_of(simulator)
        self._imagined_in = simulator
        if value is not None:  # the sum of shaped rewards is the return and the value at the horizon, less that of now
            self._imagined_in = copy.copy(simulator)
            self._imagined_in.task = WithValue(simulator.task, value, config.discount)

    @property
    def promised(self) -> Tensor | None:
        """[B] score of each patient's plan, for the exploitation gap."""
        return None if self.report is None else self.report.promised

    def _blank(self, patients: int) -> None:
        device, h = self.simulator.device, self.config.horizon
        nothing = torch.zeros(patients, h, len(self.simulator.task.orders), device=device)
        space = self._space if self._policy is None else self._space.around(nothing)
        plan = space.anchors()[:1].repeat(patients, 1)
        self._beliefs = space.prior(patients)
        self._elites: Tensor | None = None
        self._orders = nothing
        self._steps = torch.stack([self._decision(space, plan, s) for s in range(self.config.replan_every)], 1)
        self.report = blank_report(patients, h, device)

    def _narrow(self, rows: Tensor) -> None:
        self._beliefs, self._orders, self._steps = self._beliefs[rows], self._orders[rows], self._steps[rows]
        self._elites = None if self._elites is None else self._elites[rows]
        self.report = tree.take(self.report, rows)

    def _decide(self, chart: Any, step: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [B], rows of the task's menu, or float32 [B, A], the orders; and the orders."""
        rows = torch.arange(step.shape[0], device=step.device)
        assert self.report is not None  # since the first chart
        self.report = self.report._replace(decided=step == 0)
        return self._steps[rows, step], self._orders[rows, step]

    def _plan(self, moment: Moment) -> None:
        c, rows = self.config, moment.rows
        each = c.particles * c.horizon
        meter = Meter(self.budget, len(rows), each)
        policy = None if self._policy is None else PolicyHere(self._policy, moment.history, self._menu)
        futures, value = keys.fold(moment.key, "particles"), self.value
        rest = (moment.state, moment.chart, futures, self.objective, c.particles, c.discount, policy, value)
        imagination = Imagination(self._imagined_in, *rest)
        space, proposals = self._space, []
        if policy is not None:
            with meter.spending(self._proposals * c.horizon):
                base = imagination.policy_orders(c.horizon, self._proposals, look=2)
            space = self._space.around(base[:, 0])
            # whichever follows the policy's first future comes first: it is the one that is edited
            proposals.append(space.nearest(base))
        start = space.prior(len(rows))
        if moment.visits:
            start = space.later(self._beliefs[rows], c.replan_every) if policy is None else start
            if self._elites is not None:
                proposals.append(space.shifted(self._elites[rows], c.replan_every))
        offered = torch.cat(proposals, 1) if proposals else None
        problem = Problem(space, moment.key, imagination.score, start, offered, each, meter, imagination)
        chosen = self._optimiser.plan(problem)
        with meter.spending(each):
            course = Imagination(self.simulator, *rest).course(chosen.orders, look=3)
        now = torch.zeros_like(chosen.score) if value is None else value(moment.chart)
        self._beliefs[rows], self._orders[rows] = chosen.belief, chosen.orders
        for step in range(c.replan_every):
            self._steps[rows, step] = self._decision(space, chosen.plan, step)
        self._keep_elites(rows, chosen.elites)
        self._note(rows, meter, chosen.score + now, course)

    @staticmethod
    def _decision(space: PlanSpace, plans: Tensor, step: int) -> Tensor:
        return space.decisions(plans, torch.full((len(plans),), step, device=plans.device))

    def _keep_elites(self, rows: Tensor, elites: Tensor | None) -> None:
        """Those of the best plans that the next decision tries again."""
        kept = 0 if elites is None else int(self.config.keep_elites * elites.shape[1])
        if elites is None or not kept:
            return
        if self._elites is None or self._elites.shape[1] != kept:
            self._elites = elites[:1, :kept].repeat(self._beliefs.shape[0], 1, 1)
        self._elites[rows] = elites[:, :kept]

    def _note(self, rows: Tensor, meter: Meter, promised: Tensor, course: Course) -> None:
        """The report of these rows."""
        assert self.report is not None
        r = self.report
        r.transitions[rows], r.milliseconds[rows] = meter.transitions, meter.milliseconds
        r.promised[rows], r.rewards[rows], r.costs[rows] = promised, course.rewards, course.costs


def plan_space(simulator: Simulator, config: PlanConfig, fixed: Mapping[str, float] | None = None) -> PlanSpace:
    """The plans that the task's kind of action allows: the only place where the kinds are told apart.

    Raises:
        ValueError: `fixed` or a schedule where the kind of action has no such thing.
    """
    actions, orders, device, c = simulator.task.actions, simulator.world.orders, simulator.device, config
    if fixed and not isinstance(actions, Levels):
        raise ValueError("fixed is for tasks whose action is a level of each order; this one has no such orders")
    if isinstance(actions, Menu | Doses) and c.schedule:
        rows = isinstance(actions, Menu)
        menu = (
            actions.table(orders, device)
            if isinstance(actions, Menu)
            else dose_menu(actions, orders, DOSE_SHARES, device)
        )
        return SchedulePlans(menu, c.horizon, c.nothing, c.every or (1,), indices=rows)
    if c.schedule:
        raise ValueError("schedule is for menus and doses; concurrent choices have blocks of steps (block)")
    if isinstance(actions, Menu):
        return MenuPlans(actions.table(orders, device), c.horizon, c.nothing, c.every, c.block)
    if isinstance(actions, Levels):
        table = fixed_levels(actions, actions.table(orders, device), fixed)
        once = torch.tensor([name in actions.once for name in simulator.task.orders], device=device)
        return LevelPlans(table, c.horizon, c.nothing, once, c.block)
    if isinstance(actions, Doses):
        return DosePlans(actions, orders, c.horizon, c.nothing, c.every, c.block, acts(orders, None, device), device)
    return SwitchPlans(actions, orders, c.horizon, c.nothing, c.block, acts(orders, None, device), device)
