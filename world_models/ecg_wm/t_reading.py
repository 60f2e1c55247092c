"""T waves of canonical beats as a reader would measure them at given intervals: for training and energy.

The five measures of `ecg.t_wave`, and where a delineator, which smooths, would put T peak and T end. All of it is
differentiable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg.along_time import STEP_MS, read_between, smoothed, summit
from world_models.ecg.t_wave import TMarks, t_wave
from world_models.ecg_wm import beats
from world_models.ecg_wm.beats import RATE_HZ

__all__ = ["ReadT", "read_t"]

_ONSET, _LENGTH = 30, 480  # sample of the QRS onset, samples of the stretch that is drawn
_READER = 41  # samples of 2 ms over which the delineator smooths T (`delineation.waves`)
_BACK, _ON = 60, 110  # steps of 2 ms before and after the T peak in which it is looked for


class ReadT(NamedTuple):
    """What was read, each row a beat."""

    t_wave: Tensor  # [B, 5] amplitude uV, asymmetry, flatness, ERD_30 ms, LRD_30 ms; NaN where it cannot be read
    peak_off_ms: Tensor  # [B] T peak as a smoothing reader sees it, less where it was to be
    end_off_ms: Tensor  # [B] T end by the tangent, likewise


def read_t(canonical_mv: Tensor, intervals: Tensor) -> ReadT:
    """Measures of canonical beats [B, 8, SAMPLES] spread to `intervals` [B, 5]: heart rate (not used), PR, QRS,
    J-Tpeak, Tpeak-Tend."""
    _, pr, qrs, jt, tail = intervals.unbind(-1)
    ends = beats.piece_ends(pr, qrs, jt, tail)
    beat = beats.from_canonical(canonical_mv, ends, torch.full_like(pr, float(_ONSET)), _LENGTH, RATE_HZ)
    peak = qrs + jt
    read = torch.stack(t_wave(beat, TMarks(0 * qrs, qrs, peak, peak + tail), RATE_HZ, _ONSET), dim=-1)

    tau = torch.arange(-_BACK, _ON + 1, dtype=beat.dtype, device=beat.device) * STEP_MS
    leads = read_between(beat, (peak.unsqueeze(-1) + tau) * (RATE_HZ / 1000) + _ONSET)
    direction = leads[..., _BACK - 4 : _BACK + 5].mean(-1).detach()
    direction = direction / direction.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-6)
    wave = (leads * direction.unsqueeze(-1)).sum(1)
    smooth, slope = smoothed(wave, _READER, 0), smoothed(wave, _READER, 1)
    top = summit(smooth, tau)[1]
    near = (tau > 0) & (tau < 1.7 * tail.unsqueeze(-1))
    steepest, at = torch.where(near, -slope, torch.full_like(slope, -torch.inf)).max(-1)
    foot = torch.where(tau >= tau[at].unsqueeze(-1), smooth, torch.full_like(smooth, torch.inf)).amin(-1)
    value = smooth.gather(-1, at.unsqueeze(-1)).squeeze(-1)
    end = tau[at] + STEP_MS * (value - foot) / steepest.clamp_min(1e-6)
    return ReadT(read, top, (end - tail).clamp(-80, 80))
