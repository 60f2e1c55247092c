"""Explanations that look at neither ECG: one transition for everyone, as far as it is possible for the patient."""

from __future__ import annotations

import torch
from torch import Tensor

from clinenv.simulator import Simulator
from world_models.protocol import Chart

__all__ = ["FixedSets", "single_transitions"]


class FixedSets:
    """An explainer that says the same set of transitions to everyone; nothing where it is impossible.

    Args:
        action: [C] in {-1, 0, 1}, or [B, C], each problem its own.
    """

    def __init__(self, action: Tensor, name: str = "fixed transitions") -> None:
        self.action, self.name = action.to(torch.float32), name

    def solve(self, chart: Chart) -> Tensor:
        """float32 [B, C]."""
        present = chart["condition_before"] > 0.5
        wanted = self.action.to(present.device).expand(present.shape)
        possible = ~(((wanted > 0) & present) | ((wanted < 0) & ~present)).any(-1, keepdim=True)
        return torch.where(possible, wanted, 0.0)


def single_transitions(simulator: Simulator) -> tuple[list[str], Tensor]:
    """Names, and each onset and each resolution alone, float32 [2 C, C], of a simulator of `ECGExplainTask`."""
    named = [order for order in simulator.task.orders if order != "stop"]
    codes = len(named) // 2
    one = torch.eye(codes)
    return [name.replace("_", " of ", 1) for name in named], torch.cat([one, -one])
