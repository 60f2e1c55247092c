"""Charts as the environment shows them, to an agent that is judged outside of one."""

from __future__ import annotations

import torch
from torch import Tensor

from clinenv.interface import Interface
from clinenv.view import Kept
from world_models import tree
from world_models.protocol import Chart

__all__ = ["Observer"]


class Observer:
    """The observation of chart after chart of the same patients: what a chart lacks (PR in fibrillation) is shown as it
    was last read, as `Episodes` do.

    Args:
        interface: whose observation is one tensor.
    """

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._kept: Kept | None = None
        self._fresh: Tensor | None = None  # bool [B]: rows whose first chart is to come; None: there are none

    def reset(self, mask: Tensor | None = None) -> None:
        """What was last seen is forgotten, of everybody or of the rows of bool [B]."""
        if mask is None or self._kept is None:
            self._kept, self._fresh = None, None
        else:
            self._fresh = mask if self._fresh is None else self._fresh | mask

    def narrow(self, rows: Tensor) -> None:
        """Go on with these rows int64 [K]."""
        if self._kept is not None:
            self._kept = tree.take(self._kept, rows)
            self._fresh = None if self._fresh is None else self._fresh[rows]

    @torch.no_grad()
    def __call__(self, chart: Chart) -> Tensor:
        """float32 [B, n]: the observation of the chart; of another number of patients than before, as their first."""
        some = next(iter(chart.values()))
        nobody = torch.zeros(len(some), dtype=torch.int64, device=some.device)
        last = self._kept if self._kept is not None and len(self._kept.row) == len(some) else None
        found = self._interface.observe(chart, nobody, nobody, last)
        if last is not None and self._fresh is not None:
            found = tree.where(self._fresh, self._interface.observe(chart, nobody, nobody, None), found)
        observation, self._kept = found
        self._fresh = None
        return observation
