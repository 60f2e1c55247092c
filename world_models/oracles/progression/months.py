"""Months in the lives of patients between two visits: one tick of `state` after the other, eagerly or as one loop of a
graph that is compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.loops import repeated
from world_models.oracles.progression.state import (
    FASTEST_PER_YEAR,
    FATALITY_PER_DECADE,
    MONTH_YEARS,
    OLDEST_KILLED,
    ProgressionState,
    Tables,
    log_rates,
    static_rates,
    tables,
    turn,
    waiting_times,
)
from world_models.quantities.progression import CODES
from world_models.quantities.treated_columns import joined

__all__ = ["months"]

_C = len(CODES)
_MONTH = "progression/month"  # the purpose of a month's numbers
_MONTHS_IN_ONE_CALL = 4096  # months whose random numbers are made in one call


def months(
    state: ProgressionState, drugs: Tensor, count: Tensor, stop: Tensor | None = None, stop_chance: float = 1.0
) -> ProgressionState:
    """The state `count` [B] whole months later under `drugs` [B, DRUGS]; the dead stay as they are. Pure.

    `bleeding` gathers over the months; `t` and `months_since_visit` are the caller's. With `stop` (bool [C]) a patient
    stays in the month in which one of these conditions began, with chance `stop_chance`.
    """
    device = state.key.device
    table = tables(device)
    static = static_rates(state.sex_female, state.frailty)
    life = _Life(static, state.sex_female, state.entry_age_years, state.traits, joined(state.procedures, drugs), count)
    now = _Now(state.month, state.present, state.ever, state.years_since_onset, state.bleeding, state.dead)
    numbers = _C + 2 + len(table.mortal)
    if torch.compiler.is_compiling() and stop is None:
        return _after(state, _looped(table, life, now, keys.stream(state.key, _MONTH, numbers)))
    longest = int(count.max()) if count.numel() else 0
    few = longest * len(state.key) <= _MONTHS_IN_ONE_CALL  # small batches pay by the call: all months' numbers in one
    if few:
        each = state.month.unsqueeze(-1) + torch.arange(longest, device=device)
        ahead = keys.uniform(state.key.repeat_interleave(longest), each.flatten(), _MONTH, (numbers,))
        ahead = ahead.reshape(-1, longest, numbers)
    for step in range(longest):
        u = ahead[:, step] if few else keys.uniform(state.key, now.month, _MONTH, (numbers,))
        alive = ~now.dead
        now, started = _month(table, life, now, u, life.months > step)
        if stop is not None:
            on = (life.months > step) & alive & ~now.dead
            halt = on & (started & stop).any(-1)
            halt = halt & (keys.uniform(state.key, now.month, "progression/stop") < stop_chance)
            life = life._replace(months=torch.where(halt, torch.zeros_like(life.months), life.months))
    return _after(state, now)


class _Life(NamedTuple):
    """What the months of a step have in common."""

    static: Tensor  # [B, E] see `static_rates`
    sex_female: Tensor  # [B]
    entry_age_years: Tensor  # [B]
    traits: Tensor  # bool [B, TRAITS]
    treated: Tensor  # bool [B, TREATMENTS]
    months: Tensor  # int64 [B] how many they are


class _Now(NamedTuple):
    """What a month changes; fields as in `ProgressionState`."""

    month: Tensor
    present: Tensor
    ever: Tensor
    lasted: Tensor
    bleeding: Tensor
    dead: Tensor


def _after(state: ProgressionState, now: _Now) -> ProgressionState:
    return state._replace(
        month=now.month,
        present=now.present,
        ever=now.ever,
        years_since_onset=now.lasted,
        bleeding=now.bleeding,
        dead=now.dead,
    )


def _month(table: Tables, life: _Life, now: _Now, u: Tensor, counts: Tensor) -> tuple[_Now, Tensor]:
    """The next month of the living for whom it `counts` (bool [B]), from uniforms u [B, C + 2 + mortal]; and which
    conditions [B, C] begin in it."""
    month, present, ever, lasted, bleeding, dead = now
    live = counts & ~dead
    age = life.entry_age_years + month.to(torch.float32) * MONTH_YEARS
    rates = log_rates(life.static, life.sex_female, age, present, ever, lasted, life.traits, life.treated, table).exp()
    wait = waiting_times(u[:, : _C + 2].contiguous())
    after = turn(rates, wait[:, :_C], present, ever, lasted, MONTH_YEARS, table)
    event = wait[:, _C:] < rates[:, 2 * _C :].clamp_max(FASTEST_PER_YEAR) * MONTH_YEARS
    decades = ((age - 60.0) * 0.1).clamp_max(OLDEST_KILLED).unsqueeze(-1)
    chance = (table.log_fatality + decades * FATALITY_PER_DECADE).exp()
    killed = (after.started[:, table.mortal] & (u[:, _C + 2 :] < chance)).any(-1)
    bleeding = bleeding | (live & event[:, 1])
    dead = dead | (live & (event[:, 0] | killed))
    on = (live & ~dead).unsqueeze(-1)
    present = torch.where(on, after.present, present)
    ever = torch.where(on, after.ever, ever)
    lasted = torch.where(on, after.years_since_onset, lasted)
    return _Now(month + live.to(torch.int64), present, ever, lasted, bleeding, dead), after.started


def _looped(table: Tables, life: _Life, now: _Now, stream: tuple[Tensor, Tensor]) -> _Now:
    """All months as one loop of a graph, whose body reads nothing but what it is handed."""
    rows = [x for x in table if isinstance(x, Tensor)]
    lives, own = len(life), len(now)

    def body(i: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        here, theirs, rest = _Now(*given[:own]), _Life(*given[own : own + lives]), given[own + lives :]
        named: dict[str, Any] = dict(zip(table._fields, rest[2:], strict=False))  # the last field is no tensor
        own_table = table._replace(**named)
        return tuple(_month(own_table, theirs, here, keys.drawn((rest[0], rest[1]), here.month), theirs.months > i)[0])

    carried = tuple(x.contiguous() for x in now)  # as the body gives them
    return _Now(*repeated(life.months.amax(), body, carried, (*life, *stream, *rows)))
