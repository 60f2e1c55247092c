"""Which intervals to draw so that a reader finds those asked for.

A generator's waves begin and end where its formulas say; a reader finds them where their slopes pass his thresholds.
On the bank's beats the delineator's QRS differs from the generator's by 5 ms in the median, its PR by 3, its J-Tpeak by
4. `drawn_as_read` reads the QRS of the beat to be drawn as the delineator would (`delineation.waves`, convention
"tangent": the velocity of the leads, each set to its own steepest slope) and moves its bounds until the duration is the
one asked for; PR and the marks of ST and T count from the bounds that are read. The T wave itself is bent onto its
marks by `t_synthesis`.

Of a recorded beat, drawn with what the waves leave of it, the bounds are those that were read of it already.

Elementwise operations and gathers only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.delineation.search import crossing
from world_models.ecg.t_bend import TShape
from world_models.ecg.t_synthesis import Marks, shape_t_wave
from world_models.ecg.t_wave import TWave
from world_models.ecg.waveform import QRS_STRETCH_MS, R_SHARE, Intervals, qrs_stretch

__all__ = ["Drawn", "drawn_as_asked", "drawn_as_read", "qrs_bounds"]

_STEP_MS = 2.0
_AT_R = int(QRS_STRETCH_MS / _STEP_MS)
# As the delineator has them: samples over which the slope is taken, the stretch about R in which the steepest place
# lies, rungs of onset and offset (shares of the fastest), how long a bound is quiet, what is added to the offset.
_SLOPE, _NEAR = 13, (40, 50)
_ONSETS, _OFFSETS, _HOLD, _OFFSET_LATE_MS = (0.03, 0.04), (0.06, 0.08), 3, 1.5
_P_LATE_MS = 1.0  # its P onset lies this long after that of the drawn P wave (`python -m benchmarks.ecg_drug.drawn`)
_ROUNDS = 2
_QRS_MS = (40.0, 250.0)  # of what is drawn


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


def drawn_as_read(intervals: Intervals, morphology: Tensor, residual: Tensor | None = None) -> tuple[Intervals, Marks]:
    """Intervals to draw beats [B] with so that QRS and PR are read as asked, and where ST and T are then to be read."""
    asked = Intervals(*(x.to(torch.float32) for x in intervals))
    qrs = asked.qrs_ms
    best: tuple[Tensor, ...] | None = None
    for _ in range(_ROUNDS + 1):
        onset, offset = qrs_bounds(qrs_stretch(asked._replace(qrs_ms=qrs), morphology, residual))
        miss = offset - onset - asked.qrs_ms
        found = (qrs, onset, offset, miss)
        if best is None:
            best = found
        else:
            better = miss.abs() < best[3].abs()
            best = tuple(torch.where(better, new, old) for new, old in zip(found, best, strict=True))
        qrs = (qrs - miss).clamp(*_QRS_MS)
    assert best is not None
    qrs, onset, offset, _ = best
    peak = offset + asked.jt_peak_ms
    marks = Marks(offset, peak, peak + asked.tpeak_tend_ms)
    late = torch.full_like(qrs, _P_LATE_MS)
    if residual is not None:  # a recorded P wave lies where it was read
        late = torch.where((residual != 0).flatten(1).any(-1), torch.zeros_like(late), late)
    pr = asked.pr_ms - onset - R_SHARE * qrs + late
    jt_peak = peak - (1.0 - R_SHARE) * qrs
    return Intervals.of(asked.heart_rate_bpm, pr, qrs, jt_peak, asked.tpeak_tend_ms), marks


def drawn_as_asked(
    intervals: Intervals, morphology: Tensor, wanted: TWave | None = None, residual: Tensor | None = None
) -> Drawn:
    """How to draw beats [B] that measure these intervals and T waves.

    Args:
        intervals: as a reader is to find them.
        morphology: wave heights [B, 8, W] in mV.
        wanted: the T wave, NaN where it may be as it is; None: only its peak and end count.
        residual: [B, 8, 200] mV of recorded beats on the canonical axis; zero rows are drawn beats.

    Raises:
        ValueError: see `shape_t_wave`.
    """
    drawn, marks = drawn_as_read(intervals, morphology, residual)
    if wanted is None:
        wanted = TWave(*(torch.full_like(marks.t_peak, torch.nan) for _ in TWave._fields))
    return Drawn(drawn, shape_t_wave(drawn, morphology, wanted, residual, marks), residual)
