"""Inverse dynamics: which transition moved the latent? A term that keeps in z what an action changes.

Prediction alone is content with a latent of what stays, such as a person's anatomy: SIGReg asks for directions that
differ between ECGs, not for those in which a disease shows. To read the action back off two latents is the usual
remedy in joint-embedding planners (Sobal et al. 2025, arXiv 2502.14819). Here it is read linearly off the difference,
so what a condition does to z adds up, as the predictor's residual wants it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models.cardiac_jepa.reduce import sum_over_ranks

__all__ = ["InverseDynamics"]


class InverseDynamics(nn.Module):
    """The transition a [B, C] as a linear function of z' - z."""

    def __init__(self, latent: int, codes: int):
        super().__init__()
        self.layer = nn.Linear(latent, codes, bias=False)
        nn.init.zeros_(self.layer.weight)  # at first nothing is read: the loss starts at 1

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Estimate [B, C] of the action between latents [B, Z]."""
        return self.layer(z_b - z_a)

    def loss(self, z_a: Tensor, z_b: Tensor, action: Tensor) -> Tensor:
        """Share of the actions' squares that the estimate leaves, over all processes' pairs; 1: nothing was read."""
        with torch.autocast(z_a.device.type, enabled=False):
            wrong = (self(z_a.float(), z_b.float()) - action).square().sum()
        both = sum_over_ranks(torch.stack([wrong, action.square().sum()]))
        return both[0] / both[1].detach().clamp_min(1.0)
