"""Draw an ECG whose T wave measures what is asked for: amplitude, asymmetry, flatness, ERD_30 and LRD_30.

`shape_t_wave` gives the `TShape` with which `waveform.synthesise_ecg` draws such an ECG. The amplitude is a gain; the
other four are found by damped least squares (Levenberg 1944, doi 10.1090/qam/10666) on the drawn ST and T alone, read
as `t_wave` reads any ECG. Four numbers do not always go together: LRD_30 lies between 0.33 and 0.68 Tpeak-Tend, and
what ERD_30 and LRD_30 say of the flanks leaves asymmetry and flatness a range. What cannot be had is approached: the
misses, each in its `SCALE`, are made small together. Among them is how far the bend moves the T peak that a reader
sees who smooths as the delineator does: the drawn peak stays, but smoothing moves a skewed wave's to its slower side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.along_time import STEP_MS, read_between, smoothed, summit
from world_models.ecg.morphology import solve
from world_models.ecg.st_t import TShape, st_t_shapes
from world_models.ecg.t_wave import TMarks, TWave, t_wave
from world_models.ecg.waveform import R_SHARE, WAVES, Intervals

__all__ = ["SCALE", "shape_t_wave"]

# A miss of this size counts as one: asymmetry, flatness, ERD_30, LRD_30 and the T peak a smoothing reader sees, ms.
SCALE = (0.015, 0.0115, 1.0, 1.0, 0.7)
_READER = 41  # samples of 2 ms over which the delineator smooths T (`delineation.waves`)
_ROUNDS = 12
_STEP = 0.02  # of the finite differences, in the logarithms of the parameters
_DAMPING = (1.0, 0.3, 8.0)  # at first, its factor after a round that was better, and after one that was not
_LEAST, _MOST = (8.0, 0.6, 0.4, 1.35), (160.0, 1.5, 3.5, 5.0)  # left_ms, crown, foot, right_power
_LARGEST = 0.5  # change of a logarithm in one round
_ST = WAVES.index("ST")
_RATE_HZ, _SECONDS = 500.0, 0.9  # of the drawn stretch from R on


def _read(intervals: Intervals, heights: Tensor, shape: TShape | None) -> tuple[TWave, Tensor]:
    """What the drawn ST and T alone measure, and where a smoothing reader sees the T peak, [B] ms from where it is.

    heights: [B, 8, 3] mV of ST, its bend and T.
    """
    _, _, qrs, _, jt_peak, tail = (x.to(torch.float32).unsqueeze(-1) for x in intervals)
    after = torch.arange(int(_SECONDS * _RATE_HZ), dtype=torch.float32, device=qrs.device) * (1000.0 / _RATE_HZ)
    j_point = (1.0 - R_SHARE) * qrs
    shapes = st_t_shapes(after, j_point, qrs, jt_peak, tail, shape)
    beat = heights[:, :, :1] * shapes[:, :1]
    for i in (1, 2):
        beat = beat + heights[:, :, i : i + 1] * shapes[:, i : i + 1]
    peak = j_point + jt_peak
    marks = TMarks(*(x.squeeze(-1) for x in (-R_SHARE * qrs, j_point, peak, peak + tail)))
    tau = torch.arange(-_READER, _READER + 1, dtype=torch.float32, device=qrs.device) * STEP_MS
    size = (heights[:, :, 2] * heights[:, :, 2]).sum(-1, keepdim=True).sqrt().clamp_min(1e-9)
    lead = (beat * (heights[:, :, 2] / size).unsqueeze(-1)).sum(1, keepdim=True)
    lead = smoothed(read_between(lead, (peak + tau) * (_RATE_HZ / 1000.0)), _READER, 0)
    return t_wave(beat, marks, _RATE_HZ, 0), summit(lead.squeeze(1), tau)[1]


def shape_t_wave(intervals: Intervals, morphology: Tensor, wanted: TWave) -> TShape:
    """The shape [B] with which ECGs of these intervals and wave heights [B, 8, W] measure the T wave wanted.

    A NaN among `wanted` leaves that measure open.

    Raises:
        ValueError: an amplitude, a duration or a flatness wanted is not above 0, or an asymmetry is under 0.
    """
    for name, value in zip(TWave._fields, wanted, strict=True):
        if bool((value < 0).any()) or (name != "asymmetry" and bool((value == 0).any())):
            raise ValueError(f"{name} wanted from {float(value.min()):g} must be above 0")
    heights = morphology[..., _ST : _ST + 3].to(torch.float32)
    low = torch.tensor(_LEAST, device=heights.device).log()
    high = torch.tensor(_MOST, device=heights.device).log()
    scale = torch.tensor(SCALE, device=heights.device)
    amplitude, *rest = (x.to(torch.float32) for x in wanted)
    target = torch.stack((*rest, _read(intervals, heights, None)[1]), dim=-1)
    unit = torch.ones_like(amplitude)

    def shape(x: Tensor, gain: Tensor = unit) -> TShape:
        return TShape(gain, *x.exp().unbind(-1))

    def misses(x: Tensor) -> Tensor:
        read, seen = _read(intervals, heights, shape(x))
        off = (torch.stack((*read[1:], seen), dim=-1) - target) / scale
        return torch.where(torch.isfinite(target), torch.nan_to_num(off, nan=99.0), torch.zeros_like(off))

    # Begun where the durations alone would put it.
    start = torch.stack((rest[2], unit, unit, 2.0 * (rest[3] / (0.4223 * intervals.tpeak_tend_ms)).clamp(0.7, 1.5)), -1)
    usual = torch.stack((0.2112 * intervals.jt_peak_ms, unit, unit, 2.0 * unit), -1)
    x = torch.where(torch.isfinite(start), start, usual).log().clamp(low, high)
    damping = torch.full_like(amplitude, _DAMPING[0])
    off = misses(x)
    for _ in range(_ROUNDS):
        slope = torch.stack(
            [(misses(x + step) - off) / _STEP for step in torch.eye(4, device=x.device) * _STEP], dim=-1
        )
        normal = torch.stack([(slope[:, :, i : i + 1] * slope).sum(1) for i in range(4)], dim=1)
        normal = normal + torch.eye(4, device=x.device) * damping[:, None, None]
        right = (slope * off.unsqueeze(-1)).sum(1).unsqueeze(-1)
        move = -solve(normal.double(), right.double()).squeeze(-1).to(x.dtype)
        tried = (x + move.clamp(-_LARGEST, _LARGEST)).clamp(low, high)
        then = misses(tried)
        better = (then * then).sum(-1) < (off * off).sum(-1)
        x, off = (torch.where(better.unsqueeze(-1), new, old) for new, old in ((tried, x), (then, off)))
        damping = (damping * torch.where(better, _DAMPING[1], _DAMPING[2])).clamp(1e-3, 1e6)
    drawn = _read(intervals, heights, shape(x))[0].amplitude_uv
    gain = torch.where(torch.isfinite(amplitude), amplitude / drawn, unit)
    return shape(x, gain)
