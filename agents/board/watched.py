"""An agent under the judge's eyes: it is handed a copy of what may be seen, and what it answers is checked.

An agent never gets a state or a random key, and no chart of the judge's own: it may write into what it holds. What it
orders must lie in the id's action space, also where it gives amounts; it must not raise, and not take too long. What
goes wrong is a `Disqualified` that says why, and on the board a failed row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from agents.protocol import Agent, Narrowable, menu_of, to_orders
from clinenv.simulator import Simulator
from clinenv.task import Actions, Doses, Levels, Menu, Switches, Task
from world_models import tree
from world_models.protocol import Chart
from world_models.quantity import Quantity

__all__ = ["Disqualified", "Elsewhere", "Watched", "Whole", "outside", "visible"]

TOLERANCE = 1e-5  # of an amount, relative
# What every observer knows besides the observation's columns: that the episode goes on, and where it began.
_KNOWN = {
    "EHRWard": ("alive", "discharged"),
    "ECGProgression": ("dead",),
    "ECGExplain": ("z_before", "distance", "stopped"),
}


class Disqualified(Exception):
    """Why an agent has no result. Not an error of the judge's."""


def visible(task: Task, also: Sequence[str] = ()) -> tuple[str, ...]:
    """The measures that an agent is shown: those the task's observation is made of, and `also`."""
    return tuple(dict.fromkeys([*(c.name for c in task.observation), *_KNOWN.get(task.name, ()), *also]))


def outside(orders: Tensor, actions: Actions, columns: Sequence[Quantity]) -> Tensor:
    """bool [B]: rows of orders float32 [B, A] that no action of the task means, or that are no numbers."""
    wrong = ~orders.isfinite().all(-1)
    amounts = orders.nan_to_num(0.0)
    if isinstance(actions, Menu):
        rows = actions.table(tuple(columns), orders.device)
        return wrong | ~_same(amounts.unsqueeze(1), rows).all(-1).any(-1)
    names = actions.names
    offered = torch.tensor([q.name in names for q in columns], device=orders.device)
    wrong = wrong | ((amounts != 0) & ~offered).any(-1)
    for column, quantity in enumerate(columns):
        if quantity.name in names:
            wrong = wrong | ~_offered(amounts[:, column], actions, quantity)
    return wrong


def _offered(given: Tensor, actions: Actions, quantity: Quantity) -> Tensor:
    """bool [B]: the amount of one order is among those that the action has for it."""
    if isinstance(actions, Levels):
        amounts = actions.amounts[quantity.name]
    elif isinstance(actions, Switches):
        amounts = (0.0, actions.standard[quantity.name])
    elif isinstance(actions, Doses) and quantity.unit == "bool":
        amounts = (0.0, 1.0)
    else:
        assert isinstance(actions, Doses)
        return (given >= 0) & (given <= actions.highest[quantity.name] * (1.0 + TOLERANCE))
    return _same(given.unsqueeze(-1), torch.tensor(amounts, device=given.device)).any(-1)


def _same(given: Tensor, offered: Tensor) -> Tensor:
    return (given - offered).abs() <= TOLERANCE * offered.abs().clamp_min(1e-3)


class Elsewhere:
    """What an agent inherits that does not decide in the judge's own process."""


