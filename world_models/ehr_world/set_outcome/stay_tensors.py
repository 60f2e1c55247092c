"""Stays as tensors: what was ordered in each step, what came of it and when, and what the chart showed meanwhile.

Position 0 of a stay is the admission (triage); position s is step s, whose orders were given after position s - 1 was
charted. A value stands at the position where its specimen was collected, and `delay` says how many steps later it was
charted; so an order meets its own outcome, and what is known at a position is still only what had come by then
(`charted`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CENSORED", "LAST_DELAY", "NEVER", "UNKNOWN", "Charted", "StaySlots", "Stays"]
__all__ += ["charted", "first_positions", "from_charts", "pad", "previous", "trim"]

LAST_DELAY = 14  # steps; a later result counts as this late
NEVER = 15  # a lost specimen
UNKNOWN = -1  # nobody recorded when the result came; it counts as charted in its own step
CENSORED = -2  # still pending when the record ended
_SAME_HOUR = 1e-3  # hours: two times that differ by less are one, rounded


class Stays(NamedTuple):
    """B stays of up to T positions, I inquiries, J interventions, S static features, D diagnoses."""

    static: Tensor  # [B, S] in their units
    diagnosis: Tensor  # [B, D] 0 or 1; known at discharge only; NaN: not told
    asked: Tensor  # bool [B, T, I] a specimen was taken
    value: Tensor  # [B, T, I] in the item's unit, or the class of a label; NaN: no result
    delay: Tensor  # int8 [B, T, I] steps from collection to chart, NEVER, UNKNOWN or CENSORED
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


class StaySlots(NamedTuple):
    """What a record says of each item at each position, [B, T, I]; fields as in `Stays`."""

    asked: Tensor  # bool
    value: Tensor
    delay: Tensor  # int8


def previous(x: Tensor) -> Tensor:
    """Each position's predecessor in x [B, T, ...]; zeros (False) before the first."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)


def charted(stays: Stays) -> Charted:
    """The chart after each position, from specimens and delays.

    Of two results that come together the one whose specimen was collected later counts.
    """
    batch, count, items = stays.value.shape
    place = torch.arange(count, device=stays.value.device).view(1, -1, 1)
    delay = stays.delay.to(torch.int64)
    late = torch.where(delay == UNKNOWN, 0, delay)
    comes = stays.asked & ~stays.value.isnan() & (late >= 0) & (late <= LAST_DELAY)
    when = torch.where(comes, place + late, count).clamp_max(count)
    came = torch.full((batch, count + 1, items), -1, dtype=torch.int64, device=stays.value.device)
    came = came.scatter_reduce(1, when, place.expand_as(when), "amax")[:, :count]  # the specimen's position; -1: none
    known = torch.cummax(came, 1).values
    value = torch.gather(stays.value, 1, known.clamp_min(0))
    seen = known >= 0
    age = torch.where(seen, place - known, 0).to(stays.value.dtype)
    return Charted(torch.where(seen, value, 0.0), seen, age, (came >= 0) & (came == known))


def from_charts(
    value: Tensor,
    drawn_h: Tensor,
    seen: Tensor,
    pending: Tensor,
    hours: Tensor,
    asked: Tensor,
    offset_h: Tensor,
    hours_per_step: float,
) -> StaySlots:
    """The slots of a charted record.

    Args:
        value, drawn_h, seen, pending: [B, T, I] as charted after each position; `drawn_h`: hours since admission when
            the value's specimen was collected.
        hours: [B, T] of the positions.
        asked: bool [B, T, I] what the orders of each position's step asked for (position 0: nothing).
        offset_h: [I] usual hours from a step's start to the collection.
    """
    batch, count, items = value.shape
    place = torch.arange(count, device=value.device).view(1, -1, 1)
    before_drawn = torch.cat([drawn_h[:, :1], drawn_h[:, :-1]], 1)
    new = seen & (~previous(seen) | (drawn_h > before_drawn + _SAME_HOUR))
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
    taken = asked & ~previous(pending)  # an order while a specimen is out is refused
    taken[:, 0] = False
    open_slot = taken & ~found
    # of what never came, only the last can still be on its way when the record ends
    last = torch.where(open_slot, place, -1).amax(1, keepdim=True)
    out = open_slot & (place == last) & pending[:, -1:]
    delay = torch.where(open_slot, torch.where(out, CENSORED, NEVER).to(torch.int8), delay)
    return StaySlots(found | taken, values, delay)


def first_positions(stays: Stays, count: int) -> Stays:
    """The same stays cut to their first `count` positions (all, where they have fewer)."""
    return Stays(stays.static, stays.diagnosis, *(x[:, :count] for x in stays[2:]))


def trim(stays: Stays) -> Stays:
    """The same stays without positions where nobody is any more."""
    return first_positions(stays, int(stays.valid.sum(1).amax()))


def pad(stays: Stays, count: int) -> Stays:
    """The same stays on `count` positions, cut or filled with positions where nobody is."""
    more = count - stays.value.shape[1]
    if more <= 0:
        return first_positions(stays, count)
    fill = {"value": float("nan"), "delay": UNKNOWN}

    def grow(name: str, x: Tensor) -> Tensor:
        extra = torch.full((x.shape[0], more, *x.shape[2:]), fill.get(name, 0), dtype=x.dtype, device=x.device)
        return torch.cat([x, extra], 1)

    return stays._replace(**{n: grow(n, getattr(stays, n)) for n in Stays._fields[2:]})
