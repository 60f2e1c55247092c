"""What there is to know of running patients, as `Episodes` hold it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from clinenv.simulator import Step
from clinenv.view import Kept
from world_models.protocol import Chart

__all__ = ["Held", "Moved", "Running"]


class Running(NamedTuple):
    """Everything there is to save: patients, their random keys, and where in their course they are."""

    state: Any  # the world's
    chart: Chart  # now, with the measures on request that the observation shows
    shown: Kept  # what the decider last saw
    base: Tensor  # int64 [B] key of the row, from its seed
    episode: Tensor  # int64 [B] how many episodes this row had before
    steps: Tensor  # int64 [B] since the reset


class Held(NamedTuple):
    """What is known of the running patients: where they stand, and what led there."""

    now: Running | None = None
    given: Tensor | None = None  # see `Episodes.given`
    wanted: tuple[Chart, Tensor] | None = None  # see `Episodes.wanted`
    admissible: Tensor | None = None  # bool [B, A] of the chart now, once it was asked for

    def begun(self, now: Running, rows: Tensor) -> Held:
        """With new patients in the rows where bool [B] holds: nothing was ordered for them yet."""

        def none(orders: Tensor) -> Tensor:
            return torch.where(rows.unsqueeze(-1), 0.0, orders)

        given = None if self.given is None else none(self.given)
        return Held(now, given, None if self.wanted is None else (self.wanted[0], none(self.wanted[1])))


class Moved(NamedTuple):
    """What a step of all rows gave."""

    now: Running
    observation: Any
    out: Step
    truncated: Tensor  # bool [B]
    wanted: Tensor  # float32 [B, A] of what was ordered, what was not lost
