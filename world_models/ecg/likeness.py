"""How alike two beats are: their correlation over all leads, at the shift where it is largest.

R marks of one and the same beat differ by up to 20 ms (which peak of a notched QRS is R is a matter of small things),
and so large a shift alone spoils the correlation of two equal beats: it is looked for and taken out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.beat_axis import curved
from world_models.ecg.delineation.delineate import Delineation
from world_models.ecg.delineation.waves import BEFORE

__all__ = ["LIKENESS_SHIFTS_MS", "aligned_correlation", "beat_correlation", "beat_windows"]

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


def aligned_correlation(
    beat_mv: Tensor,
    other_mv: Tensor,
    where: Tensor | None = None,
    within_ms: float = 30.0,
    sampling_rate_hz: float = 500.0,
) -> tuple[Tensor, Tensor]:
    """Correlation [B] of beats [B, C, L] about zero, the isoelectric line, and the shift [B] in samples it is found at.

    `where` [B, L] or [B, C, L] bool says which samples of `beat_mv` count (None: all); all leads count together, each
    with its size. With a shift of k, sample i of `beat_mv` stands beside i + k of `other_mv`. 0 where either is flat.

    Raises:
        ValueError: shapes that differ, or beats shorter than four times `within_ms`.
    """
    if beat_mv.shape != other_mv.shape or beat_mv.ndim != 3:
        raise ValueError(f"need two beats [B, C, L], got {tuple(beat_mv.shape)} and {tuple(other_mv.shape)}")
    reach, length = round(within_ms * sampling_rate_hz / 1000), beat_mv.shape[-1]
    if length < 4 * reach:
        raise ValueError(f"beats of {length} samples are too short to be shifted by {reach}; cut longer ones")
    if where is None:
        counts = torch.ones_like(beat_mv)
    else:
        counts = (where if where.ndim == 3 else where.unsqueeze(1)).to(beat_mv.dtype).expand_as(beat_mv)
    counts = counts[..., reach : length - reach]
    middle = beat_mv[..., reach : length - reach] * counts
    found = []
    for shift in range(-reach, reach + 1):
        beside = other_mv[..., reach + shift : length - reach + shift] * counts
        size = (middle.square().sum((1, 2)) * beside.square().sum((1, 2))).sqrt()
        found.append((middle * beside).sum((1, 2)) / size.clamp_min(1e-12))
    best, at = torch.stack(found).max(0)
    return best, at - reach
