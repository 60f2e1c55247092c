"""One member's action and what it says: what he orders, what he holds back, and (of amounts alone) what he adjusts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from clinenv.arguments import as_numbers
from clinenv.codec import Codec, codec_of
from clinenv.envs.care_team.rights import NURSE, orders_of, standing
from clinenv.envs.care_team.settle import Word
from clinenv.task import Actions, Doses, Switches
from world_models.protocol import Chart
from world_models.quantities.ward import ORDERS

__all__ = ["RoleCodec"]

_HALF = 0.5  # of a yes-or-no entry of a Box: from here upwards it holds


class RoleCodec:
    """Translates the actions of one role.

    Args:
        role: one of `rights.ROLES`.
        actions: of the ward's task: `Switches` or `Doses`, of all orders.
        unit: of a Box of amounts: "scaled" or "units" (see `clinenv.codec`).

    Attributes:
        space: of one action: MultiBinary of switches, Box of amounts.
        labels: of its entries: an order's name, "hold ORDER" or "adjust ORDER".
    """

    space: spaces.MultiBinary | spaces.Box

    def __init__(self, role: str, actions: Switches | Doses, unit: str, device: torch.device) -> None:
        self.role, self.device = role, device
        ordered, held = orders_of(role, "order_it"), orders_of(role, "hold")
        adjusted = orders_of(role, "adjust") if isinstance(actions, Doses) else ()
        self._parts = [
            _part(actions, ordered, unit, device, "{}"),
            _part(actions, held, unit, device, "hold {}", yes_or_no=True),
            _part(actions, adjusted, unit, device, "adjust {}"),
        ]
        self.labels = [label for part in self._parts if part is not None for label in part.labels]
        if isinstance(actions, Switches):
            self.space = spaces.MultiBinary(len(self.labels))
        else:
            boxes = [part.space for part in self._parts if part is not None]
            low, high = (np.concatenate([getattr(box, side) for box in boxes]) for side in ("low", "high"))
            self.space = spaces.Box(low, high, dtype=np.float32)
        names = [order.name for order in ORDERS]
        self._columns = [
            torch.tensor([names.index(name) for name in part], dtype=torch.int64, device=device)
            for part in (ordered, held, adjusted)
        ]
        unit_is_share = isinstance(actions, Doses) and unit == "scaled"
        highest = [1.0 / actions.highest[name] if isinstance(actions, Doses) else 1.0 for name in names]
        self._per_unit = torch.tensor(highest, device=device) if unit_is_share else None

    def __call__(self, actions: Any, count: int) -> Word:
        """What the actions [count, entries] say; numpy, torch or lists.

        Raises:
            ValueError: no real numbers, another shape, or a value outside the action space; the message names the role.
        """
        given = as_numbers(actions, self.device)
        if given is None or given.is_complex() or tuple(given.shape) != (count, len(self.labels)):
            found = "no real numbers" if given is None or given.is_complex() else f"the shape {tuple(given.shape)}"
            raise ValueError(
                f"the {self.role}'s actions need the shape {(count, len(self.labels))}, got {found}; the entries are "
                f"{', '.join(self.labels[:6])}, ...: see action_space({self.role!r})"
            )
        said, start = [], 0
        for part in self._parts:
            width = 0 if part is None else len(part.labels)
            try:
                said.append(None if part is None else part(given[:, start : start + width], count))
            except ValueError as error:
                raise ValueError(f"the {self.role}'s {error}") from None
            start += width
        nothing = torch.zeros(count, len(ORDERS), device=self.device)
        orders, holds, adjusts = (nothing if x is None else x for x in said)
        return Word(orders, holds >= _HALF, adjusts)

    def mask(self, admissible: Tensor, chart: Chart) -> Tensor:
        """int8 [B, entries]: 1 where an entry says nothing that the chart forbids; a hold never does.

        Args:
            admissible: bool [B, A] what the ward carries out on this chart.
            chart: opens the standing orders.
        """
        mine = admissible & standing(chart) if self.role == NURSE else admissible
        ordered, held, adjusted = self._columns
        parts = [mine[:, ordered], mine.new_ones(len(mine), len(held)), admissible[:, adjusted]]
        return torch.cat(parts, -1).to(torch.int8)

    def encode(self, word: Word) -> Tensor:
        """The action that says `word`, float32 [B, entries]; of switches whether, not how much."""
        ordered, held, adjusted = self._columns
        amounts = [word.orders[:, ordered], word.adjusts[:, adjusted]]
        if self._per_unit is not None:
            amounts = [amounts[0] * self._per_unit[ordered], amounts[1] * self._per_unit[adjusted]]
        elif isinstance(self.space, spaces.MultiBinary):
            amounts = [(amount > 0).to(torch.float32) for amount in amounts]
        return torch.cat([amounts[0], word.holds[:, held].to(torch.float32), amounts[1]], -1)


def _part(
    actions: Actions, names: tuple[str, ...], unit: str, device: torch.device, label: str, yes_or_no: bool = False
) -> Codec | None:
    """The codec of some of the orders; None where there are none."""
    if not names:
        return None
    if isinstance(actions, Switches):
        part: Actions = Switches({name: 1.0 if yes_or_no else actions.standard[name] for name in names})
    else:
        assert isinstance(actions, Doses)
        part = Doses({name: 1.0 if yes_or_no else actions.highest[name] for name in names})
    codec = codec_of(part, ORDERS, unit if isinstance(actions, Doses) else "scaled", device)
    codec.labels = [label.format(name) for name in codec.labels]
    return codec
