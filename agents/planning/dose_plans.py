"""Plans of continuous amounts of several orders at once: mostly nothing, else an amount from a truncated normal."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.planning.edit_plans import EditPlans
from agents.planning.level_plans import acts
from agents.planning.plan_space import PlanSpace, blocks_of, check_nothing, equally, held, proposal_noise
from clinenv.task import Doses
from world_models.quantity import Quantity

__all__ = ["DosePlans", "dose_menu"]

_CHANCE, _MEAN, _SPREAD = 0, 1, 2  # what a belief holds of a place
LEAST_SPREAD = 0.03  # of an amount, in shares of the largest: below it a belief does not go
_WIDE = 0.5
ANCHOR_SHARES = (0.25, 0.5, 1.0)
SCALES = (0.5, 1.5)  # of a base's amounts, in edits


class DosePlans:
    """The amount of each of D orders at each decision, in shares of its largest: float32 [..., decisions * D], 0 to 1.

    A belief [B, places, 3] is the probability that anything is given, and mean and SD of the normal, cut off at 0 and
    1, from which the amount then comes. Orders that can only be given or not are given from a half upwards.

    Args:
        actions, orders: of the task and its world.
        horizon: H.
        nothing: prior probability that an order is not given at a decision.
        every: anchors give an order also at every n-th step, for each n of `every` below the horizon.
        block: steps that a decision is held for.
        once: bool [A], acts that a held decision does at its first step only; None: the orders of unit "bool".

    Raises:
        ValueError: a probability outside [0, 1), or a block below 1.
    """

    def __init__(
        self,
        actions: Doses,
        orders: tuple[Quantity, ...],
        horizon: int,
        nothing: float,
        every: tuple[int, ...] = (),
        block: int = 1,
        once: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_nothing(nothing)
        columns = [order.name for order in orders]
        self._positions = torch.tensor([columns.index(name) for name in actions.names], device=device)
        self._highest = torch.tensor(list(actions.highest.values()), dtype=torch.float32, device=device)
        units = {order.name: order.unit for order in orders}
        self._yes_or_no = torch.tensor([units[name] == "bool" for name in actions.names], device=device)
        self._once = acts(orders, once, device)
        self._columns, self._horizon, self._nothing = len(columns), horizon, nothing
        self._every, self._block = every, block
        self._decided = blocks_of(horizon, block)
        self._device = torch.device(device)

    def prior(self, patients: int) -> Tensor:
        """[B, places, 3], see `PlanSpace`: any amount, seldom."""
        one = torch.tensor([1.0 - self._nothing, 0.5, _WIDE], device=self._device)
        return one.expand(patients, self._decided * len(self._positions), -1).clone()

    def anchors(self) -> Tensor:
        """float32 [N, places]: nothing; each order alone at three amounts, now, always and every n-th step."""
        steps = torch.arange(self._decided, device=self._device) * self._block
        patterns = [steps == 0]
        if self._decided > 1:
            patterns.append(steps >= 0)
        patterns += [steps % n == 0 for n in sorted(set(self._every)) if self._block < n < self._horizon]
        plans = [torch.zeros(self._decided, len(self._positions), device=self._device)]
        for entry, yes_or_no in enumerate(self._yes_or_no.tolist()):
            for share in (1.0,) if yes_or_no else ANCHOR_SHARES:
                for pattern in patterns:
                    plan = plans[0].clone()
                    plan[pattern, entry] = share
                    plans.append(plan)
        return torch.stack(plans).flatten(1)

    def likeliest(self, belief: Tensor) -> Tensor:
        """float32 [B, places], see `PlanSpace`."""
        return torch.where(belief[..., _CHANCE] > 0.5, belief[..., _MEAN].clamp(0.0, 1.0), 0.0)

    def sample(self, key: Tensor, look: int, belief: Tensor, count: int, beta: float = 0.0) -> Tensor:
        """float32 [B, count, places], see `PlanSpace`: by inversion, from one uniform a place."""
        uniform = proposal_noise(key, look, count, belief.shape[1], self._decided, beta)
        chance, mean, spread = belief.unsqueeze(1).unbind(-1)
        # The upper part of the uniform gives: how far into it one falls says how much.
        given = uniform > 1.0 - chance
        depth = ((uniform - (1.0 - chance)) / chance.clamp_min(1e-6)).clamp(1e-6, 1.0 - 1e-6)
        low, high = (torch.special.ndtr((end - mean) / spread) for end in (0.0, 1.0))
        amount = mean + spread * torch.special.ndtri((low + depth * (high - low)).clamp(1e-6, 1.0 - 1e-6))
        return torch.where(given, amount.clamp(0.0, 1.0), 0.0)

    def refit(
        self, elites: Tensor, belief: Tensor, smoothing: float, floor: float, weights: Tensor | None = None
    ) -> Tensor:
        """[B, places, 3]: share of the elites that give anything, mean and SD of what they give, see `PlanSpace`."""
        share = equally(elites) if weights is None else weights
        weight = share.unsqueeze(-1) * (elites > 0)  # [B, E, places]
        chance = weight.sum(1)
        some = chance > 1e-6
        each = weight / chance.clamp_min(1e-6).unsqueeze(1)
        mean = torch.where(some, (each * elites).sum(1), belief[..., _MEAN])
        spread = (each * (elites - mean.unsqueeze(1)).square()).sum(1).sqrt()
        spread = torch.where(some, spread, belief[..., _SPREAD]).clamp_min(LEAST_SPREAD)
        new = smoothing * belief + (1.0 - smoothing) * torch.stack([chance, mean, spread], -1)
        return torch.cat([(1.0 - floor) * new[..., :1] + floor * 0.5, new[..., 1:]], -1)

    def later(self, belief: Tensor, steps: int) -> Tensor:
        """[B, places, 3], see `PlanSpace`."""
        places = min(steps // self._block * len(self._positions), belief.shape[1])
        return torch.cat([belief[:, places:], self.prior(belief.shape[0])[:, :places]], 1)

    def shifted(self, plans: Tensor, steps: int) -> Tensor:
        """float32 [..., places], see `PlanSpace`."""
        places = min(steps // self._block * len(self._positions), plans.shape[-1])
        return torch.cat([plans[..., places:], torch.zeros_like(plans[..., :places])], -1)

    def nearest(self, orders: Tensor) -> Tensor:
        """float32 [..., places], see `PlanSpace`: of a block each order's largest amount."""
        missing = -self._horizon % self._block
        padded = torch.cat([orders, orders.new_zeros(*orders.shape[:-2], missing, orders.shape[-1])], -2)
        largest = padded.unflatten(-2, (self._decided, self._block)).amax(-2)[..., self._positions]
        return (largest / self._highest).clamp(0.0, 1.0).flatten(-2)

    def around(self, orders: Tensor) -> PlanSpace:
        """See `PlanSpace`: edits of orders [B, H, A], each left out, halved, raised by half, or a yes-or-no given."""
        highest = torch.zeros(self._columns, device=self._device)
        highest[self._positions] = self._highest
        # what is not yes or no has no usual amount here: it is given at half of its largest
        standard = torch.zeros_like(highest)
        standard[self._positions] = torch.where(self._yes_or_no, self._highest, 0.5 * self._highest)
        return EditPlans(orders, standard, highest > 0, 1.0 - self._nothing, self._once, self._block, SCALES, highest)

    def orders(self, plans: Tensor) -> Tensor:
        """float32 [..., H, A], see `PlanSpace`; differentiable by the amounts of a plan."""
        shares = plans.unflatten(-1, (self._decided, len(self._positions)))
        amounts = torch.where(self._yes_or_no, (shares >= 0.5).to(shares.dtype), shares) * self._highest
        decided = amounts.new_zeros(*amounts.shape[:-1], self._columns).index_copy(-1, self._positions, amounts)
        return held(decided, self._horizon, self._block, self._once)

    def decisions(self, plans: Tensor, step: Tensor) -> Tensor:
        """float32 [B, A]: the orders themselves."""
        return self.orders(plans)[torch.arange(len(plans), device=plans.device), step]


def dose_menu(
    actions: Doses, orders: tuple[Quantity, ...], shares: tuple[float, ...], device: torch.device | str = "cpu"
) -> Tensor:
    """A menu float32 [1 + D * shares, A] of single orders at shares of their largest amounts; row 0 is nothing."""
    columns = [order.name for order in orders]
    rows = [torch.zeros(len(columns))]
    for name, highest in actions.highest.items():
        for share in shares:
            row = torch.zeros(len(columns))
            row[columns.index(name)] = share * highest
            rows.append(row)
    return torch.stack(rows).to(device)
