"""One patient alone, compiled: from an action to what `ClinicalEnv.step` gives in one call of machine code.

A state of a hundred small tensors costs more to hand over than to compute. What changes from step to step lies in one
row of memory a kind of number (`_Layout`), what does not in another, and the code takes and gives these. They become
the tensors of `Episodes.now` when somebody asks for them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinenv.compiled import Compiled, Run
from clinenv.episodes import Episodes, Held, Moved, Running
from clinenv.view import ChartView
from world_models import tree

__all__ = ["Alone"]

Stepped = tuple[np.ndarray, float, bool, bool, dict[str, Any]]  # what `ClinicalEnv.step` gives


class _Layout:
    """How the leaves of a tree lie in one row of memory a dtype.

    Args:
        leaves: an example of each.
    """

    def __init__(self, leaves: list[Tensor]) -> None:
        self._kinds = list(dict.fromkeys(x.dtype for x in leaves))
        ends = dict.fromkeys(self._kinds, 0)
        self._places: list[tuple[int, int, int, torch.Size]] = []  # row, begin, end, shape
        for x in leaves:
            begin = ends[x.dtype]
            ends[x.dtype] = begin + x.numel()
            self._places.append((self._kinds.index(x.dtype), begin, ends[x.dtype], x.shape))

    def pack(self, leaves: list[Tensor]) -> tuple[Tensor, ...]:
        """One row [N] for each dtype."""
        parts: list[list[Tensor]] = [[] for _ in self._kinds]
        for x, (row, *_) in zip(leaves, self._places, strict=True):
            parts[row].append(x.reshape(-1))
        return tuple(torch.cat(each) for each in parts)

    def unpack(self, rows: tuple[Tensor, ...]) -> list[Tensor]:
        """The leaves, as views of the rows."""
        return [rows[row][begin:end].view(shape) for row, begin, end, shape in self._places]


class _Put(NamedTuple):
    """Where the one patient stands, as the compiled code takes it."""

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


class Alone:
    """Steps the one patient of `episodes`, which hold it before and after.

    Whatever else changes them (a reset, a snapshot) is taken up at the next step.
    """

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes
        simulator = episodes.simulator
        bound = (simulator.world, simulator.task, simulator.wary, episodes.settings, episodes.horizon_steps)
        self._code = Compiled(self._flat, f"one patient of {simulator.task.name} in {simulator.world.name}", bound)
        self._form: _Form | None = None
        self._run: Run | None = None
        self._put: _Put | None = None  # where the patient stands, if it was a step here that led there
        self._source: Any = None  # what `episodes` holds then

    @staticmethod
    def can(episodes: Episodes) -> bool:
        """Whether there is one patient, of whom numbers of the chart are shown."""
        return episodes.count == 1 and isinstance(episodes.interface.view, ChartView)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None, "_put": None, "_source": None}

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
        put = self._put
        if put is None or episodes.source is not self._source:
            put = self._taken_up(orders)
        run, form = self._run, self._form
        if run is None or form is None:
            run = self._run = self._code.flat(put.moving, put.still, orders)
            if run is None:
                return None
        assert form is not None
        out = run([*put.moving, *put.still, orders])
        kinds = len(put.moving)
        after = _Put(tuple(out[:kinds]), put.still)
        self._put, self._source = after, partial(self._held, put, after)
        episodes.hold(self._source)
        observation, numbers, *arrays = out[kinds:]
        values = numbers.tolist()
        info = dict(zip(form.names, values, strict=False))  # what follows the names are the last three
        for name in form.flags:
            info[name] = info[name] > 0
        for name, array in zip(form.arrays, arrays, strict=True):
            info[name] = array.numpy()
        reward, terminated, truncated = values[-3:]
        return observation.numpy(), reward, terminated > 0, truncated > 0, info

    def _taken_up(self, orders: Tensor) -> _Put:
        """Where the patient of the episodes stands."""
        episodes = self._episodes
        now = episodes.running
        allowed = episodes.task_allows(now)
        leaves = tree.leaves((now, allowed))
        if self._form is None:
            self._form = self._shown(now, allowed, orders)
        form = self._form
        nothing = torch.zeros_like(orders)
        moving = [x for x, changes in zip(leaves, form.changes, strict=True) if changes]
        still = [x for x, changes in zip(leaves, form.changes, strict=True) if not changes]
        return _Put(form.moving.pack([*moving, nothing, nothing]), form.still.pack(still))

    def _shown(self, now: Running, allowed: Tensor | None, orders: Tensor) -> _Form:
        """The form of all steps, by one."""
        moved, after, facts = self._python(now, allowed, orders)
        before, later = tree.leaves((now, allowed)), tree.leaves((moved.now, after))
        changes = tuple(x is not y for x, y in zip(before, later, strict=True))
        single = {name: value.dtype for name, value in facts.items() if value.ndim == 1}
        return _Form(
            (now, allowed),
            changes,
            _Layout([*(x for x, c in zip(later, changes, strict=True) if c), orders, orders]),
            _Layout([x for x, c in zip(later, changes, strict=True) if not c]),
            tuple(single),
            tuple(name for name, dtype in single.items() if dtype == torch.bool),
            tuple(name for name in facts if name not in single),
        )

    def _python(
        self, now: Running, allowed: Tensor | None, orders: Tensor
    ) -> tuple[Moved, Tensor | None, dict[str, Tensor]]:
        """A step: what it gave, what is admissible after it, and info."""
        episodes = self._episodes
        moved = episodes.advance(now, orders, allowed, plain=True)
        after = episodes.task_allows(moved.now)
        return moved, after, {**episodes.facts_of(moved.now, after), **episodes.verdict(moved.out)}

    def _flat(self, moving: tuple[Tensor, ...], still: tuple[Tensor, ...], orders: Tensor) -> tuple[Tensor, ...]:
        """What is compiled: the rows of what moves after the step, the observation, the numbers, then the arrays."""
        form = self._form
        assert form is not None
        now, allowed = self._leaves(moving, still)[0]
        moved, after, facts = self._python(now, allowed, orders)
        later = tree.leaves((moved.now, after))
        changed = [x for x, changes in zip(later, form.changes, strict=True) if changes]
        ends = (moved.out.reward, moved.out.terminated, moved.truncated)
        numbers = torch.cat([x.to(torch.float32) for x in (*(facts[name] for name in form.names), *ends)])
        return (
            *form.moving.pack([*changed, moved.out.given, moved.wanted]),
            moved.observation[0],
            numbers,
            *(facts[name][0] for name in form.arrays),
        )

    def _leaves(
        self, moving: tuple[Tensor, ...], still: tuple[Tensor, ...]
    ) -> tuple[tuple[Running, Tensor | None], Tensor, Tensor]:
        """The patient and what is admissible, the orders carried out and wanted, as views of the rows."""
        form = self._form
        assert form is not None
        *changed, given, wanted = form.moving.unpack(moving)
        each, kept = iter(changed), iter(form.still.unpack(still))
        found = iter([next(each) if changes else next(kept) for changes in form.changes])
        return tree.map_leaves(lambda _: next(found), form.like), given, wanted

    def _held(self, before: _Put, after: _Put) -> Held:
        """What `Episodes` hold after a step."""
        (now, allowed), given, wanted = self._leaves(*after)
        return Held(now, given, (self._leaves(*before)[0][0].chart, wanted), allowed)
