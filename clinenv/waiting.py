"""Patients who wait: of every row the next ones, drawn ahead in one batch.

Beginning a patient costs nearly as much as beginning a hundred, and in a batch of thousands some row ends at almost
every step. Who comes next depends on the row's key and the episode's number alone, so it can be drawn at any time: the
patients and their order are the same, whoever ended before (in a learned world but for the last bits, which follow the
batch's size).
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
        fresh: patients as they begin, from row keys int64 [R] and numbers of episodes int64 [R]: what is shown of them,
            and where they stand.
    """

    def __init__(self, count: int, fresh: Callable[[Tensor, Tensor], tuple[Any, Running]]) -> None:
        self._count = count
        self._fresh = fresh
        self._waiting: tuple[Any, Running] | None = None  # row r's episode e in place (e % DEPTH) * count + r

    def next(self, running: Running, rows: Tensor) -> tuple[Any, Running]:
        """The next patients of rows int64 [R] of `running` [count], as `fresh` gives them."""
        base, episode = running.base[rows], running.episode[rows] + 1
        if len(rows) * FEW >= self._count or self._bytes(running) > MOST_BYTES:
            return self._fresh(base, episode)
        place = episode % DEPTH * self._count + rows
        if self._waiting is None or not self._there(base, episode, place).all():
            self._waiting = self._filled(running)
        return tree.take(self._waiting, place)

    def _bytes(self, running: Running) -> int:
        return DEPTH * sum(leaf.numel() * leaf.element_size() for leaf in tree.leaves(running))

    def _there(self, base: Tensor, episode: Tensor, place: Tensor) -> Tensor:
        """bool [R]: whose patient waits."""
        assert self._waiting is not None
        waiting = self._waiting[1]
        return (waiting.base[place] == base) & (waiting.episode[place] == episode)

    def _filled(self, running: Running) -> tuple[Any, Running]:
        """All who wait, once whoever is missing was drawn."""
        ahead = torch.arange(1, DEPTH + 1, device=running.base.device)[:, None]
        episode = (running.episode + ahead).flatten()
        base = running.base.repeat(DEPTH)
        place = episode % DEPTH * self._count + torch.arange(len(base), device=base.device) % self._count
        if self._waiting is None:
            order = place.argsort()
            return self._fresh(base[order], episode[order])
        missing = (~self._there(base, episode, place)).nonzero().flatten()
        drawn = self._fresh(base[missing], episode[missing])
        return tree.put(self._waiting, place[missing], drawn)
