"""Stays as tensors: what was ordered in each step, what came of it and when, and what the chart showed meanwhile.

Position 0 of a stay is the admission (triage); position s is step s, whose orders were given after position s - 1 was
charted. A value stands at the position where its specimen was DRAWN, and `delay` says how many steps later it was
charted; so an order meets its own outcome, and what is known at a position is still only what had come by then
(`charted`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CENSORED", "LAST_DELAY", "NEVER", "UNKNOWN", "Charted", "Stays", "charted", "from_charts", "pad"]

LAST_DELAY = 14  # steps; a later result counts as this late
NEVER = 15  # a lost specimen
UNKNOWN = -1  # nobody recorded when the result came; it counts as charted in its own step
CENSORED = -2  # still pending when the record ended


class Stays(NamedTuple):
    """B stays of up to T positions, I inquiries, J interventions, S static features, D diagnoses."""

    static: Tensor  # [B, S] in their units
    diagnosis: Tensor  # [B, D] 0 or 1; known at discharge only
    asked: Tensor  # bool [B, T, I] a specimen was taken
    value: Tensor  # [B, T, I] in the item's unit, or the class of a label; NaN: no result
    delay: Tensor  # int8 [B, T, I] steps from draw to chart, NEVER, UNKNOWN or CENSORED
    given: Tensor  # [B, T, J] amounts in the interventions' units
    alive: Tensor  # bool [B, T] after the step
    home: Tensor  # bool [B, T] discharged by the end of the step
    valid: Tensor  # bool [B, T] the patient was there during the step (the step of death or discharge counts)


class Charted(NamedTuple):
    """What the chart shows after each position."""

    value: Tensor  # [B, T, I] last value that has come; 0 where none has
    seen: Tensor  # bool [B, T, I]
    age: Tensor  # [B, T, I] steps since its specimen was collected; 0 where none has come
    fresh: Tensor  # bool [B, T, I] it came in this very step


def charted(stays: Stays) -> Charted:
    """The chart after each position, from draws and delays; of two results that come together the later draw counts."""
    batch, count, items = stays.value.shape
    place = torch.arange(count, device=stays.value.device).view(1, -1, 1)
    delay = stays.delay.to(torch.int64)
    late = torch.where(delay == UNKNOWN, 0, delay)
    comes = stays.asked & ~stays.value.isnan() & (late >= 0) & (late <= LAST_DELAY)
    when = torch.where(comes, place + late, count).clamp_max(count)
    drawn = torch.full((batch, count + 1, items), -1, dtype=torch.int64, device=stays.value.device)
    drawn = drawn.scatter_reduce(1, when, place.expand_as(when), "amax")[:, :count]
    known = torch.cummax(drawn, 1).values
    value = torch.gather(stays.value, 1, known.clamp_min(0))
    seen = known >= 0
    age = torch.where(seen, place - known, 0).to(stays.value.dtype)
    return Charted(torch.where(seen, value, 0.0), seen, age, (drawn >= 0) & (drawn == known))


def from_charts(
    value: Tensor,
    drawn_h: Tensor,
    seen: Tensor,
    pending: Tensor,
    hours: Tensor,
    asked: Tensor,
    offset_h: Tensor,
    hours_per_step: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Slots (asked, value, delay of `Stays`) of a charted record.

    Args:
        value, drawn_h, seen, pending: [B, T, I] as charted after each position; hours are those since admission.
        hours: [B, T] of the positions.
        asked: bool [B, T, I] what the orders of each position's step asked for (position 0: nothing).
        offset_h: [I] usual hours from a step's start to the draw.
    """
    batch, count, items = value.shape
    place = torch.arange(count, device=value.device).view(1, -1, 1)
    before_seen = torch.cat([torch.zeros_like(seen[:, :1]), seen[:, :-1]], 1)
    before_drawn = torch.cat([drawn_h[:, :1], drawn_h[:, :-1]], 1)
    new = seen & (~before_seen | (drawn_h > before_drawn + 1e-3))
    at = ((drawn_h - hours[:, :1, None] - offset_h) / hours_per_step).round().to(torch.int64) + 1
    at = torch.minimum(at.clamp_min(0), place.expand_as(at))
    at = torch.where(place == 0, 0, at)
    slot = torch.where(new, at, count)

    def scatter(source: Tensor, empty: float) -> Tensor:
        out = torch.full((batch, count + 1, items), empty, dtype=source.dtype, device=value.device)
        return out.scatter(1, slot, source)[:, :count]

    values = scatter(value, float("nan"))
    delay = scatter((place - at).clamp_max(LAST_DELAY).to(torch.int8), float(UNKNOWN))
    found = ~values.isnan()
    waited = torch.cat([torch.zeros_like(pending[:, :1]), pending[:, :-1]], 1)
    taken = asked & ~waited  # an order while a specimen is out is refused
    taken[:, 0] = False
    open_slot = taken & ~found
    # of what never came, only the last can still be on its way when the record ends
    last = torch.where(open_slot, place, -1).amax(1, keepdim=True)
    out = open_slot & (place == last) & pending[:, -1:]
    delay = torch.where(open_slot, torch.where(out, CENSORED, NEVER).to(torch.int8), delay)
    return found | taken, values, delay


def pad(stays: Stays, count: int) -> Stays:
    """The same stays on `count` positions, cut or filled with positions where nobody is."""
    have = stays.value.shape[1]
    if have >= count:
        return Stays(stays.static, stays.diagnosis, *(x[:, :count] for x in stays[2:]))
    more = count - have
    fill = {"value": float("nan"), "delay": UNKNOWN}

    def grow(name: str, x: Tensor) -> Tensor:
        extra = torch.full((x.shape[0], more, *x.shape[2:]), fill.get(name, 0), dtype=x.dtype, device=x.device)
        return torch.cat([x, extra], 1)

    return stays._replace(**{n: grow(n, getattr(stays, n)) for n in Stays._fields[2:]})
