"""Denoising diffusion: DDPM's ancestral sampler and DDIM's deterministic one, on the cosine path.

alpha = cos(pi t / 2), sigma = sin(pi t / 2) (variance preserving; the cosine schedule of Nichol & Dhariwal 2021,
arXiv 2102.09672, without its offset). DDPM: Ho et al. 2020, arXiv 2006.11239; its reverse step is the posterior of
x_s given x_t and the estimate of z (their eq. 7), here between any two times. DDIM: Song et al. 2021, arXiv 2010.02502.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm.diffusion.sampler import Sampler

__all__ = ["DDIM", "DDPM"]

_LAST = 0.998  # time at which sampling starts: at 1 itself z has no part in x, and v says nothing of the noise


class DDIM(Sampler):
    """The deterministic sampler on DDPM's path. One trained network serves both."""

    def path(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma [...] at times [...]."""
        angle = 0.5 * math.pi * time
        return angle.cos(), angle.sin()

    def velocity(self, z: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """alpha e - sigma z: the derivative of x by the angle."""
        return alpha * noise - sigma * z

    def ends(self, x: Tensor, predicted: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates of z and of the noise: x and its velocity turned back by the angle."""
        return alpha * x - sigma * predicted, sigma * x + alpha * predicted

    def _times(self, key: Tensor) -> Tensor:
        return keys.uniform(key, 0, "diffusion/time")

    def _first(self) -> float:
        return _LAST


class DDPM(DDIM):
    """The ancestral sampler: each step draws from the posterior of the next x."""

    def draws(self, steps: int) -> int:
        """One for the start and one for each step but the last, which lands on the estimate."""
        return steps

    def _step(
        self,
        x: Tensor,
        z: Tensor,
        e: Tensor,
        now: tuple[Tensor, Tensor],
        then: tuple[Tensor, Tensor],
        fresh: Tensor | None,
    ) -> Tensor:
        if fresh is None:
            return then[0] * z + then[1] * e
        (alpha, sigma), (alpha_next, sigma_next) = now, then
        kept = alpha / alpha_next  # of x_s in x_t
        added = sigma.square() - kept.square() * sigma_next.square()  # variance that t has over s
        mean = (kept * sigma_next.square() * x + alpha_next * added * z) / sigma.square()
        return mean + torch.sqrt(added.clamp_min(0)) * sigma_next / sigma * fresh
