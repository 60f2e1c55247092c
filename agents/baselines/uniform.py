"""Chance: any row of the menu, any level of each order, any switches or doses, as their action space has it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clinenv.task import Doses, Switches
from world_models import keys
from world_models.protocol import Chart
from world_models.quantity import Quantity

__all__ = ["Uniform", "UniformAmounts"]


class Uniform:
    """Row i decides from the key of seed + i and a count of its own decisions, so a run can be repeated.

    Args:
        choices: rows of the menu, M; or for each of D orders how many levels it has (`Levels.counts`).
        seed: of the agent's own random stream; it has nothing to do with the patients'.
    """

    name = "random"

    def __init__(self, choices: int | Sequence[int], seed: int = 0) -> None:
        self.levels = () if isinstance(choices, int) else tuple(choices)
        if not isinstance(choices, int) and (not self.levels or min(self.levels) < 1):
            raise ValueError(f"every order has at least one level, got choices={choices}")
        if isinstance(choices, int) and choices < 1:
            raise ValueError(f"a menu has at least one row, got choices={choices}")
        self.choices = choices
        self.seed = seed
        self._decision = 0
        self._key: Tensor | None = None

    def reset(self, mask: Tensor | None = None) -> None:
        """None starts the agent's random stream from the beginning; single rows need nothing forgotten."""
        if mask is None:
            self._decision, self._key = 0, None

    def act(self, chart: Chart) -> Tensor:
        """int64 [B], or [B, D] for levels."""
        some = next(iter(chart.values()))
        if self._key is None or self._key.shape[0] != some.shape[0]:
            self._key = keys.from_seed(self.seed, some.shape[0], some.device)
        if self.levels:
            counts = torch.tensor(self.levels, device=some.device)
            levels = keys.bits(self._key, self._decision, "agent/uniform", (len(self.levels),)) % counts
            self._decision += 1
            return levels
        equal = torch.ones(self.choices, device=some.device)
        choice = keys.categorical(self._key, self._decision, "agent/uniform", equal)
        self._decision += 1
        return choice

    def sample(self, chart: Chart) -> tuple[Tensor, Tensor]:
        """A decision, and its log-probability [B]."""
        decision = self.act(chart)
        return decision, self.log_prob(chart, decision)

    def log_prob(self, chart: Chart, decision: Tensor) -> Tensor:
        """float32 [B]: the same for every decision."""
        options = math.prod([self.choices] if isinstance(self.choices, int) else self.choices)
        return torch.full((len(decision),), -math.log(options), device=decision.device)


class UniformAmounts:
    """Switches on or off with equal chance; doses as a uniform action of the scaled Box orders them: none in half of
    the cases, else up to the largest (yes or no from a half upwards).

    Row i decides from the key of seed + i, as in `Uniform`.

    Args:
        actions: of the task.
        orders: the world's, the columns of what is given.
        seed: of the agent's own random stream.
    """

    name = "random"

    def __init__(self, actions: Switches | Doses, orders: Sequence[Quantity], seed: int = 0) -> None:
        amounts = actions.standard if isinstance(actions, Switches) else actions.highest
        self._most = torch.tensor([float(amounts.get(q.name, 0.0)) for q in orders])
        self._whole = torch.tensor([isinstance(actions, Switches) or q.unit == "bool" for q in orders])
        self._from = 0.0 if isinstance(actions, Switches) else 0.5  # of the scaled action, for what is not graded
        self.seed = seed
        self._decision = 0
        self._key: Tensor | None = None

    def reset(self, mask: Tensor | None = None) -> None:
        """None starts the agent's random stream from the beginning; single rows need nothing forgotten."""
        if mask is None:
            self._decision, self._key = 0, None

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]: orders in their units."""
        some = next(iter(chart.values()))
        if self._key is None or self._key.shape[0] != some.shape[0]:
            self._key = keys.from_seed(self.seed, some.shape[0], some.device)
        drawn = 2.0 * keys.uniform(self._key, self._decision, "agent/uniform", (len(self._most),)) - 1.0
        self._decision += 1
        most, whole = self._most.to(drawn.device), self._whole.to(drawn.device)
        return torch.where(whole, (drawn >= self._from).to(torch.float32), drawn.clamp_min(0.0)) * most
