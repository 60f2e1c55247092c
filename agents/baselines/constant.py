"""The same decision at every visit; index 0 of a menu is "nothing", so this is also "no treatment"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from world_models.protocol import Chart

__all__ = ["Constant", "no_treatment"]


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


def no_treatment() -> Constant:
    """Watch and give nothing: what every treatment has to be worth more than."""
    return Constant(0, "no treatment")
