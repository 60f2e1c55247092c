"""An ECG from a beat's shape: decoded, warped to the chart's intervals, set beat after beat, twelve leads."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.waveform import R_SHARE, beat_samples, derive_twelve, tile
from world_models.ecg_wm import beats
from world_models.ecg_wm.beats import AT_R, RATE_HZ
from world_models.ecg_wm.readback import Readback
from world_models.ecg_wm.vae import BeatVAE
from world_models.protocol import Chart

__all__ = ["synthesise"]

SAMPLES, BEAT_SAMPLES = 5000, 801  # of the ECG, of one beat with its neighbourhood
HRV_MS = 20.0  # SD of RR intervals: a resting adult's within ten seconds (k)
ECGS_AT_ONCE = 64  # as many as stay near the cache


def synthesise(vae: BeatVAE, readback: Readback, shape: Tensor, key: Tensor, t: Tensor, chart: Chart) -> Tensor:
    """ECG [B, 12, 5000] mV of beat shape [B, morphology] on which a delineator reads the chart's intervals."""
    asked = readback.asked(shape, chart)
    ends = beats.piece_ends(asked["pr_ms"], asked["qrs_ms"], asked["jt_peak_ms"], asked["tpeak_tend_ms"])
    onset = AT_R - R_SHARE * asked["qrs_ms"] * (RATE_HZ / 1000)
    parts = []
    for rows in torch.arange(key.shape[0], device=key.device).split(ECGS_AT_ONCE):
        template = beats.from_canonical(vae.decode(shape[rows]), ends[rows], onset[rows], BEAT_SAMPLES, RATE_HZ)
        r_peaks = beat_samples(key[rows], t[rows], chart["heart_rate_bpm"][rows], hrv_ms=HRV_MS)
        parts.append(derive_twelve(tile(template, r_peaks, SAMPLES, AT_R)))
    return torch.cat(parts)
