"""Edits of a policy's orders: what a rollout may do otherwise, from now until it plans again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clinenv.simulator import Simulator
from clinenv.task import Actions, Doses, Levels, Menu, Switches
from world_models.quantity import Quantity

__all__ = ["Edits", "edits_of"]

DOSE_SCALES = (0.5, 1.5)


@dataclass(frozen=True)
class Edits:
    """E ways to change orders float32 [A]; an order is added by one of them at most.

    An edit multiplies orders, otherwise at its first step than for as long as it holds, and adds at its first step: a
    test that the policy does not ask for, a dose now.
    """

    names: tuple[str, ...]
    first: Tensor  # float32 [E, A] scales at the first step
    then: Tensor  # float32 [E, A] scales at the others
    added: Tensor  # float32 [E, A]: at the first step each order is at least this
    highest: Tensor  # float32 [A] that scaling does not exceed
    together: bool  # whether several may hold at once; rows of a menu do not

    def __len__(self) -> int:
        return len(self.names)

    def of(self, orders: Iterable[str]) -> Edits:
        """Only those that edit one of these orders.

        Raises:
            ValueError: there are none.
        """
        wanted = tuple(orders)
        kept = [i for i, name in enumerate(self.names) if any(order in name.split() for order in wanted)]
        if not kept:
            raise ValueError(f"no edit is of {', '.join(wanted) or 'no order'}; there are: {', '.join(self.names)}")
        return self.taken(kept)

    def taken(self, index: list[int]) -> Edits:
        """Only those at these places."""
        names = tuple(self.names[i] for i in index)
        return replace(self, names=names, first=self.first[index], then=self.then[index], added=self.added[index])

    def applied(self, orders: Tensor, chosen: Tensor, step: Tensor | int) -> Tensor:
        """Orders float32 [R, A] under the edits chosen bool [R, E], `step` (int64 [R]) steps after they began."""
        begins = torch.as_tensor(step, device=orders.device).eq(0).expand(len(orders)).unsqueeze(-1)
        holds = chosen.to(orders.dtype)
        scale = torch.where(begins, _product(holds, self.first), _product(holds, self.then))
        edited = torch.where(scale == 1.0, orders, torch.minimum(orders * scale, torch.maximum(orders, self.highest)))
        return torch.where(begins, torch.maximum(edited, holds @ self.added), edited)

    def relevant(self, given: Tensor, at_once: Tensor) -> Tensor:
        """bool [B, E]: edits that change anything, where the policy gives orders bool [B, A] at some time while an edit
        would hold, in any future, and float32 [B, A] at the first step, the least over futures."""
        changes = (self.first != 1.0) | (self.then != 1.0)
        takes = (changes & given.unsqueeze(1)).any(-1)
        return takes | (self.added > at_once.unsqueeze(1)).any(-1)


def _product(holds: Tensor, scale: Tensor) -> Tensor:
    """float32 [R, A]: of holds float32 [R, E], 0 or 1, the product of those scales [E, A]. By logarithms, for a product
    over rows x edits x orders takes gigabytes."""
    ruled_out = holds @ (scale == 0).to(holds.dtype)
    return torch.where(ruled_out > 0, 0.0, (holds @ scale.clamp_min(1e-9).log().masked_fill(scale == 0, 0.0)).exp())


def edits_of(simulator: Simulator, scales: tuple[float, ...] = DOSE_SCALES) -> Edits:
    """What the task's kind of action suggests.

    - Concurrent orders (levels, switches): each left out, and each given now at its largest level. The order that says
      how long a step lasts stays as it is.
    - Doses: each left out, and multiplied by each of `scales`; what can only be given or not is also given now.
    - A menu: each row now in place of the policy's, and then the policy again, or nothing while the edit holds.
    """
    task, world, device = simulator.task, simulator.world, simulator.device
    rows = _of_menu(task.actions, world.orders) if isinstance(task.actions, Menu) else []
    for name in _concurrent(task.actions):
        rows += _of_order(task.actions, name, world.orders, scales)
    names, *tables = zip(*rows, strict=True)
    first, then, added = (torch.stack(list(table)).to(device) for table in tables)
    # a world may take more than the task's action can say: twice the label's largest dose
    allowed = task.actions.highest if isinstance(task.actions, Doses) else {}
    highest = torch.tensor([float(allowed.get(q.name, q.high)) for q in world.orders], device=device)
    return Edits(tuple(names), first, then, added, highest, not isinstance(task.actions, Menu))


_Row = tuple[str, Tensor, Tensor, Tensor]  # name, first, then, added


def _of_menu(actions: Menu, orders: tuple[Quantity, ...]) -> list[_Row]:
    one, none = torch.ones(len(orders)), torch.zeros(len(orders))
    rows: list[_Row] = []
    for (label, _), amounts in zip(actions.entries, actions.table(orders), strict=True):
        rows += [(f"{label} now", none, one, amounts), (f"{label} now, then nothing", none, none, amounts)]
    return rows


def _of_order(actions: Actions, name: str, orders: tuple[Quantity, ...], scales: tuple[float, ...]) -> list[_Row]:
    column = next(i for i, q in enumerate(orders) if q.name == name)
    yes_or_no = orders[column].unit == "bool"
    here, one, none = torch.zeros(len(orders)), torch.ones(len(orders)), torch.zeros(len(orders))
    here[column] = 1.0
    rows: list[_Row] = [(f"without {name}", one - here, one - here, none)]
    amount = _standard(actions, name, yes_or_no)
    if amount > 0:
        rows.append((f"{name} now", one, one, here * amount))
    if isinstance(actions, Doses) and not yes_or_no:
        for factor in scales:
            scaled = one + here * (factor - 1.0)
            rows.append((f"{factor:g} x {name}", scaled, scaled, none))
    return rows


def _concurrent(actions: Actions) -> tuple[str, ...]:
    """Orders that are edited one by one."""
    if isinstance(actions, Menu):
        return ()
    interval = actions.interval if isinstance(actions, Levels) else ""
    return tuple(name for name in actions.names if name != interval)


def _standard(actions: Actions, name: str, yes_or_no: bool) -> float:
    """The amount at which an order is added; 0: it has none."""
    if isinstance(actions, Switches):
        return actions.standard[name]
    if isinstance(actions, Levels):
        return max(actions.amounts[name])
    return 1.0 if yes_or_no else 0.0
