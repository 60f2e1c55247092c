"""How alike two median beats are: their correlation over eight leads, at the shift at which they agree best."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.beat_axis import curved
from world_models.ecg.delineation.delineate import Delineation
from world_models.ecg.delineation.waves import BEFORE

__all__ = ["LIKENESS_SHIFTS_MS", "beat_correlation", "beat_windows"]

_STEP_MS = 2.0
LIKENESS_SHIFTS_MS = tuple(0.5 * k for k in range(-24, 25))  # R is a sample, and not always the same one
_BEFORE_P_MS, _AFTER_T_MS, _NO_P_MS = 20.0, 40.0, 20.0


def beat_windows(marks: Delineation) -> tuple[Tensor, Tensor]:
    """bool [B, 725] each, of the delineator's median beats: the whole beat (from before P, or from before the QRS where
    there is none, to after T), and the QRS."""
    time = (torch.arange(marks.median_beat.shape[-1], device=marks.median_beat.device) - BEFORE) * _STEP_MS
    start = torch.where(marks.p_onset_ms.isnan(), marks.qrs_onset_ms - _NO_P_MS, marks.p_onset_ms - _BEFORE_P_MS)

    def between(low: Tensor, high: Tensor) -> Tensor:
        return (time >= low.unsqueeze(-1)) & (time <= high.unsqueeze(-1))

    return between(start, marks.t_end_ms + _AFTER_T_MS), between(marks.qrs_onset_ms, marks.qrs_offset_ms)


def beat_correlation(one: Tensor, other: Tensor, window: Tensor) -> Tensor:
    """Correlation [B] of median beats [B, 8, L] (mV from the isoelectric line, 500 Hz) over the leads together.

    Args:
        window: bool [B, L], of the first.
    """
    seen = one * window.unsqueeze(1)
    size = (seen * seen).sum((1, 2))
    place = torch.arange(one.shape[-1], dtype=one.dtype, device=one.device)
    best = torch.full_like(size, -1.0)
    for shift in LIKENESS_SHIFTS_MS:
        moved = curved(other, (place + shift / _STEP_MS).expand(one.shape[0], -1)) * window.unsqueeze(1)
        power = (size * (moved * moved).sum((1, 2))).sqrt().clamp_min(1e-12)
        best = torch.maximum(best, (seen * moved).sum((1, 2)) / power)
    return best
