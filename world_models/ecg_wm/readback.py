"""Readback: what to ask of a beat so that a delineator reads what the chart says.

A beat has its marks where it was told to put them, but a delineator finds them where the waves say: a smooth T wave
peaks before its anchor, a flat P wave starts late, and a T wave is bent to the form asked for within what the bender
learned. How far off depends on the beat and on what is asked, and is learned from ECGs that were delineated, in rounds:
each synthesises ECGs under the correction so far and adds what is still missing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_models.constants import constant
from world_models.ecg_wm.beats import LEAD_COUNT, SAMPLES
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.t_bend import T_MEASURES, standardised
from world_models.nn.mlp import mlp
from world_models.protocol import Chart

__all__ = ["FEATURES", "LIMITS", "PART", "READ", "Asked", "Readback", "corrected", "t_wave_asked"]

INTERVALS = ("pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")
READ = (*INTERVALS, *T_MEASURES)  # what is corrected
FEATURES = ("heart_rate_bpm", *INTERVALS)
# Round numbers near the training beats' middle and spread, bpm and ms: they only set the scale the network sees.
CENTRE = (75.0, 170.0, 100.0, 240.0, 90.0)
SCALE = (20.0, 40.0, 20.0, 50.0, 25.0)
# A correction never exceeds it: beyond, a delineator has read another wave. ms; of the amplitude, its logarithm.
LIMITS = (20.0, 20.0, 20.0, 20.0, 0.4, 0.4, 0.12, 20.0, 12.0)
FINEST = 4  # canonical samples that the network sees as one
# T measures stay within the chart's bounds when corrected.
_LEAST, _MOST = (20.0, 0.0, 0.02, 4.0, 4.0), (3000.0, 3.0, 0.98, 250.0, 200.0)

# Which of the three parts of a beat (P, QRS, T) each of READ belongs to.
PART = (0, 1, 2, 2, 2, 2, 2, 2, 2)

Asked = tuple[dict[str, Tensor], Tensor | None]  # intervals [B] in ms, T measures [B, 5] in chart units


def t_wave_asked(chart: Chart) -> Tensor | None:
    """T measures [B, 5] of a chart, or None where it has none: beats then keep their own."""
    if any(name not in chart for name in T_MEASURES):
        return None
    return torch.stack([chart[name] for name in T_MEASURES], dim=-1)


def corrected(t_wave: Tensor, by: Tensor) -> Tensor:
    """T measures [B, 5] moved by [B, 5]: the amplitude by a factor's logarithm, the others by a sum; within bounds."""
    moved = torch.cat([t_wave[:, :1] * by[:, :1].exp(), t_wave[:, 1:] + by[:, 1:]], dim=-1)
    low, high = (constant(row, moved.device, moved.dtype) for row in (_LEAST, _MOST))
    return torch.minimum(torch.maximum(moved, low), high)


class Readback(nn.Module):
    """Correction of what beats are asked for."""

    def __init__(self, config: ECGWorldConfig):
        super().__init__()
        width = config.readback_width
        seen = LEAD_COUNT * (SAMPLES // FINEST) + 1
        self.network = mlp((seen + len(FEATURES) + len(T_MEASURES) + 1, width, width, len(READ)), zero_last=True)

    @staticmethod
    def coarse(canonical_mv: Tensor) -> Tensor:
        """What is looked at of canonical beats [B, 8, SAMPLES]: [B, 8 * SAMPLES / FINEST] mV."""
        return F.avg_pool1d(canonical_mv, FINEST).flatten(1)

    def forward(self, coarse: Tensor, intervals: Tensor, t_wave: Tensor | None) -> Tensor:
        """Corrections [B, 9] to READ, in ms, but the amplitude's logarithm, and scores.

        Args:
            coarse: of the beat before it is bent, see `coarse`.
            intervals: [B, 5] FEATURES asked for.
            t_wave: [B, 5] asked for in chart units, or None where the beat keeps its own.
        """
        centre, scale = (constant(row, intervals.device, intervals.dtype) for row in (CENTRE, SCALE))
        size = coarse.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-3)
        asks = torch.zeros_like(intervals[:, :5]) if t_wave is None else torch.nan_to_num(standardised(t_wave))
        is_asked = torch.full_like(size, float(t_wave is not None))
        given = [coarse / size, size.log(), (intervals - centre) / scale, asks, is_asked]
        limits = constant(LIMITS, intervals.device, intervals.dtype)
        return limits * torch.tanh(self.network(torch.cat(given, dim=-1)))

    def asked(self, canonical_mv: Tensor, chart: Chart, share: Tensor | None = None) -> Asked:
        """Intervals [B] and T measures [B, 5] as the beat must be asked for them; `share` [B, 3] of the
        correction of P, QRS and T (None: all)."""
        t_wave = t_wave_asked(chart)
        intervals = torch.stack([chart[n] for n in FEATURES], dim=-1)
        by = self(self.coarse(canonical_mv), intervals, t_wave)
        if share is not None:
            by = by * share[:, PART]
        moved = {name: chart[name] + by[:, i] for i, name in enumerate(INTERVALS)}
        return moved, None if t_wave is None else corrected(t_wave, by[:, len(INTERVALS) :])
