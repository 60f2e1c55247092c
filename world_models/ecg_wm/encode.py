"""From a recorded ECG to what the model starts from: measure it, put its median beat on the canonical axis, encode.

What the autoencoder cannot express of a recorded beat is kept beside its latent (`Recorded`), so that a recorded
patient keeps his own ECG.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.ecg.delineation.delineate import Delineation, delineate, median_beats
from world_models.ecg.delineation.waves import BEFORE
from world_models.ecg.intervals import jt_peak_scale, qt_scale
from world_models.ecg.recorded import in_fibrillation
from world_models.ecg.t_wave import TMarks, t_wave
from world_models.ecg.waveform import R_SHARE
from world_models.ecg_wm import beats, latent
from world_models.ecg_wm.beats import RATE_HZ
from world_models.ecg_wm.recorded import Recorded
from world_models.ecg_wm.t_measures import T_MEASURES
from world_models.ecg_wm.vae import BeatVAE
from world_models.protocol import Chart

__all__ = [
    "canonical_beats",
    "canonical_of",
    "latent_of",
    "marks_of",
    "read_chart",
    "recorded_beats",
    "recorded_of",
    "t_wave_of",
]

BEFORE_S, AFTER_S = 0.6, 1.0  # of the R peak: what is cut out of an ECG
EDGE = 6  # canonical samples over which a residual fades where beats overlap
FLAT_MV = 1e-3  # a lead that never leaves it was not recorded
# What stands in for an interval that the ECG does not have (no P wave, say): a resting adult's.
TYPICAL = {"heart_rate_bpm": 65.0, "pr_ms": 160.0, "qrs_ms": 95.0, "jt_peak_ms": 220.0, "tpeak_tend_ms": 85.0}


def canonical_beats(ecg_mv: Tensor, measured: Delineation) -> tuple[Tensor, Tensor, Tensor]:
    """Median beats of ECGs [B, 12, T] at 500 Hz: canonical [B, 8, SAMPLES] mV, leads seen [B, 8], samples seen."""
    beat = median_beats(ecg_mv, measured.r_samples, RATE_HZ, BEFORE_S, AFTER_S)
    return canonical_of(beat, measured)[:3]


def canonical_of(beat_mv: Tensor, measured: Delineation) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Median beats [B, 8, 800] (R at 300) on the canonical axis.

    Returns:
        canonical [B, 8, SAMPLES] mV, leads seen [B, 8], samples seen [B, SAMPLES], and the intervals [B] they were cut
        by: what was measured, else a resting adult's.
    """
    whole = {name: _filled(getattr(measured, name), name) for name in TYPICAL}
    ends = beats.piece_ends(whole["pr_ms"], whole["qrs_ms"], whole["jt_peak_ms"], whole["tpeak_tend_ms"])
    onset = torch.nan_to_num(measured.qrs_onset_ms, nan=-R_SHARE * TYPICAL["qrs_ms"])  # ms from R
    canonical = beats.to_canonical(beat_mv, ends, (BEFORE_S * 1000 + onset) * (RATE_HZ / 1000), RATE_HZ)
    lead_seen = beat_mv.abs().amax(-1) > FLAT_MV
    return canonical, lead_seen, beats.valid_samples(ends, 60_000 / whole["heart_rate_bpm"]), whole


def marks_of(measured: Delineation) -> TMarks:
    """The marks that T measures are read by."""
    return TMarks(measured.qrs_onset_ms, measured.qrs_offset_ms, measured.t_peak_ms, measured.t_end_ms)


def t_wave_of(measured: Delineation) -> Tensor:
    """T measures [B, 5] (`T_MEASURES`, chart units) of delineated ECGs, NaN where they cannot be read."""
    return torch.stack(t_wave(measured.median_beat, marks_of(measured), RATE_HZ, BEFORE), dim=-1)


def recorded_of(vae: BeatVAE, ecg_mv: Tensor, measured: Delineation) -> tuple[Tensor, Recorded]:
    """Latent shape [B, morphology] of recorded ECGs, and what of them the decoder leaves out.

    Leads that were not recorded, and samples where a beat overlaps its neighbours, leave nothing out: there the
    decoder's word stands.
    """
    beat = median_beats(ecg_mv, measured.r_samples, RATE_HZ, BEFORE_S, AFTER_S)
    return recorded_beats(vae, beat, measured, t_wave_of(measured))


