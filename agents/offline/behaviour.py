"""Behaviours: how the decisions of a log came about, as distributions whose probabilities are exact.

A `Behaviour` says at every step what may be decided and with which chance; `agents.offline.acting.Acting` makes an
agent of it. `Exploring` follows an agent but for a share epsilon of random options, `Softmax` follows an agent's
scores, and `Mixture` is a ward of colleagues, of whom each decides in a share of the steps, or has patients of his own.
In the second case nobody writes down whose patient it was: the chance of a decision is then a mixture by what the
patient's earlier decisions say of that (Bayes' rule), which is exact, and the importance weight of a colleague is at
most one over his share, however long the stay.

**The dial of confounding.** With `dial` above 0 a mixture leans on a severity that no chart shows: the rank u in (0, 1)
of a hidden quantity (`agents.offline.hidden`). Part k has the weight

    w_k(u) = w_k (1 + dial * lean_k * (2 u - 1)),     sum_k w_k lean_k = 0

so that the weights averaged over patients are w_k at every position of the dial: whoever sees charts alone finds
nothing amiss. An agent that can be told the severity itself (`Knowing`) is, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from agents.offline.chances import Chances, DoseChances, mixed
from agents.offline.choices import Choices
from agents.protocol import Agent, Stochastic
from world_models.protocol import Chart

__all__ = ["Behaviour", "Exploring", "Knowing", "Mixture", "Scored", "Softmax", "uniform"]

PER = ("step", "stay")
DOSE_SD, EXPLORED_CENTRE, EXPLORED_SD = 0.08, 0.5, 0.4  # of amounts, in shares of the largest dose; a choice


@runtime_checkable
class Knowing(Agent, Protocol):
    """An agent that can also act on what no chart shows."""

    def act_knowing(self, chart: Chart, hidden: Tensor) -> Tensor:
        """As `act`, told the rank [B] in (0, 1) of the hidden severity as well."""


@runtime_checkable
class Scored(Agent, Protocol):
    """An agent that scores the options of a menu."""

    def scores(self, chart: Chart) -> Tensor:
        """float32 [B, M], higher is better."""


class Behaviour(ABC):
    """A distribution over choices at every step. Like an agent it may remember; rows keep their order until `reset`."""

    name: str
    choices: Choices
    dial: float = 0.0  # of confounding

    @abstractmethod
    def reset(self, mask: Tensor | None = None) -> None:
        """Forget everything (None: the batch size may change), or the rows of mask bool [B] (new patients)."""

    @abstractmethod
    def chances(self, chart: Chart, hidden: Tensor | None = None) -> Chances | DoseChances:
        """What may be decided on this chart; asked once a step.

        Args:
            hidden: [B] in (0, 1), rank of the hidden severity; needed if `dial` is above 0.
        """

    @abstractmethod
    def decided(self, choice: Tensor, here: Tensor) -> None:
        """Told after each `chances` what was decided: [B, D], in the rows where here bool [B] holds."""


class Exploring(Behaviour):
    """An agent's decision, but for a share epsilon in which each entry takes any of its options, all equally likely.

    The entries of a set of switches or levels stray one by one. Of doses, one that the agent gives is given at about
    his amount, and left out with chance epsilon; one that he does not give is given with chance epsilon.

    Raises:
        ValueError: epsilon outside [0, 1] (doses: (0, 1)), or an agent that already decides by chance.
    """

    def __init__(self, agent: Agent, choices: Choices, epsilon: float, name: str | None = None) -> None:
        inside = 0.0 <= epsilon <= 1.0 if choices.discrete else 0.0 < epsilon < 1.0
        if not inside:
            limits = "from 0 to 1" if choices.discrete else "above 0 and below 1, where amounts are chosen"
            raise ValueError(f"epsilon must be {limits}, got {epsilon}")
        if isinstance(agent, Stochastic):
            raise ValueError(
                f"{agent.name} decides by chance already, and its chances would not be those written down; give an "
                "agent without chance, or `uniform`"
            )
        self.agent, self.choices, self.epsilon = agent, choices, epsilon
        self.name = name or (agent.name if epsilon == 0 else f"{agent.name}, epsilon {epsilon:g}")

    def reset(self, mask: Tensor | None = None) -> None:
        """The agent forgets."""
        self.agent.reset(mask)

    def chances(self, chart: Chart, hidden: Tensor | None = None) -> Chances | DoseChances:
        """One part."""
        knows = hidden is not None and isinstance(self.agent, Knowing)
        decision = self.agent.act_knowing(chart, hidden) if knows else self.agent.act(chart)  # type: ignore[attr-defined]
        choice = self.choices.of(decision)
        weight = torch.zeros(len(choice), 1, device=choice.device)
        if not self.choices.discrete:
            gives = choice > 0
            given = torch.where(gives, 1.0 - self.epsilon, self.epsilon)
            centre = torch.where(gives, choice, EXPLORED_CENTRE)
            return DoseChances(
                weight, *(x.unsqueeze(1) for x in (given, centre, torch.where(gives, DOSE_SD, EXPLORED_SD)))
            )
        counts = torch.tensor(self.choices.counts, device=choice.device)
        places = torch.arange(int(counts.max()), device=choice.device)
        chosen = (choice.unsqueeze(-1) == places).to(torch.float32)
        stray = torch.where(places < counts.unsqueeze(-1), self.epsilon / counts.unsqueeze(-1), 0.0)
        return Chances(weight, ((1.0 - self.epsilon) * chosen + stray).log().unsqueeze(1))

    def decided(self, choice: Tensor, here: Tensor) -> None:
        """The agent remembers its own decisions, and not what became of them."""


def uniform(choices: Choices) -> Exploring:
    """Chance: every option of every entry equally likely.

    Raises:
        ValueError: amounts, of which no distribution is the natural one.
    """
    if not choices.discrete:
        raise ValueError("doses have no options that could be equally likely; explore around an agent instead")
    return Exploring(_First(choices.entries), choices, 1.0, "random")


class _First:
    """Always the first option of each entry: what `uniform` strays from, wholly."""

    name = "first option"

    def __init__(self, entries: int) -> None:
        self._entries = entries

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""

    def act(self, chart: Chart) -> Tensor:
        """int64 [B] for one entry, else [B, D]."""
        some = next(iter(chart.values()))
        shape = (len(some),) if self._entries == 1 else (len(some), self._entries)
        return torch.zeros(shape, dtype=torch.int64, device=some.device)


class Softmax(Behaviour):
    """Options of a menu by exp(score / temperature).

    Raises:
        ValueError: a temperature that is not above 0, or a task without a menu.
    """

    def __init__(self, agent: Scored, choices: Choices, temperature: float, name: str | None = None) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if len(choices.counts) != 1:
            raise ValueError(f"scores are of a menu's rows, and this task has {choices.entries} entries; use Exploring")
        self.agent, self.choices, self.temperature = agent, choices, temperature
        self.name = name or f"{agent.name}, temperature {temperature:g}"

    def reset(self, mask: Tensor | None = None) -> None:
        """The agent forgets."""
        self.agent.reset(mask)

    def chances(self, chart: Chart, hidden: Tensor | None = None) -> Chances:
        """One part."""
        log_prob = (self.agent.scores(chart) / self.temperature).log_softmax(-1)
        return Chances(torch.zeros(len(log_prob), 1, device=log_prob.device), log_prob[:, None, None])

    def decided(self, choice: Tensor, here: Tensor) -> None:
        """Nothing depends on it."""


class Mixture(Behaviour):
    """Colleagues.

    Args:
        parts: their behaviours, all over the same choices.
        weights: their shares; None: equal ones.
        per: "step": each step's decision is another colleague's; "stay": each patient has one throughout.
        lean: of each part, -1 .. 1: with the dial up, parts that lean to 1 have the patients of high hidden severity.
            Centred by the weights. None: nobody leans.
        dial: 0 .. 1, of confounding.

    Raises:
        ValueError: no parts, shares that are none, a `per` that is none, or a lean or dial out of range.
    """

    def __init__(
        self,
        parts: Sequence[Behaviour],
        weights: Sequence[float] | None = None,
        per: str = "step",
        lean: Sequence[float] | None = None,
        dial: float = 0.0,
        name: str | None = None,
    ) -> None:
        if not parts or per not in PER:
            raise ValueError(f"a mixture needs parts, and per one of {', '.join(PER)}; got {len(parts)} and {per!r}")
        shares = torch.tensor([1.0] * len(parts) if weights is None else list(weights))
        leans = torch.tensor([0.0] * len(parts) if lean is None else list(lean))
        if len(shares) != len(parts) or not bool((shares > 0).all()) or len(leans) != len(parts):
            raise ValueError(f"{len(parts)} parts need as many weights above 0 and leans, got {weights} and {lean}")
        self.parts, self.per, self.dial = list(parts), per, float(dial)
        self.shares = shares / shares.sum()
        self.lean = leans - (self.shares * leans).sum()
        if not 0.0 <= dial <= 1.0 or bool((self.lean.abs() > 1.0).any()):
            raise ValueError(
                f"dial must be from 0 to 1 and leans from -1 to 1 once centred, got {dial} and {self.lean.tolist()}"
            )
        self.choices = parts[0].choices
        self.name = name or " or ".join(part.name for part in parts)
        self._log_weight: Tensor | None = None  # [B, K]: whose patient it is, by what was decided so far
        self._fresh: Tensor | None = None  # bool [B]: rows whose first decision is to come
        self._now: list[Chances | DoseChances] = []

    def reset(self, mask: Tensor | None = None) -> None:
        """All parts forget, and whose patients they are."""
        for part in self.parts:
            part.reset(mask)
        if mask is None or self._fresh is None:
            self._log_weight, self._fresh = None, None
        else:
            self._fresh = self._fresh | mask

    def chances(self, chart: Chart, hidden: Tensor | None = None) -> Chances | DoseChances:
        """All parts, by their weights."""
        self._now = [part.chances(chart, hidden) for part in self.parts]
        begun = self._begun(self._now[0].weight, hidden)
        if self._log_weight is None or self._fresh is None or self.per == "step":
            self._log_weight = begun
        else:
            self._log_weight = torch.where(self._fresh.unsqueeze(-1), begun, self._log_weight)
        self._fresh = torch.zeros(len(begun), dtype=torch.bool, device=begun.device)
        return mixed(self._now, self._log_weight)

    def _begun(self, like: Tensor, hidden: Tensor | None) -> Tensor:
        """Log weights [B, K] before anything was decided."""
        shares, lean = self.shares.to(like.device), self.lean.to(like.device)
        if self.dial == 0.0:
            return shares.log().expand(len(like), -1)
        if hidden is None:
            raise ValueError(
                f"{self.name} acts on a hidden severity (dial {self.dial:g}), and was told none; log it in an oracle, "
                "or turn the dial to 0"
            )
        return (shares * (1.0 + self.dial * lean * (2.0 * hidden.unsqueeze(-1) - 1.0))).log()

    def decided(self, choice: Tensor, here: Tensor) -> None:
        """The parts are told; of colleagues with patients of their own, the weights follow by Bayes' rule."""
        for part in self.parts:
            part.decided(choice, here)
        if self.per == "stay" and self._log_weight is not None:
            likely = torch.stack([part.log_prob(choice) for part in self._now], -1)
            new = (self._log_weight + likely).log_softmax(-1)
            self._log_weight = torch.where(here.unsqueeze(-1), new, self._log_weight)
