"""What a planner may plan: how plans are first believed in, sampled, refitted to the best of them, and become orders.

A plan is a row of numbers, one a place. The two spaces here are categorical: a place holds a choice, and the belief
about it is a probability of each of M choices. Choice 0 is "nothing" wherever there is such a choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from clinenv.codec import pick_levels
from clinenv.task import Levels
from world_models import keys

__all__ = ["CategoricalPlans", "LevelPlans", "MenuPlans", "PlanSpace", "fixed_levels"]


class PlanSpace(Protocol):
    """All that a planner needs to know of its plans, plans [..., places] and beliefs [B, places, ...] of B patients."""

    def prior(self, patients: int) -> Tensor:
        """The belief before anything is known."""

    def anchors(self) -> Tensor:
        """Plans [N, places] that are always tried; the first is to do nothing at all, or as little as there is."""

    def likeliest(self, belief: Tensor) -> Tensor:
        """The plan [B, places] that the belief thinks best."""

    def sample(self, key: Tensor, look: int, belief: Tensor, count: int) -> Tensor:
        """Plans [B, count, places] from a belief with keys int64 [B]; another `look` is an independent sample."""

    def refit(self, elites: Tensor, belief: Tensor, smoothing: float, floor: float) -> Tensor:
        """The belief after the best plans [B, E, places] were seen.

        Args:
            smoothing: weight of the old belief, 0 forgets it.
            floor: weight of the widest belief there is, so that nothing is ever ruled out.
        """

    def later(self, belief: Tensor, steps: int) -> Tensor:
        """The same belief after `steps` of the plan were carried out: the end comes from the prior."""

    def orders(self, plans: Tensor) -> Tensor:
        """Orders float32 [..., H, A] of plans [..., places], for the H steps of the horizon."""

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """What `Agent.act` gives at step int64 [B] of plans [B, places]."""


class CategoricalPlans:
    """Plans whose places hold one of M choices: int64 [..., places]; a belief is probabilities [B, places, M].

    The places are sampled independently and refitted each by itself.

    Args:
        first: [places, M], the prior of every patient.
    """

    def __init__(self, first: Tensor) -> None:
        self._first = first

    def prior(self, patients: int) -> Tensor:
        """[B, places, M], see `PlanSpace`."""
        return self._first.expand(patients, -1, -1).clone()

    def likeliest(self, belief: Tensor) -> Tensor:
        """int64 [B, places], see `PlanSpace`."""
        return belief.argmax(-1)

    def sample(self, key: Tensor, look: int, belief: Tensor, count: int) -> Tensor:
        """int64 [B, count, places], see `PlanSpace`."""
        places, choices = belief.shape[1:]
        edges = belief.cumsum(-1).unsqueeze(1)  # [B, 1, places, M]
        point = keys.uniform(key, look, "planning/proposal", (count, places)).unsqueeze(-1) * edges[..., -1:]
        return (point >= edges).sum(-1).clamp_max(choices - 1)

    def refit(self, elites: Tensor, belief: Tensor, smoothing: float, floor: float) -> Tensor:
        """[B, places, M]: the elites' frequencies, mixed with the old belief and the uniform one, see `PlanSpace`."""
        counts = torch.zeros_like(belief)
        ones = torch.ones_like(elites, dtype=belief.dtype).transpose(1, 2)
        counts.scatter_add_(2, elites.transpose(1, 2), ones)
        new = smoothing * belief + (1.0 - smoothing) * counts / elites.shape[1]
        return (1.0 - floor) * new + self._uniform(floor)

    def _uniform(self, weight: float) -> Tensor | float:
        """[places, M]: the weight, shared equally by the choices there are at a place."""
        return weight / self._first.shape[-1]

    def _shifted(self, belief: Tensor, places: int) -> Tensor:
        """The belief without its first places, filled up from the prior's first ones."""
        prior = self.prior(belief.shape[0])
        if places >= belief.shape[1]:
            return prior
        return torch.cat([belief[:, places:], prior[:, :places]], dim=1)


