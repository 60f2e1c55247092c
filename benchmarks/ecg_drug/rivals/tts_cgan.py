"""TTS-CGAN: a conditional GAN for time series whose generator and critic are transformers over patches, with a
classifier of the condition beside the score (Li 2022, arXiv 2206.13676); Wasserstein loss with gradient penalty."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.adversarial import NOISE, AdversarialNetwork
from benchmarks.ecg_drug.rivals.blocks import LEADS, MEASURES, SAMPLES, Block, dense, patches, unpatched
from benchmarks.ecg_drug.rivals.frame import FEATURES
from benchmarks.ecg_drug.rivals.network import Batch

__all__ = ["TTSCGAN"]

_PATCHES = 20
_PATCH = LEADS * SAMPLES // _PATCHES
_CLASSES = 5  # nothing and four drugs


class _Critic(nn.Module):
    """Score and classes [B, 1 + 5] of beats as tokens."""

    def __init__(self, size: int):
        super().__init__()
        self.embed = nn.Linear(2 * _PATCH, size)
        self.told = nn.Linear(FEATURES - _CLASSES + MEASURES, size)
        self.place = nn.Parameter(0.02 * torch.randn(_PATCHES + 1, size, generator=torch.Generator().manual_seed(1)))
        self.blocks = nn.ModuleList(Block(size) for _ in range(2))
        self.score = dense(size + FEATURES + MEASURES, size, 1)
        self.classes = nn.Linear(size, _CLASSES)

    def forward(self, beat: Tensor, measures: Tensor, pre: Tensor, told: Tensor, drug: Tensor) -> Tensor:
        """[B, 6]. The classifier is not told the drug; the score is."""
        rest = torch.cat([told[:, :MEASURES], told[:, MEASURES + _CLASSES :] * self._hides(told), measures], -1)
        tokens = self.embed(torch.cat([patches(beat, _PATCHES), patches(pre, _PATCHES)], -1))
        x = torch.cat([self.told(rest).unsqueeze(1), tokens], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return torch.cat([self.score(torch.cat([x[:, 0], told, measures], -1)), self.classes(x[:, 0])], -1)

    @staticmethod
    def _hides(told: Tensor) -> Tensor:
        """0 on the doses, which would tell the drug."""
        shown = torch.ones(FEATURES - MEASURES - _CLASSES, device=told.device)
        shown[: _CLASSES - 1] = 0.0
        return shown


class TTSCGAN(AdversarialNetwork):
    """See the module's docstring."""

    title, paper = "TTS-CGAN", "arXiv 2206.13676"
    critic_steps, wasserstein = 2, True

    def __init__(self, size: int = 48):
        super().__init__()
        self.noise_in = nn.Linear(NOISE, _PATCHES * size)
        self.pre = nn.Linear(_PATCH, size)
        self.told = dense(FEATURES, size, size)
        self.place = nn.Parameter(0.02 * torch.randn(_PATCHES + 1, size, generator=torch.Generator().manual_seed(2)))
        self.blocks = nn.ModuleList(Block(size) for _ in range(2))
        self.out = nn.Linear(size, _PATCH)
        self.measures = dense(size + FEATURES + NOISE, 64, MEASURES)
        self.critic = _Critic(size)

    def generate(self, pre: Tensor, told: Tensor, drug: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairNetwork.generate`."""
        z, by = self.noise(key), self.told(told).unsqueeze(1)
        tokens = self.noise_in(z).unflatten(-1, (_PATCHES, -1)) + self.pre(patches(pre, _PATCHES)) + by
        x = torch.cat([by, tokens], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return unpatched(self.out(x[:, 1:])), self.measures(torch.cat([x[:, 0], told, z], -1))

    def aside(self, scores: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the drug, on real rows for the critic and on its own for the generator."""
        return F.cross_entropy(scores[:, 1:], batch.drug)
