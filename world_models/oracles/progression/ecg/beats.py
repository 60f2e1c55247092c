"""From beats to a recording: templates of atria and ventricles, laid down at their own times.

Ventricular beats use the waves of `waveform.py` (intervals exact by construction). Atria are a track of their own,
so they can be dissociated from the ventricles, hidden, or fibrillate: right and left atrium are two Gaussians side by
side, one bump at normal duration and bifid when P is long, and a level between P and QRS can be lowered (pericarditis).

Templates are kept at 200 Hz and recordings synthesised at 100 Hz, so beats land within 2.5 ms of their time.
Elementwise operations and gathers only: a row's bits do not depend on the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg.waveform import R_SHARE, Intervals, beat_template, samples_before_r
from world_models.oracles.progression.ecg.anatomy import PR_LEVEL, P

__all__ = ["SAMPLING_RATE_HZ", "TICKS_PER_SAMPLE", "TICKS_PER_SECOND", "atrial_template", "lay_down"]
__all__ += ["pacing_spike", "ventricular_template"]

SAMPLING_RATE_HZ = 100.0
TICKS_PER_SAMPLE = 2
TICKS_PER_SECOND = 200.0
BEFORE, AFTER = 24, 160  # ticks of a ventricular template around R: 120 ms and 800 ms
_ATRIAL = 64  # ticks of an atrial template from P onset: 320 ms


def ventricular_template(intervals: Intervals, heights: Tensor) -> Tensor:
    """QRS, ST and T in mV, [B, 8, BEFORE + 1 + AFTER] about R, from heights [B, 8, 14] (their P is left out)."""
    morphology = torch.cat((torch.zeros_like(heights[:, :, :2]), heights[:, :, P.stop :]), dim=2)
    at_r = samples_before_r(TICKS_PER_SECOND)
    return beat_template(intervals, morphology, TICKS_PER_SECOND)[:, :, at_r - BEFORE : at_r + AFTER + 1]


def pacing_spike(template: Tensor, qrs_ms: Tensor, size_mv: Tensor) -> None:
    """Adds, in place, a stimulus of size_mv [B, 8] 12 ms before the QRS onset to a ventricular template."""
    first, last = 0, BEFORE
    times = torch.arange(first - BEFORE, last - BEFORE, dtype=torch.float32, device=template.device) * 5.0
    u = (times + (R_SHARE * qrs_ms + 12.0).unsqueeze(-1)) / 3.5  # as narrow as 100 Hz shows whole
    template[:, :, first:last] += size_mv.unsqueeze(-1) * torch.exp(-0.5 * u * u).unsqueeze(1)


def atrial_template(p_ms: Tensor, heights: Tensor) -> Tensor:
    """P in mV, [B, 8, 64] from its onset, of duration p_ms [B] and heights [B, 8, 14] (columns `P`).

    The bells lie at 0.34 and 0.68 of the duration, sigma 15.5 ms + 1 % of it: at 95 ms they merge, at 125 ms they
    part.
    """
    times = torch.arange(_ATRIAL, dtype=torch.float32, device=p_ms.device) * 5.0
    duration = p_ms.unsqueeze(-1)
    sigma = 15.5 + 0.01 * duration
    edge = (times / 15.0).clamp(0.0, 1.0)
    out = torch.zeros(p_ms.shape[0], 8, _ATRIAL, device=p_ms.device)
    for column, place in ((0, 0.34), (1, 0.68)):
        u = (times - place * duration) / sigma
        out += heights[:, :, column].unsqueeze(-1) * (torch.exp(-0.5 * u * u) * edge).unsqueeze(1)
    u = (times - duration - 12.0) / 26.0
    out += heights[:, :, PR_LEVEL].unsqueeze(-1) * (torch.exp(-0.5 * u * u) * edge).unsqueeze(1)
    return out


def lay_down(
    samples: int,
    ventricular: Tensor,
    r_ticks: Tensor,
    kind: Tensor,
    gain: Tensor,
    atrial: Tensor,
    p_ticks: Tensor,
    p_gain: Tensor,
) -> Tensor:
    """Eight leads in mV, [B, 8, samples].

    Args:
        ventricular: [B, 8, kinds * L] templates side by side.
        r_ticks: int64 [B, K], rising from before the recording: when R is, in 5 ms from the recording's start.
        kind: int64 [B, K]: which template.
        gain: [B, K]: its size; 0 drops the beat.
        atrial: [B, 8, A]; p_ticks int64 [B, M], rising: P onsets; p_gain [B, M].
    """
    length = BEFORE + 1 + AFTER
    batch = r_ticks.shape[0]
    moments = (torch.arange(samples, device=r_ticks.device) * TICKS_PER_SAMPLE).expand(batch, -1).contiguous()

    def wave(table: Tensor, place: Tensor, size: Tensor) -> Tensor:
        laid = torch.gather(table, 2, place.unsqueeze(1).expand(-1, table.shape[1], -1))
        return laid.mul_(size.unsqueeze(1))

    current = (torch.searchsorted(r_ticks, moments + BEFORE, right=True) - 1).clamp_min_(0)
    base, offset = BEFORE - r_ticks, kind * length
    out: Tensor | None = None
    for beat in (current, (current - 1).clamp_min(0)):  # a beat outlasts the start of the next, not of the one after
        place = torch.gather(base, 1, beat).add_(moments)
        size = torch.gather(gain, 1, beat).mul_(place < length)
        laid = wave(ventricular, place.clamp_(0, length - 1).add_(torch.gather(offset, 1, beat)), size)
        out = laid if out is None else out.add_(laid)
    assert out is not None
    beat = (torch.searchsorted(p_ticks, moments, right=True) - 1).clamp_min_(0)
    place = torch.gather(p_ticks, 1, beat).neg_().add_(moments)
    size = torch.gather(p_gain, 1, beat).mul_(place < _ATRIAL)
    return out.add_(wave(atrial, place.clamp_(0, _ATRIAL - 1), size))
