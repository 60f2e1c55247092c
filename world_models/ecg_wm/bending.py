"""A canonical beat's T wave bent as `ecg.t_bend` bends any: at random, to vary a beat, or to the measures asked for.

`asked_for` passes gradients on to what is asked, without differentiating the search that found the bend: where the
search ends, the bend follows the measures asked for by the inverse of how the measures follow the bend (the implicit
function theorem).
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.beat_axis import J_POINT, PIECES, SAMPLES
from world_models.ecg.t_bend import TShape, bent_st_t, own_place, own_st_t
from world_models.ecg.t_synthesis import bend_for
from world_models.ecg.t_wave import TWave
from world_models.ecg.waveform import Intervals

__all__ = ["asked_for", "bent"]


def bent(canonical_mv: Tensor, shape: TShape, jt_peak_ms: Tensor, tpeak_tend_ms: Tensor) -> Tensor:
    """Canonical beats [B, 8, SAMPLES] mV with their T waves bent at these intervals [B] ms; the rest stays bit for bit.

    Differentiable with respect to the beats and the shape.
    """
    steps = torch.arange(SAMPLES - J_POINT, device=canonical_mv.device, dtype=canonical_mv.dtype)
    jt, tail = jt_peak_ms.unsqueeze(-1), tpeak_tend_ms.unsqueeze(-1)
    late = (steps - PIECES[4]).clamp_min(0.0) / PIECES[5]
    time = steps.clamp_max(PIECES[4]) / PIECES[4] * jt + late * tail
    place = own_place(time, torch.zeros_like(jt), jt, tail, shape)
    return torch.cat([canonical_mv[..., :J_POINT], bent_st_t(own_st_t(None, canonical_mv), place, shape.gain)], dim=-1)


def asked_for(canonical_mv: Tensor, t_wave: Tensor, intervals: Tensor) -> Tensor:
    """Canonical beats [B, 8, SAMPLES] bent to measure T waves [B, 5] (`T_MEASURES`, chart units).

    `intervals` [B, 5] are heart rate, PR, QRS, J-Tpeak and Tpeak-Tend at which they are measured, bpm and ms.
    """
    times = Intervals.of(*intervals.unbind(-1))
    shape = bend_for(times, canonical_mv, TWave(*t_wave.unbind(-1)))
    return bent(canonical_mv, shape, times.jt_peak_ms, times.tpeak_tend_ms)
