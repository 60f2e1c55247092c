"""The predictor as a Neural ODE in elapsed time: what an action sets going, followed for as long as it takes.

    dz / dtau = f(z, e, tau),   tau from 0 to T(days) = 1/4 + log1p(days) / log1p(365)

(Chen 2018, arXiv 1806.07366; Wen & Biros 2025 for disease, as the paper proposes.) The action's embedding e is told
nothing of the time, which enters as the length of the flow alone: a day and a year after one onset lie on one path.
Time is warped, as visits lie hours to years apart, and begins at a quarter, as an action has come about on its own day.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from world_models.nn.mlp import mlp

__all__ = ["OdeDynamics", "horizon"]

FIRST = 0.25  # of the warped time: what an action does within the day
STEPS = 4  # of Runge and Kutta's fourth order; dopri5 agrees with them (tests)


def horizon(days: Tensor) -> Tensor:
    """Warped time [B] of elapsed days [B]; negative days count as none."""
    return FIRST + torch.log1p(days.clamp(min=0.0)) / math.log1p(365.0)


class OdeDynamics(nn.Module):
    """The flow of z under e for the elapsed time. Its last layer starts at zero, so that at first nothing changes.

    Args:
        latent: size of z.
        embedding: size of e; 0: there is none.
        hidden: width of the two hidden layers of f.
    """

    def __init__(self, latent: int, embedding: int, hidden: int):
        super().__init__()
        self.slope = mlp((latent + embedding + 1, hidden, hidden, latent), zero_last=True)

    def forward(self, z: Tensor, e: Tensor | None, days: Tensor, method: str = "rk4") -> Tensor:
        """Next latent [B, latent] from z [B, latent], e [B, embedding] and days [B].

        Every row runs over its own time: tau = s T(days) with s from 0 to 1, so that a batch is one integration.
        """
        from torchdiffeq import odeint

        length = horizon(days).unsqueeze(-1).to(z.dtype)
        told = z.new_zeros(len(z), 0) if e is None else e

        def slope(share: Tensor, at: Tensor) -> Tensor:
            return length * self.slope(torch.cat([at, told, share * length], dim=-1))

        grid = torch.linspace(0.0, 1.0, STEPS + 1, device=z.device, dtype=z.dtype)
        ends = grid if method == "rk4" else grid[[0, -1]]
        return odeint(slope, z, ends, method=method)[-1]