def recorded_beats(vae: BeatVAE, beat_mv: Tensor, measured: Delineation, read: Tensor) -> tuple[Tensor, Recorded]:
    """As `recorded_of`, of median beats [B, 8, 800] with R at 300 and their T measures `read` [B, 5]."""
    canonical, leads, samples, whole = canonical_of(beat_mv, measured)
    mean, _ = vae.encode(canonical, leads, samples)
    # Fades over a few samples at the border of what stands alone, so that no step is drawn there.
    inside = F.pad(samples.to(mean.dtype).unsqueeze(1), (EDGE, EDGE), mode="replicate")
    inside = F.avg_pool1d(-F.max_pool1d(-inside, EDGE + 1, 1), EDGE + 1, 1).squeeze(1)
    left = (canonical - vae.shape(mean)) * inside.unsqueeze(1) * leads.unsqueeze(-1)
    known = measured.measurable.unsqueeze(-1).unsqueeze(-1)
    intervals = torch.stack([whole[n] for n in TYPICAL], dim=-1)
    return mean, Recorded(torch.where(known, left, torch.zeros_like(left)), read, intervals)


def read_chart(vae: BeatVAE, chart: Chart, known: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Factors from a chart with `ecg_mv` [B, 12, T] at 500 Hz: intervals, T measures, shape and residual of the beat,
    and age, sex, weight if there. Of them those among `known` (None: all).

    An interval that cannot be measured becomes a resting adult's; a row that cannot be measured at all comes out
    typical throughout: look at `delineate(...).trusted` first. What the ECG does not have is NaN
    (`world_models.inputs.admit` has it sampled): sinus rate and PR in fibrillation, the rate in fibrillation of one in
    sinus rhythm, T measures that cannot be read.
    """
    measured = delineate(chart["ecg_mv"], RATE_HZ)
    fibrillates = in_fibrillation(measured)
    mean, recorded = recorded_of(vae, chart["ecg_mv"], measured)
    whole = {name: _filled(getattr(measured, name), name) for name in TYPICAL}
    # QT is corrected by the RR before the beats it was read on, which premature beats set apart from the heart rate.
    rr = torch.where(measured.before_rr_ms.isnan(), 60.0 / whole["heart_rate_bpm"], measured.before_rr_ms / 1000.0)
    qt = whole["qrs_ms"] + whole["jt_peak_ms"] + whole["tpeak_tend_ms"]
    unknown = torch.full_like(qt, torch.nan)
    read = {
        "admission_fibrillation": fibrillates.to(torch.float32),
        "baseline_heart_rate_bpm": torch.where(fibrillates, unknown, whole["heart_rate_bpm"]),
        "baseline_fibrillation_rate_bpm": torch.where(fibrillates, whole["heart_rate_bpm"], unknown),
        "baseline_pr_ms": torch.where(fibrillates, unknown, whole["pr_ms"]),
        "baseline_qrs_ms": whole["qrs_ms"],
        "baseline_qtcf_ms": qt / qt_scale(rr.log()),
        "baseline_tpeak_tend_ms": whole["tpeak_tend_ms"],
        "shape": mean,
        "residual": recorded.residual,
    }
    read |= {f"baseline_{name}": recorded.t_wave[:, i] for i, name in enumerate(T_MEASURES)}
    for name in ("age_years", "sex_female", "weight_kg"):
        if name in chart:
            read[name] = chart[name]
    said = {name: value for name, value in read.items() if not bool(value.isnan().all())}
    return said if known is None else {name: said[name] for name in known if name in said}


def latent_of(ecg_mv: Tensor, chart: Chart, vae: BeatVAE) -> Tensor:
    """The latent (u, m) [B, COORDS + morphology] of any world's ECGs, as this model's encoder sees them.

    Coordinates that an ECG does not have, or that cannot be read on it, stand at their centre; burden and systolic
    pressure, which no ECG shows, are the chart's.
    """
    measured = delineate(ecg_mv, RATE_HZ)
    mean, _ = vae.encode(*canonical_beats(ecg_mv, measured))
    names = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qtcf_ms", "tpeak_tend_ms")
    read = {name: getattr(measured, name) for name in names}
    read |= dict(zip(T_MEASURES, t_wave_of(measured).unbind(-1), strict=True))
    rr = torch.where(measured.before_rr_ms.isnan(), 60.0 / measured.heart_rate_bpm, measured.before_rr_ms / 1000.0)
    read["jt_peak_c_ms"] = measured.jt_peak_ms / jt_peak_scale(rr.log())
    read["atrial_fibrillation"] = in_fibrillation(measured).to(torch.float32)
    read |= {name: chart[name] for name in ("arrhythmia_burden", "systolic_bp_mmhg") if name in chart}
    u = latent.standardise(read)
    return torch.cat([torch.where(u.isnan(), 0.0, u), mean], dim=-1)


def _filled(value: Tensor, name: str) -> Tensor:
    return torch.where(value.isnan(), torch.full_like(value, TYPICAL[name]), value)
