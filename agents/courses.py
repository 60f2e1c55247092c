"""Running courses for training on the device: tensors in and out, who ends is replaced by the next patient at once.

Beginning a patient costs as much for one as for a hundred. New patients depend on their keys alone, so they are drawn
ahead, a whole batch at a time, and wait: patient n of a training is the same whoever ended before.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.episodes import Episodes, Running
from world_models import keys, tree

__all__ = ["Courses", "Happened"]


class Happened(NamedTuple):
    """One step of B patients. Where a course ended, the observation is the next patient's."""

    observation: Tensor  # float32 [B, n]
    reward: Tensor  # float32 [B]
    cost: Tensor  # float32 [B]
    ended: Tensor  # bool [B]: terminated or truncated


class Courses:
    """Courses of `episodes`, one patient after the other in every row.

    Args:
        episodes: of an environment that nobody else steps; what it shows must be one tensor.
        seed: of the patients. Those of two seeds are other patients, and none is one that `reset(seed=...)` meets.
    """

    def __init__(self, episodes: Episodes, seed: int) -> None:
        self._episodes = episodes
        parts = (episodes.horizon_steps, episodes.patients, episodes.settings)
        self._waiting = Episodes(episodes.simulator, episodes.interface, episodes.count, *parts)
        self._base = keys.fold(keys.from_seed(seed, 1, episodes.device), "training")
        self._batches = 0  # of patients that were drawn so far
        self._taken = 0  # of the last batch
        self._next: tuple[Tensor, Running] | None = None

    @property
    def episodes(self) -> Episodes:
        """The courses as they stand; read only."""
        return self._episodes

    def begin(self) -> Tensor:
        """The first patients of all rows: observation float32 [B, n]."""
        rows = torch.arange(self._episodes.count, device=self._episodes.device)
        observation, self._episodes.now = self._fresh(len(rows))
        return observation

    def step(self, actions: Tensor) -> Happened:
        """Act in every row.

        Raises:
            ValueError: an action outside the action space.
        """
        observation, out, truncated = self._episodes.step(actions)
        ended = out.terminated | truncated
        rows = ended.nonzero().squeeze(1)
        if len(rows):
            shown, fresh = self._fresh(len(rows))
            self._episodes.adopt(rows, fresh)
            observation = observation.index_copy(0, rows, shown)
        return Happened(observation, out.reward, out.cost, ended)

    def snapshot(self) -> tuple[bytes, dict[str, int]]:
        """Where all courses stand, and who waits: for `restore`."""
        return self._episodes.snapshot(), {"batches": self._batches, "taken": self._taken}

    def restore(self, courses: bytes, waiting: dict[str, int]) -> Tensor:
        """Go on where `snapshot` was taken; returns the observation there.

        Raises:
            SnapshotError (a ValueError): another world, task, settings or number of rows; nothing is changed then.
        """
        observation = self._episodes.restore(courses)
        self._batches = waiting["batches"] - 1
        self._draw()
        self._taken = waiting["taken"]
        return observation

    def _draw(self) -> None:
        """The next batch of patients into the waiting room."""
        first = self._batches * self._waiting.count
        numbers = torch.arange(first, first + self._waiting.count, device=self._waiting.device)
        self._next = self._waiting.begin(None, keys.fold(self._base, numbers))
        self._batches, self._taken = self._batches + 1, 0

    def _fresh(self, count: int) -> tuple[Tensor, Running]:
        """The next patients [count] and what is shown of them."""
        parts = []
        while count > 0:
            if self._next is None or self._taken == self._waiting.count:
                self._draw()
            assert self._next is not None
            stop = min(self._taken + count, self._waiting.count)
            whole = stop - self._taken == self._waiting.count
            parts.append(self._next if whole else tree.take(self._next, slice(self._taken, stop)))
            count -= stop - self._taken
            self._taken = stop
        return parts[0] if len(parts) == 1 else tree.cat(parts)
