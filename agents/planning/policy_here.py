"""A policy at one moment of its patients' courses, to be rolled out in imagined futures from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from agents.protocol import Agent, Narrowable, to_orders
from world_models import tree
from world_models.protocol import Chart

__all__ = ["Narrowing", "PolicyHere"]


class Narrowing:
    """Any agent, able to go on with some of its patients: one that cannot itself is shown the others' last charts."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.name = agent, agent.name
        self._rows: Tensor | None = None  # of those the agent remembers, the ones that are left
        self._chart: Chart | None = None  # of all that it remembers

    def reset(self, mask: Tensor | None = None) -> None:
        """The agent's; of rows that are left."""
        if mask is None:
            self._rows = self._chart = None
            self.agent.reset()
        elif self._rows is None:
            self.agent.reset(mask)
        else:
            assert self._chart is not None
            whole = torch.zeros(tree.batch_size(self._chart), dtype=torch.bool, device=mask.device)
            self.agent.reset(whole.index_put((self._rows,), mask))

    def narrow(self, rows: Tensor) -> None:
        """See `agents.protocol.Narrowable`."""
        if isinstance(self.agent, Narrowable):
            self.agent.narrow(rows)
        else:
            self._rows = rows if self._rows is None else self._rows[rows]

    def act(self, chart: Chart) -> Tensor:
        """The agent's decision for the rows that are left."""
        if isinstance(self.agent, Narrowable) or self._rows is None:
            self._chart = chart
            return self.agent.act(chart)
        assert self._chart is not None
        self._chart = tree.put(self._chart, self._rows, chart)
        return self.agent.act(self._chart)[self._rows]


class PolicyHere:
    """Any agent, shown what B patients' charts were up to now.

    An agent may remember: each time it begins, it is shown the charts of all visits so far once more, and what it
    decides on them is dropped. So it believes that its own orders were carried out, whatever was given in truth.

    Args:
        agent: rolled out in batches of other sizes; it is reset for that, so it can be nobody's who is in use.
        charts: of the visits before now, oldest first, each name -> [B, ...].
        menu: of the task, see `agents.protocol.menu_of`.
    """

    def __init__(self, agent: Agent, charts: Sequence[Chart], menu: Tensor | None) -> None:
        self._agent, self._charts, self._menu = agent, charts, menu

    def begin(self, times: int, rows: Tensor | None = None) -> Callable[[int, Chart, Tensor], Tensor]:
        """What decides for each patient, `times` in a run: a function (step, chart, rows) -> orders float32 [R, A].

        Args:
            rows: int64 [R] which patient each row is, instead; the charts it then decides on are of these.
        """
        self._agent.reset()
        for chart in self._charts:
            self._agent.act(tree.repeat(chart, times) if rows is None else tree.take(chart, rows))
        return lambda step, chart, rows: to_orders(self._agent.act(chart), self._menu)

    @property
    def narrow(self) -> Callable[[Tensor], None] | None:
        """Goes on with some of the rows, where the agent can (`agents.protocol.Narrowable`)."""
        return self._agent.narrow if isinstance(self._agent, Narrowable) else None

    @torch.no_grad()
    def now(self, chart: Chart) -> Tensor:
        """Orders float32 [B, A] on the chart now."""
        return self.begin(1)(0, chart, torch.arange(0))
