"""Features of an ECG made by hand: what a learned encoder has to beat."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["hand_features"]


def hand_features(ecg: Tensor, rate_hz: float = 100.0) -> Tensor:
    """[B, 64] of ECGs [B, 12, T] mV: each lead's mean, SD, least, greatest, mean slope; RR mean, SD, least, greatest
    (s).

    R peaks are the local maxima, 0.3 s apart, of the smoothed squared slope over all leads. Fewer than two: RR is zero.
    """
    x = ecg.float()
    slope = x.diff(dim=-1)
    leads = [x.mean(-1), x.std(-1), x.amin(-1), x.amax(-1), slope.abs().mean(-1)]
    energy = F.avg_pool1d(slope.square().sum(1, keepdim=True), 9, 1, 4)
    wide = int(0.3 * rate_hz) * 2 + 1
    peak = (energy == F.max_pool1d(energy, wide, 1, wide // 2)) & (energy > 0.25 * energy.amax(-1, keepdim=True))
    peak = peak[:, 0]
    place = torch.arange(peak.shape[1]).expand(peak.shape)
    # a symmetric beat has its greatest slope twice: the second of two equal maxima is not another beat
    before = _before(peak, place)
    peak &= (before < 0) | (place - before > wide // 2)
    before = _before(peak, place)
    known = peak & (before >= 0)
    rr = (place - before).float() / rate_hz
    count = known.sum(1).clamp(min=1)
    mean = (rr * known).sum(1) / count
    spread = (((rr - mean[:, None]).square() * known).sum(1) / count).sqrt()
    there = known.any(1)
    least = rr.masked_fill(~known, float("inf")).amin(1)
    most = rr.masked_fill(~known, float("-inf")).amax(1)
    beats = torch.stack([mean, spread, least, most], 1)
    return torch.cat([*leads, torch.where(there[:, None], beats, torch.zeros_like(beats))], 1)


def _before(peak: Tensor, place: Tensor) -> Tensor:
    """int64 [B, T]: where the last peak before each sample is; -1: there is none."""
    last = torch.where(peak, place, -1).cummax(1).values
    return torch.cat([torch.full_like(last[:, :1], -1), last[:, :-1]], 1)
