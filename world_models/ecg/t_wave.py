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
  (a symmetric wave has 0). Flatness: one minus the kurtosis m4 / m2^2, over 4.5, of the wave taken as a density over
  time, from T's begin to the T end (a whole Gaussian has 1/3, a box 0.6).

The papers leave open where T begins and how residual and kurtosis are scaled, and the scores depend on it. The choices
here (k): T begins 150 ms before its peak, the legs are compared up to 1.5 Tpeak-Tend after it, the residual is relative
to the legs' own power, and 4.5 brings healthy adults to the trial's pre-dose median. Of what was tried, this comes
nearest to the trial's pre-dose values, and to how they go with the other measures
(`python -m benchmarks.ecg_drug.t_wave` has other definitions). One over the kurtosis has the median too (T from 130 ms
before its peak), but half of the trial's spread, and cannot reach the flatness that the trial saw under drugs.

`t_wave` works on median beats with given marks and passes gradients on to the beats; `measure_t_wave` takes recordings
and finds the marks by the delineator. Both use elementwise operations and sums along time only, so row i of a batch is
what the same row alone gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg.along_time import STEP_MS, fall, read_between, smoothed, summit, within
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg.delineation.waves import BEFORE

__all__ = ["KORS", "USUAL", "Definition", "MeasuredTWave", "TMarks", "TWave", "measure_t_wave", "t_wave"]
__all__ += ["asymmetry_of", "first_component", "flatness_of"]

RATE_HZ = 500.0  # of the delineator's median beats
# X, Y, Z from I, II, V1-V6 (Kors 1990, doi 10.1093/oxfordjournals.eurheartj.a059647)
KORS = (
    (0.38, -0.07, -0.13, 0.05, -0.01, 0.14, 0.06, 0.54),
    (-0.07, 0.93, 0.06, -0.02, -0.05, 0.06, -0.17, 0.13),
    (0.11, -0.23, -0.43, -0.06, -0.14, -0.20, -0.11, 0.31),
)
_BACK, _ON = 130, 100  # steps of the grid before and after the T peak: 260 and 200 ms
_LEVEL_MS = (8.0, 12.0, 16.0, 20.0)  # before the QRS onset: where the isoelectric level is read
_SQUARINGS = 6  # of the covariance: its 64th power leaves the first component alone


@dataclass(frozen=True)
class Definition:
    """What the papers leave open, and what was chosen."""

    vector: tuple[tuple[float, ...], ...] = KORS  # leads of the vector, each from I, II, V1-V6
    begin_ms: float = 150.0  # T begins this long before its peak, but not before the J point (k)
    foot: float = 1.5  # Tpeak-Tend after its peak the descending leg is over: three sigma of a Gaussian (k)
    kurtosis: float = 4.5  # of a wave of flatness 0 (k)
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


def _magnitude(leads: Tensor, vector: tuple[tuple[float, ...], ...]) -> Tensor:
    """Length [B, L] of the vector of leads [B, 8, L]."""
    square = torch.full_like(leads[:, 0], 1e-12)  # the root's slope stays finite
    for row in vector:
        part = torch.zeros_like(square)
        for i, weight in enumerate(row):
            part = part + weight * leads[:, i]
        square = square + part * part
    return square.sqrt()


def first_component(leads: Tensor, window: Tensor, peak: Tensor) -> Tensor:
    """The direction [B, 8] in which `leads` [B, 8, L] have the most power within `window` [B, L], upright at `peak`
    [B, 8].

    About the isoelectric line, not the mean. By powers of the covariance: smooth, and the same in every batch.
    """
    weighted = leads * window.unsqueeze(1)
    power = torch.stack([(weighted * leads[:, i : i + 1]).sum(-1) for i in range(leads.shape[1])], dim=1)
    for _ in range(_SQUARINGS):
        power = power / power.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None].clamp_min(1e-20)
        power = (power.unsqueeze(-1) * power.unsqueeze(1)).sum(2)
    direction = (power * peak.unsqueeze(1)).sum(-1)
    return direction / direction.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-20)


def asymmetry_of(
    slope: Tensor, tau: Tensor, peak: Tensor, start: Tensor, stop: Tensor, reach_ms: float, step_ms: float = STEP_MS
) -> Tensor:
    """Difference [B] of the legs' slopes, slope [B, L] per step: mean square over the mean of the legs' squares.

    Args:
        tau: [L] times of the slope in ms, `step_ms` apart.
        peak, start, stop: [B] ms, between which the legs are compared, up to `reach_ms` from the peak.
    """
    away = torch.arange(0.0, reach_ms + 1.0, step_ms, device=slope.device)

    def leg(side: int) -> Tensor:
        when = peak.unsqueeze(-1) + side * away
        steep = -side * read_between(slope.unsqueeze(1), (when - tau[0]) / step_ms).squeeze(1)
        steep = steep * within(when, start, stop)
        return steep / steep.amax(-1, keepdim=True).clamp_min(1e-9)

    up, down = leg(-1), leg(1)
    return 2.0 * (up - down).square().sum(-1) / (up.square().sum(-1) + down.square().sum(-1)).clamp_min(1e-9)


def flatness_of(wave: Tensor, tau: Tensor, window: Tensor, kurtosis: float) -> Tensor:
    """One minus m4 / m2^2 over `kurtosis`, [B], of wave [B, L] as a density over time within `window` [B, L]."""
    density = wave.clamp_min(0.0) * window
    density = density / density.sum(-1, keepdim=True).clamp_min(1e-12)
    from_mean = tau - (density * tau).sum(-1, keepdim=True)
    square = from_mean * from_mean
    second, fourth = (density * square).sum(-1), (density * square * square).sum(-1)
    return 1.0 - fourth / (second * second).clamp_min(1e-6) / kurtosis


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
    level = read_between(leads, (onset.unsqueeze(-1) - before) * per_ms + at_r).mean(-1, keepdim=True)
    tau = torch.arange(-_BACK, _ON + 1, dtype=leads.dtype, device=leads.device) * STEP_MS
    leads = smoothed(read_between(leads, (peak.unsqueeze(-1) + tau) * per_ms + at_r) - level, definition.smooth, 0)
    j_point, end = offset - peak, end - peak  # from the T peak, as tau

    magnitude = _magnitude(leads, definition.vector)
    height, at = summit(magnitude, tau)
    after_j = torch.where(tau >= j_point.unsqueeze(-1), magnitude, torch.full_like(magnitude, torch.inf))
    erd, lrd = (fall(x, tau, at, definition.level * height, side) for x, side in ((after_j, -1), (magnitude, 1)))

    start = j_point.clamp_min(-definition.begin_ms)
    direction = first_component(leads, within(tau, start, end), leads[:, :, _BACK])
    wave = (leads * direction.unsqueeze(-1)).sum(1)
    _, at = summit(wave, tau)
    start = torch.maximum(j_point, at - definition.begin_ms)
    asymmetry = asymmetry_of(
        smoothed(wave, definition.smooth, 1), tau, at, start, at + definition.foot * (end - at), definition.begin_ms
    )
    flatness = flatness_of(wave, tau, within(tau, start, end), definition.kurtosis)
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
