"""The half hours of a step, one after the other: at their start blood may be collected, every hour the moment's
variation moves on, and the hazard of death adds up.

Eagerly `tick` is replayed (`Program`). Where a graph is written for a compiler, ticks and their fast steps are loops in
it (`world_models.loops`): it then holds three fast steps and a slow one, instead of dozens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from world_models.loops import packed, repeated, unpacked
from world_models.oracles.ward.dynamics import (
    FAST_PER_TICK,
    TICK_H,
    advance_noise,
    advanced,
    conditions,
    fast_step,
    slow_step,
)
from world_models.oracles.ward.measurement import Specimens, true_values
from world_models.oracles.ward.prescribing import NAMES, Prescription
from world_models.oracles.ward.state import Fluids, Signals, WardState
from world_models.program import Program

__all__ = ["TICKS_PER_HOUR", "looped", "through"]

TICKS_PER_HOUR = round(1.0 / TICK_H)
_BODY = (
    "fluids", "salts", "circulation", "lungs", "metabolism", "infection", "kidney", "blood", "clots", "organs",
    "course", "signals",
)  # fmt: skip


def through(
    now: WardState,
    plan: Prescription,
    shaken: Tensor,
    specimens: Specimens,
    collected_at: Tensor,
    program: Callable[[], Program],
) -> tuple[WardState, Tensor]:
    """The state after the half hours of a step, and the hazard [B] added up over them.

    Args:
        now: at the step's start.
        plan: what is given when.
        shaken: [hours, variables of Noise, B] standard normals.
        specimens: which get the true values of when they are collected.
        collected_at: int64 [B], the half hour of the venepuncture.
        program: gives `dynamics.tick`, recorded.
    """
    if torch.compiler.is_compiling():
        return looped(now, plan, shaken, specimens, collected_at)
    collecting = set(collected_at.tolist())  # true values are worked out only where blood is collected
    hazard, run = torch.zeros_like(now.course.hazard_per_h), program()
    with torch.inference_mode():
        for half in range(len(shaken) * TICKS_PER_HOUR):
            if half in collecting:
                specimens.collect(now, collected_at == half)
            if half % TICKS_PER_HOUR == 0:
                now = now._replace(noise=advance_noise(now.noise, shaken[half // TICKS_PER_HOUR].unbind(0)))
            now = run(now, plan.during(half * TICK_H, TICK_H))
            hazard = hazard + now.course.hazard_per_h * TICK_H
    return now, hazard


def looped(
    now: WardState, plan: Prescription, shaken: Tensor, specimens: Specimens, collected_at: Tensor
) -> tuple[WardState, Tensor]:
    """`through` as loops of a graph. What is collected is the body's state, read once the loop has ended."""
    body = tuple(getattr(now, name) for name in _BODY)

    def state_of(person: Tensor, noise: Tensor, numbers: Tensor, pools: Tensor) -> WardState:
        parts = dict(zip(_BODY, unpacked(body, numbers, pools), strict=True))
        return now._replace(person=unpacked(now.person, person), noise=unpacked(now.noise, noise), **parts)

    def fast(i: Tensor, numbers: Tensor, pools: Tensor, rates: Tensor, *start: Tensor) -> tuple[Tensor, ...]:
        begun, given = state_of(*start), _named(rates)
        under, quick = conditions(begun, given), unpacked(_quick(begun, begun.signals.bleed_l_h), numbers, pools)
        after, bled = _resumed(begun, quick), quick.bled
        for _ in range(_FAST_WRITTEN):
            after = fast_step(after, given, under)
            bled = bled + after.signals.bleed_l_h
        return packed(_quick(after, bled)), packed(_quick(after, bled), torch.float64)

    def half_hour(i: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        noise, numbers, pools, hazard, numbers_then, pools_then, person, shaken, collected_at, *plan = rest
        collecting = collected_at == i
        numbers_then = torch.where(collecting, numbers, numbers_then)
        pools_then = torch.where(collecting, pools, pools_then)
        hour = shaken.index_select(0, (i // TICKS_PER_HOUR).reshape(1)).squeeze(0)
        noise = torch.where(i % TICKS_PER_HOUR == 0, advanced(noise, hour), noise)
        rates = Prescription(*plan).rows(i.to(torch.float32) * TICK_H, TICK_H)
        start = (person, noise, numbers, pools)
        begun, given = state_of(*start), _named(rates)
        quick = _quick(begun, torch.zeros_like(hazard))
        packs = repeated(
            FAST_PER_TICK // _FAST_WRITTEN, fast, (packed(quick), packed(quick, torch.float64)), (rates, *start)
        )
        quick = unpacked(quick, *packs)
        after = slow_step(_resumed(begun, quick), given, conditions(begun, given), quick.bled)
        parts = tuple(getattr(after, name) for name in _BODY)
        hazard = hazard + after.course.hazard_per_h * TICK_H
        return noise, packed(parts), packed(parts, torch.float64), hazard, numbers_then, pools_then

    person, numbers, pools = packed(now.person), packed(body), packed(body, torch.float64)
    hazard = torch.zeros_like(now.course.hazard_per_h)
    noise, numbers, pools, hazard, numbers_then, pools_then = repeated(
        len(shaken) * TICKS_PER_HOUR,
        half_hour,
        (packed(now.noise), numbers, pools, hazard, torch.zeros_like(numbers), torch.zeros_like(pools)),
        (person, shaken, collected_at, *plan),
    )
    specimens.values = true_values(state_of(person, noise, numbers_then, pools_then))
    return state_of(person, noise, numbers, pools)._replace(person=now.person), hazard


def _named(rates: Tensor) -> dict[str, Tensor]:
    return dict(zip(NAMES, rates.unbind(0), strict=True))


class _Quick(NamedTuple):
    """What fast steps change. [B] each."""

    fluids: Fluids
    salts: tuple[Tensor, ...]  # in the order of _SALTS
    circulation: tuple[Tensor, ...]  # of _CIRCULATION
    metabolism: tuple[Tensor, ...]  # of _METABOLISM
    signals: Signals
    pco2: Tensor
    bled: Tensor  # sum of the rates so far


_FAST_WRITTEN = 3  # fast steps in a round of the loop: fewer rounds run quicker, longer ones take longer to compile
_SALTS = (
    "sodium", "sodium_in", "sodium_out", "potassium", "cell_potassium", "potassium_in", "potassium_out", "chloride",
    "recent_uptake",
)  # fmt: skip
_CIRCULATION = ("heart_rate", "tone", "norepinephrine", "vasopressin")
_METABOLISM = ("glucose_mmol", "insulin", "insulin_action")


def _quick(state: WardState, bled: Tensor) -> _Quick:
    def of(part: Any, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        return tuple(getattr(part, name) for name in names)

    return _Quick(
        state.fluids,
        of(state.salts, _SALTS),
        of(state.circulation, _CIRCULATION),
        of(state.metabolism, _METABOLISM),
        state.signals,
        state.lungs.pco2,
        bled,
    )


def _resumed(state: WardState, quick: _Quick) -> WardState:
    """The state at the half hour's start with what changed since."""
    return state._replace(
        fluids=quick.fluids,
        salts=state.salts._replace(**dict(zip(_SALTS, quick.salts, strict=True))),
        circulation=state.circulation._replace(**dict(zip(_CIRCULATION, quick.circulation, strict=True))),
        metabolism=state.metabolism._replace(**dict(zip(_METABOLISM, quick.metabolism, strict=True))),
        signals=quick.signals,
        lungs=state.lungs._replace(pco2=quick.pco2),
    )
