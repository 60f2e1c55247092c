"""What a recorded patient keeps of his own ECG: what the decoder leaves out, and the T wave it was recorded with."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg.beat_axis import J_POINT, PIECES, SAMPLES
from world_models.ecg.st_t import smoothstep
from world_models.ecg_wm.t_measures import T_MEASURES, standardised
from world_models.protocol import Chart

__all__ = ["INTERVALS", "Recorded", "after_j_point", "kept", "recorded_with"]

INTERVALS = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")
# Distance from the recorded T wave, in SDs of healthy adults' (root of the squares' sum), over which its own details
# fade: a T wave half as high, or flattened and skewed as dofetilide's peak does it, lies at 2 to 3.
FADES_OVER = 3.0
_ONSET = 0.3  # share of J to T peak over which the fading sets in


@lru_cache(maxsize=8)
def _no_residual(device: torch.device, dtype: torch.dtype) -> Tensor:
    """[1, 8, SAMPLES] of zeros, shared: never write into it."""
    with torch.inference_mode(False):
        return torch.zeros(1, 8, SAMPLES, device=device, dtype=dtype)


class Recorded(NamedTuple):
    """Of B patients; zeros and NaN for generated ones."""

    residual: Tensor  # [B, 8, SAMPLES] mV: recorded less decoded beat, canonical
    t_wave: Tensor  # [B, 5] T measures as recorded, chart units; NaN: not recorded, or not readable
    intervals: Tensor  # [B, 5] heart rate, PR, QRS, J-Tpeak and Tpeak-Tend as recorded, bpm and ms; NaN: not recorded

    @classmethod
    def nothing(cls, like: Tensor) -> Recorded:
        """Of generated patients, as many as `like` [B, ...] has rows."""
        b, unknown = like.shape[0], torch.full_like(like[:, :1], torch.nan).expand(-1, 5)
        # one row for all, which surgery on states keeps one (`tree`): of full size it were half of every state
        return cls(_no_residual(like.device, like.dtype).expand(b, -1, -1), unknown, unknown)


Recorded.MAY_BE_NAN = ("t_wave", "intervals")  # type: ignore[attr-defined]  # of the class: a NamedTuple has fields only


def recorded_with(residual: Tensor, factors: dict[str, Tensor], intervals: Chart) -> Recorded:
    """Of patients with a residual [B, 8, SAMPLES], whose T wave at admission stands in `factors` (`baseline_...`, [B];
    NaN where it does not) and whose intervals there are `intervals` [B]."""
    unknown = torch.full_like(residual[:, 0, 0], torch.nan)
    t_wave = [factors.get(f"baseline_{name}", unknown) for name in T_MEASURES]
    return Recorded(residual, torch.stack(t_wave, dim=-1), torch.stack([intervals[n] for n in INTERVALS], dim=-1))


def _away(t_wave: Tensor, recorded: Recorded) -> Tensor:
    """Distance [B] from the recorded T wave, in SDs; NaN where there is none."""
    return (standardised(t_wave) - standardised(recorded.t_wave)).square().sum(-1).sqrt()


def kept(recorded: Recorded, t_wave: Tensor | None) -> Tensor:
    """The residual [B, 8, SAMPLES] mV that is added to a decoded beat when T waves [B, 5] are asked for.

    All of it up to the J point; of ST and T less, the farther from the recorded T wave.
    """
    if t_wave is None:
        return recorded.residual
    away = torch.nan_to_num(_away(t_wave, recorded), nan=0.0)
    stays = torch.exp(-0.5 * (away / FADES_OVER).square()).unsqueeze(-1)
    return recorded.residual * (1.0 - (1.0 - stays) * after_j_point(stays)).unsqueeze(1)


def after_j_point(like: Tensor) -> Tensor:
    """Weights [SAMPLES] that rise from 0 at the J point to 1 early in ST, on the canonical axis."""
    place = torch.arange(SAMPLES, device=like.device, dtype=like.dtype) - J_POINT
    return smoothstep(place / (_ONSET * PIECES[4]))
