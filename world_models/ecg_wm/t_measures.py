"""The five T measures of a chart as one tensor, and the scale on which T waves are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.constants import constant
from world_models.protocol import Chart

__all__ = ["T_MEASURES", "standardised", "t_wave_asked"]

T_MEASURES = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")
# Round numbers near a healthy adult's: log uV, asymmetry's root, flatness, log ms, log ms.
_CENTRE, _SCALE = (6.2, 0.4, 0.42, 3.75, 3.3), (0.45, 0.17, 0.07, 0.3, 0.3)


def standardised(t_wave: Tensor) -> Tensor:
    """T measures [B, 5] (`T_MEASURES`, chart units) -> [B, 5] on their working scale: logarithms, root, as they are."""
    amplitude, asymmetry, flatness, erd, lrd = t_wave.unbind(-1)
    rows = (amplitude.clamp_min(1.0).log(), asymmetry.clamp_min(1e-4).sqrt(), flatness)
    raw = torch.stack((*rows, erd.clamp_min(1.0).log(), lrd.clamp_min(1.0).log()), dim=-1)
    return (raw - constant(_CENTRE, raw.device, raw.dtype)) / constant(_SCALE, raw.device, raw.dtype)


def t_wave_asked(chart: Chart) -> Tensor | None:
    """T measures [B, 5] of a chart, or None where it has none: beats then keep their own."""
    if any(name not in chart for name in T_MEASURES):
        return None
    return torch.stack([chart[name] for name in T_MEASURES], dim=-1)
