"""Orders by the clock alone, and the one look at the ECG that makes a rule of them: is the QTc too long?

A course of treatment that looks at nothing is the first thing that a decider has to be worth more than: `agents.
baselines.constants` tries many and keeps the best.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.protocol import Agent, Narrowable, menu_of, to_orders
from clinenv.simulator import Simulator
from clinenv.task import Task
from world_models.protocol import Chart

__all__ = ["EVERY_VISIT", "ONCE", "AsOrders", "Schedule", "StoppedByQTc"]

ONCE = float("inf")  # hours between two of what is given at the first visit alone
EVERY_VISIT = 0.0
_SLACK_H = 1e-3  # hours are float32 sums of steps

STOP_QTCF_MS, STOP_RISE_MS = 500.0, 60.0


class Schedule:
    """Each order in a fixed amount every so many hours since the first visit, whatever the chart says.

    Args:
        task: whose clock it reads.
        amount: float32 [A] in the orders' units, or [B, A], each row its own.
        every_hours: [A] or [B, A]; `ONCE`, `EVERY_VISIT`, or hours above 0.
        name: for tables.

    Raises:
        ValueError: shapes that differ, or a negative number.
    """

    def __init__(self, task: Task, amount: Tensor, every_hours: Tensor, name: str = "schedule") -> None:
        if amount.shape != every_hours.shape or amount.ndim not in (1, 2):
            raise ValueError(
                f"amounts {tuple(amount.shape)} and hours {tuple(every_hours.shape)} must be [A] or [B, A]"
            )
        if bool((amount < 0).any()) or bool((every_hours < 0).any()):
            raise ValueError("amounts and hours of a schedule must be 0 or more")
        self.task, self.name = task, name
        self._amount, self._every = amount.to(torch.float32), every_hours.to(torch.float32)
        self._first: Tensor | None = None  # hour [B] of each row's first visit, NaN before it
        self._rows: Tensor | None = None  # that are left, where each has a schedule of its own

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget when all patients came, or those of mask bool [B]."""
        if mask is None or self._first is None:
            self._first = self._rows = None
        else:
            self._first = self._first.masked_fill(mask, torch.nan)

    def narrow(self, rows: Tensor) -> None:
        """Go on with the rows int64 [K]."""
        assert self._first is not None  # nobody is left out before the first visit
        self._first = self._first[rows]
        self._rows = rows if self._rows is None else self._rows[rows]

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: orders in their units."""
        hours = self.task.clock(chart)
        first = hours if self._first is None else torch.where(self._first.isnan(), hours, self._first)
        self._first = first
        since = (hours - first).unsqueeze(-1)
        amount, every = (self._own(x).to(hours.device) for x in (self._amount, self._every))
        turn = torch.remainder(since + _SLACK_H, every.clamp_min(4 * _SLACK_H)) < 2 * _SLACK_H
        due = torch.where(every.isinf(), since < _SLACK_H, turn | (every == EVERY_VISIT))
        return torch.where(due, amount, 0.0).expand(len(hours), -1)

    def _own(self, table: Tensor) -> Tensor:
        return table if table.ndim == 1 or self._rows is None else table[self._rows]


class AsOrders:
    """An agent that chooses rows of a table of orders float32 [M, A], where the task takes amounts."""

    def __init__(self, agent: Agent, table: Tensor) -> None:
        self.agent, self.name, self._table = agent, agent.name, table

    def reset(self, mask: Tensor | None = None) -> None:
        """The agent's own."""
        self.agent.reset(mask)

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: orders in their units."""
        return to_orders(self.agent.act(chart), self._table)


class StoppedByQTc:
    """Any agent's orders until QTcF is above 500 ms or 60 ms above that at admission, and none from then on.

    Source: AHA/ACCF 2010 statement on preventing torsade de pointes in hospital (Drew 2010, doi
    10.1161/CIRCULATIONAHA.109.192704): a QTc above 500 ms, or 60 ms above the one before the drug, asks for another
    treatment; the same limits are ICH E14's. It is not begun above `start_below_ms` (dofetilide's label: 440 ms).

    Args:
        agent: gives orders float32 [B, A], or rows of the simulator's menu.
        simulator: whose menu it is.
        start_below_ms: admission QTcF up to which treatment begins, one for all or [B].
    """

    def __init__(self, agent: Agent, simulator: Simulator, start_below_ms: float | Tensor = STOP_QTCF_MS) -> None:
        self.agent, self.name, self._menu = agent, f"{agent.name}, stopped by the QTc", menu_of(simulator)
        self._limit = torch.as_tensor(start_below_ms, dtype=torch.float32)
        self._stopped: Tensor | None = None  # bool [B]
        self._rows: Tensor | None = None

    def reset(self, mask: Tensor | None = None) -> None:
        """Nobody has been stopped; with mask bool [B] none of these."""
        self.agent.reset(mask)
        if mask is None or self._stopped is None:
            self._stopped = self._rows = None
        else:
            self._stopped = self._stopped & ~mask

    def narrow(self, rows: Tensor) -> None:
        """Go on with the rows int64 [K]; the agent must be able to."""
        assert isinstance(self.agent, Narrowable) and self._stopped is not None
        self.agent.narrow(rows)
        self._stopped = self._stopped[rows]
        self._rows = rows if self._rows is None else self._rows[rows]

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]. Reads qtcf_ms and baseline_qtcf_ms besides what the agent reads."""
        orders = to_orders(self.agent.act(chart), self._menu)
        now, before = chart["qtcf_ms"], chart["baseline_qtcf_ms"]
        limit = self._limit if self._limit.ndim == 0 or self._rows is None else self._limit[self._rows]
        too_long = (now > STOP_QTCF_MS) | (now - before > STOP_RISE_MS) | (before > limit.to(now.device))
        self._stopped = too_long if self._stopped is None else self._stopped | too_long
        return orders * ~self._stopped.unsqueeze(-1)
