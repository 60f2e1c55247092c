"""T-wave morphology of a batch of 12-lead ECGs: amplitude, asymmetry, flatness, early and late repolarisation duration.

What hERG block does to the T wave besides making it late (Vicente 2015, doi 10.1161/JAHA.114.001615): it lowers, skews,
flattens and widens it. The five measures of that trial's table, read from the median beat:

- amplitude, uV: the T peak of the vector magnitude. X, Y, Z are those of Kors' regression (Kors 1990,
  doi 10.1093/oxfordjournals.eurheartj.a059647). The trial took Guldenring's transform, whose coefficients we could not
  verify.
- ERD_30 and LRD_30, ms: from that peak back, and on, to where the magnitude has fallen by 30 % of it.
- asymmetry and flatness, after Andersen 2008 (T-wave morphology combination score), on the first principal component
  of the T wave over the eight independent leads. Asymmetry: the slope of the ascending leg and that of the descending
  leg mirrored at the peak, each divided by its maximum; the square of their difference over the mean of their squares
  (a symmetric wave has 0). Flatness: one over the kurtosis m4 / m2^2 of the wave taken as a density over time, from
  T's begin to the T end (a whole Gaussian has 1/3, a box 5/9).

The papers leave open where T begins and how the residual is scaled, and the scores depend on both. The choices here
(k): T begins 130 ms before its peak, the legs are compared up to 1.5 Tpeak-Tend after it, and the residual is relative
to the legs' own power. Of what was tried, this gives healthy adults values nearest to the trial's pre-dose ones, and
like theirs in how they go with the other measures (`python -m benchmarks.ecg_drug.t_wave` has the other definitions).

`t_wave` works on median beats with given marks and passes gradients on to the beats; `measure_t_wave` takes recordings
and finds the marks by the delineator. Both use elementwise operations and sums along time only, so row i of a batch is
what the same row alone gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.delineation.search import smoother
from world_models.ecg.delineation.waves import BEFORE

__all__ = ["KORS", "Definition", "MeasuredTWave", "TMarks", "TWave", "measure_t_wave", "t_wave"]

RATE_HZ = 500.0  # of the delineator's median beats
# X, Y, Z from I, II, V1-V6 (Kors 1990, doi 10.1093/oxfordjournals.eurheartj.a059647)
KORS = (
    (0.38, -0.07, -0.13, 0.05, -0.01, 0.14, 0.06, 0.54),
    (-0.07, 0.93, 0.06, -0.02, -0.05, 0.06, -0.17, 0.13),
    (0.11, -0.23, -0.43, -0.06, -0.14, -0.20, -0.11, 0.31),
)
_STEP_MS = 2.0
_BACK, _ON = 130, 100  # steps of the grid before and after the T peak: 260 and 200 ms
_NEAR_MS = 40.0  # the peaks of the magnitude and of the component lie this near the delineator's
_LEVEL_MS = (8.0, 12.0, 16.0, 20.0)  # before the QRS onset: where the isoelectric level is read
_SQUARINGS = 6  # of the covariance: its 64th power leaves the first component alone
_EDGE_MS = 2.0  # over which a window's edge falls


@dataclass(frozen=True)
class Definition:
    """What the papers leave open, and what was chosen."""

    vector: tuple[tuple[float, ...], ...] = KORS  # leads of the vector, each from I, II, V1-V6
    begin_ms: float = 130.0  # T begins this long before its peak, but not before the J point (k)
    foot: float = 1.5  # Tpeak-Tend after its peak the descending leg is over: three sigma of a Gaussian (k)
    level: float = 0.7  # of the T peak, at which ERD_30 and LRD_30 end
    smooth: int = 15  # samples of 2 ms of the least squares cubic that smooths and differentiates; odd


USUAL = Definition()


class TWave(NamedTuple):
    """T-wave morphology; each [B], NaN where it cannot be read."""

    amplitude_uv: Tensor
    asymmetry: Tensor
    flatness: Tensor
    erd_30_ms: Tensor
    lrd_30_ms: Tensor


class MeasuredTWave(NamedTuple):
    """What was read of recordings."""

    t_wave: TWave
    trusted: Tensor  # [B] bool: the delineator trusts its marks, and all five measures could be read


class TMarks(NamedTuple):
    """Marks of median beats, ms from R; each [B]. As in `Delineation`."""

    qrs_onset_ms: Tensor
    qrs_offset_ms: Tensor
    t_peak_ms: Tensor
    t_end_ms: Tensor


def _at(x: Tensor, place: Tensor) -> Tensor:
    """x [B, C, L] read between samples at the places [B, N]: [B, C, N]; its ends are held."""
    place = place.clamp(0.0, x.shape[-1] - 1.001).unsqueeze(1).expand(-1, x.shape[1], -1)
    left = place.detach().floor()
    share = place - left
    index = left.to(torch.int64)
    return x.gather(2, index) * (1.0 - share) + x.gather(2, index + 1) * share


def _filtered(x: Tensor, width: int, derivative: int) -> Tensor:
    """x [..., L] smoothed, or its slope per step; ends held. Sums of shifted copies: a convolution's order varies."""
    taps = smoother(width, 3, derivative)
    half = len(taps) // 2
    padded = torch.cat((x[..., :1].expand(*x.shape[:-1], half), x, x[..., -1:].expand(*x.shape[:-1], half)), dim=-1)
    return torch.stack([w * padded[..., i : i + x.shape[-1]] for i, w in enumerate(taps)]).sum(0)


