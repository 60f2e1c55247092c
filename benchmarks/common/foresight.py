"""How a planner's imagined rewards compare with those that came, by how many steps ahead they lay.

A planner says at each decision what it imagines of its plan, step by step (`agents.planning.report`). What comes is the
course that it then steers, planning anew on the way: the difference is what a promise of so many steps is worth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agents.planning.controller import WorldPlanner
from agents.planning.oracle_owner import WatchedSimulator
from agents.planning.rollout_policy import RolloutPlanner
from clinenv.simulator import Step
from world_models.protocol import Chart

__all__ = ["Foresight", "RecordingSimulator", "by_depth"]


class RecordingSimulator(WatchedSimulator):
    """Keeps the rewards of the patients it steps."""

    def begin(self) -> None:
        """Forget what was kept."""
        self.rewards: list[Tensor] = []  # a step each, float32 [B], 0 after the end
        self._here: Tensor | None = None

    def step(self, state: Any, chart: Chart, action: Tensor, also: Any = (), admissible: Tensor | None = None) -> Step:
        """See `Simulator.step`."""
        here = ~self.over(state, chart) if self._here is None else self._here
        out = super().step(state, chart, action, also, admissible)
        self.rewards.append(torch.where(here, out.reward, 0.0))
        self._here = here & ~out.terminated
        return out


class Foresight:
    """A planner whose promises are kept. It cannot be narrowed: its rows stay the simulator's."""

    def __init__(self, planner: WorldPlanner | RolloutPlanner, simulator: RecordingSimulator) -> None:
        self.planner, self.simulator, self.name = planner, simulator, planner.name
        self.imagined: list[tuple[int, Tensor, Tensor]] = []  # visit, who decided bool [B], rewards [B, H]
        self.transitions: list[Tensor] = []
        self.milliseconds: list[Tensor] = []

    def reset(self, mask: Tensor | None = None) -> None:
        """Begin anew."""
        self.planner.reset(mask)
        self.simulator.begin()
        self.imagined, self.transitions, self.milliseconds, self.visit = [], [], [], 0

    def act(self, chart: Chart) -> Tensor:
        """The planner's decision."""
        decision = self.planner.act(chart)
        report = self.planner.report
        assert report is not None
        here = report.decided if self.simulator._here is None else report.decided & self.simulator._here
        self.imagined.append((self.visit, here, report.rewards.clone()))
        self.transitions.append(report.transitions[here].to(torch.float32))
        self.milliseconds.append(report.milliseconds[here])
        self.visit += 1
        return decision

    def told(self) -> dict[str, list[float]]:
        """Sums over decisions, of each depth: how many there were, rewards imagined and come, their difference, its
        square and size; and over all decisions their number, transitions and milliseconds."""
        came = torch.stack(self.simulator.rewards, 1)  # [B, T]
        sums: dict[str, list[float]] = {name: [] for name in ("count", "imagined", "came", "off", "square", "size")}
        for depth in range(min(self.imagined[0][2].shape[1], came.shape[1])):
            lived = [(v, here, x) for v, here, x in self.imagined if v + depth < came.shape[1]]
            promised = torch.cat([x[here, depth] for _, here, x in lived]).to(torch.float64)
            found = torch.cat([came[here, v + depth] for v, here, _ in lived]).to(torch.float64)
            off = promised - found
            for name, value in zip(
                sums, (off.new_ones(len(off)), promised, found, off, off**2, off.abs()), strict=True
            ):
                sums[name].append(float(value.sum()))
        spent = torch.stack([torch.cat(self.transitions), torch.cat(self.milliseconds)])
        return {**sums, "decisions": [float(spent.shape[1]), *spent.sum(1).tolist()]}


def by_depth(told: list[dict[str, list[float]]]) -> list[dict[str, float]]:
    """One row a depth, of several groups of patients: the mean reward imagined and come, their difference with its
    standard error, and the mean absolute error; with what a decision took."""
    if not told:
        return []
    decisions, transitions, milliseconds = (sum(values) for values in zip(*(t["decisions"] for t in told), strict=True))
    rows = []
    for depth in range(len(told[0]["count"])):
        total = {name: sum(t[name][depth] for t in told) for name in told[0] if name != "decisions"}
        count = total["count"]
        bias = total["off"] / count
        variance = max(total["square"] / count - bias**2, 0.0)
        rows.append(
            {
                "transitions": transitions / decisions,
                "milliseconds": milliseconds / decisions,
                "steps_ahead": depth + 1.0,
                "decisions": count,
                "imagined": total["imagined"] / count,
                "came": total["came"] / count,
                "bias": bias,
                "bias_standard_error": (variance / count) ** 0.5,
                "mean_absolute_error": total["size"] / count,
            }
        )
    return rows
