"""A behaviour as an agent: it samples from its chances by its own seed, and says how likely each decision was."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.offline.behaviour import Behaviour
from agents.offline.chances import Chances, DoseChances
from world_models import keys
from world_models.protocol import Chart

__all__ = ["Acting"]


class Acting:
    """A `Narrowable` and `Stochastic` agent.

    Agents inside need not know how to go on with some of their patients: who has left is shown to them as he left.

    Args:
        seed: of its own random stream, row i from seed + i; it has nothing to do with the patients'.
    """

    def __init__(self, behaviour: Behaviour, seed: int = 0, name: str | None = None) -> None:
        self.behaviour, self.choices, self.seed = behaviour, behaviour.choices, seed
        self.name = name or behaviour.name
        self._rows: Tensor | None = None  # int64 [B]: places of those in the batch among all; None: all are there
        self._whole: Chart | None = None  # the last chart of everybody
        self._hidden: Tensor | None = None
        self._key: Tensor | None = None
        self._step = 0

    def reset(self, mask: Tensor | None = None) -> None:
        """None starts the random stream from the beginning."""
        if mask is None or self._whole is None:
            self.behaviour.reset()
            self._rows = self._whole = self._hidden = self._key = None
            self._step = 0
            return
        whole = mask
        if self._rows is not None:
            whole = torch.zeros(self._count, dtype=torch.bool, device=mask.device)
            whole[self._rows] = mask
        self.behaviour.reset(whole)

    def narrow(self, rows: Tensor) -> None:
        """Go on with the rows [K] of those in the batch."""
        self._rows = rows if self._rows is None else self._rows[rows]

    def act(self, chart: Chart) -> Tensor:
        """A decision as `agents.protocol.Agent.act` gives it."""
        return self.sample(chart)[0]

    def sample(self, chart: Chart) -> tuple[Tensor, Tensor]:
        """A decision, and its log-probability float32 [B]."""
        choice, log_prob = self.choose(chart)
        return self.choices.decision(choice), log_prob

    def log_prob(self, chart: Chart, decision: Tensor) -> Tensor:
        """float32 [B] of the decision that was in fact made on this chart; asked once a step, instead of `sample`."""
        return self.follow(chart, self.choices.of(decision))

    def choose(self, chart: Chart, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A choice [B, D] and its log-probability [B]; `hidden` [B] is the rank of the hidden severity."""
        chances = self.chances(chart, hidden)
        assert self._key is not None
        choice = chances.sample(self._key, self._step, "agent/behaviour")
        return self._decided(chances, choice)

    def follow(self, chart: Chart, choice: Tensor, hidden: Tensor | None = None) -> Tensor:
        """float32 [B]: log-probability of the choice [B, D] that was made on this chart."""
        chances = self.chances(chart, hidden)
        whole = choice if self._rows is None else _put(choice, self._rows, self._count)
        return self._decided(chances, whole)[1]

    def chances(self, chart: Chart, hidden: Tensor | None = None) -> Chances | DoseChances:
        """The chances of everybody, those who have left included; `decided` must follow."""
        if self._rows is None or self._whole is None:
            self._whole, self._hidden = dict(chart), hidden
        else:
            rows = self._rows
            self._whole = {n: self._whole[n].index_copy(0, rows, v) for n, v in chart.items() if n in self._whole}
            if hidden is not None and self._hidden is not None:
                self._hidden = self._hidden.index_copy(0, rows, hidden)
        if self._key is None:
            some = next(iter(self._whole.values()))
            self._key = keys.from_seed(self.seed, len(some), some.device)
        return self.behaviour.chances(self._whole, self._hidden)

    def decided(self, choice: Tensor) -> None:
        """Everybody's choice [N, D] was made: the next `chances` are those of the next step."""
        here = torch.ones(len(choice), dtype=torch.bool, device=choice.device)
        if self._rows is not None:
            here = torch.zeros_like(here).index_fill(0, self._rows, True)
        self.behaviour.decided(choice, here)
        self._step += 1

    def _decided(self, chances: Chances | DoseChances, choice: Tensor) -> tuple[Tensor, Tensor]:
        log_prob = chances.log_prob(choice)
        self.decided(choice)
        return (choice, log_prob) if self._rows is None else (choice[self._rows], log_prob[self._rows])

    @property
    def _count(self) -> int:
        assert self._whole is not None
        return len(next(iter(self._whole.values())))


def _put(choice: Tensor, rows: Tensor, count: int) -> Tensor:
    """Choices [B, D] of some rows among those of everybody [count, D], 0 elsewhere."""
    return choice.new_zeros(count, *choice.shape[1:]).index_copy_(0, rows, choice)
