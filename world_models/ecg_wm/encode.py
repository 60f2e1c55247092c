"""From a recorded ECG to what the model starts from: measure it, put its median beat on the canonical axis, encode."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.delineation.delineate import Delineation, delineate, median_beats
from world_models.ecg.intervals import jt_peak_scale, qt_scale
from world_models.ecg.waveform import R_SHARE
from world_models.ecg_wm import beats, latent
from world_models.ecg_wm.beats import RATE_HZ
from world_models.ecg_wm.vae import BeatVAE
from world_models.protocol import Chart

__all__ = ["canonical_beats", "latent_of", "read_chart"]

BEFORE_S, AFTER_S = 0.6, 1.0  # of the R peak: what is cut out of an ECG
FLAT_MV = 1e-3  # a lead that never leaves it was not recorded
# What stands in for an interval that the ECG does not have (no P wave, say): a resting adult's.
TYPICAL = {"heart_rate_bpm": 65.0, "pr_ms": 160.0, "qrs_ms": 95.0, "jt_peak_ms": 220.0, "tpeak_tend_ms": 85.0}


def canonical_beats(ecg_mv: Tensor, measured: Delineation) -> tuple[Tensor, Tensor, Tensor]:
    """Median beats of ECGs [B, 12, T] at 500 Hz: canonical [B, 8, 200] mV, leads seen [B, 8], samples seen [B, 200]."""
    whole = {name: _filled(getattr(measured, name), name) for name in TYPICAL}
    ends = beats.piece_ends(whole["pr_ms"], whole["qrs_ms"], whole["jt_peak_ms"], whole["tpeak_tend_ms"])
    beat = median_beats(ecg_mv, measured.r_samples, RATE_HZ, BEFORE_S, AFTER_S)
    onset = torch.nan_to_num(measured.qrs_onset_ms, nan=-R_SHARE * TYPICAL["qrs_ms"])  # ms from R
    canonical = beats.to_canonical(beat, ends, (BEFORE_S * 1000 + onset) * (RATE_HZ / 1000), RATE_HZ)
    lead_seen = beat.abs().amax(-1) > FLAT_MV
    return canonical, lead_seen, beats.valid_samples(ends, 60_000 / whole["heart_rate_bpm"])


def read_chart(vae: BeatVAE, chart: Chart) -> dict[str, Tensor]:
    """Factors from a chart with `ecg_mv` [B, 12, T] at 500 Hz: intervals and shape, and age, sex, weight if there.

    An interval that cannot be measured (PR without a P wave) becomes a resting adult's; a row that cannot be measured
    at all comes out typical throughout: look at `delineate(...).trusted` first.
    """
    measured = delineate(chart["ecg_mv"], RATE_HZ)
    mean, _ = vae.encode(*canonical_beats(chart["ecg_mv"], measured))
    whole = {name: _filled(getattr(measured, name), name) for name in TYPICAL}
    # QT is corrected by the RR before the beats it was read on, which premature beats set apart from the heart rate.
    rr = torch.where(measured.before_rr_ms.isnan(), 60.0 / whole["heart_rate_bpm"], measured.before_rr_ms / 1000.0)
    qt = whole["qrs_ms"] + whole["jt_peak_ms"] + whole["tpeak_tend_ms"]
    read = {
        "baseline_heart_rate_bpm": whole["heart_rate_bpm"],
        "baseline_pr_ms": whole["pr_ms"],
        "baseline_qrs_ms": whole["qrs_ms"],
        "baseline_qtcf_ms": qt / qt_scale(rr.log()),
        "baseline_tpeak_tend_ms": whole["tpeak_tend_ms"],
        "shape": mean,
    }
    for name in ("age_years", "sex_female", "weight_kg"):
        if name in chart:
            read[name] = chart[name]
    return read


def latent_of(ecg_mv: Tensor, chart: Chart, vae: BeatVAE) -> Tensor:
    """The latent (u, m) [B, 6 + morphology] of any world's ECGs, as this model's encoder sees them."""
    measured = delineate(ecg_mv, RATE_HZ)
    mean, _ = vae.encode(*canonical_beats(ecg_mv, measured))
    read = {
        name: _filled(getattr(measured, name), name) for name in ("heart_rate_bpm", "pr_ms", "qrs_ms", "tpeak_tend_ms")
    }
    rr = torch.where(measured.before_rr_ms.isnan(), 60.0 / read["heart_rate_bpm"], measured.before_rr_ms / 1000.0)
    read["jt_peak_c_ms"] = _filled(measured.jt_peak_ms, "jt_peak_ms") / jt_peak_scale(rr.log())
    read["arrhythmia_burden"] = chart["arrhythmia_burden"]
    return torch.cat([latent.standardise(read), mean], dim=-1)


def _filled(value: Tensor, name: str) -> Tensor:
    return torch.where(value.isnan(), torch.full_like(value, TYPICAL[name]), value)
