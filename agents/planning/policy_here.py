"""A policy at one moment of its patients' courses, to be rolled out in imagined futures from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from agents.protocol import Agent, Narrowable, to_orders
from world_models import tree
from world_models.protocol import Chart

__all__ = ["PolicyHere"]


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
