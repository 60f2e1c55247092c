"""Where P, QRS and T begin, peak and end in a median beat: threshold ladders on spatial velocities and projections.

All waves are judged on all usable leads at once. The QRS is bounded on the velocity of the leads, each set to its own
steepest slope. P and T are projected on the direction the heart vector has at their peak (the lead in which the wave
is largest, always upright), and their bounds are read there and on the spatial velocity, at several thresholds: the
levels of a ladder. The mean of a few rungs gives the mark. Further rungs are the leads' own bounds
(`votes`), read only where a convention asks for them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.delineation.search import crossing, filtered, highest, lowest, read, vector
from world_models.ecg.delineation.votes import QRS_RUNGS, VOTE_RUNGS, qrs_votes, wave_votes

__all__ = ["AFTER", "BEFORE", "OFFSET_RUNGS", "ONSET_RUNGS", "VOTE_RUNGS", "WAVE_RUNGS", "Ladders", "ladders"]

BEFORE, AFTER = 250, 475  # samples of the median beat before and from R, at 500 Hz
_ONSETS = (0.03, 0.04, 0.06)  # of the steepest slope of the QRS
_OFFSETS = (0.06, 0.08, 0.11)
ONSET_RUNGS = (*(f"all_{r}" for r in _ONSETS), *(f"vote_{r}" for r in QRS_RUNGS))
OFFSET_RUNGS = (*(f"all_{r}" for r in _OFFSETS), *(f"vote_{r}" for r in QRS_RUNGS))
SLOPE_RUNGS = (0.45, 0.35, 0.25, 0.18, 0.12)  # of the steepest slope of the flank; a Gaussian has 0.446 at 2 sigma
SPEED_RUNGS = (0.45, 0.35, 0.25, 0.18)
WAVE_RUNGS = (
    "tangent",
    *(f"slope_{s}" for s in SLOPE_RUNGS),
    *(f"speed_{s}" for s in SPEED_RUNGS),
    *(f"vote_{s}" for s in VOTE_RUNGS),
)

_STEP_MS = 2.0
_HOLD = 3  # a QRS bound is where the velocity stays low for 2 * _HOLD + 1 samples
_QRS_SPAN = (-70, 90)  # samples about R beyond which no QRS is sought
_VOTE_LATE = 5  # samples by which the mean of a lead's own onset rungs lies behind the onset
# T peaks this long after the QRS onset at RR 1 s, on LUDB's odd records 326 ms with 9 % scatter. The weight is to tell
# T from what is no T (the end of a QRS, the next P) and five times as wide: at 0.3 it drew QT over 550 ms to the ST
# hump.
_T_PEAK_MS, _T_SPREAD = 326.0, 0.45
_ROUGH = 1.5  # a lead rougher than this many times the typical lead counts less for P and T
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


def _qrs(beat: Tensor, usable: Tensor, votes: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """QRS onset and offset rungs, [B, len(ONSET_RUNGS)] and [B, len(OFFSET_RUNGS)] (less the votes without `votes`),
    and the onset and offset [B] from which the search for P and T goes out."""
    slope = filtered(beat, 13, 2, 1)
    near = slice(BEFORE - 40, BEFORE + 50)
    own = slope[..., near].abs().amax(-1, keepdim=True).clamp_min(1e-6)
    weight = usable.to(beat.dtype) / usable.sum(-1, keepdim=True).clamp_min(1)
    speed = ((slope / own).square() * weight.unsqueeze(-1)).sum(1).sqrt()
    top, where = speed[:, near].max(-1)
    where = where + near.start
    held = F.max_pool1d(speed.unsqueeze(1), 2 * _HOLD + 1, 1, _HOLD).squeeze(1)
    # Where a rung is never met (noise, an atrial wave that touches the QRS), the quietest place serves.
    first, last = torch.full_like(where, BEFORE + _QRS_SPAN[0]), torch.full_like(where, BEFORE + _QRS_SPAN[1])
    before, after = highest(-held, first, where)[1], highest(-held, where, last)[1]
    onsets = [torch.maximum(crossing(held, r * top, where, -1), before) + _HOLD for r in _ONSETS]
    offsets = [torch.minimum(crossing(held, r * top, where, 1), after) - _HOLD for r in _OFFSETS]
    onset, offset = torch.stack(onsets, -1), torch.stack(offsets, -1)
    if not votes:
        return onset, offset, onset[:, -1], offset[:, -1]
    low, high = BEFORE + _QRS_SPAN[0], BEFORE + _QRS_SPAN[1]
    between = (near.start - low, near.stop - low)
    each_onset, each_offset = (x + low for x in qrs_votes(slope[..., low:high], usable, between, _HOLD))
    onset, offset = torch.cat([onset, each_onset], -1), torch.cat([offset, each_offset], -1)
    return onset, offset, each_onset.mean(-1) - _VOTE_LATE, each_offset[:, 0]


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
    steepest, at = highest(down, low, high)
    steepest = steepest.clamp_min(1e-9)
    foot = lowest(wave, at, far) if side > 0 else lowest(wave, far, at)
    height = read(wave, peak) - foot
    value = read(wave, at)
    # No mark lies beyond the foot's reach: where a rung is never met, the quietest place serves.
    rungs = [at + side * (value - foot) / steepest]
    rungs += [crossing(down, s * steepest, at, side) for s in SLOPE_RUNGS]
    fastest, fast_at = highest(speed, at - 8, at + 8)
    quiet = highest(-speed, at, far)[1] if side > 0 else highest(-speed, far, at)[1]
    found = [crossing(speed, s * fastest, fast_at, side) for s in SPEED_RUNGS]
    rungs += [torch.minimum(r, quiet) if side > 0 else torch.maximum(r, quiet) for r in found]
    rungs = [torch.minimum(r, far) if side > 0 else torch.maximum(r, far) for r in rungs]
    return torch.stack(rungs, -1), height


def _hump(x: Tensor, start: Tensor, reach: int) -> Tensor:
    """How far x [B, C, L] stands over the chord from `reach` samples before to `reach` after; x is held before
    `start` [B], so that what comes earlier does not count."""
    time = torch.arange(x.shape[-1], device=x.device)
    x = torch.where((time < start.unsqueeze(-1)).unsqueeze(1), vector(x, start).unsqueeze(-1), x)
    padded = F.pad(x, (reach, reach), mode="replicate")
    return x - 0.5 * (padded[..., : -2 * reach] + padded[..., 2 * reach :])


def _tops(bent: Tensor) -> Tensor:
    """bent [B, L] where it is a local maximum over 40 ms, a hundredth of it elsewhere (a neighbour's flank)."""
    return torch.where(bent == F.max_pool1d(bent.unsqueeze(1), 21, 1, 10).squeeze(1), bent, 0.01 * bent)


def _likely_t(after: Tensor, rr: Tensor) -> Tensor:
    """Weight of a T peak `after` [B, L] samples behind the QRS onset, 1 at what is usual for RR [B] samples.

    Of the logarithm, Gaussian. The root of RR: at fast rates Fridericia's cube root lies late enough to take the
    rebound of an inverted T for T.
    """
    usual = _T_PEAK_MS / _STEP_MS * (rr * _STEP_MS / 1000.0).sqrt()
    return torch.exp(-0.5 * ((after / usual.unsqueeze(-1)).clamp_min(1e-3).log() / _T_SPREAD).square())


def _evenness(rough: Tensor, usable: Tensor) -> Tensor:
    """Weight [B, 8, 1] of each lead for P and T: below one for leads rougher than the row's typical lead."""
    quiet = torch.cat([rough[..., 20 : BEFORE - 50], rough[..., BEFORE + 60 : BEFORE + 200]], -1).abs()
    level = quiet.sort(-1).values[..., quiet.shape[-1] // 2]
    typical = torch.where(usable, level, torch.full_like(level, torch.inf)).sort(-1).values
    middle = ((usable.sum(-1, keepdim=True) - 1) // 2).clamp_min(0)
    typical = typical.gather(-1, middle).clamp(1e-6, 1.0)
    return (_ROUGH * typical / level.clamp_min(1e-6)).clamp_max(1.0).unsqueeze(-1)


def _tangent(wave: Tensor, slope: Tensor, peak: Tensor, near: Tensor) -> Tensor:
    """Where the tangent at the steepest place after `peak` [B] meets the foot of an upright wave [B, L]."""
    steepest, at = highest(-slope, peak, near)
    return at + (read(wave, at) - lowest(wave, at, near + 20)) / steepest.clamp_min(1e-9)


def _p_wave(front: Tensor, usable: Tensor, first: Tensor, last: Tensor, votes: bool) -> tuple[Tensor, ...]:
    """P in the stretch `front` [B, 8, BEFORE], its peak between `first` and `last` [B].

    P is where the leads stand out most from a chord of 100 ms, at a local maximum: the window's edge (a T wave's
    flank) serves only if there is none.
    """
    curve = _hump(filtered(front, 21, 3, 0), torch.zeros_like(first), _P_REACH)
    peak = highest(_tops(curve.square().sum(1).sqrt()), first, last)[1].to(front.dtype)
    direction = _unit(vector(curve, peak))
    slope = filtered(front, 31, 3, 1)
    wave = filtered(_project(front, direction).unsqueeze(1), 31, 3, 0).squeeze(1)
    speed = slope.square().mean(1).sqrt()
    rungs, height = _rungs(wave, _project(slope, direction), speed, peak, peak - 40, peak - 60, -1)
    if votes:
        each = wave_votes(slope, curve, usable, peak, 12, peak - 40, -1)
        rungs = torch.cat([rungs, torch.maximum(each, (peak - 60).unsqueeze(-1))], -1)
    return peak, rungs, height, direction


def ladders(
    beat: Tensor, usable: Tensor, rr_ms: Tensor, shortest_ms: Tensor, regular: Tensor, votes: bool = True
) -> Ladders:
    """Candidate marks of median beats.

    Args:
        beat: [B, 8, BEFORE + AFTER] mV at 500 Hz, R at `BEFORE`, leads I, II, V1-V6.
        usable: [B, 8] bool; the other leads are ignored.
        rr_ms: [B] mean RR interval.
        shortest_ms: [B] shortest RR interval after a beat of the median.
        regular: [B] 0 to 1; where RR is not regular, the median beat's front says nothing of the next beat's P.
        votes: whether to read the leads one by one as well; without it the rungs named "vote_..." are missing.
    """
    beat = torch.where(usable.unsqueeze(-1), beat, torch.zeros_like(beat))
    rr = torch.nan_to_num(rr_ms, nan=1000.0).clamp(250.0, 3000.0) / _STEP_MS
    room = torch.minimum(rr, torch.nan_to_num(shortest_ms, nan=1000.0).clamp_min(250.0) / _STEP_MS)
    onset_rungs, offset_rungs, onset, offset = _qrs(beat, usable, votes)
    # Isoelectric level: the end of the PQ segment.
    level = torch.stack([vector(beat, onset - k) for k in range(2, 10)]).mean(0)
    beat = beat - level.unsqueeze(-1)
    qrs_height = beat[..., BEFORE - 40 : BEFORE + 50].square().sum(1).sqrt().amax(-1)

    smooth = filtered(beat, 41, 3, 0)
    weight = _evenness(beat - smooth, usable)
    beat, smooth = beat * weight, smooth * weight

    # T stands out most from a chord of 200 ms; a level (ST, U) does not, nor what comes before the QRS has ended.
    back, late = beat[..., BEFORE:], smooth[..., BEFORE:]
    time = torch.arange(AFTER, device=beat.device, dtype=beat.dtype)
    hump = _hump(late, offset - BEFORE + 4, _T_REACH)
    latest = torch.minimum(0.65 * room, torch.full_like(rr, 400.0))
    bent = _tops(hump.square().sum(1).sqrt()) * _likely_t(time.unsqueeze(0) + (BEFORE - onset).unsqueeze(-1), rr)
    peak = highest(bent, offset - BEFORE + 30, latest)[1].to(beat.dtype)
    direction = _unit(vector(hump, peak))
    wave = _project(late, direction)
    peak = highest(wave, peak - 15, peak + 15)[1].to(beat.dtype)
    flank = filtered(_project(back, direction).unsqueeze(1), 41, 3, 1).squeeze(1)
    # Not yet past the next beat's P wave, whose own fall may be steeper than T's.
    tangent = _tangent(wave, flank, peak, torch.minimum(peak + 110, torch.maximum(room - 100, peak + 40)))

    # What the last beat's T wave leaves in front of P (a Gaussian as wide as the tangent tells) is taken out; the QRS
    # is cut off, out of the filters' reach.
    wide = (0.5 * (tangent - peak)).clamp(8.0, 60.0)
    since = time[:BEFORE] - (BEFORE + peak - rr).unsqueeze(-1)
    tail = torch.exp(-0.5 * (since / wide.unsqueeze(-1)).clamp_min(0).square())
    front = beat[..., :BEFORE] - vector(late, peak).unsqueeze(-1) * tail.unsqueeze(1)
    front = front * (time[:BEFORE] < (onset - 3).unsqueeze(-1)).to(beat.dtype).unsqueeze(1)
    first = torch.maximum(onset - 150, torch.minimum(BEFORE + tangent - rr + 5, onset - 40))
    p_peak, p_rungs, p_height, p_direction = _p_wave(front, usable, first, onset - 22, votes)

    # T again, with the next beat's P wave taken out.
    start = p_rungs[:, :1] - BEFORE + rr.unsqueeze(-1) - 10
    source = (time + BEFORE - rr.unsqueeze(-1)).round().long().clamp(0, BEFORE - 1)
    next_p = front.gather(2, source.unsqueeze(1).expand_as(back)) * (time >= start).to(beat.dtype).unsqueeze(1)
    back = back - regular.view(-1, 1, 1) * next_p
    slope = filtered(back, 41, 3, 1)
    wave = filtered(_project(back, direction).unsqueeze(1), 41, 3, 0).squeeze(1)
    peak = highest(wave, peak - 15, peak + 15)[1].to(beat.dtype)
    near = torch.minimum(peak + 110, room + onset - BEFORE - 32)  # the next QRS stays out
    speed = slope.square().mean(1).sqrt()
    t_rungs, t_height = _rungs(wave, _project(slope, direction), speed, peak, near, near + 20, 1)
    if votes:
        each = wave_votes(slope, hump, usable, peak, 40, torch.minimum(peak + 60, near), 1)
        t_rungs = torch.cat([t_rungs, torch.minimum(each, (near + 20).unsqueeze(-1))], -1)
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
