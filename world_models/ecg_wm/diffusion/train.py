"""Training stages of the diffusion: the teacher on its path, the student on the energy score. See `training.fit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm.diffusion.condition import Part
from world_models.ecg_wm.diffusion.energy import EPK
from world_models.ecg_wm.diffusion.latent_diffusion import DiffusionConfig, LatentDiffusion, Pairs
from world_models.ecg_wm.diffusion.sampler import Sampler
from world_models.training import Schedule, fit

__all__ = ["Draw", "fresh", "random_share", "train_student", "train_teacher"]

Draw = Callable[[int], tuple[Pairs, Tensor]]  # step -> pairs [B] and their keys [B], a function of the step alone
_WHOLE_PRIOR = 0.5  # of examples, where the share varies: the use that matters most


def fresh(config: DiffusionConfig, latent: int, parts: tuple[Part, ...], seed: int) -> LatentDiffusion:
    """An untrained diffusion whose first weights depend on the seed alone; see `LatentDiffusion`."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return LatentDiffusion(config, latent, parts)


def random_share(key: Tensor) -> Tensor:
    """Shares of the prior [B] to train on: all of it for half, none for an eighth, in between for the rest."""
    u = keys.uniform(key, 0, "diffusion/share")
    part = keys.uniform(key, 1, "diffusion/share")
    return torch.where(u < _WHOLE_PRIOR, 1.0, torch.where(u < _WHOLE_PRIOR + 0.125, 0.0, part))


def train_teacher(
    diffusion: LatentDiffusion,
    sampler: Sampler,
    draw: Draw,
    schedule: Schedule,
    folder: Path,
    stage: str = "teacher",
    epk: EPK | None = None,
    epk_weight: float = 0.0,
    partial: bool = True,
) -> None:
    """The teacher on the sampler's path; with an EPK weight also on the energy of its estimates.

    Args:
        partial: train on every share of the prior; otherwise on all of it alone.
    """

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pairs, key = draw(step)
        share = random_share(key) if partial else torch.ones(len(key), device=key.device)
        value = diffusion.teacher_loss(sampler, pairs, key, share, epk, epk_weight)
        return value, {"teacher": value.item()}

    fit(diffusion, loss, schedule, folder, stage, list(diffusion.teacher.parameters()))


def train_student(
    diffusion: LatentDiffusion,
    draw: Draw,
    schedule: Schedule,
    folder: Path,
    stage: str = "student",
    samples: int = 8,
    epk: EPK | None = None,
    epk_weight: float = 0.0,
    partial: bool = True,
) -> None:
    """The student on the energy score of its samples for the data that `draw` gives."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pairs, key = draw(step)
        share = random_share(key) if partial else torch.ones(len(key), device=key.device)
        value = diffusion.student_loss(pairs, key, share, samples, epk, epk_weight)
        return value, {"student": value.item()}

    fit(diffusion, loss, schedule, folder, stage, list(diffusion.student.parameters()))
