"""Whether a recording comes from a heart at all: mains hum, noise and test signals beat regularly, too.

What holds for every heart and for no such signal: between beats the leads are quiet, in the QRS's band and as a whole
(a square wave is never at rest); beats hold a good part of their power in the QRS's band; the leads see a vector that
turns (three directions, not one trace twelve times); a T wave follows; and the limb leads, which come from three
electrodes, lie in one plane (Einthoven). And the beats that were found are all there are. The limits lie beyond the
extremes of 539 real recordings and of the oracle's simulated ones up to 130 bpm. Gains do not matter to them: a lead
may be scaled wrongly.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["heartlike", "hum_share"]

_QRS_S = 0.1  # to either side of R
# Of the real recordings: median speed between beats at most 0.07 of the beats' peak (LUDB's unscaled leads: 0.10),
# median distance from rest at most 0.22 of the largest, band share at least 0.17, third direction (of the whole and of
# the median beat, which noise does not turn) at least 0.03 of the first, T at least 0.036 of the QRS, limb leads out of
# their plane by at most 0.009 of the largest direction.
_RESTLESS = (0.12, 0.25)
_AWAY, _LARGEST = (0.40, 0.55), 0.98  # a quantile: artefacts are larger than beats
_BAND_HZ, _BAND_SHARE = 15.0, (0.05, 0.12)
_DIRECTIONS, _AROUND_R = (0.012, 0.025), (100, 200)  # samples before and after R
_T_SHARE = (0.005, 0.02)
_OFF_PLANE = (0.05, 0.15)
_OFF_PLANE_COST = 0.6
# Peaks as fast as beats that were not taken for one, per beat: over 290 bpm QRS complexes stand too close to be told
# apart. So far from R is no part of the widest QRS; of real recordings at most 0.2 a beat.
_MISSED_S, _MISSED_SIZE, _MISSED = 0.17, 0.7, (0.4, 0.7)
_SMOOTH = 9  # samples
_HUM_WIDTH_HZ = 0.7


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    return ((x - low) / (high - low)).clamp(0, 1)


def _spread(leads: Tensor, usable: Tensor) -> Tensor:
    """Square roots of the scatter's eigenvalues [B, C], relative to it, largest first; unusable leads count as none."""
    leads = (leads - leads.mean(-1, keepdim=True)) * usable.unsqueeze(-1)
    leads = leads.to(torch.float64)
    value = torch.linalg.eigvalsh(leads @ leads.transpose(1, 2)).flip(-1).clamp_min(0).sqrt()
    return value / value[:, :1].clamp_min(1e-12)


def hum_share(beat: Tensor, fs: float) -> Tensor:
    """Amplitude of mains hum (50 or 60 Hz, the larger) over the largest vector of the median beat [B, 8, L], [B].

    What hum moves the marks is what the median over the beats has left of it: all, where RR is a multiple of its
    period.
    """
    power = torch.fft.rfft(beat - beat.mean(-1, keepdim=True)).abs().square().sum(1)
    f = torch.arange(power.shape[-1], device=beat.device) * (fs / beat.shape[-1])
    lines = [(power * ((f - hz).abs() <= _HUM_WIDTH_HZ)).sum(-1) for hz in (50.0, 60.0)]
    height = beat.square().sum(1).amax(-1).sqrt()
    return torch.stack(lines).amax(0).sqrt() * (2.0 / beat.shape[-1]) / height.clamp_min(1e-12)


def heartlike(
    ecg: Tensor,
    leads: Tensor,
    velocity: Tensor,
    usable: Tensor,
    position: Tensor,
    beat: Tensor,
    r_place: int,
    t_share: Tensor,
    fs: float,
) -> Tensor:
    """0 (no heart gives this) to 1, [B].

    Args:
        ecg: [B, 12, T] as recorded, or [B, 8, T], in which Einthoven's law cannot be checked.
        leads: [B, 8, N] at `fs` without wander, zero where not usable.
        velocity: [B, 8, M] in the QRS band, over the same time.
        usable: [B, 8] bool.
        position: [B, K] R peaks in samples at `fs`, -1 where there is none.
        beat: [B, 8, L] the median beat, R at `r_place`.
        t_share: [B] height of T over that of the QRS.
        fs: Hz, of `leads`, `position` and `beat`.
    """
    speed = velocity.square().sum(1).sqrt()
    scale = velocity.shape[-1] / leads.shape[-1]
    half = round(_QRS_S * fs * scale)
    there = position >= 0
    place = (position * scale).long().clamp(0, speed.shape[-1] - 1)
    at_beat = torch.zeros_like(speed).scatter_reduce(1, place, there.to(speed.dtype), "amax")
    near = F.max_pool1d(at_beat.unsqueeze(1), 2 * half + 1, 1, half).squeeze(1) > 0
    highest = F.max_pool1d(speed.unsqueeze(1), 2 * half + 1, 1, half).squeeze(1).gather(1, place)
    peak = torch.where(there, highest, torch.full_like(highest, torch.nan)).nanmedian(-1).values
    rest = torch.where(near, torch.full_like(speed, torch.nan), speed).nanmedian(-1).values
    restless = torch.nan_to_num(rest / peak.clamp_min(1e-12), nan=1.0)
    wide = round(_MISSED_S * fs * scale)
    apart = F.max_pool1d(at_beat.unsqueeze(1), 2 * wide + 1, 1, wide).squeeze(1) == 0
    summit = speed == F.max_pool1d(speed.unsqueeze(1), 2 * half + 1, 1, half).squeeze(1)
    missed = (summit & apart & (speed > _MISSED_SIZE * peak.unsqueeze(-1))).sum(-1) / there.sum(-1).clamp_min(1)

    smooth = F.avg_pool1d(leads, _SMOOTH, 1, _SMOOTH // 2)
    away = (smooth - smooth.median(-1, keepdim=True).values).square().sum(1).sqrt().sort(-1).values
    middle, largest = away[:, away.shape[-1] // 2], away[:, int(_LARGEST * away.shape[-1])]
    power = leads.square().sum(1).mean(-1).sqrt()
    band = velocity.square().sum(1).mean(-1).sqrt() / (2 * math.pi * _BAND_HZ)
    heart = (1 - _ramp(restless, *_RESTLESS)) * (1 - _ramp(missed, *_MISSED))
    heart = heart * (1 - _ramp(middle / largest.clamp_min(1e-12), *_AWAY))
    heart = heart * _ramp(band / power.clamp_min(1e-12), *_BAND_SHARE) * _ramp(t_share.abs(), *_T_SHARE)
    several = usable.sum(-1) >= 3  # of fewer leads nothing can be said
    around = F.avg_pool1d(beat, _SMOOTH, 1, _SMOOTH // 2)[..., r_place - _AROUND_R[0] : r_place + _AROUND_R[1]]
    third = torch.minimum(_spread(leads, usable)[:, 2], _spread(around, usable)[:, 2])
    heart = heart * torch.where(several, _ramp(third, *_DIRECTIONS).to(heart.dtype), 1.0)
    if ecg.shape[1] == 12:
        limb = ecg[:, :6]
        sound = torch.isfinite(limb).all(-1)
        off = _spread(torch.nan_to_num(limb, nan=0.0, posinf=0.0, neginf=0.0), sound)[:, 2]
        heart = heart * (1 - _OFF_PLANE_COST * _ramp(off, *_OFF_PLANE).to(heart.dtype))
    return heart
