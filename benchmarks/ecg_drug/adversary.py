"""Two searches for a plan of a whole stay, made to find what a world gets wrong: uphill by gradients, and by sampling.

They are no deciders: a plan is made at admission and never again, so that what a world promises of it and what it earns
elsewhere is one comparison. Planners that see how a patient does are in `agents.planning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from agents.planning.objective import Objective
from clinenv.simulator import Simulator
from world_models import keys
from world_models.protocol import Chart

__all__ = ["CEMSearch", "GradientSearch", "Search"]

STEPS = 24
LEAST_SHARE = 0.02  # of the largest dose: less is nothing
START = -4.0  # logit of a dose's share of the largest: a fiftieth


class Search(Protocol):
    """Anything called as below."""

    by_gradient: ClassVar[bool]  # whether the simulator must pass gradients

    def __call__(
        self,
        simulator: Simulator,
        start: tuple[Any, Chart],
        objective: Objective,
        high: Tensor,
        key: Tensor,
        label: str,
    ) -> Tensor:
        """Orders [B, STEPS, A] of the B patients of `start` (state and chart), up to `high` [A] each; keys [B]."""


def _doses(logits: Tensor, high: Tensor) -> Tensor:
    return torch.sigmoid(logits) * high


def _rounded(orders: Tensor, high: Tensor) -> Tensor:
    return torch.where(orders < LEAST_SHARE * high, 0.0, orders)


@dataclass(frozen=True)
class GradientSearch:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980) on the logit of each dose's share of the largest single one."""

    steps: int = 60
    particles: int = 8  # new ones at each step
    rate: float = 0.15
    by_gradient: ClassVar[bool] = True

    def __call__(
        self,
        simulator: Simulator,
        start: tuple[Any, Chart],
        objective: Objective,
        high: Tensor,
        key: Tensor,
        label: str,
    ) -> Tensor:
        """See `Search`."""
        logits = torch.full((len(key), 1, STEPS, len(high)), START, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=self.rate)
        for step in tqdm(range(self.steps), desc=label, leave=False):
            imagined = simulator.imagine(*start, _doses(logits, high), self.particles, keys.fold(key, step))
            optimiser.zero_grad()
            (-objective(imagined).sum()).backward()
            optimiser.step()
        return _rounded(_doses(logits.detach()[:, 0], high), high)


@dataclass(frozen=True)
class CEMSearch:
    """The cross-entropy method on the same logits, one a drug and quarter of a day, held for its three steps' first."""

    rounds: int = 12
    candidates: int = 48
    elites: int = 8
    particles: int = 8
    spread: float = 2.0  # SD of the first round
    every: int = 3  # steps from dose to dose
    by_gradient: ClassVar[bool] = False

    def __call__(
        self,
        simulator: Simulator,
        start: tuple[Any, Chart],
        objective: Objective,
        high: Tensor,
        key: Tensor,
        label: str,
    ) -> Tensor:
        """See `Search`."""
        shape = (STEPS // self.every, len(high))
        mean = torch.full((len(key), 1, *shape), START)
        spread = torch.full_like(mean, self.spread)
        for step in tqdm(range(self.rounds), desc=label, leave=False):
            drawn = keys.normal(key, step, "search", (self.candidates, *shape))
            logits = torch.cat([mean, mean + spread * drawn], 1)
            score = objective(
                simulator.imagine(*start, self._orders(logits, high), self.particles, keys.fold(key, step))
            )
            best = score.topk(self.elites, 1).indices
            kept = logits.gather(1, best[:, :, None, None].expand(-1, -1, *shape))
            mean, spread = kept.mean(1, keepdim=True), kept.std(1, keepdim=True).clamp_min(0.05)
        return self._orders(mean, high)[:, 0]

    def _orders(self, logits: Tensor, high: Tensor) -> Tensor:
        """Doses [B, K, STEPS, A] of logits [B, K, doses, A]."""
        orders = torch.zeros(*logits.shape[:2], STEPS, len(high))
        orders[:, :, :: self.every] = _rounded(_doses(logits, high), high)
        return orders
