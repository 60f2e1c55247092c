"""Where P, QRS and T begin, peak and end in a median beat: threshold ladders on spatial velocities and projections.

All waves are judged on all usable leads at once. The QRS is bounded on the velocity of the leads, each set to its own
steepest slope. P and T are projected on the direction the heart vector has at their peak (the lead in which the wave
is largest, always upright), and their bounds are read there and on the spatial velocity, at several thresholds: the
levels of a ladder. A fixed linear combination of the rungs gives the mark (`delineation_weights`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["AFTER", "BEFORE", "OFFSET_RUNGS", "ONSET_RUNGS", "VOTE_RUNGS", "WAVE_RUNGS", "Ladders", "ladders"]

BEFORE, AFTER = 250, 475  # samples of the median beat before and from R, at 500 Hz
ONSET_RUNGS = (0.03, 0.04, 0.06)  # of the steepest slope of the QRS
OFFSET_RUNGS = (0.06, 0.08, 0.11)
SLOPE_RUNGS = (0.45, 0.35, 0.25, 0.18, 0.12)  # of the steepest slope of the flank; a Gaussian has 0.446 at 2 sigma
SPEED_RUNGS = (0.45, 0.35, 0.25, 0.18)
VOTE_RUNGS = (0.45, 0.35, 0.25, 0.18)  # of the steepest slope in each lead by itself
WAVE_RUNGS = (
    "tangent",
    *(f"slope_{s}" for s in SLOPE_RUNGS),
    *(f"speed_{s}" for s in SPEED_RUNGS),
    *(f"vote_{s}" for s in VOTE_RUNGS),
)

_STEP_MS = 2.0
_HOLD = 3  # a QRS bound is where the velocity stays low for 2 * _HOLD + 1 samples
_QRS_SPAN = (-70, 90)  # samples about R beyond which no QRS is sought
_ROUGH = 1.5  # a lead rougher than this many times the typical lead counts less for P and T
_VOTE_SHARE = 0.15  # of the largest lead's wave, under which a lead has no vote
_T_REACH, _P_REACH = 50, 25  # samples to either side over which T and P stand out from a chord


class Ladders(NamedTuple):
    """Everything read from the median beats, in samples at 500 Hz from the start of the beat (R at `BEFORE`)."""

    onset_rungs: Tensor  # [B, len(ONSET_RUNGS)] of the QRS
    offset_rungs: Tensor  # [B, len(OFFSET_RUNGS)]
    p_rungs: Tensor  # [B, len(WAVE_RUNGS)] of the P onset
    p_peak: Tensor  # [B]
    t_peak: Tensor  # [B]
    t_rungs: Tensor  # [B, len(WAVE_RUNGS)] of the T end
    p_height: Tensor  # [B] mV, of the projected P over its foot
    t_height: Tensor  # [B] mV
    qrs_height: Tensor  # [B] mV, largest vector of the QRS
    p_direction: Tensor  # [B, 8] unit vector: the lead in which P was read
    t_direction: Tensor  # [B, 8]
    weight: Tensor  # [B, 8] of the leads for P and T


@lru_cache(maxsize=32)
def _smoother(width: int, order: int, derivative: int) -> tuple[float, ...]:
    """Savitzky-Golay coefficients (doi 10.1021/ac60214a047) for correlation with an odd window, least squares."""
    half = width // 2
    x = torch.arange(-half, half + 1, dtype=torch.float64)
    basis = torch.stack([x**k for k in range(order + 1)], 1)
    return tuple((torch.linalg.pinv(basis)[derivative] * math.factorial(derivative)).tolist())


def _filter(x: Tensor, width: int, order: int, derivative: int) -> Tensor:
    """x [B, C, L] smoothed or differentiated along time, ends held."""
    kernel = torch.tensor(_smoother(width, order, derivative), dtype=x.dtype, device=x.device)
    half = width // 2
    b, c, n = x.shape
    padded = F.pad(x, (half, half), mode="replicate")
    return F.conv1d(padded.reshape(b * c, 1, n + 2 * half), kernel.view(1, 1, -1)).reshape(b, c, n)


def _cross(x: Tensor, level: Tensor, start: Tensor, side: int) -> Tensor:
    """First place at or beyond `start` [...] where x [..., L] is under `level` [...], going to `side` (-1, +1).

    Interpolated between samples; the beat's end if there is none.
    """
    length = x.shape[-1]
    time = torch.arange(length, device=x.device)
    under = x < level.unsqueeze(-1)
    if side < 0:
        at = torch.where(under & (time <= start.unsqueeze(-1)), time, torch.full_like(time, -1)).amax(-1)
    else:
        at = torch.where(under & (time >= start.unsqueeze(-1)), time, torch.full_like(time, length)).amin(-1)
    before = (at - side).clamp(0, length - 1)
    at = at.clamp(0, length - 1)
    low, high = _read(x, at), _read(x, before)
    share = ((level - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return at + share * (before - at)


def _read(x: Tensor, at: Tensor) -> Tensor:
    """x [..., L] at the integer places `at` [...]."""
    return x.gather(-1, at.round().long().clamp(0, x.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)


def _vector(x: Tensor, at: Tensor) -> Tensor:
    """x [B, C, L] at one place a row, [B, C]."""
    at = at.round().long().clamp(0, x.shape[-1] - 1)
    return x.gather(2, at.view(-1, 1, 1).expand(-1, x.shape[1], 1)).squeeze(2)


def _highest(x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Largest value of x [B, L] between the places low and high [B], and where."""
    time = torch.arange(x.shape[-1], device=x.device)
    inside = (time >= low.unsqueeze(-1)) & (time <= high.unsqueeze(-1))
    return torch.where(inside, x, torch.full_like(x, -torch.inf)).max(-1)


