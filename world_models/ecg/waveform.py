"""Batched 12-lead ECGs whose intervals are exact by construction.

One beat is a sum of waves, each a fixed shape placed by the intervals and scaled by an amplitude per lead:

- P: a Gaussian of sigma = P duration / 4 that starts two sigma before its centre: the tangent at its steepest point
  meets the baseline there. In V1 (and only there) a biphasic part may be added, its width chosen for the same onset.
- QRS: eight Gaussians side by side under a taper that is zero outside exactly `qrs_ms`.
- T: an asymmetric Gaussian with right sigma = Tpeak-Tend / 2, so that the tangent at one sigma meets the baseline
  two sigma after the peak: the tangent's T end is the one asked for. Its left flank is brought to zero at the J point.
- ST: a level reached at the J point that dies out with zero slope at the T peak, and a bend between J and T peak. Both
  are in `st_t.py`, which also bends them.

(The Gaussian sum is the closed solution of McSharry's dynamical model, doi 10.1109/TBME.2003.808805, noted by Sameni
2007, doi 10.1155/2007/43407; see `mcsharry.py`.) Eight leads are synthesised, four derived, so Einthoven's law holds.

Within one ECG every beat is the same template, moved to the beat's R sample and added to its neighbours; heart-rate
variability moves beats and changes no interval. Only elementwise operations and gathers: row i of a batch is bit for
bit what the same row alone gives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg import beat_axis
from world_models.ecg.beat_axis import p_duration_ms
from world_models.ecg.beat_train import POST_MS, PRE_MS, add_rows, as_column, beat_samples, tile
from world_models.ecg.derived_leads import INDEPENDENT, add_independent, derive_limb
from world_models.ecg.fibrillation import fibrillation_beats, fibrillation_waves
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.st_t import ST_RISE, smoothstep, st_t_shapes
from world_models.ecg.t_bend import TShape, bent_st_t, own_place, own_st_t, unbent

__all__ = [
    "WAVES",
    "Fiducials",
    "Intervals",
    "beat_samples",
    "beat_template",
    "synthesise_ecg",
    "p_duration_ms",
    "p_stretch",
    "qrs_stretch",
    "sample_times_ms",
    "samples_before_r",
    "tile",
    "true_fiducials",
    "wave_basis",
]

WAVES = ("P", "P_biphasic", *(f"QRS_{i}" for i in range(1, 9)), "ST", "ST_T", "T")

QRS_STRETCH_MS = 180.0  # that `qrs_stretch` reaches to either side of R
P_STRETCH_MS, P_STEP_MS = 480.0, 4.0  # that `p_stretch` reaches before R, and its steps
R_SHARE = 0.42  # R's place within the QRS: onset at -0.42 qrs, J point at +0.58 qrs
_BIPHASIC = 2.0 / (1.5 * math.sqrt(3.0))  # the tangent of -u exp(-u^2/2) meets zero at u = -1.5 sqrt(3), not -2
_P, _QRS, _ST_T = range(0, 2), range(2, 10), range(10, 13)  # columns of WAVES
_QRS_CENTRES = tuple(0.1 + 0.8 * i / 7 for i in range(8))  # shares of the QRS
_QRS_SIGMA = 0.06
_QRS_EDGE = 0.09  # share of the QRS over which the taper rises, and falls
_P_REACH = 4.0
_QRS_PRE_MS, _QRS_POST_MS = 110.0, 150.0  # the stretch of the window in which the QRS is computed (QRS <= 258 ms)
_UP_MS = 60.0  # over which what is kept of a recorded beat sets in
_CHUNK = {"cpu": 64}  # ECGs synthesised at once: on a CPU 10 MB of eight leads stay near the cache
_CHUNK_ELSEWHERE = 1024


class Intervals(NamedTuple):
    """What one ECG must measure; each [B], float32. qt_ms = qrs_ms + jt_peak_ms + tpeak_tend_ms, always."""

    heart_rate_bpm: Tensor
    pr_ms: Tensor  # P onset to QRS onset
    qrs_ms: Tensor
    qt_ms: Tensor
    jt_peak_ms: Tensor  # J point (QRS end) to T peak
    tpeak_tend_ms: Tensor

    @classmethod
    def of(
        cls, heart_rate_bpm: Tensor, pr_ms: Tensor, qrs_ms: Tensor, jt_peak_ms: Tensor, tpeak_tend_ms: Tensor
    ) -> Intervals:
        """The intervals with QT as the sum of its parts."""
        return cls(heart_rate_bpm, pr_ms, qrs_ms, qrs_ms + jt_peak_ms + tpeak_tend_ms, jt_peak_ms, tpeak_tend_ms)


class Fiducials(NamedTuple):
    """Where the waves of each beat start, peak and end, in samples (not rounded); each [B, K], float32."""

    p_onset: Tensor
    p_peak: Tensor
    p_offset: Tensor
    qrs_onset: Tensor
    r: Tensor
    qrs_offset: Tensor
    t_peak: Tensor
    t_offset: Tensor


def samples_before_r(sampling_rate_hz: float) -> int:
    """How many samples of a beat lie before R."""
    return int(PRE_MS / (1000.0 / sampling_rate_hz))


def _grid(sampling_rate_hz: float, device: torch.device | str) -> tuple[Tensor, int]:
    """Times [L] in ms about R, and the index of R."""
    step = 1000.0 / sampling_rate_hz
    before, after = samples_before_r(sampling_rate_hz), int(POST_MS / step)
    return torch.arange(-before, after + 1, dtype=torch.float32, device=device) * step, before


def sample_times_ms(sampling_rate_hz: float = 500.0, device: torch.device | str = "cpu") -> Tensor:
    """Times [L] in ms about R of the samples of `beat_template` and `wave_basis`."""
    return _grid(sampling_rate_hz, device)[0]


def _pieces(intervals: Intervals, sampling_rate_hz: float) -> tuple[list[tuple[int, int, range, Tensor]], int]:
    """The waves by the stretch of the window they live in: (start, stop, wave columns, shapes [B, n, stop - start])."""
    grid, at_r = _grid(sampling_rate_hz, intervals.pr_ms.device)
    length = grid.shape[0]
    _, pr, qrs, _, jt_peak, tpeak_tend = (x.to(torch.float32).unsqueeze(-1) for x in intervals)
    onset = -R_SHARE * qrs
    j_point = onset + qrs

    pieces = [(0, at_r, _P, torch.stack(_p_shapes(grid[:at_r], onset, pr), dim=1))]

    step = 1000.0 / sampling_rate_hz
    first, last = max(at_r - int(_QRS_PRE_MS / step), 0), min(at_r + int(_QRS_POST_MS / step) + 1, length)
    pieces.append((first, last, _QRS, _qrs_shapes(grid[first:last], onset, qrs)))

    pieces.append((at_r, length, _ST_T, st_t_shapes(grid[at_r:], j_point, qrs, jt_peak, tpeak_tend)))
    return pieces, length


def _p_shapes(grid: Tensor, onset: Tensor, pr: Tensor) -> tuple[Tensor, Tensor]:
    """P and its biphasic part at unit height, [B, L] each, at times [L] ms from R; QRS onset and PR [B, 1] ms."""
    duration = p_duration_ms(pr)
    u = (grid - (onset - pr + 0.5 * duration)) / (0.25 * duration)
    v = u / _BIPHASIC
    inside = u.abs() <= _P_REACH
    return torch.exp(-0.5 * u * u) * inside, -v * torch.exp(0.5 - 0.5 * v * v) * inside


def _qrs_shapes(grid: Tensor, onset: Tensor, qrs: Tensor) -> Tensor:
    """The QRS's waves at unit height [B, 8, L] at times [L] ms from R; onset and duration [B, 1] ms."""
    x = (grid - onset) / qrs
    taper = smoothstep(x / _QRS_EDGE) * smoothstep((1.0 - x) / _QRS_EDGE)
    centres = torch.tensor(_QRS_CENTRES, dtype=torch.float32, device=grid.device)
    d = (x.unsqueeze(1) - centres.unsqueeze(-1)) / _QRS_SIGMA
    return torch.exp(-0.5 * d * d) * taper.unsqueeze(1)


