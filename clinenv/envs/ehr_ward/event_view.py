"""observation="events": the set of what was ordered and what came of it in the last step, as arrays of fixed size.

Also what both other forms of the ward's observation remember of a step: the orders carried out and the new results.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from clinenv.envs.ehr_ward.columns import STATIC_COLUMNS
from clinenv.envs.ehr_ward.rewards import SAME_HOURS
from clinenv.task import Task
from clinenv.view import Kept, View
from world_models.protocol import Chart, WorldModel
from world_models.quantities.ward import INQUIRIES, ORDERS

__all__ = ["KINDS", "SLOTS", "EventsView", "Remembered", "StepView"]

KINDS = ("empty", "inquiry", "intervention", "result")
_TESTS = len(INQUIRIES)
SLOTS = len(ORDERS) + _TESTS  # every order and every result may come in one step


class Remembered(NamedTuple):
    """What is kept of a step beside the chart's row."""

    given: Tensor  # [B, A] orders carried out, in their units
    new: Tensor  # bool [B, I] a result came


class StepView(View):
    """Keeps the orders carried out and which results are new: float32 [B, A + I]."""

    width = len(ORDERS) + _TESTS

    def __init__(self, world: WorldModel, task: Task) -> None:
        super().__init__(world, task)
        self.device = torch.device(world.device)
        self._age, self._seen = self.place("inquiry_age_hours[0]"), self.place("inquiry_seen[0]")
        self._hours = self.place("hours")

    def place(self, name: str) -> int:
        """Where a label stands in the row."""
        return self.layout.names.index(name)

    def part(self, row: Tensor, name: str, count: int = _TESTS) -> Tensor:
        """The entries [B, count] of a measure with several."""
        start = self.place(f"{name}[0]")
        return row[:, start : start + count]

    def keep(self, row: Tensor, chart: Chart, last: Kept | None, given: Tensor | None) -> Tensor:
        """float32 [B, A + I]: see the class."""
        before = None if last is None else last.row
        seen = row[:, self._seen : self._seen + _TESTS] > 0.5
        new = seen
        if before is not None:
            age, old = (x[:, self._age : self._age + _TESTS] for x in (row, before))
            hours = (row[:, self._hours] - before[:, self._hours]).unsqueeze(-1)
            known = before[:, self._seen : self._seen + _TESTS] > 0.5
            new = seen & ((age < old + hours - SAME_HOURS) | ~known)
        if given is None:
            given = row.new_zeros(row.shape[0], len(ORDERS))
        return torch.cat([given, new.to(torch.float32)], -1)

    @staticmethod
    def remembered(kept: Tensor) -> Remembered:
        """What `keep` gave, [B, A + I], by name."""
        return Remembered(kept[:, : len(ORDERS)], kept[:, len(ORDERS) :] > 0.5)


class EventsView(StepView):
    """`Dict` of arrays over SLOTS places, filled from the front: orders in the columns' order, then
    results; the places behind are empty.

    - `item` int32 [SLOTS]: index in `quantities.ward.ORDERS`; a result has the index of the inquiry it answers;
    - `kind` int8 [SLOTS]: index in KINDS;
    - `value` float32 [SLOTS]: an intervention's amount as a share of the largest; 1 for an inquiry; a result on the
      scale of the flat chart;
    - `age_hours` float32 [SLOTS]: since a result was drawn, in hours; 0 for orders;
    - `mask` int8 [SLOTS]: 1 where there is an event;
    - `context` float32: static context and hours since admission, scaled as in the flat chart.
    """

    def __init__(self, world: WorldModel, task: Task) -> None:
        super().__init__(world, task)
        box, names = self.layout.box(), {column.name for column in STATIC_COLUMNS}
        static = [i for i, label in enumerate(self.layout.names) if label.split("[")[0] in names]
        self._context = [*static, self._hours]
        self._values = self.place(INQUIRIES[0].name)
        result = slice(self._values, self._values + _TESTS)
        low, high = min(0.0, float(box.low[result].min())), max(1.0, float(box.high[result].max()))
        full = (SLOTS,)
        self.space = spaces.Dict(
            {
                "item": spaces.Box(0, len(ORDERS) - 1, full, np.int32),
                "kind": spaces.Box(0, len(KINDS) - 1, full, np.int8),
                "value": spaces.Box(low, high, full, np.float32),
                "age_hours": spaces.Box(0.0, float(self.layout.high[self._age]), full, np.float32),
                "mask": spaces.Box(0, 1, full, np.int8),
                "context": spaces.Box(box.low[self._context], box.high[self._context], dtype=np.float32),
            }
        )
        self._largest = torch.tensor([float(q.high) for q in ORDERS], device=self.device)
        self._item = torch.cat([torch.arange(len(ORDERS)), torch.arange(_TESTS)]).to(self.device)
        kinds = [1] * _TESTS + [2] * (len(ORDERS) - _TESTS) + [3] * _TESTS
        self._kind = torch.tensor(kinds, device=self.device)
        self._slot = torch.arange(SLOTS, device=self.device)

    def show(self, scaled: Tensor, kept: Kept, chart: Chart) -> dict[str, Tensor]:
        """The arrays of the class's docstring, [B, ...]."""
        row, past = kept.row, self.remembered(kept.more)
        there = torch.cat([past.given > 0, past.new], -1)
        value = torch.cat([past.given / self._largest, scaled[:, self._values : self._values + _TESTS]], -1)
        age = torch.cat([torch.zeros_like(past.given), row[:, self._age : self._age + _TESTS]], -1)
        # stable: events come first, in their own order
        order = (self._slot + (~there).to(torch.int64) * SLOTS).argsort(-1)
        mask = torch.gather(there, 1, order)

        def filled(x: Tensor) -> Tensor:
            return torch.where(mask, torch.gather(x.expand(there.shape), 1, order), 0)

        return {
            "item": filled(self._item).to(torch.int32),
            "kind": filled(self._kind).to(torch.int8),
            "value": filled(value),
            "age_hours": filled(age),
            "mask": mask.to(torch.int8),
            "context": scaled[:, self._context].contiguous(),
        }