def _lowest(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    value = _highest(-x, low, high)[0]
    return torch.where(torch.isfinite(value), -value, torch.zeros_like(value))


def _qrs(beat: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """QRS onset and offset rungs, [B, len(ONSET_RUNGS)] and [B, len(OFFSET_RUNGS)]."""
    slope = _filter(beat, 13, 2, 1)
    near = slice(BEFORE - 40, BEFORE + 50)
    own = slope[..., near].abs().amax(-1, keepdim=True).clamp_min(1e-6)
    weight = usable.to(beat.dtype) / usable.sum(-1, keepdim=True).clamp_min(1)
    speed = ((slope / own).square() * weight.unsqueeze(-1)).sum(1).sqrt()
    top, where = speed[:, near].max(-1)
    where = where + near.start
    held = F.max_pool1d(speed.unsqueeze(1), 2 * _HOLD + 1, 1, _HOLD).squeeze(1)
    # Where a rung is never met (noise, an atrial wave that touches the QRS), the quietest place serves.
    first, last = torch.full_like(where, BEFORE + _QRS_SPAN[0]), torch.full_like(where, BEFORE + _QRS_SPAN[1])
    before, after = _highest(-held, first, where)[1], _highest(-held, where, last)[1]
    onsets = [torch.maximum(_cross(held, r * top, where, -1), before) + _HOLD for r in ONSET_RUNGS]
    offsets = [torch.minimum(_cross(held, r * top, where, 1), after) - _HOLD for r in OFFSET_RUNGS]
    return torch.stack(onsets, -1), torch.stack(offsets, -1)


def _project(x: Tensor, direction: Tensor) -> Tensor:
    return (x * direction.unsqueeze(-1)).sum(1)


def _unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-9)


def _rungs(
    wave: Tensor, slope: Tensor, speed: Tensor, peak: Tensor, near: Tensor, far: Tensor, side: int
) -> tuple[Tensor, Tensor]:
    """All rungs on one flank of an upright wave: [B, R]; and the wave's height over its foot [B].

    The steepest place is sought between `peak` and `near`, the foot (lowest value) between there and `far`.
    """
    down = -side * slope  # positive where the wave falls away from its peak
    low, high = (peak, near) if side > 0 else (near, peak)
    steepest, at = _highest(down, low, high)
    steepest = steepest.clamp_min(1e-9)
    foot = _lowest(wave, at, far) if side > 0 else _lowest(wave, far, at)
    height = _read(wave, peak) - foot
    value = _read(wave, at)
    # No mark lies beyond the foot's reach: where a rung is never met, the quietest place serves.
    rungs = [at + side * (value - foot) / steepest]
    rungs += [_cross(down, s * steepest, at, side) for s in SLOPE_RUNGS]
    fastest, fast_at = _highest(speed, at - 8, at + 8)
    quiet = _highest(-speed, at, far)[1] if side > 0 else _highest(-speed, far, at)[1]
    found = [_cross(speed, s * fastest, fast_at, side) for s in SPEED_RUNGS]
    rungs += [torch.minimum(r, quiet) if side > 0 else torch.maximum(r, quiet) for r in found]
    rungs = [torch.minimum(r, far) if side > 0 else torch.maximum(r, far) for r in rungs]
    return torch.stack(rungs, -1), height


def _hump(x: Tensor, start: Tensor, reach: int) -> Tensor:
    """How far x [B, C, L] stands over the chord from `reach` samples before to `reach` after; x is held before
    `start` [B], so that what comes earlier does not count."""
    time = torch.arange(x.shape[-1], device=x.device)
    x = torch.where((time < start.unsqueeze(-1)).unsqueeze(1), _vector(x, start).unsqueeze(-1), x)
    padded = F.pad(x, (reach, reach), mode="replicate")
    return x - 0.5 * (padded[..., : -2 * reach] + padded[..., 2 * reach :])


def _evenness(rough: Tensor, usable: Tensor) -> Tensor:
    """Weight [B, 8, 1] of each lead for P and T: below one for leads rougher than the row's typical lead."""
    quiet = torch.cat([rough[..., 20 : BEFORE - 50], rough[..., BEFORE + 60 : BEFORE + 200]], -1).abs()
    level = quiet.sort(-1).values[..., quiet.shape[-1] // 2]
    typical = torch.where(usable, level, torch.full_like(level, torch.inf)).sort(-1).values
    middle = ((usable.sum(-1, keepdim=True) - 1) // 2).clamp_min(0)
    typical = typical.gather(-1, middle).clamp(1e-6, 1.0)
    return (_ROUGH * typical / level.clamp_min(1e-6)).clamp_max(1.0).unsqueeze(-1)


def _vote(slope: Tensor, hump: Tensor, usable: Tensor, peak: Tensor, reach: int, end: Tensor, side: int) -> Tensor:
    """The median over the twelve leads of each lead's own bound of a wave, [B, len(VOTE_RUNGS)].

    slope and hump: [B, 8, L]. A lead's peak is sought within `reach` of `peak` [B], its steepest place
    between there and `end` [B]. Leads in which the wave is small against the largest have no vote.
    """
    slope, hump = _twelve(slope), _twelve(hump)
    both = usable[:, :1] & usable[:, 1:2]
    usable = torch.cat([usable, both.expand(-1, 4)], 1)
    b, c, n = slope.shape
    time = torch.arange(n, device=slope.device)
    close = (time >= (peak - reach).unsqueeze(-1)) & (time <= (peak + reach).unsqueeze(-1))
    size, own = torch.where(close.unsqueeze(1), hump.abs(), torch.full_like(hump, -1.0)).max(-1)
    sign = torch.sign(hump.gather(-1, own.unsqueeze(-1)))
    fall = (-side * sign * slope).reshape(b * c, n)
    own, end = own.reshape(-1), end.to(own.dtype).repeat_interleave(c)
    far = torch.maximum(end, own + 30) if side > 0 else torch.minimum(end, own - 15)
    steepest, at = _highest(fall, own, far) if side > 0 else _highest(fall, far, own)
    votes = usable & (size >= _VOTE_SHARE * torch.where(usable, size, torch.zeros_like(size)).amax(-1, keepdim=True))
    bounds = [_cross(fall, r * steepest, at, side).reshape(b, c) for r in VOTE_RUNGS]
    found = [torch.where(votes, v, torch.full_like(v, torch.nan)).nanmedian(-1).values for v in bounds]
    return torch.stack([torch.where(torch.isnan(v), peak, v) for v in found], -1)


def _twelve(x: Tensor) -> Tensor:
    """[B, 8, L] with III, aVR (its sign turned), aVL and aVF behind."""
    one, two = x[:, 0:1], x[:, 1:2]
    return torch.cat([x, two - one, 0.5 * (one + two), one - 0.5 * two, two - 0.5 * one], 1)


def _tangent(wave: Tensor, slope: Tensor, peak: Tensor, near: Tensor) -> Tensor:
    """Where the tangent at the steepest place after `peak` [B] meets the foot of an upright wave [B, L]."""
    steepest, at = _highest(-slope, peak, near)
    return at + (_read(wave, at) - _lowest(wave, at, near + 20)) / steepest.clamp_min(1e-9)


def _p_wave(front: Tensor, usable: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """P in the stretch `front` [B, 8, BEFORE], its peak between `first` and `last` [B].

    P is where the leads stand out most from a chord of 100 ms, at a local maximum: the window's edge (a T wave's
    flank) serves only if there is none.
    """
    curve = _hump(_filter(front, 21, 3, 0), torch.zeros_like(first), _P_REACH)
    bent = curve.square().sum(1).sqrt()
    top = bent == F.max_pool1d(bent.unsqueeze(1), 21, 1, 10).squeeze(1)
    peak = _highest(torch.where(top, bent, 0.01 * bent), first, last)[1].to(front.dtype)
    direction = _unit(_vector(curve, peak))
    slope = _filter(front, 31, 3, 1)
    wave = _filter(_project(front, direction).unsqueeze(1), 31, 3, 0).squeeze(1)
    speed = slope.square().mean(1).sqrt()
    rungs, height = _rungs(wave, _project(slope, direction), speed, peak, peak - 40, peak - 60, -1)
    votes = _vote(slope, curve, usable, peak, 12, peak - 40, -1)
    rungs = torch.cat([rungs, torch.maximum(votes, (peak - 60).unsqueeze(-1))], -1)
    return peak, rungs, height, direction


def ladders(beat: Tensor, usable: Tensor, rr_ms: Tensor, shortest_ms: Tensor) -> Ladders:
    """Candidate marks of median beats.

    Args:
        beat: [B, 8, BEFORE + AFTER] mV at 500 Hz, R at `BEFORE`, leads I, II, V1-V6.
        usable: [B, 8] bool; the other leads are ignored.
        rr_ms: [B] mean RR interval.
        shortest_ms: [B] shortest RR interval after a beat of the median.
    """
    beat = torch.where(usable.unsqueeze(-1), beat, torch.zeros_like(beat))
    rr = torch.nan_to_num(rr_ms, nan=1000.0).clamp(250.0, 3000.0) / _STEP_MS
    room = torch.minimum(rr, torch.nan_to_num(shortest_ms, nan=1000.0).clamp_min(250.0) / _STEP_MS)
    onset_rungs, offset_rungs = _qrs(beat, usable)
    onset, offset = onset_rungs[:, -1], offset_rungs[:, -1]
    # Isoelectric level: the end of the PQ segment.
    level = torch.stack([_vector(beat, onset - k) for k in range(2, 10)]).mean(0)
    beat = beat - level.unsqueeze(-1)
    qrs_height = beat[..., BEFORE - 40 : BEFORE + 50].square().sum(1).sqrt().amax(-1)

    smooth = _filter(beat, 41, 3, 0)
    weight = _evenness(beat - smooth, usable)
    beat, smooth = beat * weight, smooth * weight

    # T stands out most from a chord of 200 ms; a level (ST, U) does not, nor what comes before the QRS has ended.
    back, late = beat[..., BEFORE:], smooth[..., BEFORE:]
    hump = _hump(late, offset - BEFORE + 4, _T_REACH)
    latest = torch.minimum(0.65 * room, torch.full_like(rr, 400.0))
    peak = _highest(hump.square().sum(1).sqrt(), offset - BEFORE + 30, latest)[1].to(beat.dtype)
    direction = _unit(_vector(hump, peak))
    wave = _project(late, direction)
    peak = _highest(wave, peak - 15, peak + 15)[1].to(beat.dtype)
    flank = _filter(_project(back, direction).unsqueeze(1), 41, 3, 1).squeeze(1)
    # Not yet past the next beat's P wave, whose own fall may be steeper than T's.
    tangent = _tangent(wave, flank, peak, torch.minimum(peak + 110, torch.maximum(room - 100, peak + 40)))

    # What the last beat's T wave leaves in front of P (a Gaussian as wide as the tangent tells) is taken out; the QRS
    # is cut off, out of the filters' reach.
    time = torch.arange(AFTER, device=beat.device, dtype=beat.dtype)
    wide = (0.5 * (tangent - peak)).clamp(8.0, 60.0)
    since = time[:BEFORE] - (BEFORE + peak - rr).unsqueeze(-1)
    tail = torch.exp(-0.5 * (since / wide.unsqueeze(-1)).clamp_min(0).square())
    front = beat[..., :BEFORE] - _vector(late, peak).unsqueeze(-1) * tail.unsqueeze(1)
    front = front * (time[:BEFORE] < (onset - 3).unsqueeze(-1)).to(beat.dtype).unsqueeze(1)
    first = torch.maximum(onset - 150, torch.minimum(BEFORE + tangent - rr + 5, onset - 40))
    p_peak, p_rungs, p_height, p_direction = _p_wave(front, usable, first, onset - 22)

    # T again, with the next beat's P wave taken out.
    start = p_rungs[:, :1] - BEFORE + rr.unsqueeze(-1) - 10
    source = (time + BEFORE - rr.unsqueeze(-1)).round().long().clamp(0, BEFORE - 1)
    next_p = front.gather(2, source.unsqueeze(1).expand_as(back)) * (time >= start).to(beat.dtype).unsqueeze(1)
    back = back - next_p
    slope = _filter(back, 41, 3, 1)
    wave = _filter(_project(back, direction).unsqueeze(1), 41, 3, 0).squeeze(1)
    peak = _highest(wave, peak - 15, peak + 15)[1].to(beat.dtype)
    near = torch.minimum(peak + 110, room + onset - BEFORE - 32)  # the next QRS stays out
    speed = slope.square().mean(1).sqrt()
    t_rungs, t_height = _rungs(wave, _project(slope, direction), speed, peak, near, near + 20, 1)
    votes = _vote(slope, hump, usable, peak, 40, torch.minimum(peak + 60, near), 1)
    t_rungs = torch.cat([t_rungs, torch.minimum(votes, (near + 20).unsqueeze(-1))], -1)
    return Ladders(
        onset_rungs,
        offset_rungs,
        p_rungs,
        p_peak,
        peak + BEFORE,
        t_rungs + BEFORE,
        p_height,
        t_height,
        qrs_height,
        p_direction,
        direction,
        weight.squeeze(-1),
    )
