"""CECG-GAN: a conditional GAN of ECGs with a transformer in a convolutional generator (2024, Scientific Reports, doi
10.1038/s41598-024-65619-8).

Of the paper's text we had the abstract; layers and sizes are ours: convolutions down to 25 tokens, two transformer
blocks, convolutions up again; the condition goes to both networks; the logistic game.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.adversarial import NOISE, AdversarialNetwork, ConvCritic
from benchmarks.ecg_drug.rivals.blocks import LEADS, MEASURES, Block, dense
from benchmarks.ecg_drug.rivals.frame import FEATURES

__all__ = ["CECGGAN"]


class CECGGAN(AdversarialNetwork):
    """See the module's docstring."""

    title, paper = "CECG-GAN", "doi 10.1038/s41598-024-65619-8"

    def __init__(self, size: int = 48, width: int = 24):
        super().__init__()
        self.down = nn.ModuleList(
            nn.Conv1d(a, b, 5, 2, padding=2) for a, b in ((LEADS, width), (width, width), (width, size))
        )
        self.told = dense(FEATURES + NOISE, size, size)
        self.place = nn.Parameter(0.02 * torch.randn(25, size, generator=torch.Generator().manual_seed(3)))
        self.blocks = nn.ModuleList(Block(size) for _ in range(2))
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(a, b, 4, 2, padding=1) for a, b in ((size, width), (width, width), (width, width))
        )
        self.out = nn.Conv1d(width, LEADS, 5, padding=2)
        self.measures = dense(size + FEATURES + NOISE, 64, MEASURES)
        self.critic = ConvCritic()

    def generate(self, pre: Tensor, told: Tensor, drug: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairNetwork.generate`."""
        both = torch.cat([told, self.noise(key)], -1)
        x = pre
        for layer in self.down:
            x = F.leaky_relu(layer(x), 0.2)
        x = x.transpose(1, 2) + self.place + self.told(both).unsqueeze(1)
        for block in self.blocks:
            x = block(x)
        pooled, x = x.mean(1), x.transpose(1, 2)
        for layer in self.up:
            x = F.leaky_relu(layer(x), 0.2)
        return self.out(x), self.measures(torch.cat([pooled, both], -1))
