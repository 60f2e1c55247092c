"""Deciders that look at nothing but the clock: the same decision at every visit, or a dose at fixed hours.

Index 0 of a menu is "nothing", so `Constant` is also "no treatment".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from world_models.protocol import Chart

__all__ = ["Constant", "FixedRegimen", "no_treatment"]

_SLACK_H = 1e-3  # hours are float32 sums of steps


class Constant:
    """Always `index` of the task's menu, or always these levels of its orders."""

    def __init__(self, index: int | Sequence[int], name: str | None = None) -> None:
        if min([index] if isinstance(index, int) else index) < 0:
            raise ValueError(f"a menu index is 0 or more, got {index}")
        self.index = index
        self.name = name or f"always {index}"

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""

    def act(self, chart: Chart) -> Tensor:
        """int64 [B], or [B, D] for levels."""
        some = next(iter(chart.values()))
        if not isinstance(self.index, int):
            levels = torch.tensor(tuple(self.index), dtype=torch.int64, device=some.device)
            return levels.expand(some.shape[0], -1).clone()
        return torch.full((some.shape[0],), self.index, dtype=torch.int64, device=some.device)


class FixedRegimen:
    """One row of the task's menu every so many hours from admission on, whatever the chart says.

    Args:
        index: the menu's row.
        every_hours: between two doses, a multiple of the world's step.

    Raises:
        ValueError: a negative row, or hours that are not above 0.
    """

    def __init__(self, index: int, every_hours: float, name: str | None = None) -> None:
        if index < 0 or not every_hours > 0:
            raise ValueError(f"a menu index is 0 or more and hours are above 0, got {index} and {every_hours}")
        self.index, self.every_hours = index, every_hours
        self.name = name or f"{index} every {every_hours:g} h"

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""

    def act(self, chart: Chart) -> Tensor:
        """int64 [B]. Reads hours."""
        due = torch.remainder(chart["hours"] + _SLACK_H, self.every_hours) < 2 * _SLACK_H
        return torch.where(due, self.index, 0)


def no_treatment() -> Constant:
    """Watch and give nothing: what every treatment has to be worth more than."""
    return Constant(0, "no treatment")
