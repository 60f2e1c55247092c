"""Beats on a canonical time axis: the warp that makes a beat have the intervals it was asked for.

A beat is cut at its fiducials (P onset and end, QRS onset, J point, T peak, T end) and every piece is stretched onto
a fixed number of samples. Shape and timing come apart: an autoencoder sees shapes only, and drawing with other
intervals is the same shape on other anchors. What is kept of a recorded beat lies on this axis too. Times are in ms
from QRS onset. P's end is taken where the generator puts it (`p_duration_ms`), so a drug that slows the AV node
stretches the PR segment, not the P wave.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.st_t import smoothstep

__all__ = ["AT_R", "LEAD_COUNT", "RATE_HZ", "SAMPLES", "from_canonical", "piece_ends", "to_canonical", "valid_samples"]
__all__ += ["curved", "interpolate", "p_duration_ms", "places", "st_place"]

LEAD_COUNT = len(INDEPENDENT_LEADS)
PIECES = (8, 32, 16, 48, 48, 32, 16)  # samples: before P, P, PR segment, QRS, J to T peak, T peak to T end, after T
QRS_START = sum(PIECES[:3])
J_POINT, T_PEAK, T_END = (sum(PIECES[:k]) for k in (4, 5, 6))
SAMPLES = sum(PIECES)
FADE_MS = 120.0  # over which what a beat starts and ends with dies out: half of a usual T-P segment (k)
RATE_HZ = 500.0  # of the ECGs that are read, learned from and synthesised
AT_R = 300  # sample at which a beat's template has its R peak
P_SHARE, P_LONGEST_MS = 0.65, 115.0  # P lasts 0.65 PR but no longer than 115 ms: a drug on the AV node leaves P alone


def p_duration_ms(pr_ms: Tensor) -> Tensor:
    """Duration of the P wave for a PR interval [B] in ms."""
    return (pr_ms * P_SHARE).clamp_max(P_LONGEST_MS)


def piece_ends(pr_ms: Tensor, qrs_ms: Tensor, jt_peak_ms: Tensor, tpeak_tend_ms: Tensor) -> Tensor:
    """Ends of the pieces in ms from QRS onset, [B, 8]. Tails: half a P wave before P, one Tpeak-Tend past T."""
    p = p_duration_ms(pr_ms)
    peak = qrs_ms + jt_peak_ms
    end = peak + tpeak_tend_ms
    zero = torch.zeros_like(pr_ms)
    return torch.stack([-pr_ms - 0.5 * p, -pr_ms, p - pr_ms, zero, qrs_ms, peak, end, end + tpeak_tend_ms], dim=-1)


def _times(ends: Tensor) -> Tensor:
    """Time [B, SAMPLES] in ms of each canonical sample."""
    pieces = []
    for k, count in enumerate(PIECES):
        share = torch.arange(count, device=ends.device, dtype=ends.dtype) / count
        pieces.append(ends[:, k : k + 1] + share * (ends[:, k + 1 : k + 2] - ends[:, k : k + 1]))
    return torch.cat(pieces, dim=-1)


def interpolate(values: Tensor, position: Tensor) -> Tensor:
    """values [B, C, N] at fractional sample positions [B, M], linear between samples, the end values beyond them."""
    count = values.shape[-1]
    position = position.clamp(0, count - 1)
    lower = position.floor().clamp_max(count - 2)
    share = (position - lower).unsqueeze(1)
    index = lower.to(torch.int64).unsqueeze(1).expand(-1, values.shape[1], -1)
    left = values.gather(-1, index)
    return left + share * (values.gather(-1, index + 1) - left)


def curved(values: Tensor, position: Tensor) -> Tensor:
    """values [B, C, N] at fractional places [B, M], cubic between four samples (Catmull and Rom 1974): a line between
    two takes 1 % off a QRS."""
    count = values.shape[-1]
    position = position.clamp(0, count - 1)
    lower = position.floor().clamp_max(count - 2)
    share = (position - lower).unsqueeze(1)
    index = lower.to(torch.int64).unsqueeze(1).expand(-1, values.shape[1], -1)
    first, second, third, fourth = (values.gather(-1, (index + k).clamp(0, count - 1)) for k in (-1, 0, 1, 2))
    slope = 0.5 * (third - first)
    bend = first - 2.5 * second + 2.0 * third - 0.5 * fourth
    twist = 1.5 * (second - third) + 0.5 * (fourth - first)
    return second + share * (slope + share * (bend + share * twist))


def to_canonical(
    beat_mv: Tensor,
    ends: Tensor,
    onset_sample: Tensor,
    sampling_rate_hz: float,
    between: Callable[[Tensor, Tensor], Tensor] = interpolate,
) -> Tensor:
    """Beats [B, 8, L] with QRS onset at sample `onset_sample` [B] (may be fractional) -> [B, 8, SAMPLES] mV.

    The level just before QRS onset is taken as the isoelectric line and subtracted. `between` reads between samples.
    """
    position = onset_sample.unsqueeze(-1) + _times(ends) * (sampling_rate_hz / 1000)
    canonical = between(beat_mv, position)
    return canonical - canonical[..., QRS_START - 2 : QRS_START].mean(-1, keepdim=True)


def from_canonical(
    canonical_mv: Tensor, ends: Tensor, onset_sample: Tensor, length: int, sampling_rate_hz: float
) -> Tensor:
    """Canonical beats [B, 8, SAMPLES] spread out in time: [B, 8, length] mV.

    `onset_sample` [B] is where QRS onset goes. Outside the beat the first and last canonical samples fade over FADE_MS:
    a recorded beat need not start and end on the level of its PR segment.
    """
    samples = torch.arange(length, device=ends.device, dtype=ends.dtype)
    time = (samples - onset_sample.unsqueeze(-1)) * (1000 / sampling_rate_hz)
    outside = torch.maximum(ends[:, :1] - time, time - ends[:, -1:]).clamp_min(0)
    fade = 1.0 - smoothstep(outside / FADE_MS)
    return interpolate(canonical_mv, places(ends, time)) * fade.unsqueeze(1)


def places(ends: Tensor, time: Tensor, before_j: bool = False) -> Tensor:
    """Places [B, L] on the axis of times [B, L] in ms from QRS onset; of those before the J point alone if told."""
    position = torch.zeros_like(time)
    for k, count in enumerate(PIECES[:4] if before_j else PIECES):
        width = ends[:, k + 1 : k + 2] - ends[:, k : k + 1]
        position = position + count * ((time - ends[:, k : k + 1]) / width).clamp(0, 1)
    return position


def st_place(way: Tensor, side: int) -> Tensor:
    """Place [N] on the axis of the share of the way from J point to T peak (side -1), or of the distance past the peak
    in Tpeak-Tends (side 1), of which the axis holds two."""
    if side < 0:
        return J_POINT + PIECES[4] * way
    return (T_PEAK + PIECES[5] * way.clamp_max(1.0) + PIECES[6] * (way - 1.0).clamp_min(0.0)).clamp_max(SAMPLES - 1.0)


def valid_samples(ends: Tensor, rr_ms: Tensor) -> Tensor:
    """bool [B, SAMPLES]: where a beat stands alone, behind the previous T wave and before the next P wave."""
    time = _times(ends)
    rr = rr_ms.unsqueeze(-1)
    return (time > ends[:, 6:7] - rr) & (time < ends[:, 1:2] + rr)
