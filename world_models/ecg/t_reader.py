"""What a bent T wave measures, read as `t_wave` and the delineator read any ECG: for searches, in a few channels.

Five channels of the own ST and T are enough (the vector's three, the first principal component, the delineator's lead),
every 4 ms about the T peak. Besides the measures of `t_wave` stand the T peak and the T end that the delineator would
mark. Elementwise operations and sums along a row, differentiable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg.along_time import fall, smoothed, summit, within
from world_models.ecg.delineation.search import smoother
from world_models.ecg.t_bend import LEFT_KNOTS, RIGHT_KNOTS, TShape, bent_st_t, own_place
from world_models.ecg.t_wave import KORS, USUAL, asymmetry_of, first_component, flatness_of
from world_models.ecg.waveform import R_SHARE, Intervals

__all__ = [
    "FREE",
    "LEFT_FREE",
    "SHIFT_MS",
    "Beats",
    "Marks",
    "beats_of",
    "free_of",
    "free_shape",
    "marks_of",
    "read_bent",
    "unevenness",
]

LEFT_FREE = len(LEFT_KNOTS) - 1  # slopes that are free: their integral is given, so that one is not
FREE = LEFT_FREE + len(RIGHT_KNOTS) + 1  # with the peak's shift
SHIFT_MS = 10.0  # a unit of the shift of the peak
_STEP_MS, _NEAR = 4.0, 11  # of the grid; steps about the peak within which its smoothed place is sought
_BACK, _ON = 45, 55  # steps of the grid before and after the T peak: 180 and 220 ms
_TWAVE, _READER = 7, 21  # samples of 4 ms over which `t_wave` (30 ms) and the delineator (82 ms) smooth
_PEAK_LATE_MS = 1.5  # what the delineator adds to the place of its T peak (`delineate.CONVENTIONS`)


class Marks(NamedTuple):
    """Where a beat is to be read, ms after R; each [B]. The drawn waves lie where the reader sees them so."""

    j_point: Tensor
    t_peak: Tensor
    t_end: Tensor


class Beats(NamedTuple):
    """What is bent, and what for; B rows."""

    channels: Tensor  # [B, 5, N] own ST and T: X, Y, Z, first component, delineator's lead
    drawn: Tensor  # [B, 3] J point after R, J-Tpeak, Tpeak-Tend of the unbent wave, ms
    marks: Tensor  # [B, 3] where J point, T peak and T end are read, ms after R
    target: Tensor  # [B, 6] asymmetry, flatness, ERD_30, LRD_30, T peak and T end (from `marks`' peak); NaN: left open
    amplitude_mv: Tensor  # [B], NaN where it is left open


def marks_of(intervals: Intervals) -> Marks:
    """Marks at the places where the generator puts them."""
    j_point = (1.0 - R_SHARE) * intervals.qrs_ms.to(torch.float32)
    peak = j_point + intervals.jt_peak_ms
    return Marks(j_point, peak, peak + intervals.tpeak_tend_ms)


def _grid(device: torch.device) -> Tensor:
    return torch.arange(-_BACK, _ON + 1, dtype=torch.float32, device=device) * _STEP_MS


def _apart(drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """J point, J-Tpeak and Tpeak-Tend [B, 1] each of `drawn` [B, 3]."""
    return drawn[:, 0:1], drawn[:, 1:2], drawn[:, 2:3]


def _along(own: Tensor, direction: Tensor) -> Tensor:
    """Own leads [B, 8, N] in a direction [B, 8]: [B, N]."""
    total = torch.zeros_like(own[:, 0])
    for i in range(own.shape[1]):
        total = total + own[:, i] * direction[:, i : i + 1]
    return total


def _channels(own: Tensor, drawn: Tensor, marks: Marks, shape: TShape) -> Tensor:
    """X, Y, Z, first component and delineator's lead of own ST and T [B, 8, N], bent about as `shape`: [B, 5, N]."""
    tau = _grid(own.device)
    when = marks.t_peak.unsqueeze(-1) + tau
    leads = bent_st_t(own, own_place(when, *_apart(drawn), shape), shape.gain)
    rows = []
    for weights in KORS:
        total = torch.zeros_like(own[:, 0])
        for i, weight in enumerate(weights):
            total = total + weight * own[:, i]
        rows.append(total)
    start = (marks.j_point - marks.t_peak).clamp_min(-USUAL.begin_ms)
    window = within(tau, start, marks.t_end - marks.t_peak)
    rows.append(_along(own, first_component(leads, window, leads[:, :, _BACK])))
    hump = leads[:, :, _BACK] - 0.5 * (leads[:, :, _BACK - 25] + leads[:, :, _BACK + 25])  # over a chord of 200 ms
    rows.append(_along(own, hump / hump.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)))
    return torch.stack(rows, dim=1)


