"""A task's decisions as numbers that a log, a distribution and a learner can hold, whatever kind of action it takes.

A choice is int64 [B, D]: which of its options each of D entries takes. A menu is one entry with a row an option, a
switch an entry with two options (off, on), a level an entry with an option an amount. Doses are amounts: float32
[B, D], each a share of the largest dose, in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinenv.codec import codec_of
from clinenv.simulator import Simulator
from clinenv.task import Doses, Levels, Menu, Switches

__all__ = ["Choices"]

SWITCHED_FROM = 0.5  # of the standard amount: an agent's smaller dose is none where only that amount can be had
_SAME_MG = 1e-3  # an order this far, relatively, from a row of the menu is that row


class Choices:
    """Translates between an agent's decisions, choices, the environment's actions and orders.

    Attributes:
        counts: options of each entry, (D,); empty for doses.
        entries: D.
        space: of the environment's action.
    """

    def __init__(self, simulator: Simulator) -> None:
        task, orders, device = simulator.task, simulator.world.orders, simulator.device
        self.kind = task.actions
        self._codec = codec_of(self.kind, orders, "scaled", device)
        self.space, self.labels = self._codec.space, list(self._codec.labels)
        columns = [order.name for order in orders]
        self._table: Tensor | None = None
        if isinstance(self.kind, Menu):
            self.counts: tuple[int, ...] = (len(self.kind),)
            self._table = self.kind.table(orders, device)
        else:
            self._positions = torch.tensor([columns.index(name) for name in self.kind.names], device=device)
            self.counts = self._options(device)
        self.entries = len(self.counts) or len(self.kind.names)

    def _options(self, device: torch.device) -> tuple[int, ...]:
        """Counts of options, and the amounts that `of` compares with: largest, standard, or those of each level."""
        kind = self.kind
        if isinstance(kind, Doses):
            self._amounts = torch.tensor(list(kind.highest.values()), device=device)
            return ()
        if isinstance(kind, Switches):
            self._amounts = torch.tensor(list(kind.standard.values()), device=device)
            return (2,) * len(kind)
        assert isinstance(kind, Levels)
        rows = [torch.tensor(amounts) for amounts in kind.amounts.values()]
        self._amounts = torch.nn.utils.rnn.pad_sequence(rows, True, torch.inf).to(device)  # [D, most]
        return kind.counts

    @property
    def discrete(self) -> bool:
        """Whether choices are options and not amounts."""
        return bool(self.counts)

    def of(self, decision: Tensor) -> Tensor:
        """The choice that an agent's decision comes to (see `agents.protocol.Agent.act`): what the environment can
        carry out of it. A switch is on from half of its standard amount upwards; a level is the nearest amount.

        Raises:
            ValueError: orders that are no row of the menu.
        """
        if not decision.is_floating_point():
            return decision.unsqueeze(-1) if isinstance(self.kind, Menu) else decision
        if self._table is not None:
            return self._row(decision)
        given = decision[:, self._positions]
        if isinstance(self.kind, Switches):
            return (given >= SWITCHED_FROM * self._amounts).to(torch.int64)
        if isinstance(self.kind, Levels):
            return (given.unsqueeze(-1) - self._amounts).abs().argmin(-1)
        return (given / self._amounts).clamp(0.0, 1.0)

    def _row(self, orders: Tensor) -> Tensor:
        """int64 [B, 1]: the row of the menu with these orders [B, A]."""
        assert self._table is not None
        apart = (orders.unsqueeze(1) - self._table).abs() > _SAME_MG * self._table.clamp_min(_SAME_MG)
        found = ~apart.any(-1)
        if not bool(found.any(-1).all()):
            row = int((~found.any(-1)).nonzero()[0])
            raise ValueError(f"orders {orders[row].tolist()} (row {row}) are no row of the menu; give one of its rows")
        return found.to(torch.int8).argmax(-1, keepdim=True)

    def decision(self, choice: Tensor) -> Tensor:
        """What an agent gives for a choice: int64 [B] of a menu, int64 [B, D] of levels, else orders float32 [B, A]."""
        if isinstance(self.kind, Menu):
            return choice.squeeze(-1)
        return choice if isinstance(self.kind, Levels) else self.orders(choice)

    def action(self, choice: Tensor) -> Tensor:
        """The action of the environment's `action_space`: int64 [B] of a menu, else [B, D]."""
        return choice.squeeze(-1) if isinstance(self.kind, Menu) else choice

    def of_action(self, action: Tensor) -> Tensor:
        """The choice of an action of the environment; of a scaled dose, nothing is what is 0 or below."""
        if isinstance(self.kind, Menu):
            return action.to(torch.int64).unsqueeze(-1)
        return action.clamp(0.0, 1.0) if isinstance(self.kind, Doses) else action.to(torch.int64)

    def orders(self, choice: Tensor) -> Tensor:
        """float32 [B, A] in the orders' units."""
        return self._codec(self.action(choice), choice.shape[0])

    def one_hot(self, choice: Tensor) -> Tensor:
        """float32 [..., sum of the counts]: each entry's option as a place of its own; doses [..., D] as they are.

        A switch is one place, 0 or 1.
        """
        if not self.discrete:
            return choice
        if isinstance(self.kind, Switches):
            return choice.to(torch.float32)
        parts = [torch.nn.functional.one_hot(choice[..., d], n) for d, n in enumerate(self.counts)]
        return torch.cat(parts, -1).to(torch.float32)
