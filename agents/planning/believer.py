"""Believer: what every planner shares. It remembers each patient's charts and orders, forms the belief, and plans anew
when it is time; what a plan is, and how one is found, is its subclasses'.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from agents.planning.task_around import EndsAt
from agents.rollout import admission_factors
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.inputs import admit
from world_models.protocol import Chart, History

__all__ = ["Believer", "Moment"]


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
    charts: list[Chart] = field(default_factory=list)  # one a visit, each name -> [B, ...]
    orders: list[Tensor] = field(default_factory=list)  # [B, A] given right after each visit


@dataclass(frozen=True)
class Moment:
    """Patients `rows` int64 [N] of the batch, all at their visit number `visits`, who need a plan now."""

    rows: Tensor
    visits: int
    state: Any  # of the planner's world
    chart: Chart  # that the state shows
    history: list[Chart]  # of their visits before this one
    key: Tensor  # int64 [N] of the planner's own random stream, new at every visit


class Believer(ABC):
    """An agent that keeps a belief about each patient of a batch and plans every few visits.

    Args:
        simulator: the world it believes in and the task it is judged by.
        replan_every: visits from one plan to the next.
        rows_a_patient: imagined for each patient at once; with `max_rows` it bounds the memory.
        seed: of the planner's own random stream: its beliefs, particles and proposals. The patient's is never seen.
        max_rows: futures imagined at once; patients are taken in groups.
        sees: the measures of a chart that a belief is formed from, those on request too (`judge(also=...)` brings
            them); None: all that are not on request. A chart may hold what no observation shows, such as recorded
            diagnoses: leave them out for a planner that is to know no more than a policy.
        episode_hours: after which the patients' episodes are cut off; what is imagined past that does not count. None:
            never, but by the task's own end.
        state_of: gives the true state of the batch in the simulator's own world. For upper references alone: such a
            planner owns the oracle, and knows everything of its patients but their luck, which is sampled anew.
    """

    name: str

    def __init__(
        self,
        simulator: Simulator,
        replan_every: int,
        rows_a_patient: int,
        seed: int = 0,
        max_rows: int = 65_536,
        sees: Sequence[str] | None = None,
        state_of: Callable[[], Any] | None = None,
        episode_hours: float | None = None,
    ) -> None:
        if episode_hours is not None:
            simulator = copy.copy(simulator)
            simulator.task = EndsAt(simulator.task, episode_hours)
        self.simulator, self.seed = simulator, seed
        self._replan_every, self._group = replan_every, max(1, max_rows // max(rows_a_patient, 1))
        self._read = [q.name for q in simulator.world.measures if not q.on_request] if sees is None else list(sees)
        self._state_of = state_of
        self._kept: Tensor | None = None  # rows of the batch that `state_of` still gives whole
        self._memory: _Memory | None = None

    # ---- what a planner is -----------------------------------------------------------------------------------------

    @abstractmethod
    def _plan(self, moment: Moment) -> None:
        """Make and keep a plan for patients who need one."""

    @abstractmethod
    def _decide(self, chart: Chart, step: Tensor) -> tuple[Tensor, Tensor]:
        """What `act` gives, and the orders float32 [B, A], at visit `step` int64 [B] of each patient's plan."""

    @abstractmethod
    def _blank(self, patients: int) -> None:
        """Forget all plans: the next ones are of so many patients, whom nobody has seen."""

    @abstractmethod
    def _narrow(self, rows: Tensor) -> None:
        """Keep the plans of these rows alone."""

    # ---- the agent -------------------------------------------------------------------------------------------------

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget every patient, or those of mask bool [B]: their next chart is a first visit."""
        memory = self._memory
        if mask is None or memory is None:
            self._memory = self._kept = None
            return
        visits = len(memory.charts)
        memory.first = torch.where(mask, visits, memory.first)
        memory.key = torch.where(mask, keys.fold(memory.key, visits), memory.key)
        oldest = int(memory.first.min())
        if oldest > 0:  # nobody needs the visits of patients who have left
            memory.charts, memory.orders = memory.charts[oldest:], memory.orders[oldest:]
            memory.first = memory.first - oldest

    def narrow(self, rows: Tensor) -> None:
        """Go on with the rows int64 [K] alone; see `agents.protocol.Narrowable`."""
        memory = self._memory
        if memory is None:
            return
        memory.first, memory.key = memory.first[rows], memory.key[rows]
        memory.charts = [tree.take(chart, rows) for chart in memory.charts]
        memory.orders = [order[rows] for order in memory.orders]
        self._kept = rows if self._kept is None else self._kept[rows]
        self._narrow(rows)

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """The decision for every row, see `Agent`.

        Raises:
            ValueError: the chart has another number of rows than the ones before it since `reset`.
        """
        device = self.simulator.device
        chart = {name: chart[name].to(device) for name in self._read if name in chart}
        patients = self.simulator.task.clock(chart).shape[0]
        if self._memory is None:
            key = keys.fold(keys.from_seed(self.seed, patients, device), "agent/planner")
            self._memory = _Memory(torch.zeros(patients, dtype=torch.int64, device=device), key)
            self._blank(patients)
        memory = self._memory
        if memory.first.shape[0] != patients:
            known = memory.first.shape[0]
            raise ValueError(f"the chart has {patients} rows, the planner remembers {known}; call reset()")
        memory.charts.append(chart)

        # Rows of one age share the length of their history, so they are planned together.
        age = len(memory.charts) - 1 - memory.first
        truth = self._truth(patients)
        for visits in age.unique().tolist():
            if visits % self._replan_every == 0:
                for rows in (age == visits).nonzero().squeeze(1).split(self._group):
                    self._plan(self._moment(memory, rows, int(visits), truth))
        decision, orders = self._decide(chart, age % self._replan_every)
        memory.orders.append(orders)
        return decision

    def _truth(self, patients: int) -> Any:
        """The true states of the batch, where they are told."""
        if self._state_of is None:
            return None
        state = self._state_of()
        if tree.batch_size(state) != patients and self._kept is not None:  # whoever steps them has not dropped any yet
            state = tree.take(state, self._kept)
        self._kept = None
        return state

    def _moment(self, memory: _Memory, rows: Tensor, visits: int, truth: Any) -> Moment:
        key = keys.fold(memory.key[rows], visits)
        before = len(memory.charts) - 1 - visits
        history = [tree.take(c, rows) for c in memory.charts[before:]]
        if truth is None:
            orders = [o[rows] for o in memory.orders[len(memory.orders) - visits :]] if visits else []
            state = self._believe(history, orders, keys.fold(key, "belief"))
        else:
            state = tree.take(truth, rows)
        # What the belief shows, not what was measured: a world that cannot infer may have drifted from the patient, and
        # a reward of the change between the two would pay for the drift.
        return Moment(rows, visits, state, self.simulator.world.observe(state), history[:-1], key)

    def _believe(self, charts: Sequence[Chart], orders: Sequence[Tensor], key: Tensor) -> Any:
        """State of the planner's world from the charts of the visits up to now and the orders of those before."""
        world, task = self.simulator.world, self.simulator.task
        if isinstance(world, _Infers):
            hours = torch.stack([task.clock(c) for c in charts], 1)
            nothing = torch.zeros(hours.shape[0], len(task.orders), device=hours.device)
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
