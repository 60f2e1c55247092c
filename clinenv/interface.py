"""Between patients and a decider: a chart becomes an observation, an action becomes orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clinenv.codec import codec_of
from clinenv.readings import MISSINGNESS, NOISE, Readings
from clinenv.settings import Settings
from clinenv.task import Column, Doses, Switches, Task
from clinenv.view import ChartView, Kept
from world_models import keys
from world_models.protocol import Chart, WorldModel

__all__ = ["Interface"]


class Interface:
    """Spaces and translations for one world and one task; holds no patient.

    Attributes:
        codec: of the actions; called with them it gives the orders.
        view: the form of observation.

    Raises:
        ValueError: an unknown level or observation, or a world that cannot give the observation asked for.
    """

    def __init__(self, world: WorldModel, task: Task, settings: Settings | None = None) -> None:
        settings = Settings() if settings is None else settings
        views = {"chart": ChartView, **task.views()}
        _known("observation", settings.observation, tuple(views))
        _known("noise", settings.noise, tuple(NOISE))
        _known("missingness", settings.missingness, MISSINGNESS)
        self.task = task
        self.world = world
        self.device = torch.device(world.device)
        self.codec = codec_of(task.actions, world.orders, settings.action_unit, self.device, settings.action)
        self.view = views[settings.observation](world, task)
        _check_used(task, self.view.columns, settings)
        self.layout = self.view.layout
        self._readings = Readings(world, task, self.view, settings.noise, settings.missingness)
        losses = task.losses
        self._loss = 0.0 if losses is None else float(losses.chance.get(settings.missingness, 0.0))
        losable = [losses is not None and order.name in losses.orders for order in world.orders]
        self._losable = torch.tensor(losable, device=self.device)

        box = self.layout.box()
        self._box_low, self._box_high = (torch.as_tensor(x, device=self.device) for x in (box.low, box.high))
        self._scale = torch.as_tensor(self.layout.scale, device=self.device)
        centre = torch.as_tensor(self.layout.centre, device=self.device)
        self._log = torch.as_tensor(self.layout.log, device=self.device) if self.layout.log.any() else None
        self._centre = centre if self._log is None else torch.where(self._log, centre.log(), centre)

    def lose(self, orders: Tensor, key: Tensor, t: Tensor) -> Tensor:
        """The orders [B, A] less those that get lost at this step, by the patients' own keys."""
        if self._loss <= 0:
            return orders
        gone = keys.uniform(key, t, "lost order", (orders.shape[1],)) < self._loss
        return torch.where(gone & self._losable, 0.0, orders)

    def observe(
        self, chart: Chart, key: Tensor, t: Tensor, last: Kept | None, given: Tensor | None = None
    ) -> tuple[Any, Kept]:
        """The observation of `chart`, and what is kept of it, to be handed back at the next step.

        Args:
            chart: of B patients, with the measures of `view.also`.
            key, t: int64 [B], the patients' own, from which errors and missing records follow.
            last: what was kept at the step before; None at the first.
            given: float32 [B, A] the orders carried out since then; None at the first.

        Returns:
            The observation as tensors on the device, and what is kept.
        """
        row = self._readings.row(chart, key, t, None if last is None else last.row)
        scaled = self._scaled(row)
        kept = Kept(row, self.view.keep(row, chart, last, given))
        return self.view.show(scaled, kept, chart), kept

    def show(self, kept: Kept, chart: Chart) -> Any:
        """The observation again, from what was kept of it and its chart."""
        return self.view.show(self._scaled(kept.row), kept, chart)

    def _scaled(self, row: Tensor) -> Tensor:
        """The row [B, n] as its Box holds it."""
        linear = row if self._log is None else torch.where(self._log, torch.where(self._log, row, 1.0).log(), row)
        return ((linear - self._centre) / self._scale).clamp(self._box_low, self._box_high)


def _check_used(task: Task, columns: Sequence[Column], settings: Settings) -> None:
    """Raises ValueError for a setting that would change nothing: whoever gave it expects otherwise."""
    if settings.noise != "none" and not any(column.noise_sd > 0 for column in columns):
        raise ValueError(f"noise={settings.noise!r}: task {task.name!r} reads nothing with an error; leave it out")
    level = settings.missingness
    lossy = [record.missing for record in task.records] + ([] if task.losses is None else [task.losses.chance])
    if level != "none" and not any(chances.get(level, 0.0) > 0 for chances in lossy):
        raise ValueError(f"missingness={level!r}: in task {task.name!r} nothing goes missing; leave it out")
    if settings.action_unit != "scaled" and not isinstance(task.actions, Doses):
        raise ValueError(
            f"action_unit={settings.action_unit!r}: the actions of task {task.name!r} are no amounts; leave it out"
        )
    if settings.action is not None and not isinstance(task.actions, Switches):
        raise ValueError(
            f"action={settings.action!r}: the actions of task {task.name!r} are no switches, which alone have it; "
            "leave it out"
        )


def _known(what: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} {value!r} is unknown; choose one of {', '.join(choices)}")
