"""Where patients stand, packed: what compiled code takes and gives.

A state of a hundred small tensors costs more to hand over, and to exchange rows of, than to compute. What changes from
step to step lies in one row of memory a patient and kind of number (`Layout`), what does not in another, and what all
patients share is kept once. They become the tensors of `Episodes.now` when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clinenv.episodes import Episodes, Held, Running
from clinenv.simulator import Step
from clinenv.view import ChartView
from world_models import tree

__all__ = ["Form", "Layout", "Packing", "Put", "Stepping"]

MOVES, STILL, ALIKE = range(3)  # what a step makes of a leaf: anew, the same, the same and one row for all patients


class Layout:
    """How the leaves of a tree lie in one row of memory a patient and dtype.

    Args:
        leaves: an example [B, ...] of each.
    """

    def __init__(self, leaves: list[Tensor]) -> None:
        self._kinds = list(dict.fromkeys(x.dtype for x in leaves))
        ends = dict.fromkeys(self._kinds, 0)
        self._places: list[tuple[int, int, int, torch.Size]] = []  # which row, begin, end, shape of a patient's part
        for x in leaves:
            begin = ends[x.dtype]
            ends[x.dtype] = begin + x.shape[1:].numel()
            self._places.append((self._kinds.index(x.dtype), begin, ends[x.dtype], x.shape[1:]))

    def pack(self, leaves: list[Tensor]) -> tuple[Tensor, ...]:
        """Of leaves [B, ...] one tensor [B, N] for each dtype, whose memory runs along the patients: so do the loops of
        compiled code."""
        parts: list[list[Tensor]] = [[] for _ in self._kinds]
        for x, (which, begin, end, _) in zip(leaves, self._places, strict=True):
            parts[which].append(x.reshape(x.shape[0], end - begin).T)
        return tuple(torch.cat(each).T for each in parts)

    def unpack(self, rows: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """The leaves [B, ...] of rows [B, N], as views."""
        for which, begin, end, shape in self._places:
            part = rows[which][:, begin:end]
            yield part.view(-1, *shape) if end > begin else part.new_zeros(len(part), *shape)


class Put(NamedTuple):
    """Where patients stand: tensors [B, N]."""

    moving: tuple[Tensor, ...]
    still: tuple[Tensor, ...]


class Form(NamedTuple):
    """What a first step by Python showed of the shape of all of them."""

    like: tuple[Running, Tensor | None]  # how the leaves are nested, each empty: patients, what is admissible to them
    kinds: tuple[int, ...]  # MOVES, STILL or ALIKE, a leaf of it each
    moving: Layout  # what moves, then the orders carried out, then those that were wanted
    still: Layout
    alike: tuple[Tensor, ...]  # [1, ...] what all patients share


class Stepping(NamedTuple):
    """A step by Python."""

    now: Running
    allowed: Tensor | None  # bool [B, A] what is admissible then
    info: dict[str, Tensor]
    observation: Any
    out: Step
    truncated: Tensor  # bool [B]
    wanted: Tensor  # float32 [B, A] the orders that were wanted


class Packing:
    """Packs the patients of `episodes`, and steps them by Python as compiled code shall."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes

    @staticmethod
    def can(episodes: Episodes) -> bool:
        """Whether they are on the CPU, numbers of the chart are shown of them, and what is said of a step follows from
        the step alone."""
        plain = type(episodes) is Episodes and isinstance(episodes.interface.view, ChartView)
        return plain and episodes.device.type == "cpu"

    def bound(self) -> tuple[Any, ...]:
        """What a step depends on besides where patients stand (see `compiled.Compiled`)."""
        simulator, told = self._episodes.simulator, self._episodes.settings
        shown = (told.observation, told.noise, told.missingness, told.uncertainty, self._episodes.horizon_steps)
        return simulator.world, simulator.task, simulator.wary, shown

    def form(self) -> tuple[Form, dict[str, Tensor]]:
        """The form of all steps from here on, and what info says, by one without orders."""
        episodes = self._episodes
        now = episodes.running
        allowed = episodes.task_allows(now)
        orders = self._none(len(now.steps))
        after = self.stepped(now, allowed, orders)
        leaves, later = tree.leaves((now, allowed)), tree.leaves((after.now, after.allowed))
        kinds = tuple(
            MOVES if x is not y else ALIKE if len(x) > 1 and x.stride(0) == 0 else STILL
            for x, y in zip(leaves, later, strict=True)
        )
        return Form(
            tree.map_leaves(lambda x: x.new_empty(0), (now, allowed)),
            kinds,
            Layout([*_of(kinds, later, MOVES), orders, orders]),
            Layout(_of(kinds, leaves, STILL)),
            tuple(x[:1] for x in _of(kinds, leaves, ALIKE)),
        ), after.info

    @staticmethod
    def fits(form: Form, now: Running, allowed: Tensor | None) -> bool:
        """Whether patients share what those of the form do."""
        return all(map(_shares, _of(form.kinds, tree.leaves((now, allowed)), ALIKE), form.alike))

    def pack(
        self, form: Form, now: Running, allowed: Tensor | None, orders: tuple[Tensor, Tensor] | None = None
    ) -> Put:
        """Patients [B] who fit the form, with the orders carried out and wanted [B, A], by default none."""
        leaves = tree.leaves((now, allowed))
        given, wanted = orders or (self._none(len(now.steps)),) * 2
        moving = [*_of(form.kinds, leaves, MOVES), given, wanted]
        return Put(form.moving.pack(moving), form.still.pack(_of(form.kinds, leaves, STILL)))

    @staticmethod
    def unpack(
        form: Form, put: Put, alike: tuple[Tensor, ...] | None = None
    ) -> tuple[Running, Tensor | None, Tensor, Tensor]:
        """The patients, what is admissible to them, the orders carried out and wanted.

        Args:
            alike: of the form, or what stands for it where code is compiled.
        """
        count = len(put.moving[0])
        *moved, given, wanted = form.moving.unpack(put.moving)
        shared = (x.expand(count, *x.shape[1:]) for x in (form.alike if alike is None else alike))
        each = {MOVES: iter(moved), STILL: form.still.unpack(put.still), ALIKE: iter(shared)}
        found = (next(each[kind]) for kind in form.kinds)
        now, allowed = tree.map_leaves(lambda _: next(found), form.like)
        return now, allowed, given, wanted

    def stepped(self, now: Running, allowed: Tensor | None, orders: Tensor) -> Stepping:
        """A pure function of tensors."""
        episodes = self._episodes
        moved = episodes.advance(now, orders, allowed, plain=True)
        after = episodes.task_allows(moved.now)
        info = {**episodes.facts_of(moved.now, after), **episodes.verdict(moved.out)}
        return Stepping(moved.now, after, info, moved.observation, moved.out, moved.truncated, moved.wanted)

    def after(self, form: Form, before: Put, later: Put) -> Held:
        """What `Episodes` hold after a step."""
        now, allowed, given, wanted = self.unpack(form, later)
        return Held(now, given, (self.unpack(form, before)[0].chart, wanted), allowed)

    def _none(self, count: int) -> Tensor:
        """float32 [count, A]: no orders."""
        return torch.zeros(count, len(self._episodes.simulator.world.orders), device=self._episodes.device)


def _of(kinds: tuple[int, ...], leaves: list[Tensor], kind: int) -> list[Tensor]:
    return [x for x, each in zip(leaves, kinds, strict=True) if each == kind]


def _shares(x: Tensor, row: Tensor) -> bool:
    """Whether the rows of x are all the memory of row [1, ...]."""
    return x.data_ptr() == row.data_ptr() and (len(x) == 1 or x.stride(0) == 0) and x.stride()[1:] == row.stride()[1:]