def wave_basis(intervals: Intervals, sampling_rate_hz: float = 500.0) -> Tensor:
    """The waves at unit height, [B, W, L]: a beat is their sum weighted by the morphology. What a fit needs."""
    pieces, length = _pieces(intervals, sampling_rate_hz)
    basis = pieces[0][3].new_zeros(pieces[0][3].shape[0], len(WAVES), length)
    for start, stop, columns, shapes in pieces:
        basis[:, columns[0] : columns[-1] + 1, start:stop] = shapes
    return basis


def beat_template(
    intervals: Intervals,
    morphology: Tensor | None,
    sampling_rate_hz: float = 500.0,
    t_shape: TShape | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Isolated beats in mV, [B, 8, L] (leads `INDEPENDENT_LEADS`), from 0.6 s before R to 1.0 s after.

    Args:
        morphology: [B, 8, W] the height in mV of every wave (`WAVES`) in every independent lead; None: no waves, the
            residual is the beat.
        t_shape: bends and scales ST and T (`t_synthesis.shape_t_wave` finds the one that measures what is asked for).
        residual: [B, 8, 200] mV on the canonical axis, what the waves do not express of a recorded beat.
    """
    own = t_shape is not None or residual is not None
    count, device = intervals.pr_ms.shape[0], intervals.pr_ms.device
    if morphology is None:
        if residual is None:
            raise ValueError("neither morphology nor residual is given: there is no beat to draw")
        grid, at_r = _grid(sampling_rate_hz, device)
        beat = residual.new_zeros(count, len(INDEPENDENT_LEADS), grid.shape[0])
        shape = unbent(count, device) if t_shape is None else t_shape
        _add_own(beat, grid, at_r, 1000.0 / sampling_rate_hz, intervals, None, shape, residual)
        return beat
    pieces, length = _pieces(intervals, sampling_rate_hz)
    beat = morphology.new_zeros(count, len(INDEPENDENT_LEADS), length)
    for start, stop, columns, shapes in pieces:
        if own and columns is _ST_T:  # past the J point the table's
            continue
        part = beat[:, :, start:stop]
        for i, column in enumerate(columns):
            # A product and a sum, not one fused operation: whether that rounds once or twice depends on the layout.
            part += morphology[:, :, column].unsqueeze(-1) * shapes[:, i].unsqueeze(1)
    if own:
        shape = unbent(count, device) if t_shape is None else t_shape
        grid, at_r = _grid(sampling_rate_hz, beat.device)
        _add_own(beat, grid, at_r, 1000.0 / sampling_rate_hz, intervals, morphology, shape, residual)
    return beat


def _add_own(
    beat: Tensor,
    grid: Tensor,
    at_r: int,
    step_ms: float,
    intervals: Intervals,
    morphology: Tensor | None,
    shape: TShape,
    residual: Tensor | None,
) -> None:
    """Adds ST and T from the table of the beat's own, bent, and the residual before them, to `beat` [B, 8, L].

    grid: [L] times in ms about R, 0 at `at_r`, `step_ms` apart.
    """
    _, pr, qrs, _, jt_peak, tail = (x.to(torch.float32).unsqueeze(-1) for x in intervals)
    onset = -R_SHARE * qrs
    j_point = onset + qrs
    after = grid[at_r:]
    heights = None if morphology is None else morphology[:, :, _ST_T.start : _ST_T.stop]
    st_t = bent_st_t(own_st_t(heights, residual), own_place(after, j_point, jt_peak, tail, shape), shape.gain)
    past_j = (after >= j_point).unsqueeze(1)
    if heights is None:
        beat[:, :, at_r:] += st_t * past_j
    else:  # up to the J point the ST level rises with the QRS
        rise = smoothstep((after - j_point) / (ST_RISE * qrs) + 1.0).unsqueeze(1) * heights[:, :, :1]
        beat[:, :, at_r:] += torch.where(past_j, st_t, rise)
    if residual is not None:
        early = min(at_r + int(_QRS_POST_MS / step_ms) + 1, grid.shape[0])
        beat[:, :, :early] += _before_j(grid[:early], intervals, residual)


def _before_j(grid: Tensor, intervals: Intervals, residual: Tensor) -> Tensor:
    """The residual up to the J point at the times `grid` [L] ms about R: [B, 8, L] mV."""
    _, pr, qrs, _, jt_peak, tail = (x.to(torch.float32).unsqueeze(-1) for x in intervals)
    onset = -R_SHARE * qrs
    ends = beat_axis.piece_ends(*(x.squeeze(-1) for x in (pr, qrs, jt_peak, tail)))
    from_onset = grid - onset
    before = beat_axis.curved(residual, beat_axis.places(ends, from_onset, before_j=True))
    # Before the axis begins, half a P wave before P, it comes up from nothing.
    share = smoothstep((from_onset - ends[:, :1]) / _UP_MS + 1.0) * (grid < onset + qrs)
    return before * share.unsqueeze(1)


def p_stretch(intervals: Intervals, morphology: Tensor | None, residual: Tensor) -> Tensor:
    """What comes before R of beats with a residual, every `P_STEP_MS` from `P_STRETCH_MS` on to R, [B, 8, L] mV."""
    grid = torch.arange(-int(P_STRETCH_MS / P_STEP_MS), 1, dtype=torch.float32, device=residual.device) * P_STEP_MS
    beat = _before_j(grid, intervals, residual)
    if morphology is not None:
        _, pr, qrs, *_ = (x.to(torch.float32).unsqueeze(-1) for x in intervals)
        for i, shape in zip(_P, _p_shapes(grid, -R_SHARE * qrs, pr), strict=True):
            beat += morphology[:, :, i].unsqueeze(-1) * shape.unsqueeze(1)
    return beat


def qrs_stretch(intervals: Intervals, morphology: Tensor | None, residual: Tensor | None = None) -> Tensor:
    """QRS, ST and what follows, without P, every 2 ms from `QRS_STRETCH_MS` before R to as much after, [B, 8, L] mV."""
    step = 2.0
    reach = int(QRS_STRETCH_MS / step)
    device = intervals.qrs_ms.device
    grid = torch.arange(-reach, reach + 1, dtype=torch.float32, device=device) * step
    count = intervals.qrs_ms.shape[0]
    beat = torch.zeros(count, len(INDEPENDENT_LEADS), grid.shape[0], device=device)
    if morphology is None:
        _add_own(beat, grid, reach, step, intervals, None, unbent(count, device), residual)
        return beat
    qrs = intervals.qrs_ms.to(torch.float32).unsqueeze(-1)
    shapes = _qrs_shapes(grid, -R_SHARE * qrs, qrs)
    for i, column in enumerate(_QRS):
        beat += morphology[:, :, column].unsqueeze(-1) * shapes[:, i].unsqueeze(1)
    _add_own(beat, grid, reach, step, intervals, morphology, unbent(count, device), residual)
    return beat


def _wander(key: Tensor, t: int | Tensor, samples: int, sampling_rate_hz: float) -> Tensor:
    """Baseline wander of unit standard deviation over time, [B, 8, T]: three sinusoids of 0.15 to 0.5 Hz."""
    u = keys.uniform(key, t, "wander", (3,))
    phases = keys.uniform(key, t, "wander_phase", (8, 3)) * (2.0 * math.pi)
    gains = keys.normal(key, t, "wander_gain", (8, 3)) * math.sqrt(2.0 / 3.0)
    across, along = gains * torch.sin(phases), gains * torch.cos(phases)
    seconds = torch.arange(samples, dtype=torch.float32, device=key.device) / sampling_rate_hz
    out = torch.zeros(key.shape[0], 8, samples, device=key.device)
    for i in range(3):
        angle = (2.0 * math.pi * (0.15 + 0.35 * u[:, i : i + 1])) * seconds
        out += along[:, :, i : i + 1] * torch.sin(angle).unsqueeze(1)
        out += across[:, :, i : i + 1] * torch.cos(angle).unsqueeze(1)
    return out


def _without_p(parts: Tensor | None, rows: Tensor) -> Tensor | None:
    """Wave heights [B, 8, W] or a residual [B, 8, 200] with what comes before the QRS taken out of some rows."""
    if parts is None:
        return None
    before = _QRS.start if parts.shape[-1] == len(WAVES) else beat_axis.QRS_START
    parts = parts.clone()
    parts[rows, :, :before] = 0.0
    return parts


def _is_off(value: float | Tensor) -> bool:
    return not isinstance(value, Tensor) and value == 0.0


def synthesise_ecg(
    key: Tensor,
    t: int | Tensor,
    intervals: Intervals,
    morphology: Tensor | None,
    *,
    seconds: float = 10.0,
    sampling_rate_hz: float = 500.0,
    hrv_ms: float | Tensor = 20.0,
    noise_uv: float | Tensor = 0.0,
    wander_uv: float | Tensor = 0.0,
    t_shape: TShape | None = None,
    residual: Tensor | None = None,
    fibrillating: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """12-lead ECGs in mV, float32 [B, 12, seconds * sampling_rate_hz], standard lead order.

    Args:
        key, t: the patients' keys [B] and the step: the random stream of R positions, noise and wander.
        intervals: what the ECG must measure.
        morphology: heights in mV [B, 8, W] of the waves in the independent leads; None: the residual is the beat.
        hrv_ms: standard deviation of RR; a number or [B].
        noise_uv: standard deviation of the sample noise of the independent leads; a number or [B].
        wander_uv: standard deviation of the baseline wander; a number or [B].
        t_shape: [B, ...] each, how ST and T are bent and scaled; None: as drawn.
        residual: [B, 8, 200] mV on the canonical axis, what the waves do not express of a recorded beat; None: nothing.
        fibrillating: bool [B], whose atria fibrillate: irregular RR, f waves and no P; None: nobody's.
        out: where to write them.
    """
    batch, samples = key.shape[0], int(round(seconds * sampling_rate_hz))
    if out is None:
        out = torch.empty(batch, 12, samples, dtype=torch.float32, device=key.device)
    at_r = _grid(sampling_rate_hz, key.device)[1]
    chunk = _CHUNK.get(key.device.type, _CHUNK_ELSEWHERE)
    for start in range(0, batch, chunk):
        rows = slice(start, min(start + chunk, batch))

        def part(value, rows=rows):
            return value[rows] if isinstance(value, Tensor) and value.ndim else value

        k, when = key[rows], part(t)
        chosen = Intervals(*(x[rows] for x in intervals))
        bent = None if t_shape is None else TShape(*(x[rows] for x in t_shape))
        r = beat_samples(
            k, when, chosen.heart_rate_bpm, seconds=seconds, sampling_rate_hz=sampling_rate_hz, hrv_ms=part(hrv_ms)
        )
        heights, kept = part(morphology), part(residual)
        waving = fibrillating[rows].nonzero().squeeze(-1) if fibrillating is not None else r.new_zeros(0)
        if len(waving):
            heights, kept = _without_p(heights, waving), _without_p(kept, waving)
            them = k[waving], when[waving] if isinstance(when, Tensor) and when.ndim else when
            rate = chosen.heart_rate_bpm[waving]
            theirs = fibrillation_beats(*them, rate, r.shape[1], seconds=seconds, sampling_rate_hz=sampling_rate_hz)
            r = r.index_copy(0, waving, theirs)
        few = out[rows]
        tile(beat_template(chosen, heights, sampling_rate_hz, bent, kept), r, samples, at_r, few, INDEPENDENT)
        if len(waving):
            waves = fibrillation_waves(*them, samples, sampling_rate_hz)
            for own, its in zip(INDEPENDENT, waves.split((2, 6), dim=1), strict=True):
                add_rows(few[:, own], waving, its)
        if not _is_off(noise_uv):
            add_independent(few, keys.noise(k, when, "ecg_noise", (8, samples)), as_column(part(noise_uv), k))
        if not _is_off(wander_uv):
            add_independent(few, _wander(k, when, samples, sampling_rate_hz), as_column(part(wander_uv), k))
        derive_limb(few)
    return out


def true_fiducials(intervals: Intervals, r_samples: Tensor, sampling_rate_hz: float = 500.0) -> Fiducials:
    """Where every wave of every beat lies, in samples: from intervals [B] and R samples [B, K]. For judging only."""
    per_ms = sampling_rate_hz / 1000.0
    _, pr, qrs, _, jt_peak, tpeak_tend = (x.to(torch.float32).unsqueeze(-1) * per_ms for x in intervals)
    duration = p_duration_ms(intervals.pr_ms.to(torch.float32)).unsqueeze(-1) * per_ms
    r = r_samples.to(torch.float32)
    qrs_onset = r - R_SHARE * qrs
    p_onset = qrs_onset - pr
    j_point = qrs_onset + qrs
    t_peak = j_point + jt_peak
    return Fiducials(
        p_onset, p_onset + 0.5 * duration, p_onset + duration, qrs_onset, r, j_point, t_peak, t_peak + tpeak_tend
    )
