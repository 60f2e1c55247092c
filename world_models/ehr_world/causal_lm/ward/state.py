"""Patients of a causal ward at one moment: their chart, what is on its way, and the stay so far in tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ehr_world.causal_lm.ward.stream import Stream
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, MAX_HOURS_SINCE

__all__ = ["CausalWardState", "blank"]


class CausalWardState(NamedTuple):
    """B patients, I inquiries, J interventions, S static features."""

    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    start_h: Tensor  # [B] hours since admission at t = 0
    static: Tensor  # [B, S]; NaN: not known
    value: Tensor  # [B, I] as charted
    drawn_h: Tensor  # [B, I] hours since admission at which the charted specimen was taken
    seen: Tensor  # bool [B, I]
    pending: Tensor  # bool [B, I] a specimen is on its way
    sent: Tensor  # int64 [B, I] the step in which it was taken
    due: Tensor  # int64 [B, I] the step in which it comes back
    given: Tensor  # [B, J] in the last step
    since_h: Tensor  # [B, J]
    alive: Tensor  # bool [B]
    home: Tensor  # bool [B]
    sd: Tensor  # [B, I] of the forecast that the charted value was drawn from
    stream: Stream


CausalWardState.MAY_BE_NAN = ("static",)  # type: ignore[attr-defined]  # of the class: a NamedTuple has fields only


def blank(key: Tensor, static: Tensor, sd: Tensor, stream: Stream) -> CausalWardState:
    """Patients [B] at admission, of whom nothing was measured; `sd` [I] of what nobody foretold yet."""
    batch, items, device = len(key), len(INQUIRIES), key.device
    zero = torch.zeros(batch, items, device=device)
    never, none = zero.to(torch.int64), zero.bool()
    there = torch.ones(batch, dtype=torch.bool, device=device)
    return CausalWardState(
        key=key,
        t=torch.zeros_like(key),
        start_h=torch.zeros(batch, device=device),
        static=static,
        value=torch.tensor([float(q.typical) for q in INQUIRIES], device=device).repeat(batch, 1),
        drawn_h=zero,
        seen=none,
        pending=none,
        sent=never,
        due=never,
        given=torch.zeros(batch, len(INTERVENTIONS), device=device),
        since_h=torch.full((batch, len(INTERVENTIONS)), MAX_HOURS_SINCE, device=device),
        alive=there,
        home=~there,
        sd=sd.repeat(batch, 1),
        stream=stream,
    )
