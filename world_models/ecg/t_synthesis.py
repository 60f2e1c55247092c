"""Draw an ECG whose T wave measures what is asked: amplitude, asymmetry, flatness, ERD_30, LRD_30, its peak and end.

`shape_t_wave` gives the `TShape` with which `waveform.synthesise_ecg` draws such an ECG. The slopes of the bend are
found by damped least squares (Levenberg 1944, doi 10.1090/qam/10666) on the drawn ST and T alone, which are read as
`t_wave` and the delineator read any ECG: five channels of them are enough (the vector's three, the first principal
component and the delineator's lead), every 4 ms. Besides the five measures stand the T peak and the T end that the
delineator would mark, whose smoothing moves a skewed wave's peak to its slower side. Not all of these go together;
what cannot be had is approached, each miss in its `SCALE`, and of equally good bends the one that bends least is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg.along_time import fall, smoothed, summit, within
from world_models.ecg.delineation.search import smoother
from world_models.ecg.morphology import solve
from world_models.ecg.t_bend import LEFT_KNOTS, RIGHT_KNOTS, TShape, bent_st_t, own_place, own_st_t
from world_models.ecg.t_wave import KORS, USUAL, TWave, asymmetry_of, first_component, flatness_of
from world_models.ecg.waveform import R_SHARE, WAVES, Intervals

__all__ = ["SCALE", "Marks", "marks_of", "shape_t_wave"]

# A miss of this size counts as one: asymmetry, flatness, ERD_30, LRD_30, T peak and T end as delineated, ms.
SCALE = (0.01, 0.005, 0.7, 0.7, 0.4, 0.4)
_STEP_MS, _NEAR = 4.0, 11  # of the grid; steps about the peak within which its smoothed place is sought
_BACK, _ON = 45, 55  # steps of the grid before and after the T peak: 180 and 220 ms
_TWAVE, _READER = 7, 21  # samples of 4 ms over which `t_wave` (30 ms) and the delineator (82 ms) smooth
_PEAK_LATE_MS = 1.5  # what the delineator adds to the place of its T peak (`delineate.CONVENTIONS`)
_LEFT = len(LEFT_KNOTS) - 1  # slopes that are free: their integral is given, so that one is not
_FREE = _LEFT + len(RIGHT_KNOTS) + 1  # with the peak's shift
_CALM, _EVEN = 0.06, 0.7  # weights of a slope's logarithm and of its change from knot to knot, beside the misses
_SHIFT_MS = 10.0  # a unit of the shift of the peak
# Rounds of the search, and squared misses under which a beat is left as it is: most are near at once, some are not.
_STAGES = ((5, 1.0), (5, 4.0), (8, 6.0), (12, 6.0), (12, 8.0))
_FAR, _UNREADABLE = 60.0, 20.0  # no miss counts for more; a wave off which a measure cannot be read counts for this
_GAINS = (0.01, 100.0)
_STEP = 0.03  # of the finite differences
_DAMPING = (0.3, 0.2, 10.0)  # at first, its factor after a round that was better, and after one that was not
_LIMIT, _LARGEST = 2.5, 1.2  # of the logarithms, and of their change in one round
_ROWS = 512  # ECGs solved at once: as many as stay near the cache
_ST = WAVES.index("ST")


class Marks(NamedTuple):
    """Where a beat is to be read, ms after R; each [B]. The drawn waves lie where the reader sees them so."""

    j_point: Tensor
    t_peak: Tensor
    t_end: Tensor


class _Beats(NamedTuple):
    """What is bent, and what for; B rows."""

    channels: Tensor  # [B, 5, N] own ST and T: X, Y, Z, first component, delineator's lead
    drawn: Tensor  # [B, 3] J point after R, J-Tpeak, Tpeak-Tend of the unbent wave, ms
    marks: Tensor  # [B, 3] where J point, T peak and T end are read, ms after R
    target: Tensor  # [B, 6] in the order of SCALE, NaN where it is left open
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


def _read(beats: _Beats, shape: TShape) -> tuple[Tensor, Tensor]:
    """What the bent wave measures, [B, 6] in the order of SCALE, and its amplitude [B] mV."""
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


def _shape(x: Tensor, gain: Tensor) -> TShape:
    """The bend of free parameters [B, _FREE] and a gain [B]."""
    slopes = x.exp()
    left = torch.cat((slopes[:, :_LEFT], torch.ones_like(slopes[:, :1])), dim=1)
    return TShape(gain, x[:, -1] * _SHIFT_MS, left, slopes[:, _LEFT:-1])


def _begin(read: Tensor, target: Tensor) -> Tensor:
    """Free parameters [B, _FREE] from which ERD_30, LRD_30 and the T end read [B, 6] would be about right."""
    ratio = torch.nan_to_num((read / target.clamp_min(1e-3)).clamp(0.3, 3.0).log(), nan=0.0)
    x = torch.zeros(read.shape[0], _FREE, device=read.device)
    x[:, 0] = x[:, 1] = ratio[:, 2]
    x[:, _LEFT] = ratio[:, 3]
    x[:, _LEFT + 1] = x[:, _LEFT + 2] = x[:, _LEFT + 3] = ratio[:, 5]
    return x


class _Search(NamedTuple):
    """Where the search stands; B rows."""

    x: Tensor  # [B, _FREE]
    gain: Tensor  # [B]
    off: Tensor  # [B, M] misses in their SCALE, then what bending costs
    height_mv: Tensor  # [B] the amplitude that is read


def _misses(beats: _Beats, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    read, height = _read(beats, _shape(x, gain))
    scale = torch.tensor(SCALE, device=x.device)
    off = torch.nan_to_num((read - beats.target) / scale, nan=_UNREADABLE).clamp(-_FAR, _FAR)
    off = torch.where(beats.target.isfinite(), off, torch.zeros_like(off))
    slopes = torch.cat((x[:, :_LEFT], torch.zeros_like(x[:, :1]), x[:, _LEFT:-1]), dim=-1)
    left, right = slopes[:, : _LEFT + 1], slopes[:, _LEFT + 1 :]
    uneven = torch.cat((left[:, 1:] - left[:, :-1], right[:, 1:] - right[:, :-1]), dim=-1)
    return torch.cat((off, _EVEN * uneven, _CALM * x), dim=-1), height


def _gain(beats: _Beats, gain: Tensor, height_mv: Tensor) -> Tensor:
    wanted = (gain * beats.amplitude_mv / height_mv.clamp_min(1e-6)).clamp(*_GAINS)
    return torch.where(torch.isfinite(wanted), wanted, gain)


def _cost(off: Tensor) -> Tensor:
    return (off * off).sum(-1)


def _slopes(beats: _Beats, at: _Search) -> Tensor:
    """How the misses change with each free parameter, [B, _FREE, M], by differences: all at once."""
    rows = at.x.shape[0]
    many = _Beats(*(v.repeat(_FREE, *(1,) * (v.ndim - 1)) for v in beats))
    steps = (torch.eye(_FREE, device=at.x.device) * _STEP).repeat_interleave(rows, 0)
    moved, _ = _misses(many, at.x.repeat(_FREE, 1) + steps, at.gain.repeat(_FREE))
    return (moved.reshape(_FREE, rows, -1) - at.off).transpose(0, 1).contiguous() / _STEP


def _rounds(beats: _Beats, at: _Search, rounds: int) -> _Search:
    """Least squares with slopes by differences once, and from then on by what each step taught (Broyden 1965, doi
    10.1090/S0025-5718-1965-0198670-6)."""
    off, height = _misses(beats, at.x, at.gain)
    at = at._replace(off=off, height_mv=height)
    slope = _slopes(beats, at)
    damping = torch.full_like(at.gain, _DAMPING[0])
    diagonal = torch.eye(_FREE, device=at.x.device)
    for _ in range(rounds):
        normal = torch.stack([(slope * slope[:, i : i + 1]).sum(-1) for i in range(_FREE)], dim=1)
        right = (slope * at.off.unsqueeze(1)).sum(-1, keepdim=True)
        move = -solve((normal + diagonal * damping[:, None, None]).double(), right.double()).squeeze(-1)
        tried = (at.x + move.to(at.x.dtype).clamp(-_LARGEST, _LARGEST)).clamp(-_LIMIT, _LIMIT)
        off, height = _misses(beats, tried, at.gain)
        step = tried - at.x
        foretold = torch.zeros_like(off)
        for i in range(_FREE):
            foretold = foretold + slope[:, i] * step[:, i : i + 1]
        surprise = (off - at.off - foretold).unsqueeze(1)
        slope = slope + surprise * (step / (step * step).sum(-1, keepdim=True).clamp_min(1e-8)).unsqueeze(-1)
        better = (_cost(off) < _cost(at.off)) & height.isfinite()
        height = torch.where(better, height, at.height_mv)
        x, off = (torch.where(better.unsqueeze(-1), a, b) for a, b in ((tried, at.x), (off, at.off)))
        at = _Search(x, _gain(beats, at.gain, height), off, height)
        damping = (damping * torch.where(better, _DAMPING[1], _DAMPING[2])).clamp(1e-3, 1e6)
    return at


def _solve(beats: _Beats) -> TShape:
    rows, device = beats.drawn.shape[0], beats.drawn.device
    x, gain = torch.zeros(rows, _FREE, device=device), torch.ones(rows, device=device)
    read, height = _read(beats, _shape(x, gain))
    gain = _gain(beats, gain, height)
    x = _begin(read, beats.target).clamp(-_LIMIT, _LIMIT)
    off, height = _misses(beats, x, gain)
    at = _Search(x, _gain(beats, gain, height), off, height)
    for rounds, done in _STAGES:
        left = (_cost(at.off[:, : len(SCALE)]) > done).nonzero().squeeze(-1)
        if not len(left):
            break
        few = _Beats(*(v[left] for v in beats))
        found = _rounds(few, _Search(*(v[left] for v in at)), rounds)
        at = _Search(*(v.index_copy(0, left, new) for v, new in zip(at, found, strict=True)))
    return _shape(at.x, at.gain)


def shape_t_wave(
    intervals: Intervals,
    morphology: Tensor,
    wanted: TWave,
    residual: Tensor | None = None,
    marks: Marks | None = None,
) -> TShape:
    """The shape [B] with which ECGs of these intervals and wave heights [B, 8, W] measure the T wave wanted.

    Args:
        intervals: with which it will be drawn.
        morphology: wave heights [B, 8, W] in mV.
        wanted: a NaN leaves that measure open.
        residual: [B, 8, 200] mV of a recorded beat on the canonical axis (`beat_axis`), drawn along.
        marks: where J point, T peak and T end are to be read; by default where the intervals put them.

    Raises:
        ValueError: an amplitude, a duration or a flatness wanted is not above 0, or an asymmetry is under 0.
    """
    for name, value in zip(TWave._fields, wanted, strict=True):
        if bool((value < 0).any()) or (name != "asymmetry" and bool((value == 0).any())):
            raise ValueError(f"{name} wanted from {float(value.min()):g} must be above 0")
    marks = marks_of(intervals) if marks is None else marks
    drawn = torch.stack(((1.0 - R_SHARE) * intervals.qrs_ms, intervals.jt_peak_ms, intervals.tpeak_tend_ms), dim=-1).to(
        torch.float32
    )
    own = own_st_t(morphology[..., _ST : _ST + 3].to(torch.float32), residual)
    asked = [x.to(torch.float32) for x in wanted]
    peak = torch.zeros_like(marks.t_peak)
    target = torch.stack((asked[1], asked[2], asked[3], asked[4], peak, marks.t_end - marks.t_peak), dim=-1)
    identity = _shape(torch.zeros(own.shape[0], _FREE, device=own.device), torch.ones_like(peak))
    channels = _channels(own, drawn, marks, identity)
    places = torch.stack(tuple(marks), dim=-1)
    parts = []
    for start in range(0, max(own.shape[0], 1), _ROWS):
        rows = slice(start, start + _ROWS)
        beats = _Beats(channels[rows], drawn[rows], places[rows], target[rows], asked[0][rows] * 1e-3)
        parts.append(_solve(beats))
    return TShape(*(torch.cat(column) for column in zip(*parts, strict=True)))
