"""What is wanted of an explanation: to lead from one latent to the other, in as few transitions as possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinenv.task import Column, Menu, Outcomes, Record
from world_models.cardiac_jepa.explain import LATENT_BOUND, MAX_DAYS, MAX_STEPS
from world_models.protocol import Chart
from world_models.quantities.progression import CODES

__all__ = ["STEP_COST", "ECGExplainTask", "explain_menu"]

STEP_COST = 0.02  # of the squared distance at the start: a transition must lead nearer by more than that

_Z = LATENT_BOUND / 2.0


def explain_menu(codes: tuple[str, ...]) -> Menu:
    """Stop, an onset of each code, a resolution of each: row i orders what stands in column i of `ExplainWorld`."""
    onsets = tuple((f"onset of {code}", {f"onset_{code}": 1.0}) for code in codes)
    resolutions = tuple((f"resolution of {code}", {f"resolution_{code}": 1.0}) for code in codes)
    return Menu((("stop", {"stop": 1.0}), *onsets, *resolutions))


@dataclass(frozen=True)
class ECGExplainTask:
    """At most eight transitions, ended by "stop". Judged from the chart alone; the answer is never in it."""

    codes: tuple[str, ...] = CODES
    step_cost: float = STEP_COST
    horizon_hours: float = float(MAX_STEPS)
    name: str = "ECGExplain"
    oracle: str = "progression-oracle"
    observation: tuple[Column, ...] = (
        Column("z_now", 0.0, 1.0, bounds=(-_Z, _Z)),
        Column("z_goal", 0.0, 1.0, bounds=(-_Z, _Z)),
        Column("difference", 0.0, 1.0, bounds=(-_Z, _Z)),
        Column("condition_before", 0.5, 0.5),
        Column("found", 0.0, 1.0),
        Column("days", 365.0, 365.0, bounds=(0.0, MAX_DAYS)),
        Column("steps_left", MAX_STEPS / 2.0, MAX_STEPS / 2.0),
    )
    records: tuple[Record, ...] = ()
    trend: tuple[str, ...] = ("distance",)
    told: tuple[str, ...] = ("explained", "found_transitions", "true_transitions", "latent_distance")
    recalled: tuple[str, ...] = ("z_before", "z_now", "z_goal", "condition_before", "found", "distance")

    @property
    def actions(self) -> Menu:
        return explain_menu(self.codes)

    @property
    def orders(self) -> tuple[str, ...]:
        return ("stop", *(f"onset_{code}" for code in self.codes), *(f"resolution_{code}" for code in self.codes))

    def clock(self, chart: Chart) -> Tensor:
        """Steps [B] taken; the world counts one an hour."""
        return MAX_STEPS - chart["steps_left"]

    def reward(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """Terms [B]: nearer (the fall of the squared distance, 1 for all of it) and length (the cost of a step)."""
        going = (after["stopped"] < 0.5).to(torch.float32)
        return {
            "nearer": before["distance"] - after["distance"],
            "length": going * -self.step_cost,
        }

    def cost(self, before: Chart, action: Tensor, after: Chart) -> Tensor:
        """Nothing here does harm."""
        return torch.zeros_like(before["distance"])

    def outcomes(self, before: Chart, action: Tensor, after: Chart) -> Outcomes:
        """None: whether the answer is right stands in the world's truth, never in a chart."""
        return Outcomes({}, {})

    def terminated(self, chart: Chart) -> Tensor:
        return (chart["stopped"] > 0.5) | (chart["steps_left"] < 0.5)

    def admissible(self, chart: Chart) -> Tensor:
        """bool [B, 2C + 1]: no onset of what is present, no resolution of what is absent, as the steps so far left it.

        What disease does not undo is not refused: two records can differ by a diagnosis that was only not written down.
        """
        present = chart["condition_before"] + chart["found"] > 0.5
        always = torch.ones_like(present[:, :1])
        return torch.cat([always, ~present, present], -1)

    def refused(self, chart: Chart, action: Tensor) -> Tensor:
        """bool [B, 2C + 1]: see `admissible`."""
        return (action > 0) & ~self.admissible(chart)

    def reasons(self, chart: Chart, action: Tensor) -> list[list[tuple[str, str]]]:
        """Why each order was refused."""
        told: list[list[tuple[str, str]]] = [[] for _ in range(len(action))]
        for row, column in self.refused(chart, action).nonzero().tolist():
            began = column <= len(self.codes)
            code = self.codes[(column - 1) % len(self.codes)]
            told[row].append((self.orders[column], f"{code} is present already" if began else f"{code} is not present"))
        return told

    def reread(self, chart: Chart) -> Chart:
        """Nothing here is read with an error."""
        return chart

    def paint(self, episodes: Any, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
        """uint8 [H, W, 3]: see `clinenv.rendering.progression_chart`."""
        from clinenv.rendering.progression_chart import explain_frame

        return explain_frame(episodes, moments, row)
