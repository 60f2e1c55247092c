"""The half hours of a step, one after the other: at their start blood may be collected, every hour the moment's
variation moves on, and the hazard of death adds up.

Eagerly `tick` is replayed (`Program`). Where a graph is written for a compiler, ticks and their fast steps are loops in
it (`world_models.loops`): it then holds two fast steps and one slow one, instead of dozens.
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
    conditions,
    fast_step,
    slow_step,
)
from world_models.oracles.ward.measurement import Specimens, true_values
from world_models.oracles.ward.prescribing import NAMES, Prescription
from world_models.oracles.ward.state import Fluids, WardState
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
    """`through` as loops of a graph."""
    body = tuple(getattr(now, name) for name in _BODY)

    def state_of(person: Tensor, noise: Tensor, numbers: Tensor, pools: Tensor) -> WardState:
        parts = dict(zip(_BODY, unpacked(body, numbers, pools), strict=True))
        return now._replace(person=unpacked(now.person, person), noise=unpacked(now.noise, noise), **parts)

    def fast(_: Tensor, numbers: Tensor, pools: Tensor, rates: Tensor, *start: Tensor) -> tuple[Tensor, ...]:
        begun, given = state_of(*start), _named(rates)
        quick = unpacked(_quick(begun), numbers, pools)
        after = fast_step(_resumed(begun, quick), given, conditions(begun, given))
        quick = _quick(after, quick.bled + after.signals.bleed_l_h)
        return packed(quick), packed(quick, torch.float64)

    def half_hour(
        i: Tensor, noise: Tensor, numbers: Tensor, pools: Tensor, hazard: Tensor, values: Tensor, *held: Tensor
    ) -> tuple[Tensor, ...]:
        person, shaken, collected_at, *plan = held
        begun = state_of(person, noise, numbers, pools)
        values = torch.where((collected_at == i).unsqueeze(-1), true_values(begun), values)
        hour = shaken.index_select(0, (i // TICKS_PER_HOUR).reshape(1)).squeeze(0)
        moved = packed(advance_noise(begun.noise, hour.unbind(0)))
        noise = torch.where(i % TICKS_PER_HOUR == 0, moved, noise)
        rates = Prescription(*plan).rows(i.to(torch.float32) * TICK_H, TICK_H)
        start = (person, noise, numbers, pools)
        quick = _quick(begun)
        packs = repeated(
            FAST_PER_TICK - 1, fast, (packed(quick), packed(quick, torch.float64)), (rates, *start)
        )
        begun, given, quick = state_of(*start), _named(rates), unpacked(quick, *packs)
        under = conditions(begun, given)
        last = fast_step(_resumed(begun, quick), given, under)
        after = slow_step(last, given, under, quick.bled + last.signals.bleed_l_h)
        parts = tuple(getattr(after, name) for name in _BODY)
        hazard = hazard + after.course.hazard_per_h * TICK_H
        return noise, packed(parts), packed(parts, torch.float64), hazard, values

    hazard = torch.zeros_like(now.course.hazard_per_h)
    noise, numbers, pools, hazard, specimens.values = repeated(
        len(shaken) * TICKS_PER_HOUR,
        half_hour,
        (packed(now.noise), packed(body), packed(body, torch.float64), hazard, specimens.values),
        (packed(now.person), shaken, collected_at, *plan),
    )
    return state_of(packed(now.person), noise, numbers, pools), hazard


def _named(rates: Tensor) -> dict[str, Tensor]:
    return dict(zip(NAMES, rates.unbind(0), strict=True))


class _Quick(NamedTuple):
    """What five minutes change and the next five read. [B] each."""

    fluids: Fluids
    salts: tuple[Tensor, ...]  # in the order of _SALTS
    circulation: tuple[Tensor, ...]  # of _CIRCULATION
    metabolism: tuple[Tensor, ...]  # of _METABOLISM
    signals: tuple[Tensor, ...]  # of _SIGNALS
    pco2: Tensor
    bled: Tensor  # sum of the rates so far


_SALTS = (
    "sodium", "sodium_in", "sodium_out", "potassium", "cell_potassium", "potassium_in", "potassium_out", "chloride",
    "recent_uptake",
)  # fmt: skip
_CIRCULATION = ("heart_rate", "tone", "norepinephrine", "vasopressin")
_METABOLISM = ("glucose_mmol", "insulin", "insulin_action")
_SIGNALS = ("map", "flow", "saturation")


def _quick(state: WardState, bled: Tensor | None = None) -> _Quick:
    def of(part: Any, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        return tuple(getattr(part, name) for name in names)

    return _Quick(
        state.fluids,
        of(state.salts, _SALTS),
        of(state.circulation, _CIRCULATION),
        of(state.metabolism, _METABOLISM),
        of(state.signals, _SIGNALS),
        state.lungs.pco2,
        torch.zeros_like(state.lungs.pco2) if bled is None else bled,
    )


def _resumed(state: WardState, quick: _Quick) -> WardState:
    """The state at the half hour's start with what changed since."""
    return state._replace(
        fluids=quick.fluids,
        salts=state.salts._replace(**dict(zip(_SALTS, quick.salts, strict=True))),
        circulation=state.circulation._replace(**dict(zip(_CIRCULATION, quick.circulation, strict=True))),
        metabolism=state.metabolism._replace(**dict(zip(_METABOLISM, quick.metabolism, strict=True))),
        signals=state.signals._replace(**dict(zip(_SIGNALS, quick.signals, strict=True))),
        lungs=state.lungs._replace(pco2=quick.pco2),
    )
