"""SIGReg: how far a batch of latents is from a standard isotropic Gaussian, seen along random directions.

Balestriero & LeCun 2025 (LeJEPA, arXiv 2511.08544), the Epps-Pulley statistic of each direction:

    T = N sum_k w_k [ (mean cos(t_k x) - exp(-t_k^2 / 2))^2 + (mean sin(t_k x))^2 ],

t_k 17 points from 0 to 3, w_k the Gaussian window times trapezoid weights doubled for the negative half. A standard
normal gives about 1.05 whatever N; a collapsed batch 0.40 N.

When D is near N it hardly sees a few lost dimensions: the effective rank is what watches for those (`collapse`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from world_models import keys
from world_models.processes import ranks

__all__ = ["POINTS", "sigreg", "slices"]

POINTS = 17
LAST = 3.0
_STEP = LAST / (POINTS - 1)
_T = [k * _STEP for k in range(1, POINTS)]  # t = 0 adds nothing: cos is 1 there, sin 0


def slices(size: int, count: int, step: int, device: torch.device | str = "cpu") -> Tensor:
    """Random unit columns [size, count], a function of `step` alone: every process looks along the same ones."""
    columns = keys.normal(keys.from_seed(0, 1, device), step, "sigreg slices", (size, count))[0]
    return columns / columns.norm(dim=0, keepdim=True)


def sigreg(z: Tensor, step: int, count: int = 256) -> Tensor:
    """The statistic of latents [B, D] of all processes together, mean over `count` directions sampled for `step`.

    In float32 also under autocast: the statistic is N times the square of small differences of means.
    """
    with torch.autocast(z.device.type, enabled=False):
        return _EppsPulley.apply(z.float() @ slices(z.shape[1], count, step, z.device))


class _EppsPulley(torch.autograd.Function):
    """Own backward: keeps [N, M] and the means instead of cos and sin at every point, which were 34 times as much."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        means = torch.stack([torch.stack([torch.cos(x * t).mean(0), torch.sin(x * t).mean(0)]) for t in _T])
        world = ranks()[1]
        if world > 1:
            dist.all_reduce(means)
            means /= world
        t = torch.tensor(_T, device=x.device).view(-1, 1)
        window = torch.exp(-0.5 * t.square())
        weight = 2.0 * _STEP * window
        weight[-1] /= 2.0  # the trapezoid's end
        real, imaginary = means[:, 0] - window, means[:, 1]
        rows, directions = x.shape[0] * world, x.shape[1]
        total = rows * (weight * (real.square() + imaginary.square())).sum() / directions
        # d total / d x[n, m] = sum_k slope_sin[k, m] sin(t_k x) + slope_cos[k, m] cos(t_k x): the N before the sum and
        # the 1 / N in the means cancel. Times the number of processes, whose gradients are averaged afterwards.
        slope = 2.0 * world * weight * t / directions
        ctx.save_for_backward(x, -slope * real, slope * imaginary)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, slope_sin, slope_cos = ctx.saved_tensors
        total = torch.zeros_like(x)
        for k, t in enumerate(_T):
            angle = x * t
            total.addcmul_(torch.sin(angle), slope_sin[k])
            total.addcmul_(angle.cos_(), slope_cos[k])
        return total * gradient
