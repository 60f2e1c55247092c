"""Views: the forms in which a decider may see a patient. The flat chart is one; a task may bring others (`Task.views`).

A view is made for one world and one task and holds no patient. What it must remember of a patient from step to step
it gives back as numbers, which are kept (and saved) with the patient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from gymnasium import Space
from torch import Tensor

from clinenv.layout import Layout, chart_layout
from clinenv.task import Column, Task
from world_models.protocol import Chart, WorldModel

__all__ = ["ChartView", "Kept", "View"]


class Kept(NamedTuple):
    """What is kept of a patient's last observation."""

    row: Tensor  # float32 [B, n] the chart's row as it was shown, in units
    more: Tensor  # float32 [B, width] what the view remembers beside it


class View(ABC):
    """A form of observation; subclasses say what is shown.

    Attributes:
        columns: of the chart that are read for it, in the row's order.
        layout: of the row that is read: the columns, then the ages of the task's records.
        space: of one observation.
        also: measures on request that the chart must hold for it.
        width: numbers remembered a patient beside the chart's row.
    """

    space: Space[Any]
    also: tuple[str, ...] = ()
    width: int = 0

    def __init__(self, world: WorldModel, task: Task) -> None:
        self.columns = self._columns(task)
        self.layout: Layout = chart_layout(self.columns, task.records, world)

    def _columns(self, task: Task) -> tuple[Column, ...]:
        """The columns that are read; by default the task's."""
        return task.observation

    def keep(self, row: Tensor, chart: Chart, last: Kept | None, given: Tensor | None) -> Tensor:
        """What to remember of a step, float32 [B, width].

        Args:
            row: [B, n] the chart's row now, in units.
            chart: the row was read from, with the measures of `also`.
            last: what was kept at the step before; None at the first.
            given: [B, A] the orders carried out in between; None at the first.
        """
        return row.new_zeros(row.shape[0], 0)

    @abstractmethod
    def show(self, scaled: Tensor, kept: Kept, chart: Chart) -> Any:
        """The observation as tensors [B, ...].

        Args:
            scaled: float32 [B, n] the chart's row, scaled.
            kept: the same in units, and what is remembered.
            chart: with the measures of `also`.
        """

    def release(self, observation: Any) -> Any:
        """What `show` gave, as it is handed out: numpy arrays [B, ...] in fresh memory, or a tuple of B objects."""
        if isinstance(observation, Tensor):
            return observation.cpu().numpy()
        return {name: self.release(part) for name, part in observation.items()}

    def describe(self, observation: Any) -> dict[str, Any]:
        """What an observation says, in units: label -> a float, or an array [N] for a batch.

        Raises:
            ValueError: it holds no row of the chart.
        """
        raise ValueError(f"{type(self).__name__} shows no row of the chart to describe; it speaks for itself")


class ChartView(View):
    """observation="chart": the chart's row, scaled: `Box(n,)` float32."""

    def __init__(self, world: WorldModel, task: Task) -> None:
        super().__init__(world, task)
        self.space = self.layout.box()

    def show(self, scaled: Tensor, kept: Kept, chart: Chart) -> Any:
        """The row itself, float32 [B, n]."""
        return scaled

    def describe(self, observation: Any) -> dict[str, Any]:
        """See `Layout.describe`; a mapping is described by its entry "chart"."""
        if isinstance(observation, Mapping):
            if "chart" not in observation:
                told = ", ".join(map(str, observation)) or "nothing"
                raise ValueError(f"an observation of {told} has no 'chart' to describe")
            observation = observation["chart"]
        return self.layout.describe(observation)
