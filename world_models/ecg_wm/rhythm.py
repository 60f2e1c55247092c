"""The rhythm of an ECG that is drawn: when beats come, and what the atria do besides."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg.fibrillation import fibrillation_beats, fibrillation_waves
from world_models.ecg.waveform import beat_samples
from world_models.ecg_wm.beats import LEAD_COUNT, RATE_HZ
from world_models.protocol import Chart

__all__ = ["Rhythm", "drawable", "rhythm_of"]

SECONDS = 10.0
HRV_MS = 20.0  # SD of RR intervals in sinus rhythm: a resting adult's within ten seconds (k)
NO_PR_MS = 160.0  # of the drawing where there is no P to draw


class Rhythm(NamedTuple):
    """Of B ECGs."""

    r_samples: Tensor  # int64 [B, K], rising R peaks
    p_scale: Tensor | None  # [B] what is left of the P wave, 0 in fibrillation; None: all of everybody's
    atrial_mv: Tensor | None  # [B, 8, samples] f waves; None: nobody has any


def rhythm_of(key: Tensor, t: Tensor, heart_rate_bpm: Tensor, fibrillating: Tensor) -> Rhythm:
    """Sinus rhythm of these rates [B], or fibrillation where `fibrillating` [B] is true; key and t int64 [B]."""
    r_samples = beat_samples(key, t, heart_rate_bpm, hrv_ms=HRV_MS)
    rows = fibrillating.nonzero().squeeze(-1)
    if not len(rows):
        return Rhythm(r_samples, None, None)
    theirs = fibrillation_beats(key[rows], t[rows], heart_rate_bpm[rows], r_samples.shape[1])
    samples = round(SECONDS * RATE_HZ)
    atrial = torch.zeros(len(key), LEAD_COUNT, samples, device=key.device)
    atrial[rows] = fibrillation_waves(key[rows], t[rows], samples, RATE_HZ)
    return Rhythm(r_samples.index_copy(0, rows, theirs), 1.0 - fibrillating.to(torch.float32), atrial)


def drawable(chart: Chart) -> Chart:
    """The chart with a PR for the drawing where there is none."""
    return {**chart, "pr_ms": torch.nan_to_num(chart["pr_ms"], nan=NO_PR_MS)}
