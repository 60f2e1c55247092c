"""A learned world trained from nothing on courses of one's choice, by its chart stages alone: no ECG is drawn.

Dynamics, belief, foresight. Moment-to-moment variation is then the evidence bound's own, autoregressive and normal
(`normal_residual`), which the diffusion is not needed for. Training goes on where it was stopped.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.courses import DrawCourses
from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.train import train_belief, train_dynamics, train_foresight, untrained
from world_models.files import write_text

__all__ = ["Budget", "normal_residual", "train_chart_stages"]

logger = logging.getLogger(__name__)
LEAST_BATCH = 16


@dataclass(frozen=True)
class Budget:
    """Training steps of each stage, and patients a step.

    Raises:
        ValueError: a number of steps below 1, or a batch too small for its cohorts.
    """

    dynamics: int = 800
    belief: int = 100
    foresight: int = 100
    batch: int = 128

    def __post_init__(self) -> None:
        for name in ("dynamics", "belief", "foresight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} steps; give 1 or more")
        if self.batch < LEAST_BATCH:
            raise ValueError(f"batch={self.batch} patients are too few for the cohorts; give {LEAST_BATCH} or more")

    @classmethod
    def of(cls, steps: int, batch: int) -> Budget:
        """`steps` of the dynamics, an eighth of that for each stage after it."""
        later = max(steps // 8, 1)
        return cls(steps, later, later, batch)


@torch.no_grad()
def normal_residual(model: ECGWorldModel, hours: float) -> ECGWorldModel:
    """The model, of steps of `hours`, with the residual that its dynamics were trained with.

    An untrained student gives back its noise, so the units of the residual are all there is to set: no centre, and the
    autoregression's innovation as the spread of each coordinate. The shape keeps still.
    """
    fresh, units = ECGWorldModel(model.config), model.residual.diffusion.units
    model.residual.load_state_dict(fresh.residual.state_dict())
    memory = torch.exp(-hours / model.log_memory.exp())
    units.centre.zero_()
    units.scale[:COORDS] = model.log_noise.exp() * (1 - memory.square()).clamp_min(1e-8).sqrt()
    units.scale[COORDS:] = 0.0
    return model.with_options(hours_per_step=hours)


def train_chart_stages(
    folder: Path, budget: Budget, draw: DrawCourses, told: Mapping[str, Any], hours: float
) -> ECGWorldModel:
    """A learned world of steps of `hours`, trained from nothing on the courses that `draw` gives.

    Args:
        folder: where training is kept, with its budget and what is `told` of its courses.

    Raises:
        ValueError: `folder` holds the training of another budget or other courses.
    """
    known = {**vars(budget), **told}
    path = folder / "budget.json"
    if path.is_file() and json.loads(path.read_text()) != known:
        raise ValueError(f"{folder} was begun with another budget or other courses: name another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(known))
    model = untrained(SMALL)
    begin = time.process_time()
    train_dynamics(model, budget.dynamics, budget.batch, folder, draw)
    train_belief(model, budget.belief, budget.batch, folder, draw)
    train_foresight(model, budget.foresight, budget.batch * 2 // 3, folder, draw)
    logger.info("%s: %.0f s of processor time", folder.name, time.process_time() - begin)
    return normal_residual(model, hours)
