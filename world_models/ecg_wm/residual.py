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
from world_models.ecg_wm.diffusion.latent_diffusion import GIVEN, SHARE, DiffusionConfig, LatentDiffusion
from world_models.ecg_wm.diffusion.sampler import Sampler
from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.latent_ode import PATIENT, SITES

__all__ = ["LatentResidual", "Sampling", "Told", "length_told", "parts_of"]

LENGTH_SCALE_H = 2.0  # what is told of a step's length is in units of the default step
_ANY = 1e9  # beyond everything: nothing was measured yet
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
    measured: Tensor  # [B, COORDS] u of the admission ECG; NaN where it is not known
    first_shape: Tensor  # [B, morphology] m of it

    def parts(self) -> dict[str, Tensor]:
        """By the names of `parts_of`."""
        own = vars(self)
        named = {name: own[name] for name in ("residual", "deviation", "effect", "patient", "length", "dose")}
        return {**named, "admission": torch.cat([self.measured, self.first_shape], dim=-1)}


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
    """Samples of z given where the prior leads.

    What the networks are told is kept within what training met: a sample is told of in the next step, and beyond their
    range one in a thousand patients ran away within a day of repeated doses.
    """

    lowest: Tensor  # [C] of each number of the condition
    highest: Tensor  # [C]

    def __init__(self, config: ECGWorldConfig, drugs: int):
        super().__init__()
        sizes = DiffusionConfig(
            teacher_width=config.teacher_width,
            student_width=config.flow_width,
            evaluations=config.flow_steps,
        )
        self.diffusion = LatentDiffusion(sizes, COORDS + config.morphology, parts_of(config, drugs))
        moving = ("residual", "deviation", "effect", "length", "dose", GIVEN)
        self._moving = self.diffusion.layout.columns(moving)
        self._still = self.diffusion.layout.columns(("patient", "admission", SHARE))
        self.register_buffer("lowest", torch.full((self.diffusion.layout.size,), -_ANY))
        self.register_buffer("highest", torch.full((self.diffusion.layout.size,), _ANY))
        self.follow = nn.Parameter(torch.zeros(COORDS, config.morphology))  # of m, what a deviation of u goes with

    def given(self, u: Tensor, first_shape: Tensor, deviation: Tensor) -> Tensor:
        """Where the prior leads [B, COORDS + morphology]: u as it says, and the shape that goes with it."""
        return torch.cat([u, first_shape + deviation @ self.follow], dim=-1)

    def met(self, condition: Tensor) -> None:
        """Take the range of conditions [N, C] of the training steps, and 0, which stands for what is missing."""
        self.lowest.copy_(condition.amin(0).clamp_max(0.0))
        self.highest.copy_(condition.amax(0).clamp_min(0.0))

    def who(self, patient: Tensor, measured: Tensor, first_shape: Tensor) -> Tensor:
        """What the student makes of who the patient is, [B, width]: its first layer, as far as a stay does not change
        it. For `forward`."""
        admission = torch.cat([measured, first_shape], dim=-1)
        known = ~admission.isnan()
        one = patient.new_ones(patient.shape[0], 1)
        still = torch.cat([patient, torch.where(known, admission, 0.0), known.to(one.dtype), one], dim=-1)
        still = still.clamp(self.lowest[self._still], self.highest[self._still])
        first = self.diffusion.student.field.first
        return nn.functional.linear(still, first.weight[:, self._still], first.bias)

    def forward(self, who: Tensor, told: Told, before: Tensor, given: Tensor, normals: Tensor) -> Tensor:
        """z [B, Z] by the student, from standard normals [B, Z]: `sampled` without what `who` knows already."""
        student = self.diffusion.student
        parts = (told.residual, told.deviation, told.effect, told.length, told.dose, given - before)
        moving = torch.cat(parts, dim=-1).clamp(self.lowest[self._moving], self.highest[self._moving])
        first = torch.addmm(who, moving, student.field.first.weight[:, self._moving].T)
        return self.diffusion.units.restore(student.onward(normals, first), given)

    def sampled(self, told: Told, before: Tensor, given: Tensor, key: Tensor, how: Sampling) -> Tensor:
        """z [B, Z] as `how` says, of keys [B]."""
        part = before + how.prior_share * (given - before)
        condition = self.diffusion.condition(told.parts(), before, part, how.prior_share)
        condition = condition.clamp(self.lowest, self.highest)
        return self.diffusion.sample(condition, part, keys.fold(key, "residual"), how.sampler, how.steps)
