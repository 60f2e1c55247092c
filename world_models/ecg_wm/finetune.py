"""A trained ECG world fitted further to some courses: a clinic's own, or a resample of those it has learned from.

What is learned again are prior, belief and spread (as in the stage "foresight"), then torsades and block. The beat's
shapes, the diffusion's sampler and the calibrations stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm.courses import Courses
from world_models.ecg_wm.losses import dynamics_loss, events_loss, foresight_loss
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.train import APART, EVENTS
from world_models.training import Schedule, fit

__all__ = ["FineTuning", "chosen", "fine_tuned"]


@dataclass(frozen=True)
class FineTuning:
    """How long and how fast.

    Raises:
        ValueError: a number below 1, or a rate that is not above 0.
    """

    steps: int = 60  # of prior, belief and spread
    batch: int = 128  # courses a step
    event_steps: int = 60  # of torsades and block, on all courses each
    learning_rate: float = 1e-3
    event_rate: float = 3e-3

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.event_steps) < 1 or min(self.learning_rate, self.event_rate) <= 0:
            raise ValueError(f"steps and batch must be at least 1 and rates above 0, got {self}")


def chosen(courses: Courses, rows: Tensor) -> Courses:
    """The courses at `rows` int64 [N], as often as each is named."""
    return Courses(
        u=courses.u[rows],
        charts={name: value[rows] for name, value in courses.charts.items()},
        actions=courses.actions[rows],
        measured=courses.measured[rows],
        clearance=courses.clearance[rows],
        morphology=courses.morphology[rows],
        hours_per_step=courses.hours_per_step,
    )


def fine_tuned(
    model: ECGWorldModel, pools: Sequence[Courses], how: FineTuning, folder: Path, seed: int = 0
) -> ECGWorldModel:
    """A copy of the model, fitted to the courses of the pools, which take turns; what it is made from stays as it was.

    Args:
        pools: each of courses with visits equally far apart.
        folder: where progress is kept; a run that was killed goes on from there.
        seed: of the batches.

    Raises:
        FloatingPointError, CheckpointError: as `training.fit`.
    """
    tuned = copy.deepcopy(model).requires_grad_(True)
    batches = keys.fold(keys.from_seed(seed, how.batch, tuned.device), "finetune")

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pool = pools[step % len(pools)]
        rows = torch.floor(keys.uniform(batches, step, "finetune/row") * len(pool.actions)).to(torch.int64)
        data, key = chosen(pool, rows), keys.fold(batches, step)
        parts = dynamics_loss(tuned, data, keys.fold(key, "loss"))
        foresight = foresight_loss(tuned, data, keys.fold(key, "foresight"))
        total = parts.evidence + parts.divergence + 0.02 * parts.belief + 0.3 * parts.spread + 4 * foresight
        return total, {"foresight": foresight.item(), **{name: value.item() for name, value in parts._asdict().items()}}

    def event_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        fatal, block = events_loss(tuned, pools[step % len(pools)])
        return fatal * 100 + block, {"torsades": fatal.item(), "av_block": block.item()}

    named = [(name.split(".")[0], parameter) for name, parameter in tuned.named_parameters()]
    schedule = Schedule(how.steps, learning_rate=how.learning_rate, warm_up=min(20, how.steps), clip=2.0)
    fit(tuned, loss, schedule, folder, "finetune", [p for part, p in named if part not in APART])
    schedule = Schedule(how.event_steps, learning_rate=how.event_rate, warm_up=10, weight_decay=0.0)
    fit(tuned, event_loss, schedule, folder, "finetune_events", [p for part, p in named if part in EVENTS])
    tuned.weights_sha256 = None
    return tuned.eval().requires_grad_(False)
