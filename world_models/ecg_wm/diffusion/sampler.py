"""What DDPM, DDIM and rectified flow have in common: a path from data to noise, its training and its guidance.

On every path x_t = alpha_t z + sigma_t e, e ~ N(0, 1), t from 0 (data) to 1 (noise), and the network predicts the
path's velocity: alpha_t e - sigma_t z on the circle of DDPM (v-prediction, Salimans & Ho 2022, arXiv 2202.00512), e - z
on the straight path (Liu 2023). Both are as well conditioned at either end, where predictions of z or e are not: near
t = 1 the energy needs a usable estimate of z, and near 0 an estimate of e would amplify every error.

Guidance pulls the estimate of z down an energy E at sampling time: the score gains -strength dE/dx (classifier
guidance, Dhariwal & Nichol 2021, arXiv 2105.05233), with dz/dx taken as that of unit normal data,
alpha / (alpha^2 + sigma^2), as in reconstruction guidance (Ho 2022, arXiv 2204.03458) without the pass back through
the network. For the estimate of z that is a move by -strength sigma^2 / (alpha^2 + sigma^2) dE/dz. The slope is the
mean of that at either end of the move (Heun's rule): the slope at the estimate alone forgets that z is still spread
out, and overshoots by half where the noise is large.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm.diffusion.denoiser import Denoiser

__all__ = ["Estimate", "Guidance", "Sampler"]


@dataclass(frozen=True)
class Guidance:
    """An energy that pulls samples, and how hard."""

    energy: Callable[[Tensor], Tensor]  # z [B, Z], in the sampler's units, to [B]
    strength: float = 1.0  # 1: samples of the model's density times exp(-energy), to first order
    longest: float = 1.0  # of one move, in the sampler's units: far from data an energy's slope may be anything

    def move(self, z: Tensor, share: float) -> Tensor:
        """z [B, Z] moved down the energy; `share` is sigma^2 / (alpha^2 + sigma^2), the variance that z still has."""
        first = self._slope(z)
        second = self._slope(self._moved(z, first, share))
        return self._moved(z, 0.5 * (first + second), share)

    def _slope(self, z: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.energy(leaf).sum(), leaf)
        return torch.nan_to_num(slope)

    def _moved(self, z: Tensor, slope: Tensor, share: float) -> Tensor:
        step = slope * (self.strength * share)
        size = step.square().sum(-1, keepdim=True).sqrt()
        return z - step * (self.longest / size.clamp_min(self.longest))


class Estimate(NamedTuple):
    """One training example seen through the network."""

    error: Tensor  # [B] mean squared error of the prediction
    z: Tensor  # [B, Z] the estimate of the clean z
    weight: Tensor  # [B] how much that estimate means: alpha^2 / (alpha^2 + sigma^2), 1 on clean data, 0 on noise


class Sampler(ABC):
    """A path, the training of a denoiser on it and the way back along it. Holds no weights."""

    @abstractmethod
    def path(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma [...] at times [...]."""

    @abstractmethod
    def velocity(self, z: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network is to predict, [..., Z], of z and noise [..., Z]."""

    @abstractmethod
    def ends(self, x: Tensor, predicted: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates of z and of the noise [..., Z] from x and the prediction."""

    @abstractmethod
    def _times(self, key: Tensor) -> Tensor:
        """Training times [B] in (0, 1)."""

    def estimate(self, model: Denoiser, z: Tensor, condition: Tensor, key: Tensor) -> Estimate:
        """z [B, Z] noised at a random time and estimated by the network; condition [B, C], keys [B]."""
        noise = keys.normal(key, 0, "diffusion/noise", (z.shape[-1],))
        time = self._times(key)
        alpha, sigma = (part.unsqueeze(-1) for part in self.path(time))
        x = alpha * z + sigma * noise
        predicted = model(x, time, model.context(condition))
        error = (predicted - self.velocity(z, noise, alpha, sigma)).square().mean(-1)
        weight = alpha.square() / (alpha.square() + sigma.square())
        return Estimate(error, self.ends(x, predicted, alpha, sigma)[0], weight.squeeze(-1))

    def loss(self, model: Denoiser, z: Tensor, condition: Tensor, key: Tensor) -> Tensor:
        """Mean squared error of the velocity at random times, a scalar."""
        return self.estimate(model, z, condition, key).error.mean()

    def draws(self, steps: int) -> int:
        """How many standard normals [..., Z] a sample of `steps` evaluations takes: 1 of deterministic samplers."""
        return 1

    def noise(self, key: Tensor, steps: int, latent: int) -> Tensor:
        """The normals [draws, B, latent] of keys [B]."""
        return keys.normal(key, 0, "diffusion/sample", (self.draws(steps), latent)).transpose(0, 1)

    def sample(
        self,
        model: Denoiser,
        condition: Tensor,
        noise: Tensor,
        steps: int,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """z [B, Z] from the condition [B, C] and standard normals [draws(steps), B, Z] in `steps` evaluations.

        Raises:
            ValueError: fewer than one step, or noise of another shape.
        """
        if steps < 1:
            raise ValueError(f"steps={steps}; sampling takes at least 1 evaluation")
        if noise.ndim != 3 or noise.shape[0] != self.draws(steps):
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}; {steps} steps of {type(self).__name__} take "
                f"[{self.draws(steps)}, B, Z]: make it by `noise`"
            )
        context = model.context(condition)
        times = torch.linspace(self._first(), 0.0, steps + 1, dtype=torch.float64)
        alphas, sigmas = self.path(times)
        x = noise[0]
        for k in range(steps):
            alpha, sigma = alphas[k].to(x), sigmas[k].to(x)
            predicted = model(x, float(times[k]), context)
            z, e = self.ends(x, predicted, alpha, sigma)
            if guidance is not None:
                z = guidance.move(z, float(sigma**2 / (alpha**2 + sigma**2)))
                e = (x - alpha * z) / sigma
            fresh = noise[k + 1] if k + 1 < noise.shape[0] else None
            x = self._step(x, z, e, (alpha, sigma), (alphas[k + 1].to(x), sigmas[k + 1].to(x)), fresh)
        return x

    def _first(self) -> float:
        """The time at which sampling starts."""
        return 1.0

    def _step(
        self,
        x: Tensor,
        z: Tensor,
        e: Tensor,
        now: tuple[Tensor, Tensor],
        then: tuple[Tensor, Tensor],
        fresh: Tensor | None,
    ) -> Tensor:
        """x at the next time. Default: straight on with the same z and e, which is DDIM on any path, and Euler's step
        on the straight one."""
        return then[0] * z + then[1] * e
