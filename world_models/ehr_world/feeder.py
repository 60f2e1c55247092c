"""What every training of a learned ward shares: its schedule, and batches of stays as a function of the step alone, so
that a resumed run meets the same data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from world_models import tree
from world_models.ehr_world.set_outcome.stay_tensors import Stays, pad
from world_models.training import Schedule

__all__ = ["Feeder", "join", "schedule"]

_POOL = 16  # batches whose stays are sorted by length together: little padding, still mixed


WARM_UP = 100  # steps, or a tenth of a shorter run
CLIP = 10.0  # norm of a gradient
_EPOCHS_APART = 100_003  # seeds of runs lie this far apart: a prime, so that no two runs share an epoch's order


def schedule(
    steps: int, rate: float, weight_decay: float, save_every_s: float, average: float | None = None
) -> Schedule:
    """Warm-up and cosine of a run of `steps`; `average` as in `Schedule`, None for its default.

    A batch of long stays has a large gradient by right: clipped to one length, early deaths would count for more. So
    the limit is one that few batches meet.
    """
    warm = min(WARM_UP, max(1, steps // 10))
    made = Schedule(steps, rate, warm_up=warm, weight_decay=weight_decay, clip=CLIP, save_every_s=save_every_s)
    return made if average is None else dataclasses.replace(made, average=average)


def join(shards: Sequence[Stays]) -> Stays:
    """Shards one after the other, on as many positions as the longest has."""
    longest = max(s.value.shape[1] for s in shards)
    return tree.cat([pad(s, longest) for s in shards])


class Feeder:
    """Batches of about equally long stays, cut to the longest of the batch.

    Args:
        stays: all training stays.
        batch: stays a batch.
        seed: of the order.
    """

    def __init__(self, stays: Stays, batch: int, seed: int = 0) -> None:
        self.stays, self.batch, self.seed = stays, batch, seed
        self.length = stays.valid.sum(1)
        self.per_epoch = max(1, len(self.length) // batch)
        self._order = lru_cache(maxsize=2)(self._epoch)

    def __call__(self, step: int) -> Stays:
        epoch, place = divmod(step, self.per_epoch)
        rows = self._order(epoch)[place]
        return pad(tree.take(self.stays, rows), int(self.length[rows].amax()))

    def _epoch(self, epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * _EPOCHS_APART + epoch)
        order = torch.randperm(len(self.length), generator=generator)
        batches: list[Tensor] = []
        for pool in order.split(_POOL * self.batch):
            batches.extend(pool[self.length[pool].argsort(stable=True)].split(self.batch))
        whole = [b for b in batches if len(b) == self.batch] or batches
        mixed = torch.randperm(len(whole), generator=generator).tolist()
        picked = [whole[i] for i in mixed]
        while len(picked) < self.per_epoch:
            picked.append(picked[0])
        return picked
