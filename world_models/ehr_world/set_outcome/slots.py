"""For which patients and items something is worked out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["FEW", "Slots", "slots_of"]

FEW = 8  # patients, at most, of whom compiled code works out every item


class Slots(NamedTuple):
    """Places of a chart that something is worked out for: where `held` holds, or everywhere."""

    held: Tensor  # bool [B, I]
    row: Tensor  # int64 [N]
    item: Tensor  # int64 [N]
    all: bool = False  # of them

    def put(self, into: Tensor, new: Tensor) -> Tensor:
        """`into` [B, I] with `new` [N] at the held places."""
        if self.all:
            return torch.where(self.held, new.view_as(into), into)
        return into.index_put((self.row, self.item), new)


def slots_of(held: Tensor) -> Slots:
    """The places [B, I] that are held. In a graph that is written for a compiler, of a few patients, all places: their
    number is then known beforehand, and what is not held costs less than it takes to find out."""
    if torch.compiler.is_compiling() and held.shape[0] <= FEW:
        batch, items = held.shape
        row = torch.arange(batch, device=held.device).repeat_interleave(items)
        return Slots(held, row, torch.arange(items, device=held.device).repeat(batch), True)
    at, column = held.nonzero(as_tuple=True)
    return Slots(held, at, column)
