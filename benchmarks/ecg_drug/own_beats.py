"""A learned world that is shown a patient's pre-dose beat, and the canonical beat that it draws of a state."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import tree
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.pairs import own_beat
from world_models.ecg_wm.recorded import Recorded
from world_models.ecg_wm.state import ECGWorldState
from world_models.ecg_wm.synthesis import decoded_beat
from world_models.ecg_wm.t_measures import t_wave_asked
from world_models.protocol import Chart

__all__ = ["beat_factors", "beat_of", "drawn_of"]

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
def drawn_of(
    world: ECGWorldModel,
    shape: Tensor,
    recorded: Recorded,
    chart: Chart,
    before: tuple[Chart, Tensor] | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """The beats [B, 8, 200] in mV that the world draws of shapes [B, morphology] for a chart.

    `first` [B, morphology] are the shapes at admission, None: the same. `chart` holds intervals and T measures [B]; PR
    may be NaN. `before` as in `pairs.own_beat`.
    """
    chart = {n: v for n, v in chart.items() if v.ndim == 1}
    parts = []
    for rows in torch.arange(len(shape), device=shape.device).split(_AT_ONCE):
        few = {n: v[rows] for n, v in chart.items()}
        begun = None if first is None else first[rows]
        own = Recorded(*(x[rows] for x in recorded))
        whole = decoded_beat(world.vae, shape[rows], begun, own, t_wave_asked(few))
        parts.append(own_beat(few, whole, None if before is None else tree.take(before, rows)))
    return torch.cat(parts)


def beat_of(
    world: ECGWorldModel, state: ECGWorldState, chart: Chart, before: tuple[Chart, Tensor] | None = None
) -> Tensor:
    """The beats [B, 8, 200] in mV that the world draws of a state [B] for its chart; `before` as in `own_beat`."""
    return drawn_of(world, state.shape, state.recorded, chart, before, state.first_shape)
