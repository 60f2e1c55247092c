"""Courses that somebody wrote down, in the form that an ECG world is fitted to."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.ecg_wm import latent
from world_models.ecg_wm.courses import KEPT, Courses
from world_models.ecg_wm.inference import infer
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.patients import CLEARANCES
from world_models.protocol import Chart, History

__all__ = ["logged_courses"]


def logged_courses(model: ECGWorldModel, charts: Chart, actions: Tensor, hours_per_step: float, key: Tensor) -> Courses:
    """The courses of B patients, for `finetune.fine_tuned`.

    Args:
        model: the world to be fitted: what an admission ECG in its rhythm does not show it samples, as when it infers.
        charts: each measure [B, T + 1], `hours_per_step` apart, from admission on.
        actions: [B, T, D] mg given right after each visit but the last.
        key: int64 [B] of what is sampled.

    Raises:
        ValueError: a measure is lacking, or the first visit lacks an interval.
    """
    lacking = [name for name in KEPT if name not in charts]
    if lacking:
        raise ValueError(f"the charts lack {', '.join(lacking)}; courses to learn from must have {', '.join(KEPT)}")
    batch, visits = actions.shape[0], actions.shape[1] + 1
    if charts["hours"].shape != (batch, visits):
        raise ValueError(
            f"charts have the shape {tuple(charts['hours'].shape)} and actions {tuple(actions.shape)}; give one visit "
            "more than orders"
        )
    first = {name: value[:, :1] for name, value in charts.items() if value.ndim == 2}
    nothing = torch.zeros_like(actions[:, :1])
    state = infer(model, History(first, nothing, torch.zeros(batch, 1, device=model.device)), key, {})
    u = latent.standardise({name: charts[name] for name in (*KEPT, "hours")})
    return Courses(
        u=u,
        charts={name: charts[name] for name in KEPT},
        actions=torch.cat([actions, nothing], 1),
        measured=state.measured,
        clearance=torch.full((batch, len(CLEARANCES)), torch.nan, device=u.device),
        morphology=u.new_zeros(batch, 8, 1),  # of beats nothing is learned here
        hours_per_step=hours_per_step,
    )
