"""For upper references alone: how a planner comes to know its patients' true states.

    judged = WatchedSimulator(oracle, task)
    owner = WorldPlanner(Simulator(oracle, task), state_of=lambda: judged.state)
    judge(owner, judged, keys, steps)

Such a planner knows its patients through and through, and the laws that they follow; not their luck, which it samples
anew. What is made in a learned world can come near its return, and beats it only by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from clinenv.simulator import Simulator, Step
from world_models.protocol import Chart, Factors

__all__ = ["WatchedSimulator"]


class WatchedSimulator(Simulator):
    """A simulator that keeps the state it gave last. Patients are judged in it; nobody imagines in it."""

    state: Any = None  # of the world, [B]: of the patients who were reset or stepped last

    def reset(self, key: Tensor, factors: Factors | None = None, also: Sequence[str] = ()) -> tuple[Any, Chart]:
        """See `Simulator.reset`."""
        self.state, chart = super().reset(key, factors, also)
        return self.state, chart

    def step(
        self, state: Any, chart: Chart, action: Tensor, also: Sequence[str] = (), admissible: Tensor | None = None
    ) -> Step:
        """See `Simulator.step`."""
        out = super().step(state, chart, action, also, admissible)
        self.state = out.state
        return out
