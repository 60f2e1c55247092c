"""Small searches along time that the delineator's files share: filters, level crossings, extremes between bounds.

All take tensors with time last, in samples, and work on every row at once.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["crossing", "filtered", "highest", "lowest", "read", "smoother", "vector"]


@lru_cache(maxsize=32)
def smoother(width: int, order: int, derivative: int) -> tuple[float, ...]:
    """Savitzky-Golay coefficients (doi 10.1021/ac60214a047) for correlation with an odd window, least squares."""
    half = width // 2
    x = torch.arange(-half, half + 1, dtype=torch.float64)
    powers = [torch.ones_like(x)]
    for _ in range(order):
        powers.append(powers[-1] * x)
    basis = torch.stack(powers, 1)
    return tuple((torch.linalg.pinv(basis)[derivative] * math.factorial(derivative)).tolist())


def filtered(x: Tensor, width: int, order: int, derivative: int) -> Tensor:
    """x [B, C, L] smoothed or differentiated along time, ends held."""
    kernel = torch.tensor(smoother(width, order, derivative), dtype=x.dtype, device=x.device)
    half = width // 2
    b, c, n = x.shape
    padded = F.pad(x, (half, half), mode="replicate")
    return F.conv1d(padded.reshape(b * c, 1, n + 2 * half), kernel.view(1, 1, -1)).reshape(b, c, n)


def crossing(x: Tensor, level: Tensor, start: Tensor, side: int) -> Tensor:
    """First place at or beyond `start` [...] where x [..., L] is under `level` [...], going to `side` (-1, +1).

    Interpolated between samples; the beat's end if there is none.
    """
    length = x.shape[-1]
    time = torch.arange(length, device=x.device, dtype=torch.int32)  # half the memory of the default, 40 % less time
    under = x < level.unsqueeze(-1)
    if side < 0:
        at = torch.where(under & (time <= start.unsqueeze(-1)), time, torch.full_like(time, -1)).amax(-1)
    else:
        at = torch.where(under & (time >= start.unsqueeze(-1)), time, torch.full_like(time, length)).amin(-1)
    before = (at - side).clamp(0, length - 1)
    at = at.clamp(0, length - 1)
    low, high = read(x, at), read(x, before)
    share = ((level - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return at + share * (before - at)


def read(x: Tensor, at: Tensor) -> Tensor:
    """x [..., L] at the integer places `at` [...]."""
    return x.gather(-1, at.round().long().clamp(0, x.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)


def vector(x: Tensor, at: Tensor) -> Tensor:
    """x [B, C, L] at one place a row, [B, C]."""
    at = at.round().long().clamp(0, x.shape[-1] - 1)
    return x.gather(2, at.view(-1, 1, 1).expand(-1, x.shape[1], 1)).squeeze(2)


def highest(x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Largest value of x [B, L] between the places low and high [B], and where."""
    time = torch.arange(x.shape[-1], device=x.device)
    inside = (time >= low.unsqueeze(-1)) & (time <= high.unsqueeze(-1))
    return torch.where(inside, x, torch.full_like(x, -torch.inf)).max(-1)


def lowest(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Smallest value [B] of x [B, L] between the places low and high [B]; 0 where none lies between."""
    value = highest(-x, low, high)[0]
    return torch.where(torch.isfinite(value), -value, torch.zeros_like(value))