def _summit(x: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Height and time [B] ms of the highest place of x [B, L] near 0, by the parabola through three samples."""
    near = torch.where(tau.abs() <= _NEAR_MS, x, torch.full_like(x, -torch.inf))
    at = near.argmax(-1, keepdim=True)
    left, middle, right = (x.gather(-1, at + k).squeeze(-1) for k in (-1, 0, 1))
    bend = (2.0 * middle - left - right).clamp_min(1e-9)
    shift = (0.5 * (right - left) / bend).clamp(-0.5, 0.5)
    return middle + 0.25 * (right - left) * shift, tau[at.squeeze(-1)] + shift * _STEP_MS


def _fall(x: Tensor, tau: Tensor, peak: Tensor, level: Tensor, side: int) -> Tensor:
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
    return torch.where(there, side * (tau[under] - side * share * _STEP_MS - peak), torch.full_like(peak, torch.nan))


def _magnitude(leads: Tensor, vector: tuple[tuple[float, ...], ...]) -> Tensor:
    """Length [B, L] of the vector of leads [B, 8, L]."""
    square = torch.full_like(leads[:, 0], 1e-12)  # the root's slope stays finite
    for row in vector:
        part = torch.zeros_like(square)
        for i, weight in enumerate(row):
            part = part + weight * leads[:, i]
        square = square + part * part
    return square.sqrt()


def _within(tau: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """1 for times between start and stop [B], 0 outside, the edges `_EDGE_MS` wide: [B, L]."""
    up = ((tau - start.unsqueeze(-1)) / _EDGE_MS + 0.5).clamp(0.0, 1.0)
    return up * ((stop.unsqueeze(-1) - tau) / _EDGE_MS + 0.5).clamp(0.0, 1.0)


def _first_component(leads: Tensor, window: Tensor, peak: Tensor) -> Tensor:
    """The lead [B, L] in which `leads` [B, 8, L] have the most power within `window` [B, L], upright at `peak` [B, 8].

    About the isoelectric line, not the mean. By powers of the covariance: smooth, and the same in every batch.
    """
    weighted = leads * window.unsqueeze(1)
    power = torch.stack([(weighted * leads[:, i : i + 1]).sum(-1) for i in range(leads.shape[1])], dim=1)
    for _ in range(_SQUARINGS):
        power = power / power.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None].clamp_min(1e-20)
        power = (power.unsqueeze(-1) * power.unsqueeze(1)).sum(2)
    direction = (power * peak.unsqueeze(1)).sum(-1)
    direction = direction / direction.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-20)
    return (leads * direction.unsqueeze(-1)).sum(1)


def _asymmetry(slope: Tensor, tau: Tensor, peak: Tensor, start: Tensor, stop: Tensor, reach_ms: float) -> Tensor:
    """Difference [B] of the legs' slopes, slope [B, L] per step: mean square over the mean of the legs' squares."""
    away = torch.arange(0.0, reach_ms + 1.0, _STEP_MS, device=slope.device)

    def leg(side: int) -> Tensor:
        when = peak.unsqueeze(-1) + side * away
        steep = -side * _at(slope.unsqueeze(1), (when - tau[0]) / _STEP_MS).squeeze(1)
        steep = steep * _within(when, start, stop)
        return steep / steep.amax(-1, keepdim=True).clamp_min(1e-9)

    up, down = leg(-1), leg(1)
    return 2.0 * (up - down).square().sum(-1) / (up.square().sum(-1) + down.square().sum(-1)).clamp_min(1e-9)


def _flatness(wave: Tensor, tau: Tensor, window: Tensor) -> Tensor:
    """m2^2 / m4 [B] of wave [B, L] as a density over time within `window` [B, L]."""
    density = wave.clamp_min(0.0) * window
    density = density / density.sum(-1, keepdim=True).clamp_min(1e-12)
    from_mean = tau - (density * tau).sum(-1, keepdim=True)
    square = from_mean * from_mean
    second, fourth = (density * square).sum(-1), (density * square * square).sum(-1)
    return second * second / fourth.clamp_min(1e-12)


def t_wave(
    beat_mv: Tensor,
    marks: TMarks,
    sampling_rate_hz: float = RATE_HZ,
    at_r: int = BEFORE,
    definition: Definition = USUAL,
) -> TWave:
    """T-wave morphology of median beats; differentiable with respect to the beats.

    Args:
        beat_mv: [B, 8, S] of I, II, V1-V6, or [B, 12, S] in the standard order, mV.
        marks: [B] each, ms from R. Rows with a NaN among their marks give NaN.
        sampling_rate_hz: of `beat_mv`; it is read on a grid of 2 ms about the T peak.
        at_r: sample of `beat_mv` that holds R.
        definition: what the papers leave open.

    Raises:
        ValueError: another shape of beats or marks.
    """
    if beat_mv.ndim != 3 or beat_mv.shape[1] not in (8, 12):
        raise ValueError(f"beat_mv is {tuple(beat_mv.shape)}, must be [B, 8, S] (I, II, V1-V6) or [B, 12, S], in mV")
    if any(mark.shape != beat_mv.shape[:1] for mark in marks):
        raise ValueError(f"marks must be [{beat_mv.shape[0]}] each, got {[tuple(mark.shape) for mark in marks]}")
    leads = torch.cat((beat_mv[:, :2], beat_mv[:, 6:]), dim=1) if beat_mv.shape[1] == 12 else beat_mv
    known = torch.stack([torch.isfinite(mark) for mark in marks]).all(0) & torch.isfinite(leads).all(-1).all(-1)
    leads = torch.where(known[:, None, None], leads, torch.zeros_like(leads))
    onset, offset, peak, end = (torch.where(known, mark, torch.zeros_like(mark)).to(leads.dtype) for mark in marks)

    per_ms = sampling_rate_hz / 1000.0
    before = torch.tensor(_LEVEL_MS, dtype=leads.dtype, device=leads.device)
    level = _at(leads, (onset.unsqueeze(-1) - before) * per_ms + at_r).mean(-1, keepdim=True)
    tau = torch.arange(-_BACK, _ON + 1, dtype=leads.dtype, device=leads.device) * _STEP_MS
    leads = _filtered(_at(leads, (peak.unsqueeze(-1) + tau) * per_ms + at_r) - level, definition.smooth, 0)
    j_point, end = offset - peak, end - peak  # from the T peak, as tau

    magnitude = _magnitude(leads, definition.vector)
    height, at = _summit(magnitude, tau)
    after_j = torch.where(tau >= j_point.unsqueeze(-1), magnitude, torch.full_like(magnitude, torch.inf))
    erd, lrd = (_fall(x, tau, at, definition.level * height, side) for x, side in ((after_j, -1), (magnitude, 1)))

    start = j_point.clamp_min(-definition.begin_ms)
    wave = _first_component(leads, _within(tau, start, end), leads[:, :, _BACK])
    _, at = _summit(wave, tau)
    start = torch.maximum(j_point, at - definition.begin_ms)
    asymmetry = _asymmetry(
        _filtered(wave, definition.smooth, 1), tau, at, start, at + definition.foot * (end - at), definition.begin_ms
    )
    flatness = _flatness(wave, tau, _within(tau, start, end))
    nan = torch.full_like(height, torch.nan)
    found = (height * 1000.0, asymmetry, flatness, erd, lrd)
    return TWave(*(torch.where(known, value, nan) for value in found))


def measure_t_wave(ecg_mv: Tensor, sampling_rate_hz: float = RATE_HZ, definition: Definition = USUAL) -> MeasuredTWave:
    """T-wave morphology of recordings [B, 12, T] (or [B, 8, T]: I, II, V1-V6) in mV; NaN where it is not trusted.

    Raises:
        ValueError: what `delineate` does not take.
    """
    found = delineate(ecg_mv, sampling_rate_hz)
    with torch.no_grad():
        marks = TMarks(found.qrs_onset_ms, found.qrs_offset_ms, found.t_peak_ms, found.t_end_ms)
        read = t_wave(found.median_beat, marks, definition=definition)
        trusted = found.trusted & torch.stack([torch.isfinite(x) for x in read]).all(0)
        nan = torch.full_like(found.rr_ms, torch.nan)
        return MeasuredTWave(TWave(*(torch.where(trusted, x, nan) for x in read)), trusted)