class Whole:
    """A narrowable agent around one that is not: rows that have left are carried on as they last were, and what is
    decided for them is dropped."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.name = agent, agent.name
        self._rows: Tensor | None = None  # of the batch that the agent knows, those that are asked for
        self._shown: Chart = {}  # that whole batch

    def reset(self, mask: Tensor | None = None) -> None:
        """New patients in all rows, or in those of mask."""
        if mask is None:
            self._rows, self._shown = None, {}
        elif self._rows is not None:
            every = torch.zeros(tree.batch_size(self._shown), dtype=torch.bool, device=mask.device)
            mask = every.index_put((self._rows,), mask)
        self.agent.reset(mask)

    def narrow(self, rows: Tensor) -> None:
        """Go on with the rows int64 [K]."""
        self._rows = rows if self._rows is None else self._rows[rows]

    def act(self, chart: Chart) -> Tensor:
        """What the agent decides for the rows that are left."""
        self._shown = chart if self._rows is None else tree.put(self._shown, self._rows, chart)
        decided = self.agent.act(dict(self._shown))
        return decided if self._rows is None else decided[self._rows]


class Watched:
    """An agent that is judged: what it is shown is a copy of what may be seen, what it answers is checked.

    Args:
        agent: that is judged.
        simulator: where it is judged; it stays on this side.
        sees: measures that the agent is shown, see `visible`.
        limit_ms: longest that a decision for one patient may take, on average over a batch; None: as long as it likes.

    Attributes:
        decisions: patients decided for.
        seconds: what the agent took for it: of this process's processor time, which a load beside it does not
            lengthen; of the clock where the agent decides elsewhere (in another process, on another device).
    """

    def __init__(self, agent: Agent, simulator: Simulator, sees: Sequence[str], limit_ms: float | None = None) -> None:
        self._carries = not isinstance(agent, Narrowable)  # those who have left are decided for, too
        self.agent: Narrowable = agent if isinstance(agent, Narrowable) else Whole(agent)
        self.name, self.limit_ms = agent.name, limit_ms
        self._task, self._columns, self._sees = simulator.task, simulator.world.orders, tuple(sees)
        self._menu, self._device = menu_of(simulator), simulator.device
        self.decisions, self.seconds = 0, 0.0
        elsewhere = isinstance(agent, Elsewhere) or self._device.type != "cpu"
        self._clock = time.perf_counter if elsewhere else time.process_time
        self._batch: int | None = None  # rows since the reset

    def reset(self, mask: Tensor | None = None) -> None:
        """New patients; raises Disqualified like `act`."""
        self._batch = None
        self._call(self.agent.reset, mask)

    def narrow(self, rows: Tensor) -> None:
        """Go on with the rows int64 [K]; raises Disqualified like `act`."""
        self._call(self.agent.narrow, rows.clone())

    def act(self, chart: Chart) -> Tensor:
        """Orders float32 [B, A].

        Raises:
            Disqualified: the agent raised, took too long, or ordered what is no action of the id.
        """
        shown = tree.copy({name: chart[name] for name in self._sees if name in chart})
        count = next(iter(shown.values())).shape[0]
        self._batch = count if self._batch is None or not self._carries else self._batch
        start = self._clock()
        decided = self._call(self.agent.act, shown)
        self._timed(self._clock() - start, self._batch)
        return self._orders(decided, count)

    def _call(self, what: Callable[..., Any], *given: Any) -> Any:
        """What the agent's method gives; all that it raises disqualifies it."""
        try:
            return what(*given)
        except Disqualified:
            raise
        except Exception as error:
            raise Disqualified(f"it raised {type(error).__name__}: {error}") from error

    def _timed(self, seconds: float, count: int) -> None:
        self.decisions, self.seconds = self.decisions + count, self.seconds + seconds
        spent = 1000.0 * seconds / count
        if self.limit_ms is not None and spent > self.limit_ms:
            raise Disqualified(f"it took {spent:.0f} ms a patient for a decision; {self.limit_ms:g} are allowed")

    def _orders(self, decided: Any, count: int) -> Tensor:
        if not isinstance(decided, Tensor):
            raise Disqualified(f"it gave a {type(decided).__name__}, not a tensor")
        if decided.shape[:1] != (count,):
            raise Disqualified(f"it decided {tuple(decided.shape)} for {count} patients")
        try:
            orders = to_orders(decided.detach().to(self._device), self._menu).to(torch.float32)
        except (ValueError, RuntimeError, IndexError) as error:
            raise Disqualified(f"it ordered what is no action: {error}") from error
        if orders.shape != (count, len(self._columns)):
            raise Disqualified(f"it ordered {tuple(orders.shape)}; the orders are {len(self._columns)} a patient")
        wrong = outside(orders, self._task.actions, self._columns)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            given = {q.name: float(x) for q, x in zip(self._columns, orders[row], strict=True) if x != 0}
            raise Disqualified(f"it ordered {given or 'nothing'}, which is no action of {self._task.name}")
        return orders
