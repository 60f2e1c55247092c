"""The few-step student: z from noise and condition in one to three evaluations of a slim network.

x runs from the noise in K Euler steps of a learned velocity (as the residual flow does), and the condition lays mean
and spread around the result: z = shift + gain x. The spread of a residual grows tenfold with a drug on board; without
the gain the velocity would have to cancel most of the noise where there is none, to within a few per cent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from world_models.config_json import check_sizes
from world_models.ecg_wm.diffusion.denoiser import Denoiser, DenoiserConfig

__all__ = ["FewStepStudent", "StudentConfig"]

_WIDEST_LOG_GAIN = 5.0


@dataclass(frozen=True)
class StudentConfig:
    """The sizes of a student.

    Raises:
        ValueError: a size below 1 or far beyond what is ever trained.
    """

    latent: int
    condition: int
    width: int = 64
    layers: int = 1
    evaluations: int = 2

    def __post_init__(self) -> None:
        check_sizes(self, latent=4096, condition=65_536, width=65_536, layers=64, evaluations=64)


class FewStepStudent(nn.Module):
    """Samples z [..., Z] given a condition [..., C]."""

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.config = config
        sizes = DenoiserConfig(config.latent, config.condition, config.width, config.layers, gain=False)
        self.field = Denoiser(sizes)
        self.lay = nn.Linear(config.width, 2 * config.latent)
        nn.init.zeros_(self.lay.weight)
        nn.init.zeros_(self.lay.bias)

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """z [..., Z] in its units from standard normals [..., Z]; the condition [..., C] may lack leading ones."""
        return self.onward(noise, self.field.read[0](condition))

    def onward(self, noise: Tensor, first: Tensor) -> Tensor:
        """z [..., Z] from what the first layer makes of the condition, [..., width]."""
        context = self.field.read[1:](first)
        shift, log_gain = self.lay(context).chunk(2, dim=-1)
        x, steps = noise, self.config.evaluations
        for k in range(steps):
            x = torch.add(x, self.field(x, k / steps, context), alpha=1 / steps)
        return torch.addcmul(shift, log_gain.clamp(-_WIDEST_LOG_GAIN, _WIDEST_LOG_GAIN).exp(), x)

    @property
    def multiplications(self) -> int:
        """Multiplications a sample: what a step of the world pays."""
        c = self.config
        once = c.condition * c.width + c.width**2 + 2 * c.width * c.latent
        return once + c.evaluations * (2 * c.width * c.latent + c.layers * c.width**2)
