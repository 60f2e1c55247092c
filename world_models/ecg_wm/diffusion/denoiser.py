"""The network that a sampler calls: from a noisy latent, a time and a condition to a prediction.

The condition is read once for all evaluations of one sample (`context`), so an evaluation costs
width * (2 latent + layers * width) multiplications: a teacher can be wide, a student slim. What is predicted is the
sampler's affair (`sampler.Sampler`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from world_models.config_json import check_sizes
from world_models.constants import constant

__all__ = ["Denoiser", "DenoiserConfig"]

# cycles of the time's sines and cosines over its range 0 to 1
_CYCLES = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class DenoiserConfig:
    """The sizes of one denoiser.

    Raises:
        ValueError: a size below 1 or far beyond what is ever trained.
    """

    latent: int  # entries of z
    condition: int  # entries of the condition
    width: int = 256  # of the hidden layers
    layers: int = 3  # hidden layers, each added to what it was given
    gain: bool = True  # the condition also scales what x brings in; without it an evaluation's context is half as wide

    def __post_init__(self) -> None:
        check_sizes(self, latent=4096, condition=65_536, width=65_536, layers=64)


class Denoiser(nn.Module):
    """Prediction [..., latent] from x [..., latent], time and condition."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        self.config = config
        width, told = config.width, config.width * (2 if config.gain else 1)
        self.read = nn.Sequential(nn.Linear(config.condition, width), nn.SiLU(), nn.Linear(width, told))
        self.enter = nn.Linear(config.latent, width, bias=False)
        self.when = nn.Linear(2 * len(_CYCLES), told, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(config.layers))
        self.leave = nn.Linear(width, config.latent)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def first(self) -> nn.Linear:
        """The layer that reads the condition."""
        layer = self.read[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def context(self, condition: Tensor) -> Tensor:
        """What all evaluations of a sample share, [..., 2 width] or [..., width], from the condition [..., C]."""
        context: Tensor = self.read(condition)
        return context

    def forward(self, x: Tensor, time: float | Tensor, context: Tensor) -> Tensor:
        """The prediction [..., latent] at `time` (a number for the batch, or [...]) in 0 (clean) to 1 (noise)."""
        moved = context + self.when(_waves(time, x))
        if self.config.gain:
            shift, gain = moved.chunk(2, dim=-1)
            h = nn.functional.silu(torch.addcmul(shift, self.enter(x), 1 + gain))
        else:
            h = nn.functional.silu(moved + self.enter(x))
        for layer in self.hidden:
            h = h + nn.functional.silu(layer(h))
        predicted: Tensor = self.leave(h)
        return predicted


def _waves(time: float | Tensor, like: Tensor) -> Tensor:
    """Sines and cosines [..., 10] of a time [...]; one row of a number."""
    if not isinstance(time, Tensor):
        return constant(_row(time), like.device, like.dtype)
    angle = 2 * math.pi * constant(_CYCLES, like.device, like.dtype) * time.unsqueeze(-1)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _row(time: float) -> tuple[float, ...]:
    angles = [2 * math.pi * cycle * time for cycle in _CYCLES]
    return (*map(math.sin, angles), *map(math.cos, angles))
