"""One patient alone, compiled: from an action to what `ClinicalEnv.step` gives in one call of machine code.

A state of a hundred small tensors costs more to hand over than to compute. What changes from step to step lies in one
row of memory a kind of number (`_Layout`), what does not in another, and the code takes and gives these. They become
the tensors of `Episodes.now` when somebody asks for them. Patients to come are drawn ahead, several at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinenv.compiled import Compiled, Run
from clinenv.episodes import Episodes, Held, Running
from clinenv.simulator import Step
from clinenv.view import ChartView
from world_models import tree

__all__ = ["Alone", "Stepped"]

Stepped = tuple[Any, float, bool, bool, dict[str, Any]]  # what `ClinicalEnv.step` gives
_AHEAD = 16  # patients drawn at once, at little more than the price of one


class _Layout:
    """How the leaves of a tree lie in one row of memory a dtype.

    Args:
        leaves: an example [1, ...] of each.
    """

    def __init__(self, leaves: list[Tensor]) -> None:
        self._kinds = list(dict.fromkeys(x.dtype for x in leaves))
        ends = dict.fromkeys(self._kinds, 0)
        self._places: list[tuple[int, int, int, torch.Size]] = []  # which row, begin, end, shape
        for x in leaves:
            begin = ends[x.dtype]
            ends[x.dtype] = begin + x.numel()
            self._places.append((self._kinds.index(x.dtype), begin, ends[x.dtype], x.shape))

    def pack(self, leaves: list[Tensor]) -> tuple[Tensor, ...]:
        """Of leaves [R, ...] one tensor [R, N] for each dtype."""
        parts: list[list[Tensor]] = [[] for _ in self._kinds]
        for x, (which, *_) in zip(leaves, self._places, strict=True):
            parts[which].append(x.reshape(x.shape[0], -1))
        return tuple(torch.cat(each, 1) for each in parts)

    def unpack(self, rows: tuple[Tensor, ...]) -> list[Tensor]:
        """The leaves [1, ...] of rows [1, N], as views."""
        return [rows[which][0, begin:end].view(shape) for which, begin, end, shape in self._places]


class _Put(NamedTuple):
    """Where patients stand, as the compiled code takes it: tensors [R, N]."""

    moving: tuple[Tensor, ...]
    still: tuple[Tensor, ...]


class _Form(NamedTuple):
    """What a first step by Python showed of the shape of all of them."""

    like: tuple[Running, Tensor | None]  # a patient and what is admissible to him
    changes: tuple[bool, ...]  # which leaves of it a step makes anew
    moving: _Layout  # of these, then the orders carried out, then those that were wanted
    still: _Layout  # of the others
    names: tuple[str, ...]  # of the numbers in info, in order
    flags: tuple[str, ...]  # those of them that are true or false
    arrays: tuple[str, ...]  # what else is in info


class _Ahead(NamedTuple):
    """Patients drawn ahead: those of the episodes from `first` on of one row key."""

    base: int
    first: int
    put: _Put
    observation: np.ndarray  # [_AHEAD, n]
    numbers: list[list[float]]
    arrays: list[np.ndarray]  # [_AHEAD, ...] each


class Alone:
    """Steps the one patient of `episodes`, which hold it before and after.

    Whatever else changes them (a reset with options, a snapshot) is taken up at the next step.
    """

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes
        simulator, told = episodes.simulator, episodes.settings
        shown = (told.observation, told.noise, told.missingness, told.uncertainty, episodes.horizon_steps)
        bound = (simulator.world, simulator.task, simulator.wary, shown)
        what = f"one patient of {simulator.task.name} in {simulator.world.name}"
        self._code = Compiled(self._advanced, what, bound, threads=1)
        self._form: _Form | None = None
        self._run: Run | None = None
        self._put: _Put | None = None  # where the patient stands, if the last to change that was done here
        self._source: Any = None  # what `episodes` hold then
        self._ahead: _Ahead | None = None

    @staticmethod
    def can(episodes: Episodes) -> bool:
        """Whether there is one patient, on the CPU, of whom numbers of the chart are shown."""
        return episodes.count == 1 and episodes.device.type == "cpu" and isinstance(episodes.interface.view, ChartView)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None, "_put": None, "_source": None}

    @torch.no_grad()
    def next_patient(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """The world's next patient of the row's own key, as `ClinicalEnv.reset` gives him; None before the first step,
        and where patients come from elsewhere."""
        episodes, form = self._episodes, self._form
        if episodes.patients is not None or form is None:
            return None
        now = episodes.running
        base, episode, ahead = int(now.base), int(now.episode) + 1, self._ahead
        if ahead is None or ahead.base != base or not 0 <= episode - ahead.first < _AHEAD:
            ahead = self._ahead = self._drawn(form, now.base, episode)
        i = episode - ahead.first
        put = _Put(*(tuple(x[i : i + 1] for x in rows) for rows in ahead.put))
        self._hold(put, partial(self._held_at_start, put))
        info = self._info(form, ahead.numbers[i], [x[i].copy() for x in ahead.arrays])
        return ahead.observation[i].copy(), info

    def _drawn(self, form: _Form, base: Tensor, first: int) -> _Ahead:
        episodes = self._episodes
        each = torch.arange(first, first + _AHEAD, device=base.device)
        shown, fresh = episodes.fresh(base.expand(_AHEAD).contiguous(), each)
        allowed = episodes.task_allows(fresh)
        facts = episodes.facts_of(fresh, allowed)
        none = torch.zeros(_AHEAD, device=base.device)  # what a step is judged by
        numbers = torch.stack([facts.get(name, none).to(torch.float32) for name in form.names], 1)
        return _Ahead(
            int(base),
            first,
            self._packed(form, fresh, allowed),
            shown.numpy(),
            numbers.tolist(),
            [facts[name].numpy() for name in form.arrays],
        )

    @torch.no_grad()
    def step(self, action: Any) -> Stepped | None:
        """See `ClinicalEnv.step`; None where there is no compiler.

        Raises:
            ValueError: an action outside the action space.
            CompileError: the world or the task cannot be compiled.
        """
        episodes = self._episodes
        orders = episodes.interface.codec.single(action)
        if orders is None:  # no plain action of the space: refused there, or taken in another form
            orders = episodes.interface.codec(action[None] if isinstance(action, Tensor) else [action], 1)
        if self._form is None:
            self._form = self._shown()
        form, put = self._form, self._put
        if put is None or episodes.source is not self._source:
            now = episodes.running
            put = self._packed(form, now, episodes.task_allows(now))
        if self._run is None:
            self._run = self._code.flat(put.moving, put.still, orders)
            if self._run is None:
                return None
        out = self._run([*put.moving, *put.still, orders])
        kinds = len(put.moving)
        after = _Put(tuple(out[:kinds]), put.still)
        self._hold(after, partial(self._held_after, put, after))
        values = out[kinds + 1].tolist()
        info = self._info(form, values, [x.numpy() for x in out[kinds + 2 :]])
        reward, terminated, truncated = values[-3:]
        return out[kinds].numpy(), reward, terminated > 0, truncated > 0, info

    @staticmethod
    def _info(form: _Form, values: list[float], arrays: list[np.ndarray]) -> dict[str, Any]:
        """Of numbers that begin with those of the form's names."""
        info: dict[str, Any] = dict(zip(form.names, values, strict=False))
        for name in form.flags:
            info[name] = info[name] > 0
        info.update(zip(form.arrays, arrays, strict=True))
        return info

    def _hold(self, put: _Put, held: Callable[[], Held]) -> None:
        self._put, self._source = put, held
        self._episodes.hold(held)

    def _shown(self) -> _Form:
        """The form of all steps, by one without orders."""
        episodes = self._episodes
        now = episodes.running
        allowed = episodes.task_allows(now)
        orders = torch.zeros(1, len(episodes.simulator.world.orders), device=episodes.device)
        later, allowed_later, facts, *_ = self._python(now, allowed, orders)
        leaves = tree.leaves((now, allowed))
        leaves_later = tree.leaves((later, allowed_later))
        changes = tuple(x is not y for x, y in zip(leaves, leaves_later, strict=True))
        single = {name: value.dtype for name, value in facts.items() if value.ndim == 1}
        return _Form(
            (now, allowed),
            changes,
            _Layout([*(x for x, c in zip(leaves_later, changes, strict=True) if c), orders, orders]),
            _Layout([x for x, c in zip(leaves, changes, strict=True) if not c]),
            tuple(single),
            tuple(name for name, dtype in single.items() if dtype == torch.bool),
            tuple(name for name in facts if name not in single),
        )

    def _packed(
        self, form: _Form, now: Running, allowed: Tensor | None, orders: tuple[Tensor, Tensor] | None = None
    ) -> _Put:
        """Patients [R] in rows, with the orders carried out and wanted [R, A]; by default none."""
        leaves = tree.leaves((now, allowed))
        if orders is None:
            nothing = torch.zeros(len(now.steps), len(self._episodes.simulator.world.orders), device=now.steps.device)
            orders = nothing, nothing
        changed = [x for x, changes in zip(leaves, form.changes, strict=True) if changes]
        still = [x for x, changes in zip(leaves, form.changes, strict=True) if not changes]
        return _Put(form.moving.pack([*changed, *orders]), form.still.pack(still))

    def _unpacked(self, put: _Put) -> tuple[Running, Tensor | None, Tensor, Tensor]:
        """The patient, what is admissible to him, the orders carried out and wanted."""
        form = self._form
        assert form is not None
        *changed, given, wanted = form.moving.unpack(put.moving)
        moved, kept = iter(changed), iter(form.still.unpack(put.still))
        found = iter([next(moved) if changes else next(kept) for changes in form.changes])
        now, allowed = tree.map_leaves(lambda _: next(found), form.like)
        return now, allowed, given, wanted

    def _held_after(self, before: _Put, after: _Put) -> Held:
        """What `Episodes` hold after a step."""
        now, allowed, given, wanted = self._unpacked(after)
        return Held(now, given, (self._unpacked(before)[0].chart, wanted), allowed)

    def _held_at_start(self, put: _Put) -> Held:
        now, allowed, *_ = self._unpacked(put)
        return Held(now, None, None, allowed)

    def _python(
        self, now: Running, allowed: Tensor | None, orders: Tensor
    ) -> tuple[Running, Tensor | None, dict[str, Tensor], Tensor, Step, Tensor, Tensor]:
        """A step: where it leads, what is admissible there, info, the observation; what was judged, whether the time is
        up, and the orders that were wanted."""
        episodes = self._episodes
        moved = episodes.advance(now, orders, allowed, plain=True)
        after = episodes.task_allows(moved.now)
        info = {**episodes.facts_of(moved.now, after), **episodes.verdict(moved.out)}
        return moved.now, after, info, moved.observation, moved.out, moved.truncated, moved.wanted

    def _advanced(self, moving: tuple[Tensor, ...], still: tuple[Tensor, ...], orders: Tensor) -> tuple[Tensor, ...]:
        """What is compiled. Gives what moves after the step, the observation, info's numbers with reward and both ends
        behind them, then info's arrays."""
        form = self._form
        assert form is not None
        now, allowed, *_ = self._unpacked(_Put(moving, still))
        later, after, info, observation, out, truncated, wanted = self._python(now, allowed, orders)
        put = self._packed(form, later, after, (out.given, wanted))
        numbers = [*(info[name] for name in form.names), out.reward, out.terminated, truncated]
        return (
            *put.moving,
            observation[0],
            torch.cat([x.to(torch.float32) for x in numbers]),
            *(info[name][0] for name in form.arrays),
        )
