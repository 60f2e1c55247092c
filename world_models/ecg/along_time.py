"""Reading waves along time, the same in every batch: between samples, smoothed, at a summit, down to a level.

Elementwise operations and sums in a fixed order only (a convolution's order varies with the batch: `rounding`), and
differentiable. `tau` [L] is a grid of times in ms, `STEP_MS` apart unless told, with 0 where a peak is expected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.delineation.search import smoother

__all__ = ["STEP_MS", "fall", "read_between", "smoothed", "summit", "within"]

STEP_MS = 2.0
_NEAR_MS = 40.0  # a summit lies this near to where it is expected
_EDGE_MS = 2.0  # over which a window's edge falls


def read_between(x: Tensor, place: Tensor) -> Tensor:
    """x [B, C, L] read between samples at the places [B, N]: [B, C, N]; its ends are held."""
    place = place.clamp(0.0, x.shape[-1] - 1.001).unsqueeze(1).expand(-1, x.shape[1], -1)
    left = place.detach().floor()
    share = place - left
    index = torch.nan_to_num(left).to(torch.int64)  # a place that is NaN gives NaN
    return x.gather(2, index) * (1.0 - share) + x.gather(2, index + 1) * share


def smoothed(x: Tensor, width: int, derivative: int) -> Tensor:
    """x [..., L] smoothed, or its slope per step; ends held. Sums of shifted copies: a convolution's order varies."""
    taps = smoother(width, 3, derivative)
    half = len(taps) // 2
    padded = torch.cat((x[..., :1].expand(*x.shape[:-1], half), x, x[..., -1:].expand(*x.shape[:-1], half)), dim=-1)
    length = x.shape[-1]
    if derivative % 2:  # the taps mirror each other, with the sign turned
        out = taps[-1] * (padded[..., 2 * half :] - padded[..., :length])
        for i in range(1, half):
            out += taps[-1 - i] * (padded[..., 2 * half - i : 2 * half - i + length] - padded[..., i : i + length])
        return out
    out = taps[half] * x
    for i in range(half):
        out += taps[i] * (padded[..., 2 * half - i : 2 * half - i + length] + padded[..., i : i + length])
    return out


def summit(x: Tensor, tau: Tensor, step_ms: float = STEP_MS) -> tuple[Tensor, Tensor]:
    """Height and time [B] ms of the highest place of x [B, L] near 0, by the parabola through three samples."""
    near = torch.where(tau.abs() <= _NEAR_MS, x, torch.full_like(x, -torch.inf))
    at = near.argmax(-1, keepdim=True)
    left, middle, right = (x.gather(-1, at + k).squeeze(-1) for k in (-1, 0, 1))
    bend = (2.0 * middle - left - right).clamp_min(1e-9)
    shift = (0.5 * (right - left) / bend).clamp(-0.5, 0.5)
    return middle + 0.25 * (right - left) * shift, tau[at.squeeze(-1)] + shift * step_ms


def fall(x: Tensor, tau: Tensor, peak: Tensor, level: Tensor, side: int, step_ms: float = STEP_MS) -> Tensor:
    """Time [B] ms from `peak` to where x [B, L] first falls under `level`, going to `side`; NaN where it never does."""
    beyond = (side * (tau - peak.detach().unsqueeze(-1)) > 0) & (x < level.unsqueeze(-1))
    place = torch.arange(tau.shape[0], device=x.device)
    if side > 0:
        under = torch.where(beyond, place, torch.full_like(place, tau.shape[0])).amin(-1)
    else:
        under = torch.where(beyond, place, torch.full_like(place, -1)).amax(-1)
    there = (under >= 1) & (under <= tau.shape[0] - 2)
    under = under.clamp(1, tau.shape[0] - 2)
    low, high = (x.gather(-1, k.unsqueeze(-1)).squeeze(-1) for k in (under, under - side))
    share = ((level - low) / (high - low).clamp_min(1e-12)).clamp(0.0, 1.0)
    return torch.where(there, side * (tau[under] - side * share * step_ms - peak), torch.full_like(peak, torch.nan))


def within(tau: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """1 for times between start and stop [B], 0 outside, the edges `_EDGE_MS` wide: [B, L]."""
    up = ((tau - start.unsqueeze(-1)) / _EDGE_MS + 0.5).clamp(0.0, 1.0)
    return up * ((stop.unsqueeze(-1) - tau) / _EDGE_MS + 0.5).clamp(0.0, 1.0)
