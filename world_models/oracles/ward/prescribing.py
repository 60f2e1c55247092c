"""Orders in time: an action row becomes what runs in each half hour of the step.

A rate or a setting holds for the whole step. An amount starts at once and runs at its `per_hour`; what would not fit
into the step at that speed is spread over the whole step. Hence every ordered amount is given exactly, within its step.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.quantities.ward import INQUIRIES, INTERVENTIONS

__all__ = ["NAMES", "Prescription", "parted"]

NAMES = tuple(q.name for q in INTERVENTIONS)


@lru_cache(maxsize=8)
def _limits(device: torch.device) -> tuple[Tensor, Tensor]:
    """Fastest rate [J, 1] (1 where there is none); whether it is an amount [J, 1]."""
    speed = torch.tensor([q.per_hour or 1.0 for q in INTERVENTIONS], device=device).unsqueeze(-1)
    timed = torch.tensor([q.per_hour is not None for q in INTERVENTIONS], device=device).unsqueeze(-1)
    return speed, timed


def parted(action: Tensor) -> tuple[Tensor, Tensor]:
    """Inquiries asked for, bool [B, I], and amounts given, float32 [B, J], of checked orders [B, I + J]."""
    return action[:, : len(INQUIRIES)] >= 0.5, action[:, len(INQUIRIES) :].contiguous()


class Prescription(NamedTuple):
    """What runs when."""

    level: Tensor  # [J, B] as ordered: rows of it are contiguous
    rate: Tensor  # [J, B] of an amount, an hour
    duration: Tensor  # [J, B] in hours
    timed: Tensor  # bool [J, 1] whether it is an amount

    @classmethod
    def of(cls, given: Tensor, hours: float) -> Prescription:
        """Amounts [B, J] given over a step of `hours`."""
        speed, timed = _limits(given.device)
        level = given.T.contiguous()
        rate = torch.maximum(speed.expand_as(level), level / hours)
        return cls(level, rate, level / rate, timed)

    def during(self, start: float | Tensor, length: float) -> dict[str, Tensor]:
        """Mean rate an hour (or the setting) of each intervention between start and start + length hours."""
        return dict(zip(NAMES, self.rows(start, length).unbind(0), strict=True))

    def rows(self, start: float | Tensor, length: float) -> Tensor:
        """`during` as one tensor [J, B]; a `start` that is a tensor is float32 []."""
        share = (self.duration - start).clamp(0.0, length) / length
        return torch.where(self.timed, self.rate * share, self.level)
