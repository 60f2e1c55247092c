"""The ward's task as three people share it: each has a view of his own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from clinenv.envs.care_team.charts import places
from clinenv.envs.care_team.rights import ROLES
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.layout import Layout
from clinenv.task import Task
from clinenv.view import Kept, View
from world_models.protocol import Chart, WorldModel

__all__ = ["OBSERVATION", "WHOLE", "CareTeamTask", "TeamView"]

OBSERVATION = "team"  # the view's name
WHOLE = "whole"  # entry with everybody's columns


class TeamView(View):
    """Each role's columns of the ward's flat row, and under `WHOLE` the row itself.

    Attributes:
        layouts: role -> where everything stands in his observation.
        spaces: role, and `WHOLE` -> the bounds of it.
    """

    def __init__(self, world: WorldModel, task: Task) -> None:
        super().__init__(world, task)
        self._places = {role: places(role, self.layout.names) for role in ROLES}
        self.layouts = {role: _part(self.layout, where) for role, where in self._places.items()}
        self.spaces = {**{role: layout.box() for role, layout in self.layouts.items()}, WHOLE: self.layout.box()}
        self.space = spaces.Dict(dict(self.spaces))
        self._index = {role: torch.tensor(where, device=world.device) for role, where in self._places.items()}

    def show(self, scaled: Tensor, kept: Kept, chart: Chart) -> dict[str, Tensor]:
        """Role -> float32 [B, n], the ward's scaled entries that are his; `WHOLE` -> all of them."""
        return {**{role: scaled[:, where] for role, where in self._index.items()}, WHOLE: scaled}

    def describe(self, observation: Any) -> dict[str, Any]:
        """What each part of an observation says, in units: role -> label -> value.

        Raises:
            ValueError: it is no mapping of roles to rows of their length.
        """
        if not isinstance(observation, Mapping) or not set(observation) <= {*ROLES, WHOLE}:
            raise ValueError(f"an observation of the team maps {', '.join(ROLES)} to their rows, got {observation!r}")
        layouts = {**self.layouts, WHOLE: self.layout}
        return {role: layouts[role].describe(row) for role, row in observation.items()}


def _part(layout: Layout, where: list[int]) -> Layout:
    """The entries `where` of a layout."""
    names, units = (tuple(np.array(x, dtype=object)[where]) for x in (layout.names, layout.units))
    return Layout(names, units, *(getattr(layout, x)[where] for x in ("centre", "scale", "low", "high", "log")))


@dataclass(frozen=True)
class CareTeamTask(EHRWardTask):
    """The ward's task, unchanged but for who sees what of it."""

    def views(self) -> Mapping[str, Callable[[WorldModel, Task], View]]:
        """The ward's, and "team"."""
        return {**super().views(), OBSERVATION: TeamView}
