"""Readback: what to ask of the decoder so that a delineator reads what the chart says.

A decoded beat has its fiducials where the decoder was told to put them, but a delineator finds them where the waves
say: a smooth T wave peaks before its anchor, a flat P wave starts late. How far off depends on the beat's shape and
the intervals, and is learned from decoded ECGs that were delineated, in rounds: each synthesises ECGs under the
correction so far and adds what is still missing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models.constants import constant
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.nn.mlp import mlp
from world_models.protocol import Chart

__all__ = ["READ", "Readback"]

READ = ("pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")  # what is corrected
FEATURES = ("heart_rate_bpm", *READ)
# Round numbers near the training beats' middle and spread, bpm and ms: they only set the scale the network sees.
CENTRE = (75.0, 170.0, 100.0, 240.0, 90.0)
SCALE = (20.0, 40.0, 20.0, 50.0, 25.0)
LIMIT_MS = 20.0  # a correction never exceeds it: beyond, a delineator has read another wave


class Readback(nn.Module):
    """Correction of the decoder's intervals."""

    def __init__(self, config: ECGWorldConfig):
        super().__init__()
        width = config.readback_width
        self.network = mlp((len(FEATURES) + config.morphology, width, width, len(READ)), zero_last=True)

    def forward(self, shape: Tensor, intervals: Tensor) -> Tensor:
        """Corrections [B, 4] in ms to READ, for beat shapes [B, morphology] and FEATURES [B, 5]."""
        centre, scale = (constant(row, intervals.device, intervals.dtype) for row in (CENTRE, SCALE))
        scaled = (intervals - centre) / scale
        return LIMIT_MS * torch.tanh(self.network(torch.cat([scaled, shape], dim=-1)) / LIMIT_MS)

    def asked(self, shape: Tensor, chart: Chart) -> Chart:
        """READ [B] in ms as the decoder must be asked for them."""
        correction = self(shape, torch.stack([chart[n] for n in FEATURES], dim=-1))
        return {name: chart[name] + correction[:, i] for i, name in enumerate(READ)}
