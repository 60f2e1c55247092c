"""Patients who wait: of every row the next ones, drawn ahead in one batch.

Beginning a patient costs nearly as much as beginning a hundred, and in a batch of thousands some row ends at almost
every step. Who comes next depends on the row's key and the episode's number alone, so it can be drawn at any time: the
patients and their order are the same, whoever ended before (in a learned world but for the last bits, which follow the
batch's size). Those who wait stand in the rows in which they will begin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clinenv.running import Running
from world_models import tree

__all__ = ["WaitingRoom"]

DEPTH = 2  # patients who wait for each row: with one, the first row to end twice would have the room filled again
FEW = 4  # a batch of at least a part in so many is drawn for itself
MOST_BYTES = 256 * 2**20  # of the room: whose charts hold waveforms would fill the memory


class WaitingRoom:
    """The next patients of `count` rows.

    Args:
        fresh: patients as they begin, from row keys int64 [R] and numbers of episodes int64 [R]: where they stand, what
            is shown of them, and what else is told.
    """

    def __init__(self, count: int, fresh: Callable[[Tensor, Tensor], tuple[Running, Any, Any]]) -> None:
        self._count = count
        self._fresh = fresh
        self._waiting: list[tuple[Any, ...]] = []  # DEPTH batches [count]: who comes next, and who after him

    def renewed(self, now: tuple[Any, ...], ended: Tensor) -> tuple[Any, ...]:
        """`now` with the next patients in the rows `ended`, bool [count].

        Args:
            now: where all rows stand (`Running`), then as much of what `fresh` gives besides as is wanted.
        """
        running, rows = now[0], ended.nonzero().flatten()
        if len(rows) * FEW >= self._count or self._bytes(now) > MOST_BYTES:
            drawn = self._fresh(running.base[rows], running.episode[rows] + 1)
            return tree.put(now, rows, drawn[: len(now)])
        if not (self._waiting and self._there(running, 0, 1)[rows].all()):
            self._move_up(running)
            if not self._there(running, 0, 1)[rows].all():
                self._fill(running)
        return tree.exchange(now, rows, self._waiting[0][: len(now)])

    def _bytes(self, now: tuple[Any, ...]) -> int:
        return DEPTH * sum(leaf.numel() * leaf.element_size() for leaf in tree.leaves(now))

    def _there(self, running: Running, place: int, ahead: int) -> Tensor:
        """bool [count]: in whose `place` the patient waits who comes `ahead` episodes from now."""
        waiting: Running = self._waiting[place][0]
        return (waiting.base == running.base) & (waiting.episode == running.episode + ahead)

    def _move_up(self, running: Running) -> None:
        """Who stood behind a patient that has begun is the next one; in an empty room, everybody is drawn."""
        if not self._waiting:
            first = self._fresh(running.base.repeat(DEPTH), self._numbers(running).flatten())
            self._waiting = [tree.take(first, part) for part in tree.runs(DEPTH * self._count, self._count)]
            return
        for place in range(DEPTH - 1):
            rows = self._there(running, place + 1, place + 1).nonzero().flatten()
            self._waiting[place] = tree.exchange(self._waiting[place], rows, self._waiting[place + 1])

    def _numbers(self, running: Running) -> Tensor:
        """int64 [DEPTH, count]: which episodes those are who should wait."""
        return running.episode + torch.arange(1, DEPTH + 1, device=running.episode.device)[:, None]

    def _fill(self, running: Running) -> None:
        """Whoever is missing is drawn, all in one batch."""
        missing = [(~self._there(running, place, place + 1)).nonzero().flatten() for place in range(DEPTH)]
        numbers = self._numbers(running)
        base = torch.cat([running.base[rows] for rows in missing])
        drawn = self._fresh(base, torch.cat([each[rows] for each, rows in zip(numbers, missing, strict=True)]))
        begin = 0
        for place, rows in enumerate(missing):
            here = tree.take(drawn, slice(begin, begin + len(rows)))
            self._waiting[place] = tree.put(self._waiting[place], rows, here)
            begin += len(rows)
