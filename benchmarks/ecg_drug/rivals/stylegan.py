"""StyleGAN in one dimension: a mapping network, adaptive instance normalisation, noise in every layer (Karras 2019,
arXiv 1812.04948); logistic loss with lazy R1, and the critic sees the spread across the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.adversarial import NOISE, AdversarialNetwork, ConvCritic
from benchmarks.ecg_drug.rivals.blocks import LEADS, MEASURES, BeatEncoder, dense
from world_models import keys

__all__ = ["StyleGAN1D"]

_FIRST = 25  # samples of the learned constant; doubled three times


class _StyleLayer(nn.Module):
    """Convolution, noise of a learned strength, instance normalisation, scale and shift by the style."""

    def __init__(self, channels_in: int, channels_out: int, style: int, number: int):
        super().__init__()
        self.number = number
        self.conv = nn.Conv1d(channels_in, channels_out, 5, padding=2)
        self.strength = nn.Parameter(torch.full((channels_out, 1), 0.1))
        self.style = nn.Linear(style, 2 * channels_out)

    def forward(self, x: Tensor, w: Tensor, key: Tensor) -> Tensor:
        """x [B, C, L], w [B, style] -> [B, C', L]."""
        x = self.conv(x)
        x = x + self.strength * keys.normal(key, self.number, "rival/layer", (1, x.shape[-1]))
        x = F.leaky_relu(x, 0.2)
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        gain, shift = self.style(w).unsqueeze(-1).chunk(2, dim=1)
        return x * (1 + gain) + shift


class StyleGAN1D(AdversarialNetwork):
    """See the module's docstring."""

    title, paper = "StyleGAN", "arXiv 1812.04948"

    def __init__(self, width: int = 24, style: int = 48):
        super().__init__()
        self.see = BeatEncoder(style)
        self.mapping = dense(style + NOISE, style, style, style)
        self.start = nn.Parameter(torch.randn(width, _FIRST, generator=torch.Generator().manual_seed(0)))
        self.layers = nn.ModuleList(_StyleLayer(width, width, style, i) for i in range(5))
        self.out = nn.Conv1d(width, LEADS, 1)
        self.measures = dense(style + NOISE, 64, MEASURES)
        self.critic = ConvCritic(across_batch=True)

    def generate(self, pre: Tensor, told: Tensor, drug: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairNetwork.generate`."""
        noise = self.noise(key)
        w = self.mapping(torch.cat([self.see(pre, told), noise], -1))
        x = self.start.expand(len(key), -1, -1)
        for i, layer in enumerate(self.layers):
            if i in (1, 2, 3):
                x = F.interpolate(x, scale_factor=2.0, mode="linear", align_corners=False)
            x = layer(x, w, key)
        return self.out(x), self.measures(torch.cat([w, noise], -1))
