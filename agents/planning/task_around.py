"""Tasks laid around another: what a planner imagines under is the task, and a little more."""

from __future__ import annotations

from torch import Tensor

from clinenv.task import Outcomes, Task
from world_models.protocol import Chart

__all__ = ["EndsAt", "TaskAround"]


class TaskAround(Task):
    """The same task; subclasses change what they are for. It has no views: nobody observes it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.name, self.orders, self.horizon_hours = task.name, task.orders, task.horizon_hours
        self.actions, self.observation, self.records = task.actions, task.observation, task.records
        self.losses, self.trend, self.oracle = task.losses, task.trend, task.oracle
        self.told, self.refuses = task.told, task.refuses

    def reward(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """The task's."""
        return self._task.reward(before, action, after)

    def cost(self, before: Chart, action: Tensor, after: Chart) -> Tensor:
        """The task's."""
        return self._task.cost(before, action, after)

    def cost_and_parts(self, before: Chart, action: Tensor, after: Chart) -> tuple[Tensor, dict[str, Tensor]]:
        """The task's."""
        return self._task.cost_and_parts(before, action, after)

    def cost_parts(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """The task's."""
        return self._task.cost_parts(before, action, after)

    def terminated(self, chart: Chart) -> Tensor:
        """The task's."""
        return self._task.terminated(chart)

    def clock(self, chart: Chart) -> Tensor:
        """The task's."""
        return self._task.clock(chart)

    def outcomes(self, before: Chart, action: Tensor, after: Chart) -> Outcomes:
        """The task's."""
        return self._task.outcomes(before, action, after)

    def admissible(self, chart: Chart) -> Tensor:
        """The task's."""
        return self._task.admissible(chart)

    def refused(self, chart: Chart, action: Tensor, admissible: Tensor) -> Tensor:
        """The task's."""
        return self._task.refused(chart, action, admissible)


class EndsAt(TaskAround):
    """A task whose episodes end after so many hours: what a plan would earn later is not counted.

    An environment truncates; a planner that looks past that would treat for rewards that nobody pays.

    Args:
        hours: of the task's clock.

    Raises:
        ValueError: hours that are not above 0.
    """

    def __init__(self, task: Task, hours: float) -> None:
        super().__init__(task)
        if not hours > 0:
            raise ValueError(f"an episode must last more than 0 h, got {hours}")
        self._hours = hours

    def terminated(self, chart: Chart) -> Tensor:
        """The task's own end, or the hour."""
        return self._task.terminated(chart) | (self.clock(chart) >= self._hours - 1e-3)
