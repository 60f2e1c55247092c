"""WGAN-GP: a Wasserstein critic with a gradient penalty (Gulrajani 2017, arXiv 1704.00028), conditional.

The generator is a one-dimensional U-Net from the pre-dose beat, as in Pulse2Pulse (Thambawita 2021, doi
10.1038/s41598-021-01295-2), modulated by noise and what is told.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.adversarial import NOISE, AdversarialNetwork, ConvCritic
from benchmarks.ecg_drug.rivals.blocks import LEADS, MEASURES, BeatEncoder, Modulated, dense

__all__ = ["WGANGP"]


class WGANGP(AdversarialNetwork):
    """See the module's docstring."""

    title, paper = "WGAN-GP", "arXiv 1704.00028"
    critic_steps, wasserstein = 3, True  # five in the paper; three reach further in the same time (k)

    def __init__(self, width: int = 24, embedding: int = 48):
        super().__init__()
        self.see = BeatEncoder(embedding)
        both = embedding + NOISE
        self.down = nn.ModuleList(Modulated(c, width, both, 2) for c in (LEADS, width, width))
        self.up = nn.ModuleList(Modulated(c, width, both) for c in (width, 2 * width, 2 * width))
        self.out = nn.Conv1d(width + LEADS, LEADS, 5, padding=2)
        self.measures = dense(both, 64, 64, MEASURES)
        self.critic = ConvCritic()

    def generate(self, pre: Tensor, told: Tensor, drug: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairNetwork.generate`."""
        by = torch.cat([self.see(pre, told), self.noise(key)], -1)
        kept, x = [], pre
        for layer in self.down:
            x = layer(x, by)
            kept.append(x)
        for i, layer in enumerate(self.up):
            x = layer(x if i == 0 else torch.cat([x, kept[-1 - i]], 1), by)
            x = F.interpolate(x, scale_factor=2.0, mode="linear", align_corners=False)
        return self.out(torch.cat([x, pre], 1)), self.measures(by)
