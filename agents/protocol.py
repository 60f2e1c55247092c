"""What a decider is, and how its decision becomes an order."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clinenv.codec import pick_levels
from clinenv.simulator import Simulator
from clinenv.task import Levels, Menu
from world_models.protocol import Chart

__all__ = ["Agent", "Narrowable", "Policy", "Stochastic", "menu_of", "to_orders"]


@runtime_checkable
class Agent(Protocol):
    """Decides for a batch of patients from their charts alone: never from a model's insides or an environment's state.

    An agent may remember what it saw and did. It decides for the same rows in the same order until `reset`, and its
    own randomness, if any, comes from a seed it was built with, so a second run decides the same.
    """

    name: str

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget everything (None: the batch size may change), or the rows of mask bool [B] (new patients)."""

    def act(self, chart: Chart) -> Tensor:
        """The decision for every row: int64 [B], rows of the task's menu; int64 [B, D], a level of each of the task's
        D orders; or float [B, A], the orders in their units."""


@runtime_checkable
class Narrowable(Agent, Protocol):
    """An agent that can go on with some of its patients: whoever judges it drops those whose episode has ended."""

    def narrow(self, rows: Tensor) -> None:
        """From now on the charts hold the rows int64 [K] alone, in this order, of those they held; until `reset`."""


@runtime_checkable
class Policy(Protocol):
    """A policy without exploration: from what is seen of B patients to their actions. It may remember."""

    inputs: int  # numbers that it sees of a patient
    masked: bool  # whether it wants to know what may be chosen

    def decide(self, seen: Tensor, mask: Tensor | None) -> Tensor:
        """The actions [B] or [B, D] of seen float32 [B, inputs] and a mask bool [B, choices] as
        `clinenv.codec.Codec.choices` has it."""

    def reset(self, rows: Tensor | None) -> None:
        """Forget all patients (None), or those of bool [B]."""

    def narrow(self, rows: Tensor) -> None:
        """Go on with the patients int64 [K] alone."""


@runtime_checkable
class Stochastic(Agent, Protocol):
    """An agent that decides by chance and knows how likely its decisions were; what `act` gives is a sample."""

    def sample(self, chart: Chart) -> tuple[Tensor, Tensor]:
        """A decision as `act` gives it, and its log-probability float32 [B] given all that was seen and decided so far
        (of amounts, the log-density)."""

    def log_prob(self, chart: Chart, decision: Tensor) -> Tensor:
        """float32 [B]: log-probability of a decision that was made on this chart by whomever. Asked instead of `sample`
        or `act`, once a step."""


def menu_of(simulator: Simulator) -> Tensor | None:
    """What the task lets one choose from, in the world's columns: a menu as orders float32 [M, A], levels as the
    table [D, M, A] of `Levels.table`; None where the task takes amounts."""
    actions = simulator.task.actions
    if isinstance(actions, Menu | Levels):
        return actions.table(simulator.world.orders, simulator.device)
    return None


def to_orders(action: Tensor, menu: Tensor | None) -> Tensor:
    """Orders float32 [B, A] of a decision: itself where it is float; else what it chooses from the menu [M, A], int64
    [B], or from the levels [D, M, A], int64 [B, D].

    Raises:
        ValueError: a choice outside the menu or the levels, one where the task has neither, or the wrong shape.
    """
    if action.is_floating_point():
        if action.ndim != 2:
            raise ValueError(f"orders in mg need the shape [B, A], got {tuple(action.shape)}; one column an order")
        return action
    if menu is None:
        raise ValueError("the task has no menu, so an agent must give orders in mg, float [B, A], not an index")
    if menu.ndim == 3:
        if action.ndim != 2 or action.shape[1] != menu.shape[0]:
            raise ValueError(f"levels need the shape [B, {menu.shape[0]}], got {tuple(action.shape)}")
        inside = (action >= 0) & (action < (~menu[:, :, 0].isnan()).sum(-1))
        if not bool(inside.all()):
            row, entry = (int(i) for i in (~inside).nonzero()[0])
            raise ValueError(f"level {int(action[row, entry])} of order {entry} (row {row}) is not among its levels")
        return pick_levels(menu, action)
    if action.ndim != 1:
        raise ValueError(f"a menu index needs the shape [B], got {tuple(action.shape)}")
    low, high = (int(action.min()), int(action.max())) if len(action) else (0, 0)
    if low < 0 or high >= menu.shape[0]:
        raise ValueError(f"menu index {low if low < 0 else high} is outside 0..{menu.shape[0] - 1}")
    return menu[action].to(torch.float32)
