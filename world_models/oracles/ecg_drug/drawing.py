"""The oracle's ECG: intervals and T wave are read off it as they stand in the chart, on the patient's own beat."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.as_read import drawn_as_asked
from world_models.ecg.beat_axis import SAMPLES
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.t_wave import TWave
from world_models.ecg.waveform import WAVES, Intervals, synthesise_ecg
from world_models.protocol import Chart
from world_models.quantity import Quantity

__all__ = ["MORPHOLOGY", "RESIDUAL", "draw_ecg", "t_wave_of"]

_LEADS = len(INDEPENDENT_LEADS)
MORPHOLOGY = Quantity(
    "morphology", "mV", -20.0, 20.0, (_LEADS, len(WAVES)), "amplitude of each wave of the beat in eight leads"
)
RESIDUAL = Quantity(
    "residual_mv",
    "mV",
    -20.0,
    20.0,
    (_LEADS, SAMPLES),
    "what the waves do not express of a recorded beat, in its own time",
)
_CHARTED = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")  # in the order of TWave
_NO_PR_MS = 160.0  # of the drawing where there is no P to draw
_ROWS = 512  # ECGs shaped and drawn at once


def t_wave_of(chart: Chart) -> TWave | None:
    """The T wave of a chart; None where it has none of its measures."""
    return TWave(*(chart[name] for name in _CHARTED)) if all(name in chart for name in _CHARTED) else None


def draw_ecg(
    key: Tensor,
    t: Tensor,
    chart: Chart,
    morphology: Tensor,
    residual: Tensor,
    *,
    hrv_ms: float = 20.0,
    noise_uv: float = 0.0,
    wander_uv: float = 0.0,
) -> Tensor:
    """12-lead ECGs [B, 12, 5000] in mV with the chart's intervals, T wave and rhythm.

    Args:
        key, t: int64 [B].
        chart: with the intervals, `atrial_fibrillation`, and the T wave's measures where the world has them.
        morphology: wave heights [B, 8, W] in mV.
        residual: [B, 8, 200] mV on the canonical axis; [B, 8, 0] where no beat was recorded.
        hrv_ms, noise_uv, wander_uv: see `waveform.synthesise_ecg`.
    """
    wanted = t_wave_of(chart)
    parts = []
    for rows in torch.arange(key.shape[0], device=key.device).split(_ROWS):
        pr = torch.nan_to_num(chart["pr_ms"][rows], nan=_NO_PR_MS)
        rest = {n: chart[n][rows] for n in Intervals._fields if n != "pr_ms"}
        asked = None if wanted is None else TWave(*(x[rows] for x in wanted))
        kept = residual[rows]
        recorded = kept if kept.shape[-1] else None
        drawn = drawn_as_asked(Intervals(pr_ms=pr, **rest), morphology[rows], asked, recorded)
        ecg = synthesise_ecg(
            key[rows],
            t[rows],
            drawn.intervals,
            morphology[rows],
            hrv_ms=hrv_ms,
            noise_uv=noise_uv,
            wander_uv=wander_uv,
            t_shape=drawn.t_shape,
            residual=recorded,
            fibrillating=chart["atrial_fibrillation"][rows] > 0,
        )
        parts.append(ecg)
    return torch.cat(parts) if parts else key.new_zeros(0, 12, 5000, dtype=torch.float32)
