"""The diffusion of a world's latent: what it is told, what it draws, its teacher and its student, put together.

given = z_pre + share (z_prior - z_pre)        what of the ODE's prediction is given
condition = parts, given - z_pre, share        see `ConditionLayout`
r ~ teacher by a Sampler, or student           in `ResidualUnits`
z_post = given + centre + scale r
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models import keys
from world_models.config_json import check_sizes
from world_models.ecg_wm.diffusion.condition import ConditionLayout, Part
from world_models.ecg_wm.diffusion.denoiser import Denoiser, DenoiserConfig
from world_models.ecg_wm.diffusion.distil import scored
from world_models.ecg_wm.diffusion.energy import EPK, PhysicsEnergy
from world_models.ecg_wm.diffusion.sampler import Guidance, Sampler
from world_models.ecg_wm.diffusion.student import FewStepStudent, StudentConfig
from world_models.ecg_wm.diffusion.target import ResidualUnits, given_prior

__all__ = ["GIVEN", "SHARE", "DiffusionConfig", "LatentDiffusion", "Pairs"]

# Parts of every condition, besides those a world names: what the prior moves z by, and how much of it is told
GIVEN, SHARE = "prior_change", "prior_share"


@dataclass(frozen=True)
class DiffusionConfig:
    """The sizes of teacher and student.

    Raises:
        ValueError: a size below 1 or far beyond what is ever trained.
    """

    teacher_width: int = 256
    teacher_layers: int = 3
    student_width: int = 64
    student_layers: int = 1
    evaluations: int = 2  # of the student
    torso: str = "own"  # of the energy's dipole part

    def __post_init__(self) -> None:
        check_sizes(self, teacher_width=65_536, teacher_layers=64, student_width=65_536, student_layers=64)
        check_sizes(self, evaluations=64)


class Pairs(NamedTuple):
    """B pairs of a pre-dose and a post-dose ECG, and what is known of them."""

    z_pre: Tensor  # [B, Z]
    z_prior: Tensor  # [B, Z] the ODE's prediction
    z_post: Tensor  # [B, Z]
    parts: dict[str, Tensor]  # the condition's parts, [B, size] each
    predicted: Tensor  # [B, 9] `energy.MEASURED` as the prior predicts them

    def take(self, index: Tensor) -> Pairs:
        """The rows at `index`."""
        parts = {name: value[index] for name, value in self.parts.items()}
        return Pairs(self.z_pre[index], self.z_prior[index], self.z_post[index], parts, self.predicted[index])


class LatentDiffusion(nn.Module):
    """p(z_post | pre-dose ECG, prior, drug, patient) for latents of Z entries.

    Args:
        latent: Z.
        parts: what the condition holds besides the prior's change and its share.
    """

    def __init__(self, config: DiffusionConfig, latent: int, parts: tuple[Part, ...]):
        super().__init__()
        self.config, self.latent = config, latent
        self.layout = ConditionLayout((*parts, Part(GIVEN, latent), Part(SHARE, 1)))
        told = self.layout.size
        self.teacher = Denoiser(DenoiserConfig(latent, told, config.teacher_width, config.teacher_layers))
        self.student = FewStepStudent(
            StudentConfig(latent, told, config.student_width, config.student_layers, config.evaluations)
        )
        self.units = ResidualUnits(latent)
        self.energy = PhysicsEnergy(config.torso)

    def condition(
        self,
        parts: Mapping[str, Tensor],
        z_pre: Tensor,
        given: Tensor,
        share: float | Tensor = 1.0,
        seen: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The condition [B, C]; `seen` as in `ConditionLayout.build`.

        Raises:
            ValueError: see there.
        """
        told = torch.as_tensor(share, dtype=z_pre.dtype, device=z_pre.device).reshape(-1).expand(z_pre.shape[0])
        values = self.layout.shared(parts, told)
        return self.layout.build({**values, GIVEN: given - z_pre, SHARE: told}, seen)

    def prepare(
        self, pairs: Pairs, key: Tensor | None = None, share: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(residual in units [B, Z], condition [B, C], given [B, Z]); with keys [B] parts are hidden as in training."""
        given = given_prior(pairs.z_pre, pairs.z_prior, share)
        seen = None if key is None else self.layout.drop(pairs.parts, key)
        condition = self.condition(pairs.parts, pairs.z_pre, given, share, seen)
        return self.units.standard(pairs.z_post, given), condition, given

    def teacher_loss(
        self,
        sampler: Sampler,
        pairs: Pairs,
        key: Tensor,
        share: float | Tensor = 1.0,
        epk: EPK | None = None,
        epk_weight: float = 0.0,
        epk_rows: int = 128,
    ) -> Tensor:
        """The sampler's loss, and epk_weight times the energy of the estimate of the clean beat (weighted by how much
        that estimate means) on the first `epk_rows` rows: decoding costs more than all the rest. A scalar."""
        z, condition, given = self.prepare(pairs, key, share)
        found = sampler.estimate(self.teacher, z, condition, keys.fold(key, "teacher"))
        loss = found.error.mean()
        if epk is None or not epk_weight:
            return loss
        rows = slice(0, epk_rows)
        energy = epk(self.units.restore(found.z[rows], given[rows]), pairs.predicted[rows])
        return loss + epk_weight * (found.weight[rows] * energy).mean()

    def student_loss(
        self,
        pairs: Pairs,
        key: Tensor,
        share: float | Tensor = 1.0,
        samples: int = 8,
        epk: EPK | None = None,
        epk_weight: float = 0.0,
        epk_rows: int = 128,
    ) -> Tensor:
        """The energy score of the student's samples for what was observed, and epk_weight times the energy of one
        sample of each of the first `epk_rows` rows. A scalar."""
        z, condition, given = self.prepare(pairs, key, share)
        energy: Callable[[Tensor], Tensor] | None = None
        if epk is not None and epk_weight:
            ask, rows = epk, slice(0, epk_rows)

            def weighted(drawn: Tensor) -> Tensor:
                return epk_weight * ask(self.units.restore(drawn[rows], given[rows]), pairs.predicted[rows])

            energy = weighted
        return scored(self.student, z, condition, keys.fold(key, "student"), samples, energy)

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        given: Tensor,
        key: Tensor,
        sampler: Sampler | None = None,
        steps: int = 50,
        guidance: tuple[EPK, Tensor, float] | None = None,
    ) -> Tensor:
        """Post-dose latents [B, Z] of keys [B].

        Args:
            sampler: the teacher's; None: the student in its one pass.
            guidance: (energy, predicted MEASURED [B, 9], strength), of the teacher's sampler alone.

        Raises:
            ValueError: guidance of the student, which has no path to be guided on.
        """
        if sampler is None:
            if guidance is not None:
                raise ValueError("the student cannot be guided; give a sampler, or train the student with the energy")
            noise = keys.normal(key, 0, "diffusion/sample", (self.latent,))
            return self.units.restore(self.student(noise, condition), given)
        guide = None
        if guidance is not None:
            epk, predicted, strength = guidance
            guide = Guidance(epk.against(predicted, lambda r: self.units.restore(r, given)), strength)
        noise = sampler.noise(key, steps, self.latent)
        return self.units.restore(sampler.sample(self.teacher, condition, noise, steps, guide), given)
