"""Which intervals to draw so that a reader finds those asked for.

A generator's waves begin and end where its formulas say; a reader finds them where their slopes pass his thresholds.
On the bank's beats the delineator's QRS differs from the generator's by 5 ms in the median, its PR by 3, its J-Tpeak by
4. `drawn_as_read` reads the QRS of the beat to be drawn as the delineator would (`delineation.waves`, convention
"tangent": the velocity of the leads, each set to its own steepest slope) and moves its bounds until the duration is the
one asked for; PR and the marks of ST and T count from the bounds that are read. A generator's own P wave is read a
fixed time after it begins; the P onset of a recorded or decoded beat (`p_onset`) is read likewise, and PR moved. The T
wave itself is bent onto its marks by `t_synthesis`.

Elementwise operations and gathers only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.along_time import smoothed
from world_models.ecg.delineation.search import crossing, highest, lowest, read, vector
from world_models.ecg.t_bend import TShape
from world_models.ecg.t_synthesis import Marks, shape_t_wave
from world_models.ecg.t_wave import TWave
from world_models.ecg.waveform import P_STEP_MS, QRS_STRETCH_MS, R_SHARE, Intervals, p_stretch, qrs_stretch
from world_models.tree import rows_of

__all__ = ["Drawn", "drawn_as_asked", "drawn_as_read", "p_onset", "qrs_bounds"]

_STEP_MS = 2.0
_AT_R = int(QRS_STRETCH_MS / _STEP_MS)
# As the delineator has them: samples over which the slope is taken, the stretch about R in which the steepest place
# lies, rungs of onset and offset (shares of the fastest), how long a bound is quiet, what is added to the offset.
_SLOPE, _NEAR = 13, (40, 50)
_ONSETS, _OFFSETS, _HOLD, _OFFSET_LATE_MS = (0.03, 0.04), (0.06, 0.08), 3, 1.5
_P_LATE_MS = 1.0  # its P onset lies this long after that of the drawn P wave (`python -m benchmarks.ecg_drug.drawn`)
_ROUNDS, _NEAR_ENOUGH_MS = 2, 0.3  # QRS is read again where it is not as near as this
_QRS_MS = (40.0, 250.0)  # of what is drawn
_ROWS = 128  # beats read at once: as many as stay near the cache
# Of P, every `P_STEP_MS`: samples over which it is smoothed, its slope taken, it stands out from a chord, and it is its
# own neighbourhood's highest; how far the steepest place and the foot lie before the peak; what is added to the onset.
_P_SMOOTH, _P_SLOPE, _P_REACH, _P_TOP, _P_NEAR, _P_FAR, _P_FAST, _P_SHIFT_MS = 11, 15, 13, 11, 20, 30, 4, 2.0
_P_SHARE = 0.45  # of the steepest slope, and of the fastest, at which P begins
_P_LAST_MS, _P_FIRST_MS = (44.0, 80.0), 300.0  # before the QRS onset: P peaks between these
_PR_MS, _P_LARGEST_MS = (60.0, 440.0), 60.0
_P_NEAR_ENOUGH_MS, _P_SURE = 2.0, 0.5  # PR is read again where it missed by more; share of a miss that may be left


Drawing = tuple[Intervals, Tensor | None, Tensor | None]  # intervals, morphology, residual


class Drawn(NamedTuple):
    """How to draw B beats."""

    intervals: Intervals  # of the generator
    t_shape: TShape
    residual: Tensor | None  # [B, 8, 200]


def qrs_bounds(stretch: Tensor) -> tuple[Tensor, Tensor]:
    """QRS onset and offset [B] in ms after R in beats [B, 8, L] of `qrs_stretch`, as the delineator reads them."""
    half = _SLOPE // 2
    square = half * (half + 1) * (2 * half + 1) / 3.0  # least squares line
    length = stretch.shape[-1]
    padded = F.pad(stretch, (half, half), mode="replicate")
    slope = torch.zeros_like(stretch)
    for k in range(1, half + 1):
        slope += (k / square) * (padded[..., half + k : half + k + length] - padded[..., half - k : half - k + length])
    near = slice(_AT_R - _NEAR[0], _AT_R + _NEAR[1])
    slope = slope / slope[..., near].abs().amax(-1, keepdim=True).clamp_min(1e-6)
    speed = slope[:, 0] * slope[:, 0]
    for i in range(1, slope.shape[1]):
        speed = speed + slope[:, i] * slope[:, i]
    speed = (speed * (1.0 / slope.shape[1])).sqrt()
    top, where = speed[:, near].max(-1)
    where = where + near.start
    held = F.max_pool1d(speed.unsqueeze(1), 2 * _HOLD + 1, 1, _HOLD).squeeze(1)
    onset, offset = torch.zeros_like(top), torch.zeros_like(top)
    for share in _ONSETS:
        onset = onset + (crossing(held, share * top, where, -1) + _HOLD) / len(_ONSETS)
    for share in _OFFSETS:
        offset = offset + (crossing(held, share * top, where, 1) - _HOLD) / len(_OFFSETS)
    return (onset - _AT_R) * _STEP_MS, (offset - _AT_R) * _STEP_MS + _OFFSET_LATE_MS


def p_onset(front: Tensor, qrs_onset: Tensor, last_t_end: Tensor) -> Tensor:
    """P onset [B] in ms after R in what comes before R, beats [B, 8, L] of `p_stretch`, as the delineator reads it.

    The others [B]: ms after R.
    """
    at_r = front.shape[-1] - 1
    onset = qrs_onset / P_STEP_MS + at_r
    time = torch.arange(front.shape[-1], dtype=front.dtype, device=front.device)
    level = 0.5 * (vector(front, onset - 1.0) + vector(front, onset - 4.0)).unsqueeze(-1)
    front = (front - level) * (time < (onset - 1.5).unsqueeze(-1)).to(front.dtype).unsqueeze(1)
    calm = smoothed(front, _P_SMOOTH, 0)
    padded = F.pad(calm, (_P_REACH, _P_REACH), mode="replicate")
    hump = calm - 0.5 * (padded[..., : -2 * _P_REACH] + padded[..., 2 * _P_REACH :])
    size = _over_leads(hump)
    top = F.max_pool1d(size.unsqueeze(1), _P_TOP, 1, _P_TOP // 2).squeeze(1)
    latest, earliest = (onset - x / P_STEP_MS for x in _P_LAST_MS)
    first = torch.maximum(onset - _P_FIRST_MS / P_STEP_MS, torch.minimum(at_r + last_t_end / P_STEP_MS, earliest))
    peak = highest(torch.where(size == top, size, 0.01 * size), first, latest)[1].to(front.dtype)

    direction = vector(hump, peak)
    direction = direction / _over_leads(direction.unsqueeze(-1)).clamp_min(1e-9)
    slope = smoothed(front, _P_SLOPE, 1)
    along, rising = torch.zeros_like(size), torch.zeros_like(size)
    for i in range(front.shape[1]):
        along = along + front[:, i] * direction[:, i : i + 1]
        rising = rising + slope[:, i] * direction[:, i : i + 1]
    along = smoothed(along, _P_SLOPE, 0)
    speed = _over_leads(slope)

    far = peak - _P_FAR
    steepest, at = highest(rising, peak - _P_NEAR, peak)
    steepest = steepest.clamp_min(1e-9)
    tangent = at - (read(along, at) - lowest(along, far, at)) / steepest
    fastest, fast_at = highest(speed, at - _P_FAST, at + _P_FAST)
    quick = torch.maximum(crossing(speed, _P_SHARE * fastest, fast_at, -1), highest(-speed, far, at)[1])
    rungs = [torch.maximum(x, far) for x in (tangent, crossing(rising, _P_SHARE * steepest, at, -1), quick)]
    return ((rungs[0] + rungs[1] + rungs[2]) / 3.0 - at_r) * P_STEP_MS + _P_SHIFT_MS


def _over_leads(x: Tensor) -> Tensor:
    """Length [B, L] of the leads [B, C, L]; a sum in a fixed order."""
    square = x[:, 0] * x[:, 0]
    for i in range(1, x.shape[1]):
        square = square + x[:, i] * x[:, i]
    return square.sqrt()


def _rows(parts: Drawing, rows: Tensor | slice) -> Drawing:
    intervals, morphology, residual = parts
    heights, kept = (None if x is None else x[rows] for x in (morphology, residual))
    return Intervals(*(x[rows] for x in intervals)), heights, kept


def _qrs_as_read(asked: Intervals, morphology: Tensor | None, residual: Tensor | None) -> tuple[Tensor, ...]:
    """QRS to draw, the onset and offset that are read of it, ms after R, and by how much it misses; each [B]."""
    whole: Drawing = (asked, morphology, residual)
    best = _qrs_read(whole, asked.qrs_ms)
    for _ in range(_ROUNDS):
        far = best[3].abs() > _NEAR_ENOUGH_MS
        rows = rows_of(far)
        if not len(rows):
            break
        old = tuple(x[rows] for x in best)
        new = _qrs_read(_rows(whole, rows), (old[0] - old[3]).clamp(*_QRS_MS))
        better = far[rows] & (new[3].abs() < old[3].abs())
        best = tuple(x.index_copy(0, rows, torch.where(better, a, b)) for x, a, b in zip(best, new, old, strict=True))
    return best


def _qrs_read(parts: Drawing, qrs: Tensor) -> tuple[Tensor, ...]:
    found = []
    for start in range(0, max(qrs.shape[0], 1), _ROWS):
        rows = slice(start, start + _ROWS)
        intervals, morphology, residual = _rows(parts, rows)
        found.append(qrs_bounds(qrs_stretch(intervals._replace(qrs_ms=qrs[rows]), morphology, residual)))
    onset, offset = (torch.cat(x) for x in zip(*found, strict=True))
    return qrs, onset, offset, offset - onset - parts[0].qrs_ms


def _pr_as_read(
    drawn: Intervals, morphology: Tensor | None, residual: Tensor, pr_read: Tensor, onset: Tensor, t_end: Tensor
) -> Tensor:
    """PR [B] to draw with, so that `pr_read` [B] is read; QRS onset and T end as they are read, ms after R."""
    last_t_end = t_end - 60_000.0 / drawn.heart_rate_bpm + 10.0
    whole: Drawing = (drawn, morphology, residual)

    def missed(rows: Tensor, pr: Tensor) -> Tensor:
        found = []
        for start in range(0, len(rows), _ROWS):
            some, its = rows[start : start + _ROWS], pr[start : start + _ROWS]
            few, heights, kept = _rows(whole, some)
            assert kept is not None
            front = p_stretch(few._replace(pr_ms=its), heights, kept)
            found.append(onset[some] - p_onset(front, onset[some], last_t_end[some]) - pr_read[some])
        return torch.cat(found).clamp(-_P_LARGEST_MS, _P_LARGEST_MS) if found else pr

    pr = drawn.pr_ms
    miss = missed(torch.arange(len(pr), device=pr.device), pr)
    tried = (pr - miss).clamp(*_PR_MS)
    missing = miss.abs() > _P_NEAR_ENOUGH_MS
    far = rows_of(missing)
    again = missed(far, tried[far])
    better = again.abs() < miss[far].abs()
    # One step more, unread, where the first one led most of the way.
    last = torch.where(again.abs() < _P_SURE * miss[far].abs(), (tried[far] - again).clamp(*_PR_MS), tried[far])
    moved = torch.where(better, last, pr[far])
    return tried.index_copy(0, far, torch.where(missing[far], moved, tried[far]))


def drawn_as_read(
    intervals: Intervals, morphology: Tensor | None, residual: Tensor | None = None
) -> tuple[Intervals, Marks]:
    """Intervals to draw beats [B] with so that QRS and PR are read as asked, and where ST and T are then to be read."""
    asked = Intervals(*(x.to(torch.float32) for x in intervals))
    qrs, onset, offset, _ = _qrs_as_read(asked, morphology, residual)
    peak = offset + asked.jt_peak_ms
    marks = Marks(offset, peak, peak + asked.tpeak_tend_ms)
    pr = asked.pr_ms - onset - R_SHARE * qrs + _P_LATE_MS
    jt_peak = peak - (1.0 - R_SHARE) * qrs
    drawn = Intervals.of(asked.heart_rate_bpm, pr, qrs, jt_peak, asked.tpeak_tend_ms)
    if residual is None:
        return drawn, marks
    own = (residual != 0).flatten(1).any(-1)
    rows = rows_of(own)
    few, heights, kept = _rows((drawn, morphology, residual), rows)
    assert kept is not None
    moved = _pr_as_read(few, heights, kept, asked.pr_ms[rows], onset[rows], marks.t_end[rows])
    return drawn._replace(pr_ms=pr.index_copy(0, rows, torch.where(own[rows], moved, pr[rows]))), marks


def drawn_as_asked(
    intervals: Intervals,
    morphology: Tensor | None,
    wanted: TWave | None = None,
    residual: Tensor | None = None,
    careful: Tensor | None = None,
) -> Drawn:
    """How to draw beats [B] that measure these intervals and T waves.

    Args:
        intervals: as a reader is to find them.
        morphology: wave heights [B, 8, W] in mV; None: the residual is the beat.
        wanted: the T wave, NaN where it may be as it is; None: only its peak and end count.
        residual: [B, 8, 200] mV of recorded beats on the canonical axis; zero rows are drawn beats.
        careful: see `shape_t_wave`.

    Raises:
        ValueError: see there.
    """
    drawn, marks = drawn_as_read(intervals, morphology, residual)
    if wanted is None:
        wanted = TWave(*(torch.full_like(marks.t_peak, torch.nan) for _ in TWave._fields))
    return Drawn(drawn, shape_t_wave(drawn, morphology, wanted, residual, marks, careful), residual)
