"""ECG intervals of a batch of 12-lead recordings, without a loop over them.

The steps: band-pass by FFT; beats on the spatial velocity; alignment by correlation, which also tells the dominant
kind of beat from ectopic ones; the median beat; P, QRS and T on it (`beats`, `waves`).

Where a wave ends is a convention, not a fact of the signal, and two conventions differ by 10 to 20 ms on the same
beat. `convention="tangent"` (what drug studies measure, and what `ecg.waveform` makes): the T end and the P onset are
where the tangent at the steepest place meets the baseline. `convention="reader"`: where cardiologists put their marks
in LUDB (Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211), later on T and earlier on P, read lead by lead with the
leads' median (`votes`); its thresholds were chosen on the odd-numbered half of 160 LUDB records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.delineation.beats import INNER_HZ, FoundBeats, condition, find_beats, median_beats, stack_beats
from world_models.ecg.delineation.heart import heartlike, hum_share
from world_models.ecg.delineation.waves import (
    AFTER,
    BEFORE,
    OFFSET_RUNGS,
    ONSET_RUNGS,
    VOTE_RUNGS,
    WAVE_RUNGS,
    Ladders,
    ladders,
)
from world_models.ecg.intervals import QT_EXPONENT
from world_models.rounding import power

__all__ = ["CONVENTIONS", "Convention", "Delineation", "delineate", "median_beats"]

_CHUNK = 32  # recordings measured at once on a CPU: their leads stay near the cache
_GPU_CHUNK = 1024
_SHORTEST_S, _SLOWEST_HZ = 4.0, 100.0
# Likeness of P between beats from which it is taken to be there, and how much more is asked where RR varies:
# between LUDB's sinus rhythms (nearly all above 0.75) and its atrial fibrillation (mostly below 0.6).
_P_ALIKE, _P_IRREGULAR = 0.62, 0.26
_P_SHARE = 0.005  # of the QRS's largest vector
_TRUST = 0.5  # quality from which a recording is trusted
_HUM, _HUM_COST = (0.045, 0.065), 0.6  # mains hum over the beat (real recordings: at most 0.023) that moves QRS and QT
_MEASURABLE = 0.25  # quality but for the rhythm: untrusted real recordings lie above, all that is no ECG below
# Limits in ms outside which a value is taken for a failure: those of the chart's own ranges, tightened.
_PLAUSIBLE = {
    "rr": (240.0, 3000.0),
    "pr": (70.0, 400.0),
    "qrs": (50.0, 240.0),
    "qt": (180.0, 800.0),
    "tpe": (25.0, 250.0),
}


@dataclass(frozen=True)
class Convention:
    """Which rungs of the ladders are averaged for each mark, and the constant added to it, ms."""

    qrs_onset: tuple[str, ...]  # of ONSET_RUNGS
    qrs_offset: tuple[str, ...]  # of OFFSET_RUNGS
    p_onset: tuple[str, ...]  # of WAVE_RUNGS
    t_end: tuple[str, ...]  # of WAVE_RUNGS
    shift_ms: tuple[float, float, float, float, float]  # QRS onset, QRS offset, P onset, T peak, T end
    votes: bool  # whether the leads are read one by one as well


CONVENTIONS = {
    "tangent": Convention(
        qrs_onset=("all_0.03", "all_0.04"),
        qrs_offset=("all_0.06", "all_0.08"),
        p_onset=("tangent", "slope_0.45", "speed_0.45"),
        t_end=("tangent",),
        shift_ms=(0.0, 1.5, 2.0, 1.5, 0.0),
        votes=False,
    ),
    "reader": Convention(
        qrs_onset=("vote_0.06", "vote_0.2"),
        qrs_offset=("vote_0.06",),
        p_onset=("vote_0.25", "vote_0.18"),
        t_end=tuple(f"vote_{rung}" for rung in VOTE_RUNGS),
        shift_ms=(-10.5, 0.0, 1.0, 4.5, 6.0),
        votes=True,
    ),
}


class Delineation(NamedTuple):
    """What was measured; NaN where there is nothing to measure (PR without a P wave)."""

    rr_ms: Tensor  # [B] mean of all beats, premature ones too
    heart_rate_bpm: Tensor  # [B] = 60,000 / rr_ms
    pr_ms: Tensor  # [B] P onset to QRS onset
    qrs_ms: Tensor  # [B]
    qt_ms: Tensor  # [B] QRS onset to T end; = qrs + jt_peak + tpeak_tend
    qtcf_ms: Tensor  # [B] Fridericia: QT / RR^(1/3), RR in s that precedes the normal beats, which QT is read on
    jt_peak_ms: Tensor  # [B] QRS offset to T peak
    jt_peak_c_ms: Tensor  # [B] J-Tpeak / RR^0.58, the same RR (Johannesen 2014, doi 10.1038/clpt.2014.155)
    tpeak_tend_ms: Tensor  # [B] T peak to T end
    quality: Tensor  # [B] 0 to 1
    trusted: Tensor  # [B] bool
    measurable: Tensor  # [B] bool: a heart's beats were measured, be the rhythm irregular; where not, no value counts
    before_rr_ms: Tensor  # [B] mean RR that precedes the normal beats
    ectopic_beats: Tensor  # [B] int64, how many beats are premature or of another shape
    p_onset_ms: Tensor  # [B] relative to R of the median beat, like all marks below
    p_peak_ms: Tensor  # [B]
    qrs_onset_ms: Tensor  # [B]
    qrs_offset_ms: Tensor  # [B]
    t_peak_ms: Tensor  # [B]
    t_end_ms: Tensor  # [B]
    r_samples: Tensor  # [B, K] int64, R peaks in samples of the input, -1 where there is none
    median_beat: Tensor  # [B, 8, 725] mV at 500 Hz: leads I, II, V1-V6 from 0.5 s before R to 0.95 s after


def _check(ecg: Tensor, fs: float, convention: str) -> None:
    if convention not in CONVENTIONS:
        raise ValueError(f"convention={convention!r} is unknown; there are: {', '.join(CONVENTIONS)}")
    if not isinstance(ecg, Tensor) or ecg.ndim != 3 or ecg.shape[1] not in (8, 12) or not ecg.is_floating_point():
        shape = f"{tuple(ecg.shape)} {ecg.dtype}" if isinstance(ecg, Tensor) else type(ecg).__name__
        raise ValueError(f"ecg_mv must be a float tensor [B, 12, T] (or [B, 8, T]: I, II, V1-V6) in mV, got {shape}")
    if not (math.isfinite(fs) and fs >= _SLOWEST_HZ):
        raise ValueError(f"sampling_rate_hz={fs} is under {_SLOWEST_HZ:g} Hz; resample the recording first")
    if ecg.shape[-1] < _SHORTEST_S * fs:
        raise ValueError(
            f"ecg_mv holds {ecg.shape[-1] / fs:.2f} s ({ecg.shape[-1]} samples at {fs:g} Hz); "
            f"at least {_SHORTEST_S:g} s are needed"
        )


def _mean(rungs: Tensor, names: tuple, chosen: tuple) -> Tensor:
    return torch.stack([rungs[:, names.index(name)] for name in chosen]).mean(0)


def _agreement(signal: Tensor, beats: FoundBeats, start: Tensor, length: int) -> Tensor:
    """How alike one wave is from beat to beat, [B] in -1..1: mean correlation of each member's stretch of `signal`
    [B, N] (from `start` [B] samples after R) with the mean of the others; 0 where there are not two of them."""
    at = beats.position.unsqueeze(-1) + start.round().long().view(-1, 1, 1) + torch.arange(length, device=signal.device)
    whole = beats.rhythm.member & (at[..., 0] >= 0) & (at[..., -1] < signal.shape[-1])
    b, k = whole.shape
    pieces = signal.gather(1, at.clamp(0, signal.shape[-1] - 1).reshape(b, -1)).reshape(b, k, length)
    pieces = (pieces - pieces.mean(-1, keepdim=True)) * whole.unsqueeze(-1).to(signal.dtype)
    others = pieces.sum(1, keepdim=True) - pieces
    size = (pieces.square().sum(-1) * others.square().sum(-1)).sqrt().clamp_min(1e-12)
    each = (pieces * others).sum(-1) / size
    count = whole.sum(-1)
    return torch.where(count > 1, each.sum(-1) / count.clamp_min(1), torch.zeros_like(each[:, 0]))


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    return ((x - low) / (high - low)).clamp(0, 1)


def _inside(x: Tensor, name: str) -> Tensor:
    low, high = _PLAUSIBLE[name]
    return (x >= low) & (x <= high)


def _measure(ecg: Tensor, fs: float, chosen: Convention) -> Delineation:
    leads, velocity, usable = condition(ecg, fs)
    beats = find_beats(leads, velocity, usable)
    beat = stack_beats(leads, beats.position, beats.rhythm.member, BEFORE, AFTER)
    irregular = torch.nan_to_num(beats.rhythm.scatter, nan=1.0)
    marks = ladders(
        beat, usable, beats.rhythm.usual_rr_ms, beats.rhythm.shortest_ms, 1 - _ramp(irregular, 0.06, 0.14), chosen.votes
    )
    step = 1000.0 / INNER_HZ

    shift = chosen.shift_ms
    onset = (_mean(marks.onset_rungs, ONSET_RUNGS, chosen.qrs_onset) - BEFORE) * step + shift[0]
    offset = (_mean(marks.offset_rungs, OFFSET_RUNGS, chosen.qrs_offset) - BEFORE) * step + shift[1]
    p_onset = (_mean(marks.p_rungs, WAVE_RUNGS, chosen.p_onset) - BEFORE) * step + shift[2]
    p_peak = (marks.p_peak - BEFORE) * step
    t_peak = (marks.t_peak - BEFORE) * step + shift[3]
    t_end = (_mean(marks.t_rungs, WAVE_RUNGS, chosen.t_end) - BEFORE) * step + shift[4]

    def along(direction: Tensor) -> Tensor:
        lead = (leads * (direction * marks.weight).unsqueeze(-1)).sum(1, keepdim=True)
        return F.avg_pool1d(lead, 9, 1, 4, count_include_pad=False).squeeze(1)

    start = marks.onset_rungs[:, -1] - BEFORE
    p_alike = _agreement(along(marks.p_direction), beats, start - 130, 125)
    t_alike = _agreement(along(marks.t_direction), beats, marks.t_peak - BEFORE - 60, 120)
    fiducials = (onset, offset, p_onset, p_peak, t_peak, t_end)
    t_share = marks.t_height / marks.qrs_height.clamp_min(1e-9)
    heart = heartlike(ecg, leads, velocity, usable, beats.position, beat, BEFORE, t_share, INNER_HZ)
    hum = hum_share(beat, INNER_HZ)
    return _judge(ecg, fs, beats, beat, usable, marks, fiducials, p_alike, t_alike, heart, hum)


def _judge(
    ecg: Tensor,
    fs: float,
    beats: FoundBeats,
    beat: Tensor,
    usable: Tensor,
    marks: Ladders,
    fiducials: tuple[Tensor, ...],
    p_alike: Tensor,
    t_alike: Tensor,
    heart: Tensor,
    hum: Tensor,
) -> Delineation:
    """What may be told of the marks: NaN where a wave is absent, the quality, the trust."""
    onset, offset, p_onset, p_peak, t_peak, t_end = fiducials
    nan = torch.full_like(onset, torch.nan)
    count = beats.rhythm.member.sum(-1)
    any_beat = (count >= 1) & torch.isfinite(beats.rhythm.rr_ms)
    onset, offset, t_peak, t_end = (torch.where(any_beat, x, nan) for x in (onset, offset, t_peak, t_end))

    # A P wave repeats from beat to beat. Fibrillation does not, and its RR intervals are irregular as well.
    irregular = torch.nan_to_num(beats.rhythm.scatter, nan=1.0)
    p_there = any_beat & (p_alike > _P_ALIKE + _P_IRREGULAR * _ramp(irregular, 0.04, 0.14))
    p_there &= marks.p_height > _P_SHARE * marks.qrs_height
    p_there &= _inside(onset - p_onset, "pr")
    p_onset, p_peak = torch.where(p_there, p_onset, nan), torch.where(p_there, p_peak, nan)

    qrs, jt, tail = offset - onset, t_peak - offset, t_end - t_peak
    qt = t_end - onset
    rr_s, usual_s, before_s = (
        torch.where(any_beat, x, nan) / 1000
        for x in (beats.rhythm.rr_ms, beats.rhythm.usual_rr_ms, beats.rhythm.before_rr_ms)
    )
    found = (beats.position >= 0).sum(-1).clamp_min(1)
    # The share of the recording that the beats fill: two seconds of signal in ten of silence are not ten seconds.
    filled = found * torch.nan_to_num(rr_s) * fs / ecg.shape[-1]
    likeness = torch.where(beats.rhythm.member, beats.correlation, torch.zeros_like(beats.correlation)).sum(-1)
    signal = (
        _ramp(count, 1, 4)
        * _ramp(likeness / count.clamp_min(1), 0.7, 0.95)
        * (0.4 + 0.6 * _ramp(count / found, 0.2, 0.6))
        * _ramp(filled, 0.3, 0.7)
        * (0.2 + 0.8 * _ramp(t_alike, 0.0, 0.7))
        * (0.4 + 0.6 * usable.to(onset.dtype).mean(-1))
        * heart
    )
    sane = _inside(usual_s * 1000, "rr") & _inside(qrs, "qrs") & _inside(qt, "qt") & _inside(tail, "tpe")
    sane &= (qt < 1000 * usual_s) & (jt > 0)
    signal = torch.where(any_beat, signal, torch.zeros_like(signal)) * torch.where(sane, 1.0, 0.5)
    rhythm = torch.where(p_there, torch.ones_like(irregular), 1 - 0.7 * _ramp(irregular, 0.04, 0.12))
    quality = signal * rhythm * (1 - _HUM_COST * _ramp(hum, *_HUM))
    trusted = sane & (quality >= _TRUST) & (count >= 3)

    samples = torch.round(beats.position.to(torch.float64) * (fs / INNER_HZ)).long().clamp_max(ecg.shape[-1] - 1)
    # Beats cut by the recording's edge are out; the others move up, padding stands last.
    samples = torch.where(beats.position >= 0, samples, torch.full_like(samples, ecg.shape[-1])).sort(-1).values
    samples = torch.where(samples < ecg.shape[-1], samples, torch.full_like(samples, -1))
    most = math.ceil(ecg.shape[-1] / fs * 5.0) + 2
    r = samples.new_full((ecg.shape[0], most), -1)
    kept = min(most, samples.shape[1])
    r[:, :kept] = samples[:, :kept]
    return Delineation(
        rr_ms=rr_s * 1000,
        heart_rate_bpm=60.0 / rr_s,
        pr_ms=onset - p_onset,
        qrs_ms=qrs,
        qt_ms=qt,
        qtcf_ms=qt / power(before_s, QT_EXPONENT),
        jt_peak_ms=jt,
        jt_peak_c_ms=jt / power(before_s, 0.58),
        tpeak_tend_ms=tail,
        quality=quality,
        trusted=trusted,
        measurable=(signal >= _MEASURABLE) & (heart >= _TRUST),
        before_rr_ms=before_s * 1000,
        ectopic_beats=beats.rhythm.ectopic.sum(-1),
        p_onset_ms=p_onset,
        p_peak_ms=p_peak,
        qrs_onset_ms=onset,
        qrs_offset_ms=offset,
        t_peak_ms=t_peak,
        t_end_ms=t_end,
        r_samples=r,
        median_beat=beat,
    )


def delineate(ecg_mv: Tensor, sampling_rate_hz: float, convention: str = "tangent") -> Delineation:
    """Intervals, marks and trust of a batch of recordings.

    Args:
        ecg_mv: [B, 12, T] in mV, order I II III aVR aVL aVF V1-V6 (or [B, 8, T]: I, II, V1-V6); at least 4 s. Leads
            that are flat, railed or hold more than 2 % of non-finite samples are left out, and lower the quality.
        sampling_rate_hz: at least 100 Hz.
        convention: "tangent" or "reader" (see the module's text).

    Rows are measured apart: what a row gives does not depend on the others (but for rounding).

    Raises:
        ValueError: a shape, rate, length or convention that cannot be served.
    """
    fs = float(sampling_rate_hz)
    _check(ecg_mv, fs, convention)
    chosen = CONVENTIONS[convention]
    ecg = ecg_mv.to(torch.float32)
    size = _CHUNK if ecg.device.type == "cpu" else _GPU_CHUNK
    if ecg.shape[0] == 0:  # the shapes of a row that holds nothing, without the row
        return Delineation(*(x[:0] for x in delineate(ecg.new_zeros(1, *ecg.shape[1:]), fs, convention)))
    with torch.no_grad():
        parts = [_measure(ecg[i : i + size], fs, chosen) for i in range(0, ecg.shape[0], size)]
    return parts[0] if len(parts) == 1 else Delineation(*(torch.cat(column) for column in zip(*parts, strict=True)))
