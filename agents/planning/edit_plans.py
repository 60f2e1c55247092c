"""Plans that are edits of what a policy would order: with dozens of concurrent orders the only ones near sense."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.planning.plan_space import CategoricalPlans, PlanSpace, blocks_of, held

__all__ = ["EditPlans"]

AS_IT_IS, WITHOUT, WITH = 0, 1, 2  # the choices at a place; scales follow


class EditPlans(CategoricalPlans):
    """What is done with each of E orders of a base plan in each block of steps: int64 [..., blocks * E].

    Choices: 0 as the base has it; 1 without it; 2 with it, at its standard amount where the base gives less (an act
    once, at the block's first step, where the base does not do it in that block); 3 and on: its amounts times a scale.

    Args:
        base: float32 [B, H, A] orders of B patients.
        standard: float32 [A] amounts that an order is given at, and no edit exceeds the larger of it and `highest`.
        editable: bool [A].
        doubt: prior probability that an order is edited in a block.
        once: bool [A] acts.
        block: steps of a block.
        scales: that an amount may be multiplied by.
        highest: float32 [A]; None: no amount is larger than the standard one or the base's.

    Raises:
        ValueError: a doubt outside (0, 1], nothing to edit, or a block below 1.
    """

    def __init__(
        self,
        base: Tensor,
        standard: Tensor,
        editable: Tensor,
        doubt: float,
        once: Tensor,
        block: int = 1,
        scales: tuple[float, ...] = (),
        highest: Tensor | None = None,
    ) -> None:
        if not 0.0 < doubt <= 1.0:
            raise ValueError(f"the probability of an edit must be above 0 and at most 1, got {doubt}")
        self._entries = editable.nonzero().squeeze(1)
        if not len(self._entries):
            raise ValueError("there is no order to edit; mark at least one as editable")
        horizon, choices = base.shape[-2], 3 + len(scales)
        one = torch.full((choices,), doubt / (choices - 1), device=base.device)
        one[AS_IT_IS] = 1.0 - doubt
        decided = blocks_of(horizon, block)
        super().__init__(one.expand(decided * len(self._entries), -1), decided)
        self._base, self._standard, self._editable, self._doubt = base, standard, editable, doubt
        self._once, self._block, self._scales, self._horizon = once, block, scales, horizon
        self._highest = standard if highest is None else highest

    def anchors(self) -> Tensor:
        """int64 [N, places]: the base itself; each other choice for each order alone, now and always."""
        plans = [self._first.new_zeros(self._decided, len(self._entries), dtype=torch.int64)]
        for entry in range(len(self._entries)):
            for choice in range(1, self._first.shape[-1]):
                for until in (1, self._decided)[: 1 if self._decided == 1 else 2]:
                    plan = plans[0].clone()
                    plan[:until, entry] = choice
                    plans.append(plan)
        return torch.stack(plans).flatten(1)

    def later(self, belief: Tensor, steps: int) -> Tensor:
        """[B, places, M], see `PlanSpace`."""
        return self._moved(belief, steps // self._block)

    def shifted(self, plans: Tensor, steps: int) -> Tensor:
        """int64 [..., places], see `PlanSpace`."""
        return self._dropped(plans, steps // self._block)

    def nearest(self, orders: Tensor) -> Tensor:
        """int64 [..., places], see `PlanSpace`: of orders [B, ..., H, A]."""
        base = self._of(orders.ndim)
        choices = range(self._first.shape[-1])
        each = torch.stack([self._edited(base, torch.full_like(base, c)) for c in choices])  # [M, B, ..., H, A]
        distance = self._by_block((each - orders).abs())[..., self._entries]  # [M, B, ..., blocks, E]
        return distance.argmin(0).flatten(-2)

    def around(self, orders: Tensor) -> PlanSpace:
        """See `PlanSpace`: edits of other orders."""
        rest = (self._once, self._block, self._scales, self._highest)
        return EditPlans(orders, self._standard, self._editable, self._doubt, *rest)

    def orders(self, plans: Tensor) -> Tensor:
        """float32 [B, ..., H, A] of plans [B, ..., places], see `PlanSpace`."""
        chosen = plans.unflatten(-1, (self._decided, len(self._entries)))
        each = torch.zeros(*chosen.shape[:-1], len(self._standard), dtype=chosen.dtype, device=chosen.device)
        each[..., self._entries] = chosen
        choice = each.repeat_interleave(self._block, -2)[..., : self._horizon, :]
        return self._edited(self._of(choice.ndim).expand(choice.shape), choice)

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """float32 [B, A]: the orders themselves."""
        return self.orders(plans)[torch.arange(len(plans), device=plans.device), step]

    def _of(self, dimensions: int) -> Tensor:
        """The base with room for the plans of a patient: [B, 1, ..., H, A]."""
        base = self._base
        return base.reshape(base.shape[0], *[1] * (dimensions - base.ndim), *base.shape[1:])

    def _by_block(self, x: Tensor) -> Tensor:
        """[..., blocks, A]: sums over the steps of each block of x [..., H, A]."""
        missing = -self._horizon % self._block
        padded = torch.cat([x, x.new_zeros(*x.shape[:-2], missing, x.shape[-1])], -2)
        return padded.unflatten(-2, (self._decided, self._block)).sum(-2)

    def _edited(self, base: Tensor, choice: Tensor) -> Tensor:
        """Orders [..., H, A] of the base under choices [..., H, A] of each step and order."""
        given = self._by_block(base).repeat_interleave(self._block, -2)[..., : self._horizon, :] > 0
        act = held(self._standard.expand(*base.shape[:-2], self._decided, -1), self._horizon, self._block, self._once)
        added = torch.where(self._once & given, base, torch.maximum(base, act))
        edited = torch.where(choice == WITHOUT, 0.0, torch.where(choice == WITH, added, base))
        most = torch.maximum(base, self._highest)
        for number, scale in enumerate(self._scales, start=WITH + 1):
            edited = torch.where(choice == number, torch.minimum(base * scale, most), edited)
        return edited
