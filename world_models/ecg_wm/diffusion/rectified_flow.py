"""Rectified flow: the straight path x_t = (1 - t) z + t e, walked back by Euler's or Heun's steps.

Liu, Gong & Liu 2023, arXiv 2209.03003; the same path as flow matching, Lipman et al. 2023, arXiv 2210.02747. Training
times are logit-normal (Esser et al. 2024, arXiv 2403.03206): the middle of the path is where the velocity is hard.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm.diffusion.denoiser import Denoiser
from world_models.ecg_wm.diffusion.sampler import Guidance, Sampler

__all__ = ["RectifiedFlow"]


@dataclass(frozen=True)
class RectifiedFlow(Sampler):
    """The straight path. With `heun` each pair of evaluations is one step of second order; the last step is Euler's."""

    heun: bool = False
    uniform_share: float = 0.25  # of training times drawn evenly: the logit-normal hardly visits the ends

    def path(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma [...] at times [...]."""
        return 1 - time, time

    def velocity(self, z: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """e - z: the derivative of x by t."""
        return noise - z

    def ends(self, x: Tensor, predicted: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates of z and of the noise: straight on from x in both directions."""
        return x - sigma * predicted, x + alpha * predicted

    def _times(self, key: Tensor) -> Tensor:
        middle = torch.sigmoid(keys.normal(key, 0, "diffusion/time"))
        even = keys.uniform(key, 1, "diffusion/time")
        return torch.where(keys.uniform(key, 2, "diffusion/time") < self.uniform_share, even, middle)

    def sample(
        self,
        model: Denoiser,
        condition: Tensor,
        noise: Tensor,
        steps: int,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """See `Sampler.sample`; Heun's rule with guidance, or with an odd number of evaluations, is Euler's.

        Raises:
            ValueError: see `Sampler.sample`.
        """
        if not self.heun or guidance is not None or steps % 2:
            return super().sample(model, condition, noise, steps, guidance)
        context = model.context(condition)
        times = torch.linspace(1.0, 0.0, steps // 2 + 1, dtype=torch.float64).tolist()
        x = noise[0]
        for now, then in zip(times[:-1], times[1:], strict=True):
            first = model(x, now, context)
            if then == 0.0:  # no second evaluation on clean data, where no noise is left to tell (Karras et al. 2022)
                return x - now * first
            second = model(x + (then - now) * first, then, context)
            x = x + (0.5 * (then - now)) * (first + second)
        return x
