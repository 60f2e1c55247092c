"""WorldPlanner: an Agent that keeps a belief about each patient and plans in a world model.

At each visit it forms the belief from what the charts showed and what was given (`infer` of a learned world), imagines
the futures of many plans in the `Simulator` (same task, same reward as the one that judges it), and carries out the
first step of the plan whose risk-adjusted return is best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from agents.planning.cem import CEM, CEMConfig
from agents.planning.objective import Objective, ReturnAndCost
from agents.planning.plan_space import LevelPlans, MenuPlans, PlanSpace, fixed_levels
from agents.planning.risk import Mean, Risk
from agents.rollout import admission_factors
from clinenv.simulator import Simulator
from clinenv.task import Levels, Menu
from world_models import keys
from world_models.inputs import admit
from world_models.protocol import Chart, History

__all__ = ["PLANNER_PRESETS", "WorldPlanner"]

# Steps imagined a patient and decision: about 400, 1,200 and 14,000.
PLANNER_PRESETS: dict[str, CEMConfig] = {
    "fast": CEMConfig(horizon=6, candidates=30, particles=4, iterations=1, elites=4, finalists=3, replan_every=2),
    "small": CEMConfig(horizon=8, candidates=32, particles=4, iterations=2, elites=6, finalists=4, replan_every=2),
    "careful": CEMConfig(horizon=12, candidates=48, particles=8, iterations=3, elites=8, finalists=6, replan_every=1),
}


@runtime_checkable
class _Infers(Protocol):
    """A world that forms a belief from a recorded course."""

    def infer(self, history: History, key: Tensor) -> Any:
        """State of the patients [B] at the last visit of their history; unknowns come from key [B]."""


@dataclass
class _Memory:
    """What is remembered of the B patients of a batch."""

    first: Tensor  # int64 [B]: the visit at which each row's patient came
    key: Tensor  # int64 [B]
    plan: Tensor  # [B, places]: what is being carried out
    belief: Tensor  # [B, places, ...]: the proposal for a warm start
    charts: list[Chart] = field(default_factory=list)  # one a visit, each name -> [B, ...]
    orders: list[Tensor] = field(default_factory=list)  # [B, A] given right after each visit


class WorldPlanner:
    """Plans for a batch of patients by CEM over `Simulator.imagine`.

    Args:
        simulator: the world it believes in and the task it is judged by; the task needs a menu, or levels.
        config: how hard to think; one of `PLANNER_PRESETS` by name, or a `CEMConfig`.
        risk: how samples of the return become one number.
        cost_weight: what one unit of safety cost is worth in return (a Lagrange multiplier, 0 ignores cost).
        cost_risk: how samples of minus the cost become one number. `MeanMinusSigma(lam)` here charges
            mu + lam * sigma of the cost, the uncertainty-aware risk score of the ECG-WM paper.
        seed: of the planner's own random stream: its beliefs, particles and proposals. The patient's is never seen.
        max_rows: futures imagined at once; patients are taken in groups so that memory stays bounded.
        name: for tables.
        fixed: levels only: orders that every plan gives at one of their amounts, and that are not searched. By default
            the order that says how long a step lasts, at its middle amount: plans of different length are not
            comparable, and a plan that cannot react to what a visit shows sees no use in one.
        sees: the measures of a chart that a belief is formed from, those on request too (`judge(also=...)` brings
            them); None: all that are not on request. A chart may hold what no observation shows, such as recorded
            diagnoses: leave them out for a planner that is to know no more than a policy.

    Raises:
        ValueError: the task has neither menu nor levels, an unknown preset, a negative cost_weight, or `fixed` names an
            order or an amount that is not among the levels.
    """

    def __init__(
        self,
        simulator: Simulator,
        config: CEMConfig | str = "small",
        risk: Risk | None = None,
        cost_weight: float = 0.0,
        cost_risk: Risk | None = None,
        seed: int = 0,
        max_rows: int = 65_536,
        name: str = "CEM",
        fixed: Mapping[str, float] | None = None,
        sees: Sequence[str] | None = None,
    ) -> None:
        if isinstance(config, str):
            if config not in PLANNER_PRESETS:
                raise ValueError(f"no planner preset {config!r}; there are: {', '.join(PLANNER_PRESETS)}")
            config = PLANNER_PRESETS[config]
        self.simulator = simulator
        self.config = config
        self.objective: Objective = ReturnAndCost(risk or Mean(), cost_weight, cost_risk or Mean())
        self.seed = seed
        self.max_rows = max_rows
        self.name = name
        self.promised: Tensor | None = None  # [B] score of the plan at the last decision, for the exploitation gap
        self._space = _plan_space(simulator, config, fixed)
        self._cem = CEM(config, self._space)
        self._read = [q.name for q in simulator.world.measures if not q.on_request] if sees is None else list(sees)
        self._memory: _Memory | None = None

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget every patient, or those of mask bool [B]: their next chart is a first visit."""
        memory = self._memory
        if mask is None or memory is None:
            self._memory = None
            return
        visits = len(memory.charts)
        memory.first = torch.where(mask, visits, memory.first)
        memory.key = torch.where(mask, keys.fold(memory.key, visits), memory.key)
        oldest = int(memory.first.min())
        if oldest > 0:  # nobody needs the visits of patients who have left
            memory.charts, memory.orders = memory.charts[oldest:], memory.orders[oldest:]
            memory.first = memory.first - oldest

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """int64 [B]: rows of the task's menu; or, where it has levels, float32 [B, A]: the orders themselves.

        Raises:
            ValueError: the chart has another number of rows than the ones before it since `reset`.
        """
        device = self.simulator.device
        chart = {name: chart[name].to(device) for name in self._read if name in chart}
        patients = self.simulator.task.clock(chart).shape[0]
        if self._memory is None:
            self._memory = self._blank(patients)
        memory = self._memory
        if memory.first.shape[0] != patients:
            known = memory.first.shape[0]
            raise ValueError(f"the chart has {patients} rows, the planner remembers {known}; call reset()")
        memory.charts.append(chart)

        # Rows of one age share the length of their history, so they are planned together.
        age = len(memory.charts) - 1 - memory.first
        for visits in age.unique().tolist():
            rows = (age == visits).nonzero().squeeze(1)
            if visits == 0:
                memory.belief[rows] = self._space.prior(rows.shape[0])
            if visits % self.config.replan_every == 0:
                group = max(1, self.max_rows // (max(self.config.candidates, 1) * self.config.particles))
                for part in rows.split(group):
                    self._replan(memory, part, int(visits))
        step = age % self.config.replan_every
        memory.orders.append(self._space.orders(memory.plan)[torch.arange(patients, device=device), step])
        return self._space.decisions(memory.plan, step)

    def _blank(self, patients: int) -> _Memory:
        """Of patients nobody has seen."""
        device = self.simulator.device
        self.promised = torch.zeros(patients, device=device)
        return _Memory(
            first=torch.zeros(patients, dtype=torch.int64, device=device),
            key=keys.fold(keys.from_seed(self.seed, patients, device), "agent/planner"),
            plan=self._space.anchors()[:1].repeat(patients, 1),
            belief=self._space.prior(patients),
        )

    def _replan(self, memory: _Memory, rows: Tensor, visits: int) -> None:
        """Plan anew for patients `rows` [N], all at their visit number `visits`."""
        key = keys.fold(memory.key[rows], visits)
        state = self._believe(memory, rows, visits, keys.fold(key, "belief"))
        # What the belief shows, not what was measured: a world that cannot infer may have drifted from the patient, and
        # a reward of the change between the two would pay for the drift.
        chart = self.simulator.world.observe(state)
        futures = keys.fold(key, "particles")

        def evaluate(plans: Tensor, look: int) -> Tensor:
            c, unseen = self.config, keys.fold(futures, look)
            imagined = self.simulator.imagine(state, chart, self._space.orders(plans), c.particles, unseen, c.discount)
            return self.objective(imagined)

        start = memory.belief[rows]
        if visits:
            start = self._space.later(start, self.config.replan_every)
        chosen = self._cem.plan(evaluate, key, start)
        memory.plan[rows], memory.belief[rows] = chosen.plan, chosen.belief
        assert self.promised is not None  # since the first chart
        self.promised[rows] = chosen.score

    def _believe(self, memory: _Memory, rows: Tensor, visits: int, key: Tensor) -> Any:
        """State of the planner's world for patients `rows`, from the charts and orders of their visits 0..visits."""
        world, task = self.simulator.world, self.simulator.task
        charts = [{n: v[rows] for n, v in c.items()} for c in memory.charts[len(memory.charts) - 1 - visits :]]
        orders = [o[rows] for o in memory.orders[len(memory.orders) - visits :]] if visits else []
        if isinstance(world, _Infers):
            hours = torch.stack([task.clock(c) for c in charts], 1)
            nothing = torch.zeros(rows.shape[0], len(task.orders), device=rows.device)
            history = History(
                charts={n: torch.stack([c[n] for c in charts], 1) for n in charts[0]},
                actions=torch.stack([*orders, nothing], 1),
                hours=hours - hours[:, :1],
            )
            return world.infer(history, key)
        # A world that cannot infer knows the admission chart only: it is told what was given and trusts itself.
        state = admit(world, key, admission_factors(charts[0], world))
        for order in orders:
            state = world.transition(state, order)
        return state


def _plan_space(simulator: Simulator, config: CEMConfig, fixed: Mapping[str, float] | None) -> PlanSpace:
    """The plans that the task's kind of action allows: the only place where the kinds are told apart."""
    actions, orders = simulator.task.actions, simulator.world.orders
    if isinstance(actions, Menu):
        if fixed:
            raise ValueError("fixed is for tasks whose action is a level of each order; a menu has no such orders")
        if config.hold:
            raise ValueError("hold is for tasks whose action is a level of each order; a menu has no such plan")
        return MenuPlans(actions.table(orders, simulator.device), config.horizon, config.nothing, config.every)
    if isinstance(actions, Levels):
        table = fixed_levels(actions, actions.table(orders, simulator.device), fixed)
        once = torch.tensor([name in actions.once for name in simulator.task.orders], device=simulator.device)
        return LevelPlans(table, config.horizon, config.nothing, once, config.hold)
    raise ValueError("the planner chooses from a menu and this task has none; use the task's discrete form")
