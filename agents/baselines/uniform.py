"""Chance: any row of the menu, or any level of each order, all equally likely."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from world_models import keys
from world_models.protocol import Chart

__all__ = ["Uniform"]


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
