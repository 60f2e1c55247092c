"""ECG intervals of a batch of 12-lead recordings, without a loop over them.

The steps: band-pass by FFT; beats on the spatial velocity; alignment by correlation, which also tells the dominant
kind of beat from ectopic ones; the median beat; P, QRS and T on it (`delineation_beats`, `delineation_waves`).

Where a wave ends is a convention, not a fact of the signal, and two conventions differ by 10 to 20 ms on the same
beat. `convention="tangent"` (what drug studies measure, and what `ecg_waveform` draws): the T end and the P onset are
where the tangent at the steepest place meets the baseline. `convention="reader"`: where cardiologists put their marks
in LUDB (Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211), later on T and earlier on P; its thresholds were chosen on
the odd-numbered half of 160 LUDB records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.oracles.delineation_beats import INNER_HZ, Beats, condition, find_beats, median_beats, stack_beats
from world_models.oracles.delineation_waves import (
    AFTER,
    BEFORE,
    OFFSET_RUNGS,
    ONSET_RUNGS,
    WAVE_RUNGS,
    Ladders,
    ladders,
)

__all__ = ["CONVENTIONS", "Convention", "Delineation", "delineate", "median_beats"]

_CHUNK = 32  # recordings measured at once on a CPU: their leads stay near the cache
_GPU_CHUNK = 1024
_SHORTEST_S, _SLOWEST_HZ = 4.0, 100.0
_TRUST = 0.5  # quality from which a recording is trusted
# Limits in ms outside which a value is taken for a failure: those of the chart's own ranges, tightened.
_PLAUSIBLE = {"rr": (240.0, 3000.0), "pr": (70.0, 400.0), "qrs": (50.0, 240.0), "qt": (180.0, 800.0), "tpe": (25.0, 250.0)}


@dataclass(frozen=True)
class Convention:
    """Which rungs of the ladders are averaged for each mark, and the constant added to it, ms."""

    qrs_onset: tuple[float, ...]  # of ONSET_RUNGS
    qrs_offset: tuple[float, ...]  # of OFFSET_RUNGS
    p_onset: tuple[str, ...]  # of WAVE_RUNGS
    t_end: tuple[str, ...]  # of WAVE_RUNGS
    shift_ms: tuple[float, float, float, float, float]  # QRS onset, QRS offset, P onset, T peak, T end


_SPEEDS = ("speed_0.35", "speed_0.25", "speed_0.18")
_SLOPES = ("slope_0.35", "slope_0.25", "slope_0.18", "slope_0.12")
CONVENTIONS = {
    "tangent": Convention(
        qrs_onset=(0.03, 0.04),
        qrs_offset=(0.06, 0.08),
        p_onset=("tangent", "slope_0.45", "speed_0.45"),
        t_end=("tangent",),
        shift_ms=(0.0, 0.0, 0.0, 0.0, 0.0),
    ),
    "reader": Convention(
        qrs_onset=(0.06,),
        qrs_offset=(0.11,),
        p_onset=_SPEEDS + _SLOPES,
        t_end=("speed_0.45", *_SPEEDS),
        shift_ms=(0.0, 0.0, 0.0, 0.0, 0.0),
    ),
}


class Delineation(NamedTuple):
    """What was measured; NaN where there is nothing to measure (PR without a P wave)."""

    rr_ms: Tensor  # [B] mean
    heart_rate_bpm: Tensor  # [B]
    pr_ms: Tensor  # [B] P onset to QRS onset
    qrs_ms: Tensor  # [B]
    qt_ms: Tensor  # [B] QRS onset to T end; = qrs + jt_peak + tpeak_tend
    qtcf_ms: Tensor  # [B] Fridericia: QT / RR^(1/3), RR in s
    jt_peak_ms: Tensor  # [B] QRS offset to T peak
    jt_peak_c_ms: Tensor  # [B] J-Tpeak / RR^0.58 (Johannesen 2014, doi 10.1038/clpt.2014.155)
    tpeak_tend_ms: Tensor  # [B] T peak to T end
    quality: Tensor  # [B] 0 to 1
    trusted: Tensor  # [B] bool
    p_onset_ms: Tensor  # [B] relative to R of the median beat, like all marks below
    p_peak_ms: Tensor  # [B]
    qrs_onset_ms: Tensor  # [B]
    qrs_offset_ms: Tensor  # [B]
    t_peak_ms: Tensor  # [B]
    t_end_ms: Tensor  # [B]
    r_samples: Tensor  # [B, K] int64, R peaks in samples of the input, -1 where there is none
    median_beat: Tensor  # [B, 8, 725] mV at 500 Hz: leads I, II, V1-V6 from 0.5 s before R to 0.95 s after