class MenuPlans(CategoricalPlans):
    """A row of the menu at each of H steps: int64 [..., H].

    Doses are hours apart, so plans in which most steps give nothing are the sensible ones: with equal chances a plan of
    eight steps would order seven doses.

    Args:
        menu: orders float32 [M, A]; row 0 is "nothing".
        horizon: H.
        nothing: prior probability of row 0 at a step; the other rows share the rest equally.
        every: anchors give each row also at every n-th step, for each n of `every` below the horizon.

    Raises:
        ValueError: fewer than two rows, or a probability outside [0, 1).
    """

    def __init__(self, menu: Tensor, horizon: int, nothing: float, every: tuple[int, ...] = ()) -> None:
        choices = menu.shape[0]
        if choices < 2:
            raise ValueError(f"there is nothing to plan with {choices} row(s) in the menu; at least 2 are needed")
        _check_nothing(nothing)
        one = torch.full((choices,), (1.0 - nothing) / (choices - 1), device=menu.device)
        one[0] = nothing
        super().__init__(one.expand(horizon, -1))
        self._menu, self._horizon, self._every = menu, horizon, every

    def anchors(self) -> Tensor:
        """int64 [N, H]: nothing at all; each row of the menu once, now; the same at every step; and at every n-th."""
        horizon, device = self._horizon, self._menu.device
        steps = torch.arange(horizon, device=device)
        patterns = [steps == 0, steps >= 0] + [steps % n == 0 for n in sorted(set(self._every)) if 1 < n < horizon]
        plans = [torch.zeros(horizon, dtype=torch.int64, device=device)]
        for pattern in patterns if horizon > 1 else patterns[:1]:
            plans += [pattern.to(torch.int64) * row for row in range(1, self._menu.shape[0])]
        return torch.stack(plans)

    def later(self, belief: Tensor, steps: int) -> Tensor:
        """[B, H, M], see `PlanSpace`."""
        return self._shifted(belief, steps)

    def orders(self, plans: Tensor) -> Tensor:
        """float32 [..., H, A], see `PlanSpace`."""
        return self._menu[plans]

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """int64 [B]: rows of the menu."""
        return plans.gather(1, step.unsqueeze(1)).squeeze(1)


class LevelPlans(CategoricalPlans):
    """A level of each of D orders, one order after the other within a step: int64 [..., H * D].

    Args:
        table: float32 [D, M, A] of `Levels.table`, M the largest number of levels; NaN where an order has fewer.
        horizon: H.
        nothing: prior probability of the first level where that is "nothing"; the other levels share the rest equally;
            an order without "nothing" has all its levels equally likely.
        once: bool [A], acts that a held decision does at its first step only.
        hold: a plan is one decision, int64 [..., D], held for the horizon.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(self, table: Tensor, horizon: int, nothing: float, once: Tensor, hold: bool = False) -> None:
        _check_nothing(nothing)
        exists = ~table[:, :, 0].isnan()
        count = exists.sum(-1, keepdim=True)
        optional = (table[:, 0] == 0).all(-1, keepdim=True) & (count > 1)  # [D, 1]
        others = torch.where(optional, (1.0 - nothing) / (count - 1).clamp_min(1), 1.0 / count)
        one = torch.where(exists, others, 0.0)
        one[:, :1] = torch.where(optional, nothing, one[:, :1])
        self._decided = 1 if hold else horizon  # steps that a plan decides on
        super().__init__(one.to(torch.float32).repeat(self._decided, 1))
        self._exists = exists.repeat(self._decided, 1)
        self._table, self._horizon, self._once, self._hold = table, horizon, once, hold
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
        """[B, places, M], see `PlanSpace`; a decision that is held is as good later."""
        return self._shifted(belief, 0 if self._hold else steps * len(self._counts))

    def orders(self, plans: Tensor) -> Tensor:
        """float32 [..., H, A], see `PlanSpace`."""
        orders = pick_levels(self._table, plans.unflatten(-1, (self._decided, len(self._counts))))
        if not self._hold:
            return orders
        later = torch.where(self._once, 0.0, orders).expand(*orders.shape[:-2], self._horizon - 1, -1)
        return torch.cat([orders, later], -2)

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """float32 [B, A]: the orders themselves."""
        return self.orders(plans)[torch.arange(len(plans), device=plans.device), step]


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


def _check_nothing(nothing: float) -> None:
    if not 0.0 <= nothing < 1.0:
        raise ValueError(f"the prior probability of 'nothing' must be at least 0 and below 1, got {nothing}")
