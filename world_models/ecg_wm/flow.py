"""The latent flow: what the prior cannot know, as a few steps of a learned velocity field.

The residual r' of the next visit given the last one r is x_1 of dx/ds = v(x, s, r, condition) from x_0 ~ N(0, 1),
taken in K Euler steps. A field trained by flow matching alone needs many steps: with one it returns the mean. This one
is trained on the energy score of its K-step samples (Gneiting & Raftery 2007, doi 10.1198/016214506000001437), a proper
score, so that few steps already have the right spread.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models.nn.mlp import mlp

__all__ = ["ResidualFlow", "autoregression", "energy_score", "flow_condition"]

LENGTH_SCALE_H = 2.0  # what the flow is told of a step's length is in units of the default step
VARIANCE_FLOOR = 1e-6  # under the root: a residual that is remembered whole still has a gradient


def autoregression(log_memory: Tensor, log_noise: Tensor, hours: float) -> tuple[Tensor, Tensor]:
    """How much of a residual is left after `hours` [6], and the scale of what the flow adds to it [6].

    The scale is such that a residual of SD exp(log_noise) keeps that SD however long the step.
    """
    memory = torch.exp(-hours / log_memory.exp())
    return memory, log_noise.exp() * torch.sqrt(1 - memory.square() + VARIANCE_FLOOR)


def flow_condition(residual: Tensor, deviation: Tensor, hours: float, effect: Tensor, patient: Tensor) -> Tensor:
    """What the flow is told [B, 18 + D * 2]: last residual, deviation, the step's length, drug effect, patient."""
    length = residual.new_full((residual.shape[0], 1), hours / LENGTH_SCALE_H)
    return torch.cat([residual, deviation, length, effect, patient], dim=-1)


class ResidualFlow(nn.Module):
    """Samples of a residual [B, dim] given a condition [B, condition]."""

    def __init__(self, dim: int, condition: int, width: int, steps: int):
        super().__init__()
        self.steps = steps
        self.velocity = mlp((dim + 1 + condition, width, width, dim), zero_last=True)

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Residuals [..., dim] in units of their scale, from standard normals [..., dim] and the condition [..., n]."""
        x = noise
        for k in range(self.steps):
            s = x.new_full((*x.shape[:-1], 1), k / self.steps)
            x = torch.add(x, self.velocity(torch.cat([x, s, condition], dim=-1)), alpha=1 / self.steps)
        return x


def energy_score(samples: Tensor, observed: Tensor, weight: Tensor | None = None) -> Tensor:
    """Energy score [B] of samples [M, B, dim] for observed [B, dim]; the smaller the better.

    To the joint score the mean of the one-dimensional scores (CRPS) is added: the joint score alone hardly feels the
    spread of a single coordinate. `weight` [B, dim] is 0 where a coordinate was not observed.
    """
    weight = torch.ones_like(observed) if weight is None else weight
    count = samples.shape[0]
    miss = (samples - observed) * weight
    gap = (samples.unsqueeze(0) - samples.unsqueeze(1)) * weight
    pairs = count * (count - 1)
    each = miss.abs().mean(0).mean(-1) - 0.5 * gap.abs().sum((0, 1)).mean(-1) / pairs
    # sqrt has no gradient at 0, which every sample's distance to itself is.
    joint = (miss.square().sum(-1) + 1e-9).sqrt().mean(0) - 0.5 * (gap.square().sum(-1) + 1e-9).sqrt().sum(
        (0, 1)
    ) / pairs
    return joint + each
