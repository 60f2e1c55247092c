"""WorldPlanner: an Agent that keeps a belief about each patient and plans in a world model.

At each visit it forms the belief from what the charts showed and what was given (`infer` of a learned world), imagines
the futures of many plans in the `Simulator` (same task, same reward as the one that judges it), and carries out the
first step of the plan whose risk-adjusted return is best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agents.planning import proposals
from agents.planning.cem import CEM, CEMConfig
from agents.planning.risk import Mean, Risk
from agents.protocol import menu_of
from agents.rollout import admission_factors
from clinenv.codec import pick_levels
from clinenv.simulator import Simulator
from clinenv.task import Levels
from world_models import keys
from world_models.protocol import Chart, History

__all__ = ["PRESETS", "WorldPlanner"]

# Steps imagined a patient and decision: about 400, 1,200 and 14,000.
PRESETS: dict[str, CEMConfig] = {
    "fast": CEMConfig(horizon=6, candidates=30, particles=4, iterations=1, elites=4, finalists=3, replan_every=2),
    "small": CEMConfig(horizon=8, candidates=32, particles=4, iterations=2, elites=6, finalists=4, replan_every=2),
    "careful": CEMConfig(horizon=12, candidates=48, particles=8, iterations=3, elites=8, finalists=6, replan_every=1),
}


class WorldPlanner:
    """Plans for a batch of patients by CEM over `Simulator.imagine`.

    Args:
        simulator: the world it believes in and the task it is judged by; the task needs a menu, or levels.
        config: how hard to think; one of `PRESETS` by name, or a `CEMConfig`.
        risk: how samples of the return become one number.
        cost_weight: what one unit of safety cost is worth in return (a Lagrange multiplier, 0 ignores cost).
        cost_risk: how samples of minus the cost become one number. `MeanMinusSigma(lam)` here charges
            mu + lam * sigma of the cost, the uncertainty-aware risk score of the ECG-WM paper.
        seed: of the planner's own luck: its beliefs, particles and proposals. The patient's luck is never seen.
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
            if config not in PRESETS:
                raise ValueError(f"no planner preset {config!r}; there are: {', '.join(PRESETS)}")
            config = PRESETS[config]
        if cost_weight < 0:
            raise ValueError(f"cost_weight must be 0 or more, got {cost_weight}; a negative one would reward harm")
        menu = menu_of(simulator)
        if menu is None:
            raise ValueError("the planner chooses from a menu and this task has none; use the task's discrete form")
        if fixed and menu.ndim == 2:
            raise ValueError("fixed is for tasks whose action is a level of each order; a menu has no such orders")
        self.simulator = simulator
        self.config = config
        self.risk = risk or Mean()
        self.cost_weight = cost_weight
        self.cost_risk = cost_risk or Mean()
        self.seed = seed
        self.max_rows = max_rows
        self.name = name
        self.promised: Tensor | None = None  # [B] score of the plan at the last decision, for the exploitation gap
        self._menu = menu
        self._once: Tensor | None = None
        if menu.ndim == 3:
            actions = simulator.task.actions
            self._menu = _narrowed(actions, menu, fixed)
            self._once = torch.tensor([n in actions.once for n in simulator.task.orders], device=menu.device)
        self._clock = getattr(simulator.task, "clock", None) or (lambda chart: chart["hours"])
        self._cem = CEM(config, menu.shape[0] if menu.ndim == 2 else self._menu)
        self._read = [q.name for q in simulator.world.measures if not q.on_request] if sees is None else list(sees)
        self.reset()

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget every patient, or those of mask bool [B]: their next chart is a first visit."""
        if mask is None or not self._charts:
            self._charts: list[Chart] = []  # one a visit, each name -> [B, ...]
            self._orders: list[Tensor] = []  # [B, A] given right after each visit
            self._first: Tensor | None = None  # int64 [B]: the visit at which each row's patient came
            self._plan: Tensor | None = None  # int64 [B, H]
            self._belief: Tensor | None = None  # [B, H, M] proposal for a warm start
            self._key: Tensor | None = None
            return
        visits = len(self._charts)
        self._first = torch.where(mask, visits, self._first)
        self._key = torch.where(mask, keys.fold(self._key, visits), self._key)
        oldest = int(self._first.min())
        if oldest > 0:  # nobody needs the visits of patients who have left
            self._charts, self._orders = self._charts[oldest:], self._orders[oldest:]
            self._first = self._first - oldest

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """int64 [B]: rows of the task's menu; or, where it has levels, float32 [B, A]: the orders themselves."""
        device = self._menu.device
        chart = {name: chart[name].to(device) for name in self._read if name in chart}
        patients = self._clock(chart).shape[0]
        if self._first is None:
            self._first = torch.zeros(patients, dtype=torch.int64, device=device)
            self._key = keys.fold(keys.from_seed(self.seed, patients, device), "agent/planner")
            self._belief = self._cem.prior(patients, device)
            self._plan = torch.zeros(self._belief.shape[:2], dtype=torch.int64, device=device)
            self.promised = torch.zeros(patients, device=device)
        elif self._first.shape[0] != patients:
            known = self._first.shape[0]
            raise ValueError(f"the chart has {patients} rows, the planner remembers {known}; call reset()")
        self._charts.append(chart)

        # Rows of one age share the length of their history, so they are planned together.
        age = len(self._charts) - 1 - self._first
        for visits in age.unique().tolist():
            rows = (age == visits).nonzero().squeeze(1)
            if visits == 0:
                self._belief[rows] = self._cem.prior(rows.shape[0], device)
            if visits % self.config.replan_every == 0:
                group = max(1, self.max_rows // (max(self.config.candidates, 1) * self.config.particles))
                for part in rows.split(group):
                    self._replan(part, int(visits))
        step = age % self.config.replan_every
        if self._menu.ndim == 3:
            orders = self._decode(self._plan)[torch.arange(patients, device=device), step]
            self._orders.append(orders)
            return orders
        choice = self._plan.gather(1, step.unsqueeze(1)).squeeze(1)
        self._orders.append(self._menu[choice])
        return choice

    def _decode(self, plans: Tensor) -> Tensor:
        """Orders float32 [..., H, A] of plans int64 [..., places]."""
        if self._menu.ndim == 2:
            return self._menu[plans]
        orders = pick_levels(self._menu, plans.unflatten(-1, (self._cem.decisions, self._menu.shape[0])))
        if not self.config.hold:
            return orders
        later = torch.where(self._once, 0.0, orders).expand(*orders.shape[:-2], self.config.horizon - 1, -1)
        return torch.cat([orders, later], -2)

    def _replan(self, rows: Tensor, visits: int) -> None:
        """Plan anew for patients `rows` [N], all at their visit number `visits`."""
        key = keys.fold(self._key[rows], visits)
        state = self._believe(rows, visits, keys.fold(key, "belief"))
        # What the belief shows, not what was measured: a world that cannot infer may have drifted from the patient, and
        # a reward of the change between the two would pay for the drift.
        chart = self.simulator.world.observe(state)
        luck = keys.fold(key, "particles")

        def evaluate(plans: Tensor, look: int) -> Tensor:
            c, unseen = self.config, keys.fold(luck, look)
            imagined = self.simulator.imagine(state, chart, self._decode(plans), c.particles, unseen, c.discount)
            score = self.risk(imagined.returns)
            return score + self.cost_weight * self.cost_risk(-imagined.costs) if self.cost_weight else score

        start = self._belief[rows]
        if visits:
            prior = self._cem.prior(rows.shape[0], rows.device)
            places = 0 if self.config.hold else prior.shape[1] // self.config.horizon  # of one step
            start = proposals.shift(start, self.config.replan_every * places, prior)
        plan = self._cem.plan(evaluate, key, start)
        self._plan[rows], self._belief[rows], self.promised[rows] = plan.steps, plan.probabilities, plan.score

    def _believe(self, rows: Tensor, visits: int, key: Tensor) -> Any:
        """State of the planner's world for patients `rows`, from the charts and orders of their visits 0..visits."""
        world = self.simulator.world
        charts = [{n: v[rows] for n, v in c.items()} for c in self._charts[len(self._charts) - 1 - visits :]]
        orders = [o[rows] for o in self._orders[len(self._orders) - visits :]] if visits else []
        if hasattr(world, "infer"):
            hours = torch.stack([self._clock(c) for c in charts], 1)
            nothing = torch.zeros(rows.shape[0], self._menu.shape[-1], device=rows.device)
            history = History(
                charts={n: torch.stack([c[n] for c in charts], 1) for n in charts[0]},
                actions=torch.stack([*orders, nothing], 1),
                hours=hours - hours[:, :1],
            )
            return world.infer(history, key)
        # A world that cannot infer knows the admission chart only: it is told what was given and trusts itself.
        state = world.initial(key, admission_factors(charts[0], world))
        for order in orders:
            state = world.transition(state, order)
        return state


def _narrowed(actions: Levels, table: Tensor, fixed: Mapping[str, float] | None) -> Tensor:
    """The table [D, M, A] with the fixed orders' other levels taken out."""
    if fixed is None:
        amounts = actions.amounts.get(actions.interval, ())
        fixed = {actions.interval: amounts[len(amounts) // 2]} if amounts else {}
    table = table.clone()
    for name, amount in fixed.items():
        if amount not in actions.amounts.get(name, ()):
            offered = ", ".join(f"{a:g}" for a in actions.amounts.get(name, ())) or "no level of that name"
            raise ValueError(f"fixed {name}={amount:g} is not among its levels: {offered}")
        entry, level = actions.names.index(name), actions.amounts[name].index(amount)
        kept = table[entry, level].clone()
        table[entry] = torch.nan
        table[entry, 0] = kept
    return table
