"""What the adversarial rivals share: critics, penalties, and who takes the next step.

Critic and generator take turns inside one loss of the step number: on a step that is not its own a network has no
gradient, and AdamW leaves it alone. So the shared training loop, with its resume, serves them too.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.blocks import LEADS, MEASURES, SAMPLES, dense
from benchmarks.ecg_drug.rivals.frame import FEATURES
from benchmarks.ecg_drug.rivals.network import Batch, PairNetwork
from world_models import keys

__all__ = ["NOISE", "AdversarialNetwork", "ConvCritic", "gradient_penalty", "r1_penalty"]

NOISE = 16  # entries of a generator's noise
_PENALTY = 10.0  # Gulrajani 2017
_R1, _R1_EVERY = 1.0, 4  # Mescheder 2018 (arXiv 1801.04406); lazily, as StyleGAN2 has it


class ConvCritic(nn.Module):
    """Scores [B, outputs] of a change of beat and measures beside what is told; the condition enters once more as an
    inner product with the features (Miyato & Koyama 2018, arXiv 1802.05637)."""

    def __init__(self, width: int = 32, outputs: int = 1, across_batch: bool = False):
        super().__init__()
        self.across_batch = across_batch
        sizes = (2 * LEADS, width, width, width)
        layers: list[nn.Module] = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Conv1d(a, b, 5, 2, padding=2), nn.LeakyReLU(0.2)]
        self.beat = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * SAMPLES // 8, 2 * width))
        self.measures = dense(MEASURES + FEATURES, 2 * width, 2 * width)
        self.told = dense(FEATURES, 2 * width, 2 * width)
        self.head = dense(4 * width + across_batch, 2 * width, outputs)

    def forward(self, beat: Tensor, measures: Tensor, pre: Tensor, told: Tensor, drug: Tensor) -> Tensor:
        """[B, outputs]."""
        seen = self.beat(torch.cat([beat, pre], 1))
        both = torch.cat([seen, self.measures(torch.cat([measures, told], -1))], -1)
        if self.across_batch:  # how far the rows differ from each other (Karras 2018, arXiv 1710.10196)
            spread = torch.cat([beat.flatten(1), measures], -1).var(0, unbiased=False)
            both_and = torch.cat([both, (spread + 1e-8).sqrt().mean().expand(len(both), 1)], -1)
        else:
            both_and = both
        return self.head(both_and) + (seen * self.told(told)).sum(-1, keepdim=True) / seen.shape[-1]


def gradient_penalty(critic: Any, batch: Batch, beat: Tensor, measures: Tensor) -> Tensor:
    """Mean square of the slope's distance from 1 between real and generated rows (Gulrajani 2017)."""
    share = keys.uniform(batch.key, 0, "rival/between").unsqueeze(-1)
    between = share.unsqueeze(-1) * batch.beat + (1 - share.unsqueeze(-1)) * beat
    values = share * batch.measures + (1 - share) * measures
    between, values = between.detach().requires_grad_(), values.detach().requires_grad_()
    score = critic(between, values, batch.pre, batch.told, batch.drug)[:, 0].sum()
    slopes = torch.autograd.grad(score, (between, values), create_graph=True)
    length = (sum(g.flatten(1).square().sum(-1) for g in slopes) + 1e-12) ** 0.5
    return _PENALTY * (length - 1).square().mean()


def r1_penalty(critic: Any, batch: Batch) -> Tensor:
    """Mean square of the slope at real rows."""
    beat, measures = batch.beat.detach().requires_grad_(), batch.measures.detach().requires_grad_()
    score = critic(beat, measures, batch.pre, batch.told, batch.drug)[:, 0].sum()
    slopes = torch.autograd.grad(score, (beat, measures), create_graph=True)
    return 0.5 * _R1 * _R1_EVERY * sum(g.flatten(1).square().sum(-1) for g in slopes).mean()


class AdversarialNetwork(PairNetwork):
    """A generator and a critic. Subclasses make `self.critic` and `generate`, and choose the game."""

    first_beta = 0.5
    critic_steps = 1  # to each of the generator's
    wasserstein = False  # else the logistic game with R1
    critic: nn.Module

    def noise(self, key: Tensor, size: int = NOISE) -> Tensor:
        """Standard normals [B, size]."""
        return keys.normal(key, 0, "rival/noise", (size,))

    def judge(self, batch: Batch, beat: Tensor, measures: Tensor) -> Tensor:
        """The critic's scores [B, outputs] of generated rows."""
        return self.critic(beat, measures, batch.pre, batch.told, batch.drug)

    def aside(self, scores: Tensor, batch: Batch) -> Tensor:
        """What critic and generator lose besides (an auxiliary classifier, say)."""
        return scores.new_zeros(())

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """The critic's loss, or every `critic_steps + 1` steps the generator's."""
        if step % (self.critic_steps + 1) == self.critic_steps:
            self.critic.requires_grad_(False)
            scores = self.judge(batch, *self.generate(batch.pre, batch.told, batch.drug, batch.key))
            self.critic.requires_grad_(True)
            score = scores[:, 0]
            value = -score.mean() if self.wasserstein else F.softplus(-score).mean()
            value = value + self.aside(scores, batch)
            return value, {"generator": float(value.detach())}
        with torch.no_grad():
            beat, measures = self.generate(batch.pre, batch.told, batch.drug, batch.key)
        fake, real = self.judge(batch, beat, measures), self.judge(batch, batch.beat, batch.measures)
        if self.wasserstein:
            value = fake[:, 0].mean() - real[:, 0].mean() + gradient_penalty(self.critic, batch, beat, measures)
        else:
            value = F.softplus(fake[:, 0]).mean() + F.softplus(-real[:, 0]).mean()
            if step // (self.critic_steps + 1) % _R1_EVERY == 0:
                value = value + r1_penalty(self.critic, batch)
        value = value + self.aside(real, batch)
        return value, {"critic": float(value.detach())}
