"""Plans of concurrent choices: a level of each order at each step (`Levels`), or each order on or off (`Switches`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agents.planning.edit_plans import EditPlans
from agents.planning.plan_space import CategoricalPlans, PlanSpace, blocks_of, check_nothing, held
from clinenv.codec import pick_levels
from clinenv.task import Levels, Switches
from world_models.quantity import Quantity

__all__ = ["LevelPlans", "SwitchPlans", "fixed_levels"]


class LevelPlans(CategoricalPlans):
    """A level of each of D orders, one order after the other within a decision: int64 [..., decisions * D].

    Args:
        table: float32 [D, M, A] of `Levels.table`, M the largest number of levels; NaN where an order has fewer.
        horizon: H.
        nothing: prior probability of the first level where that is "nothing"; the other levels share the rest equally;
            an order without "nothing" has all its levels equally likely.
        once: bool [A], acts that a held decision does at its first step only.
        block: steps that a decision is held for; H makes a plan of one decision.

    Raises:
        ValueError: a probability outside [0, 1), or a block below 1.
    """

    def __init__(self, table: Tensor, horizon: int, nothing: float, once: Tensor, block: int = 1) -> None:
        check_nothing(nothing)
        exists = ~table[:, :, 0].isnan()
        count = exists.sum(-1, keepdim=True)
        optional = (table[:, 0] == 0).all(-1, keepdim=True) & (count > 1)  # [D, 1]
        others = torch.where(optional, (1.0 - nothing) / (count - 1).clamp_min(1), 1.0 / count)
        one = torch.where(exists, others, 0.0)
        one[:, :1] = torch.where(optional, nothing, one[:, :1])
        decided = blocks_of(horizon, block)
        super().__init__(one.to(torch.float32).repeat(decided, 1), decided)
        self._exists = exists.repeat(decided, 1)
        self._table, self._horizon, self._once, self._block, self._nothing = table, horizon, once, block, nothing
        self._counts: tuple[int, ...] = tuple(exists.sum(-1).tolist())

    def _uniform(self, weight: float) -> Tensor:
        return weight * self._exists / self._exists.sum(-1, keepdim=True)

    def anchors(self) -> Tensor:
        """int64 [N, places]: the first level of everything; each other level of each order alone, always and now."""
        nothing = torch.zeros(self._decided, len(self._counts), dtype=torch.int64, device=self._table.device)
        plans = [nothing]
        for entry, count in enumerate(self._counts):
            for level in range(1, count):
                always = nothing.clone()
                always[:, entry] = level
                now = nothing.clone()
                now[0, entry] = level
                plans += [always, now] if self._decided > 1 else [always]
        return torch.stack(plans).flatten(1)

    def later(self, belief: Tensor, steps: int) -> Tensor:
        """[B, places, M], see `PlanSpace`; a decision that is held goes on being as good until its block is over."""
        return self._moved(belief, steps // self._block)

    def shifted(self, plans: Tensor, steps: int) -> Tensor:
        """int64 [..., places], see `PlanSpace`."""
        return self._dropped(plans, steps // self._block)

    def nearest(self, orders: Tensor) -> Tensor:
        """int64 [..., places], see `PlanSpace`: of a block each order's largest amount counts."""
        missing = -self._horizon % self._block
        padded = torch.cat([orders, orders.new_zeros(*orders.shape[:-2], missing, orders.shape[-1])], -2)
        largest = padded.unflatten(-2, (self._decided, self._block)).amax(-2)  # [..., decisions, A]
        each = [self._nearest_level(largest, entry) for entry in range(len(self._counts))]
        return torch.stack(each, -1).flatten(-2)

    def _nearest_level(self, amounts: Tensor, entry: int) -> Tensor:
        """int64 [..., decisions] of one order."""
        levels = self._table[entry, : self._counts[entry]]  # [levels, A]: one column differs from 0
        column = int(levels.abs().amax(0).argmax())
        return (amounts[..., column].unsqueeze(-1) - levels[:, column]).abs().argmin(-1)

    def around(self, orders: Tensor) -> PlanSpace:
        """See `PlanSpace`: edits of orders [B, H, A], each left out or given at its largest level; what has one level
        only has that."""
        largest = self._table.nan_to_num(0.0).amax((0, 1))
        several = self._table[[c > 1 for c in self._counts]].nan_to_num(0.0).amax((0, 1)) > 0
        base = torch.where((largest > 0) & ~several, largest, orders)
        return EditPlans(base, largest, several, 1.0 - self._nothing, self._once, self._block)

    def orders(self, plans: Tensor) -> Tensor:
        """float32 [..., H, A], see `PlanSpace`."""
        decided = pick_levels(self._table, plans.unflatten(-1, (self._decided, len(self._counts))))
        return held(decided, self._horizon, self._block, self._once)

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """float32 [B, A]: the orders themselves."""
        return self.orders(plans)[torch.arange(len(plans), device=plans.device), step]


class SwitchPlans(LevelPlans):
    """Each of D orders on, at its standard amount, or off: int64 [..., decisions * D]; level 1 is on.

    Dozens of switches that are on by chance are a patient overdosed in every way, so `nothing` has to be high: 0.95 of
    69 switches is three orders at a step. Where a policy is known, plan edits of it (`around`).

    Args:
        actions, orders: of the task and its world.
        horizon, nothing, block: as `LevelPlans` has them.
        once: bool [A]; None: the orders that can only be given or not (unit "bool": a test, an operation).
    """

    def __init__(
        self,
        actions: Switches,
        orders: tuple[Quantity, ...],
        horizon: int,
        nothing: float,
        block: int = 1,
        once: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        levels = Levels({name: (0.0, amount) for name, amount in actions.standard.items()})
        super().__init__(levels.table(orders, device), horizon, nothing, acts(orders, once, device), block)


def acts(orders: tuple[Quantity, ...], once: Tensor | None, device: torch.device | str) -> Tensor:
    """bool [A]: `once`, or where that is None the orders that can only be given or not."""
    return torch.tensor([q.unit == "bool" for q in orders], device=device) if once is None else once


def fixed_levels(actions: Levels, table: Tensor, fixed: Mapping[str, float] | None) -> Tensor:
    """The table [D, M, A] of `Levels.table` where the orders of `fixed` (name -> amount) have no other level.

    None fixes the order that says how long a step lasts, at its middle amount: plans of different length are not
    comparable, and a plan that cannot react to what a visit shows sees no use in one.

    Raises:
        ValueError: an order or an amount that is not among the levels.
    """
    if fixed is None:
        amounts = actions.amounts.get(actions.interval, ())
        fixed = {actions.interval: amounts[len(amounts) // 2]} if amounts else {}
    table = table.clone()
    for name, amount in fixed.items():
        if amount not in actions.amounts.get(name, ()):
            offered = ", ".join(f"{a:g}" for a in actions.amounts.get(name, ())) or "no level of that name"
            raise ValueError(f"fixed {name}={amount:g} is not among its levels: {offered}")
        entry, level = actions.names.index(name), actions.amounts[name].index(amount)
        kept = table[entry, level].clone()
        table[entry] = torch.nan
        table[entry, 0] = kept
    return table
