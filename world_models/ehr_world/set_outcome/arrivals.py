"""How a learned ward's patients begin: static context from a table of training admissions, and an empty chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_models import keys
from world_models.ehr_world.set_outcome.state import LOG, EHRState
from world_models.quantities.ward import COMPLAINTS, MAX_HOURS_SINCE, STATIC

if TYPE_CHECKING:
    from world_models.ehr_world.set_outcome.world import EHRWorldModel

__all__ = ["admit", "alike", "blank", "static_context"]

NEAR = 0.33  # standard deviations of a static feature: an admission that far off is still alike (our choice)
MOST_DISTANCE = 160.0  # squares of NEAR, summed; further admissions count no less, or none of them might count at all


def static_context(given: Mapping[str, Tensor], batch: int, device: torch.device, width: int | None = None) -> Tensor:
    """Static context [B, S] that holds the factors `given` [B] and [B, complaints], and NaN for the rest; `width` is S
    where a world knows more of a patient than the ward does."""
    known = len(STATIC) + len(COMPLAINTS)
    static = torch.full((batch, width or known), float("nan"), device=device)
    for i, q in enumerate(STATIC):
        if q.name in given:
            static[:, i] = given[q.name]
    if "complaint" in given:
        static[:, len(STATIC) : known] = given["complaint"]
    return static


def admit(model: EHRWorldModel, key: Tensor, given: dict[str, Tensor]) -> Tensor:
    """Static context [B, S]: a row of the table, likelier the nearer to the factors `given` [B], which replace it."""
    wanted = static_context(given, key.shape[0], key.device, model.admissions.shape[1])
    return alike(model.admissions, model.net.static_sd, key, wanted)


def alike(admissions: Tensor, sd: Tensor, key: Tensor, wanted: Tensor) -> Tensor:
    """Static context [B, S] of a row of `admissions` [N, S] drawn near to what is `wanted` [B, S], which replaces it
    where it is no NaN; `sd` [S] are the features' standard deviations."""
    far = (admissions - wanted.unsqueeze(1)) / sd
    weight = torch.exp(-0.5 * (far.nan_to_num(0.0) / NEAR).square().sum(-1).clamp_max(MOST_DISTANCE))
    row = keys.categorical(key, 0, "admission", weight)
    return torch.where(wanted.isnan(), admissions[row], wanted)


def blank(model: EHRWorldModel, key: Tensor, static: Tensor, diagnosis: Tensor | None = None) -> EHRState:
    """Patients [B] of whom nothing but the static context is known, before the admission's own position."""
    batch, items, doses, device = key.shape[0], len(model.typical), len(model.net.largest), model.device
    zero = torch.zeros(batch, items, device=device)
    none, never = zero.bool(), zero.to(torch.int64)
    if diagnosis is None:
        diagnosis = torch.full((batch, len(model.vocabulary.diagnoses)), float("nan"), device=device)
    there = torch.ones(batch, dtype=torch.bool, device=device)
    nil = torch.zeros(batch, device=device)
    state = EHRState(
        key=key,
        t=torch.zeros_like(key),
        start_h=nil,
        static=static,
        diagnosis=diagnosis,
        hidden=zero,
        value=model.typical.expand(batch, -1).clone(),
        drawn_h=zero,
        drawn_step=never,
        seen=none,
        trend=zero.unsqueeze(-1).repeat(1, 1, model.net.trend_width),
        pending=none,
        pending_value=zero,
        pending_drawn_h=zero,
        pending_drawn_step=never,
        pending_due_step=never,
        given=torch.zeros(batch, doses, device=device),
        since_h=torch.full((batch, doses), MAX_HOURS_SINCE, device=device),
        total_log=torch.zeros(batch, LOG, doses, device=device),
        alive=there,
        home=~there,
        death_chance=nil,
        home_chance=nil,
    )
    return state._replace(hidden=model.net.start(model.net.fixed(static, diagnosis, nil)))
