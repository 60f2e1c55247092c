"""What the prior cannot know, for the whole latent z = (u, m) at once: `diffusion` as this world uses it.

    given = (anchor + deviation + memory * last residual,  m at admission + deviation * follow)
    z     = given + centre + scale * r,      r from the few-step student, or from the teacher by a `Sampler`

The prior thus moves all of z: u by its own equations, and the beat's shape by how shapes follow the coordinates
(`follow`, least squares on training patients). The diffusion adds what is left, jointly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from world_models import keys
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.diffusion.condition import Part
from world_models.ecg_wm.diffusion.latent_diffusion import DiffusionConfig, LatentDiffusion
from world_models.ecg_wm.diffusion.sampler import Sampler
from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.latent_ode import PATIENT, SITES

__all__ = ["LatentResidual", "Sampling", "Told", "length_told", "parts_of"]

LENGTH_SCALE_H = 2.0  # what is told of a step's length is in units of the default step
ADMISSION_DROP = 0.1  # of training, how often each entry of the admission's latent is hidden


@dataclass(frozen=True)
class Sampling:
    """How a step samples z; the default is the student with all of the prior."""

    sampler: Sampler | None = None  # of the teacher; None: the student
    steps: int = 50  # evaluations of the teacher
    prior_share: float = 1.0  # how much of the ODE's prediction is given: 0 none, 1 all


@dataclass(frozen=True)
class Told:
    """What the diffusion is told of B patients' step, besides where the prior says it leads."""

    residual: Tensor  # [B, COORDS] of the last visit
    deviation: Tensor  # [B, COORDS] what the prior moves u by, at the step's end
    effect: Tensor  # [B, D * SITES] saturated effect-site levels then
    patient: Tensor  # [B, PATIENT] covariates
    length: Tensor  # [B, 1] of the step, in LENGTH_SCALE_H
    dose: Tensor  # [B, D] swallowed at its beginning, in reference doses
    admission: Tensor  # [B, COORDS + morphology] z of the admission ECG; NaN where it is not known


def parts_of(config: ECGWorldConfig, drugs: int) -> tuple[Part, ...]:
    """The parts of the condition, in the order of `Told`."""
    return (
        Part("residual", COORDS),
        Part("deviation", COORDS),
        Part("effect", drugs * SITES),
        Part("patient", PATIENT),
        Part("length", 1),
        Part("dose", drugs),
        Part("admission", COORDS + config.morphology, "entries", ADMISSION_DROP),
    )


def length_told(like: Tensor, hours: float) -> Tensor:
    """`Told.length` [B, 1] of a step of `hours`, for as many patients as `like` [B, ...] has rows."""
    return like.new_full((like.shape[0], 1), hours / LENGTH_SCALE_H)


class LatentResidual(nn.Module):
    """Samples of z given where the prior leads."""

    def __init__(self, config: ECGWorldConfig, drugs: int):
        super().__init__()
        sizes = DiffusionConfig(
            teacher_width=config.teacher_width,
            student_width=config.flow_width,
            evaluations=config.flow_steps,
        )
        self.diffusion = LatentDiffusion(sizes, COORDS + config.morphology, parts_of(config, drugs))
        self.follow = nn.Parameter(torch.zeros(COORDS, config.morphology))  # of m, what a deviation of u goes with

    def given(self, u: Tensor, first_shape: Tensor, deviation: Tensor) -> Tensor:
        """Where the prior leads [B, COORDS + morphology]: u as it says, and the shape that goes with it."""
        return torch.cat([u, first_shape + deviation @ self.follow], dim=-1)

    def condition(self, told: Told, before: Tensor, given: Tensor, share: float = 1.0) -> Tensor:
        """The condition [B, C] of a step from z `before` [B, Z]; as `ConditionLayout.build`, without its checks."""
        known = ~told.admission.isnan()
        if share != 1.0:
            return self.diffusion.condition(vars(told), before, given, share)
        one = told.length.new_ones(told.length.shape)
        parts = (told.residual, told.deviation, told.effect, told.patient, told.length, told.dose)
        admission = torch.where(known, told.admission, 0.0)
        return torch.cat([*parts, admission, known.to(one.dtype), given - before, one], dim=-1)

    def forward(self, told: Told, before: Tensor, given: Tensor, normals: Tensor) -> Tensor:
        """z [B, Z] by the student, from standard normals [B, Z]."""
        residual = self.diffusion.student(normals, self.condition(told, before, given))
        return self.diffusion.units.restore(residual, given)

    def sampled(self, told: Told, before: Tensor, given: Tensor, key: Tensor, how: Sampling) -> Tensor:
        """z [B, Z] as `how` says, of keys [B]."""
        part = before + how.prior_share * (given - before)
        condition = self.condition(told, before, part, how.prior_share)
        return self.diffusion.sample(condition, part, keys.fold(key, "residual"), how.sampler, how.steps)
