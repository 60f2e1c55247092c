"""A learned world that is shown a patient's pre-dose beat, and the canonical beat that it draws of a state."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.rhythm import drawable
from world_models.ecg_wm.state import ECGWorldState
from world_models.ecg_wm.synthesis import drawn_beat
from world_models.protocol import Chart

__all__ = ["beat_factors", "beat_of"]

_AT_ONCE = 256


@torch.no_grad()
def beat_factors(world: ECGWorldModel, beat: Tensor) -> dict[str, Tensor]:
    """What the world reads off pre-dose beats [B, 8, 200] in mV: their shape, and what its decoder leaves out."""
    leads = torch.ones(beat.shape[:2], dtype=torch.bool, device=beat.device)
    seen = torch.ones(len(beat), beat.shape[2], dtype=torch.bool, device=beat.device)
    parts = [world.vae.encode(*rows)[0] for rows in zip(*(x.split(_AT_ONCE) for x in (beat, leads, seen)), strict=True)]
    shape = torch.cat(parts)
    left = torch.cat([b - world.vae.shape(m) for b, m in zip(beat.split(_AT_ONCE), parts, strict=True)])
    return {"shape": shape, "residual": left}


@torch.no_grad()
def beat_of(world: ECGWorldModel, state: ECGWorldState, chart: Chart) -> Tensor:
    """The beats [B, 8, 200] in mV that the world draws of a state [B] for its chart."""
    asked, parts = drawable(chart), []
    for rows in torch.arange(len(state.key), device=state.key.device).split(_AT_ONCE):
        recorded = type(state.recorded)(*(x[rows] for x in state.recorded))
        few = {n: v[rows] for n, v in asked.items() if v.ndim == 1}
        parts.append(drawn_beat(world.vae, world.readback, state.shape[rows], recorded, few)[0])
    return torch.cat(parts)
