"""Intervals read off a decoded beat, differentiable with respect to its samples.

The definitions are the delineator's, made smooth: QRS between the places where the spatial velocity crosses a share of
its own maximum; T peak by the parabola through the summit of the vector magnitude; P onset and T end where the tangent
at the steepest place of the flank meets the isoelectric level, in the lead in which that wave is largest (Lepeschkin &
Surawicz 1952, doi 10.1161/01.CIR.6.3.378 for the tangent). A place found by a search over samples is refined between
them, and through that refinement the gradient passes: the derivative of a crossing or of a summit by the samples about
it. The search stays near to where the decoder was told to put the wave (`DecodedBeat`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg.along_time import STEP_MS, read_between, smoothed, summit
from world_models.ecg.t_wave import KORS, TMarks, TWave, t_wave
from world_models.ecg.waveform import p_duration_ms
from world_models.ecg_wm.diffusion.decoded import DecodedBeat

__all__ = ["ReadMarks", "isoelectric", "read_marks", "read_t_wave"]

_QRS_NEAR_MS = 30.0  # QRS onset and J point are sought this far outside of where they were put
_ONSET_SHARE, _OFFSET_SHARE = 0.02, 0.03  # of the QRS's largest spatial velocity
_SURELY = 0.15  # of it: no ST segment is that steep
_LEVEL_MS = (8.0, 12.0, 16.0, 20.0)  # before QRS onset: where the isoelectric level is read (as `t_wave`)
_SMOOTH = 9  # samples of 2 ms over which P and T are smoothed before their slope is taken
_T_GRID_MS, _P_GRID_MS = (60.0, 240.0), (120.0, 60.0)  # before and after where the peak was put
_P_LIKELY_MS = 30.0  # P's largest vector lies this near to the middle of where P was put


class ReadMarks(NamedTuple):
    """Marks of B beats, ms from where the decoder put QRS onset; NaN-free."""

    p_onset_ms: Tensor
    qrs_onset_ms: Tensor
    j_point_ms: Tensor
    t_peak_ms: Tensor
    t_end_ms: Tensor


def isoelectric(beat: DecodedBeat) -> Tensor:
    """The level [B, 8, 1] mV just before QRS onset."""
    before = torch.tensor(_LEVEL_MS, dtype=beat.beat_mv.dtype, device=beat.beat_mv.device)
    place = (beat.at_onset - before * (beat.rate_hz / 1000)).expand(beat.beat_mv.shape[0], -1)
    return read_between(beat.beat_mv, place).mean(-1, keepdim=True)


def read_marks(beat: DecodedBeat) -> ReadMarks:
    """P onset, QRS onset, J point, T peak and T end of beats [B]."""
    level = isoelectric(beat)
    onset, j_point = _qrs(beat)
    peak, end = _t(beat, level)
    return ReadMarks(_p_onset(beat, level), onset, j_point, peak, end)


def read_t_wave(beat: DecodedBeat, marks: ReadMarks) -> TWave:
    """T-wave morphology [B] of the beats at the marks that were read off them; NaN where a wave never falls by 30 %."""
    at = TMarks(marks.qrs_onset_ms, marks.j_point_ms, marks.t_peak_ms, marks.t_end_ms)
    return t_wave(beat.beat_mv, TMarks(*(mark.detach() for mark in at)), beat.rate_hz, beat.at_onset)


def _around(beat: DecodedBeat, centre_ms: Tensor, before_ms: float, after_ms: float) -> tuple[Tensor, Tensor]:
    """The leads [B, 8, N] on a grid of 2 ms about `centre_ms` [B], and the grid [N] in ms from there."""
    tau = torch.arange(-before_ms, after_ms + 0.5 * STEP_MS, STEP_MS, device=centre_ms.device)
    place = (centre_ms.detach().unsqueeze(-1) + tau) * (beat.rate_hz / 1000) + beat.at_onset
    return read_between(beat.beat_mv, place), tau


def _qrs(beat: DecodedBeat) -> tuple[Tensor, Tensor]:
    """QRS onset and J point [B]: where the velocity falls under a share of its largest, going outwards."""
    longest = float(beat.qrs_ms.detach().max()) + _QRS_NEAR_MS
    leads, tau = _around(beat, torch.zeros_like(beat.qrs_ms), _QRS_NEAR_MS, longest)
    slope = leads[..., 1:] - leads[..., :-1]
    own = slope.detach().abs().amax(-1, keepdim=True).clamp_min(1e-5)  # a small lead starts as early as a large one
    speed = ((slope / own).square().mean(1) + 1e-10).sqrt()
    middle = tau[:-1] + 0.5 * STEP_MS
    inside = middle <= (beat.qrs_ms.detach() + _QRS_NEAR_MS).unsqueeze(-1)
    speed = speed * inside
    top = speed.amax(-1, keepdim=True)
    return _boundary(speed, middle, top, _ONSET_SHARE, -1), _boundary(speed, middle, top, _OFFSET_SHARE, 1)


def _boundary(speed: Tensor, times: Tensor, top: Tensor, share: float, side: int) -> Tensor:
    """Time [B] at which speed [B, N] first falls under `share` of `top` [B, 1], going outwards to `side` from the
    outermost place that is surely QRS. (Sought from outside, a steep ST segment would count as QRS.)"""
    count = speed.shape[-1]
    place = torch.arange(count, device=speed.device)
    sure = torch.where(speed >= _SURELY * top, place, torch.full_like(place, 0 if side > 0 else count))
    outermost = sure.amax(-1, keepdim=True) if side > 0 else sure.amin(-1, keepdim=True)
    level = share * top
    beyond = (side * (place - outermost) > 0) & (speed < level)
    if side > 0:
        index = torch.where(beyond, place, torch.full_like(place, count)).amin(-1, keepdim=True)
    else:
        index = torch.where(beyond, place, torch.full_like(place, -1)).amax(-1, keepdim=True)
    index = index.clamp(1, count - 2)
    low, high = speed.gather(-1, index), speed.gather(-1, index - side)
    part = ((level - low) / (high - low).clamp_min(1e-9)).clamp(0, 1).squeeze(-1)
    return times[index.squeeze(-1)] - side * part * STEP_MS


def _magnitude(leads: Tensor) -> Tensor:
    """Length [B, N] of the heart vector."""
    kors = torch.tensor(KORS, dtype=leads.dtype, device=leads.device)
    return (torch.einsum("dl,bln->bdn", kors, leads).square().sum(1) + 1e-12).sqrt()


def _tangent(wave: Tensor, tau: Tensor, peak: Tensor, side: int) -> Tensor:
    """Where the tangent at the steepest place on one side of the peak [B] meets zero; wave [B, N] upright."""
    fall = -side * smoothed(wave, _SMOOTH, 1)  # per step
    beyond = side * (tau - peak.detach().unsqueeze(-1)) > 0
    masked = torch.where(beyond, fall, torch.full_like(fall, -torch.inf))
    index = masked.argmax(-1, keepdim=True).clamp(1, tau.shape[0] - 2)
    left, middle, right = (fall.gather(-1, index + k) for k in (-1, 0, 1))
    bend = (2 * middle - left - right).clamp_min(1e-9)
    shift = (0.5 * (right - left) / bend).clamp(-0.5, 0.5).detach()  # at a maximum it moves the tangent by nothing
    steepest = (middle + 0.25 * (right - left) * shift).clamp_min(1e-6)
    height = wave.gather(-1, index) - side * fall.gather(-1, index) * shift
    return (tau[index] + shift * STEP_MS + side * height / steepest * STEP_MS).squeeze(-1)


def _t(beat: DecodedBeat, level: Tensor) -> tuple[Tensor, Tensor]:
    """T peak and T end [B]."""
    put = beat.qrs_ms + beat.jt_peak_ms
    leads, tau = _around(beat, put, *_T_GRID_MS)
    leads = smoothed(leads - level, _SMOOTH, 0)
    _, at = summit(_magnitude(leads), tau)
    wave = _largest(leads, tau, at)
    latest = 2.5 * beat.tpeak_tend_ms.detach().unsqueeze(-1)  # what comes after is no longer this wave
    wave = torch.where(tau <= latest, wave, torch.zeros_like(wave))
    at_lead = summit(wave, tau)[1]
    put = put.detach()
    return put + at, put + _tangent(wave, tau, at_lead, 1)


def _p_onset(beat: DecodedBeat, level: Tensor) -> Tensor:
    """P onset [B]."""
    put = 0.5 * p_duration_ms(beat.pr_ms) - beat.pr_ms
    leads, tau = _around(beat, put, *_P_GRID_MS)
    leads = smoothed(leads - level, _SMOOTH, 0)
    # The start of the QRS may lie within the grid: P is sought near to its middle alone.
    near = tau.abs() <= _P_LIKELY_MS
    at = tau[torch.where(near, _magnitude(leads), torch.zeros_like(leads[:, 0])).argmax(-1)]
    return put.detach() + _tangent(_largest(leads, tau, at), tau, at, -1)


def _largest(leads: Tensor, tau: Tensor, at: Tensor) -> Tensor:
    """The lead [B, N] in which the wave with its peak at `at` [B] is largest, upright; its direction is held fixed."""
    place = ((at.detach() - tau[0]) / STEP_MS).round().clamp(0, tau.shape[0] - 1).to(torch.int64)
    top = leads.detach().gather(-1, place[:, None, None].expand(-1, leads.shape[1], 1))
    direction = top / top.square().sum(1, keepdim=True).sqrt().clamp_min(1e-9)
    return (leads * direction).sum(1)