def read_bent(beats: Beats, shape: TShape) -> tuple[Tensor, Tensor]:
    """What the bent wave measures, [B, 6] as `Beats.target`, and its amplitude [B] mV."""
    tau = _grid(shape.gain.device)
    j_point, peak, end = beats.marks.unbind(-1)
    j_point, end = j_point - peak, end - peak
    place = own_place(peak.unsqueeze(-1) + tau, *_apart(beats.drawn), shape)
    bent = bent_st_t(beats.channels, place, shape.gain)
    calm = smoothed(bent[:, :4], _TWAVE, 0)
    magnitude = (calm[:, 0] * calm[:, 0] + calm[:, 1] * calm[:, 1] + calm[:, 2] * calm[:, 2] + 1e-12).sqrt()
    height, at = summit(magnitude, tau, _STEP_MS)
    after_j = torch.where(tau >= j_point.unsqueeze(-1), magnitude, torch.full_like(magnitude, torch.inf))
    erd, lrd = (fall(x, tau, at, USUAL.level * height, s, _STEP_MS) for x, s in ((after_j, -1), (magnitude, 1)))

    wave = calm[:, 3]
    _, at = summit(wave, tau, _STEP_MS)
    start = torch.maximum(j_point, at - USUAL.begin_ms)
    slope = smoothed(wave, _TWAVE, 1)
    asymmetry = asymmetry_of(slope, tau, at, start, at + USUAL.foot * (end - at), USUAL.begin_ms, _STEP_MS)
    flatness = flatness_of(wave, tau, within(tau, start, end), USUAL.kurtosis)

    lead = bent[:, 4]
    half = _READER // 2
    near = lead[:, _BACK - _NEAR - half : _BACK + _NEAR + half + 1]
    near_tau = tau[_BACK - _NEAR : _BACK + _NEAR + 1]
    seen = summit(_inner(near, 0), near_tau, _STEP_MS)[1] + _PEAK_LATE_MS
    flank = lead[:, _BACK + 1 - half :]
    steepest, there = (-_inner(flank, 1)).max(-1, keepdim=True)
    value = _inner(flank, 0).gather(-1, there)
    past = torch.arange(lead.shape[1], device=lead.device) > there + _BACK
    foot = torch.where(past, lead, torch.full_like(lead, torch.inf)).amin(-1, keepdim=True)
    tangent = (there + 1 + (value - foot) / steepest.clamp_min(1e-9)) * _STEP_MS
    return torch.stack((asymmetry, flatness, erd, lrd, seen, tangent.squeeze(-1)), dim=-1), height


def _inner(x: Tensor, derivative: int) -> Tensor:
    """x [B, L] smoothed as the delineator does, or its slope per step, without the ends that are not whole."""
    taps = smoother(_READER, 3, derivative)
    half, length = _READER // 2, x.shape[-1] - _READER + 1
    sign = -1.0 if derivative % 2 else 1.0
    out = taps[half] * x[:, half : half + length]
    for i in range(half):
        out += taps[_READER - 1 - i] * (x[:, _READER - 1 - i :][:, :length] + sign * x[:, i : i + length])
    return out


def free_shape(x: Tensor, gain: Tensor) -> TShape:
    """The bend of free parameters [B, FREE] and a gain [B]."""
    slopes = x.exp()
    left = torch.cat((slopes[:, :LEFT_FREE], torch.ones_like(slopes[:, :1])), dim=1)
    return TShape(gain, x[:, -1] * SHIFT_MS, left, slopes[:, LEFT_FREE:-1])


def unevenness(x: Tensor) -> Tensor:
    """Change of a slope's logarithm from knot to knot, [B, KNOTS], of free parameters [B, FREE]."""
    slopes = torch.cat((x[:, :LEFT_FREE], torch.zeros_like(x[:, :1]), x[:, LEFT_FREE:-1]), dim=-1)
    left, right = slopes[:, : LEFT_FREE + 1], slopes[:, LEFT_FREE + 1 :]
    return torch.cat((left[:, 1:] - left[:, :-1], right[:, 1:] - right[:, :-1]), dim=-1)


def free_of(shape: TShape) -> Tensor:
    """The free parameters [B, FREE] of a bend: `free_shape`'s inverse."""
    left = shape.left[:, :LEFT_FREE] / shape.left[:, LEFT_FREE:]
    return torch.cat((left.log(), shape.right.log(), shape.shift_ms.unsqueeze(-1) / SHIFT_MS), dim=-1)


def beats_of(own: Tensor, drawn: Tensor, marks: Marks, target: Tensor, amplitude_mv: Tensor) -> Beats:
    """Beats of own ST and T [B, 8, N] mV (`t_bend.own_st_t`); the others as in `Beats`."""
    identity = free_shape(torch.zeros(own.shape[0], FREE, device=own.device), torch.ones_like(marks.t_peak))
    channels = _channels(own, drawn, marks, identity)
    return Beats(channels, drawn, torch.stack(tuple(marks), dim=-1), target, amplitude_mv)
