"""Plans of rows of a menu, one at each step."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.planning.plan_space import CategoricalPlans, blocks_of, check_nothing

__all__ = ["MenuPlans", "nearest_row"]


class MenuPlans(CategoricalPlans):
    """A row of the menu at each of H steps, or at every n-th: int64 [..., decisions].

    Doses are hours apart, so plans in which most steps give nothing are the sensible ones: with equal chances a plan of
    eight steps would order seven doses.

    Args:
        menu: orders float32 [M, A]; row 0 is "nothing".
        horizon: H.
        nothing: prior probability of row 0 at a step; the other rows share the rest equally.
        every: anchors give each row also at every n-th step, for each n of `every` below the horizon.
        block: steps from one decision to the next; a row is given at the first of them, the others give nothing.
        first: [B, decisions, M], another prior: see `around`.

    Raises:
        ValueError: fewer than two rows, a probability outside [0, 1), or a block below 1.
    """

    def __init__(
        self,
        menu: Tensor,
        horizon: int,
        nothing: float,
        every: tuple[int, ...] = (),
        block: int = 1,
        first: Tensor | None = None,
    ) -> None:
        choices = menu.shape[0]
        if choices < 2:
            raise ValueError(f"there is nothing to plan with {choices} row(s) in the menu; at least 2 are needed")
        check_nothing(nothing)
        one = torch.full((choices,), (1.0 - nothing) / (choices - 1), device=menu.device)
        one[0] = nothing
        decided = blocks_of(horizon, block)
        super().__init__(one.expand(decided, -1) if first is None else first, decided)
        self._menu, self._horizon, self._nothing, self._every, self._block = menu, horizon, nothing, every, block

    def anchors(self) -> Tensor:
        """int64 [N, decisions]: nothing at all; each row of the menu once, now; the same always; and every n-th
        step."""
        decided, device = self._decided, self._menu.device
        steps = torch.arange(decided, device=device) * self._block
        patterns = [steps == 0, steps >= 0]
        patterns += [steps % n == 0 for n in sorted(set(self._every)) if self._block < n < self._horizon]
        plans = [torch.zeros(decided, dtype=torch.int64, device=device)]
        for pattern in patterns if decided > 1 else patterns[:1]:
            plans += [pattern.to(torch.int64) * row for row in range(1, self._menu.shape[0])]
        return torch.stack(plans)

    def later(self, belief: Tensor, steps: int) -> Tensor:
        """[B, decisions, M], see `PlanSpace`."""
        return self._moved(belief, steps // self._block)

    def shifted(self, plans: Tensor, steps: int) -> Tensor:
        """int64 [..., decisions], see `PlanSpace`."""
        return self._dropped(plans, steps // self._block)

    def nearest(self, orders: Tensor) -> Tensor:
        """int64 [..., decisions], see `PlanSpace`: of a block the first order that there is."""
        return _first_of_blocks(nearest_row(orders, self._menu), self._block)

    def around(self, orders: Tensor) -> MenuPlans:
        """See `PlanSpace`: rows of `orders` [B, H, A] have `nothing` of the probability, the others share the rest."""
        row, choices = self.nearest(orders), self._menu.shape[0]
        first = torch.full((*row.shape, choices), (1.0 - self._nothing) / (choices - 1), device=row.device)
        first.scatter_(-1, row.unsqueeze(-1), self._nothing)
        return MenuPlans(self._menu, self._horizon, self._nothing, self._every, self._block, first)

    def orders(self, plans: Tensor) -> Tensor:
        """float32 [..., H, A], see `PlanSpace`."""
        return self._menu[self._rows(plans)]

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """int64 [B]: rows of the menu."""
        return self._rows(plans).gather(1, step.unsqueeze(1)).squeeze(1)

    def _rows(self, plans: Tensor) -> Tensor:
        """int64 [..., H]."""
        if self._block == 1:
            return plans
        due = torch.arange(self._horizon, device=plans.device) % self._block == 0
        return plans.repeat_interleave(self._block, -1)[..., : self._horizon] * due


def nearest_row(orders: Tensor, menu: Tensor) -> Tensor:
    """int64 [...]: the row of menu [M, A] nearest to orders [..., A], each order in shares of its largest amount."""
    scale = menu.amax(0).clamp_min(1e-9)
    return ((orders.unsqueeze(-2) - menu) / scale).square().sum(-1).argmin(-1)


def _first_of_blocks(rows: Tensor, block: int) -> Tensor:
    """int64 [..., decisions]: of each `block` of rows [..., H] the first that is not 0."""
    if block == 1:
        return rows
    missing = -rows.shape[-1] % block
    blocks = torch.cat([rows, rows.new_zeros(*rows.shape[:-1], missing)], -1).unflatten(-1, (-1, block))
    first = (blocks != 0).to(torch.int8).argmax(-1, keepdim=True)
    return blocks.gather(-1, first).squeeze(-1)
