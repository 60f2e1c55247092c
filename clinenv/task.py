"""What is wanted of a patient's course: reward, cost, end; and what a decider sees and may order.

A task reads charts and orders only, so a learned world and an oracle are judged by the same one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.protocol import Chart, WorldModel
from world_models.quantity import Quantity

if TYPE_CHECKING:  # both stand on tasks
    from clinenv.patients import Patients
    from clinenv.view import View

__all__ = ["Actions", "Column", "Doses", "Levels", "Losses", "Menu", "Outcomes", "Record", "Switches", "Task"]


@dataclass(frozen=True, slots=True)
class Column:
    """One measure of the observation, and the affine scale that brings it to about [-1, 1].

    An observation holds (value - centre) / scale; `ClinicalEnv.describe` turns it back into the measure's unit.
    """

    name: str  # of a measure of the world; a measure of shape (D,) takes D entries
    centre: float | tuple[float, ...]  # the value that reads 0, in the measure's unit
    scale: float | tuple[float, ...]  # this much above the centre reads 1
    noise_sd: float = 0.0  # SD of one careful reading, in the measure's unit; 0: known exactly
    record: str = ""  # the Record it is read from; "": always there
    bounds: tuple[float, float] | tuple[tuple[float, ...], tuple[float, ...]] | None = None  # narrower than the chart's
    log: bool = False  # skewed: (ln value - ln centre) / scale is shown; the bounds must then lie above 0


@dataclass(frozen=True, slots=True)
class Record:
    """Something that is not always made, such as an ECG: its columns are missing together."""

    name: str  # the observation's extra column is hours_since_<name>
    missing: Mapping[str, float]  # missingness tier -> chance that it is not made at a step
    waveforms: tuple[str, ...] = ()  # measures on request that are gone with it


@dataclass(frozen=True)
class Losses:
    """Orders that may get lost before anything comes of them, such as a specimen nobody takes."""

    orders: tuple[str, ...]
    chance: Mapping[str, float]  # missingness tier -> chance that one such order is lost


@dataclass(frozen=True)
class Menu:
    """A discrete choice: entry i is a set of orders."""

    entries: tuple[tuple[str, Mapping[str, float]], ...]  # (label, {order name: amount}); orders not named are 0

    def __len__(self) -> int:
        """How many entries there are to choose from."""
        return len(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Every order some entry names."""
        return tuple(dict.fromkeys(name for _, amounts in self.entries for name in amounts))

    def table(self, orders: tuple[Quantity, ...], device: torch.device | str = "cpu") -> Tensor:
        """float32 [entries, A]: the amounts of each entry, in the columns of `orders`."""
        rows = [[float(amounts.get(order.name, 0.0)) for order in orders] for _, amounts in self.entries]
        return torch.tensor(rows, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Doses:
    """A continuous choice: an amount of each order, from nothing to `highest`.

    An order that can only be given or not (unit "bool") is given from a half of it upwards.
    """

    highest: Mapping[str, float]  # order name -> largest amount, in the order's unit

    @property
    def names(self) -> tuple[str, ...]:
        """The orders, one an entry of the action."""
        return tuple(self.highest)


@dataclass(frozen=True)
class Switches:
    """Concurrent choices: entry j of a MultiBinary action gives order j its standard amount, or nothing.

    `Settings.action` makes a MultiDiscrete of it, for libraries that know no MultiBinary.
    """

    standard: Mapping[str, float]  # order name -> amount of one step, in the order's unit

    def __len__(self) -> int:
        return len(self.standard)

    @property
    def names(self) -> tuple[str, ...]:
        """The orders, one an entry of the action."""
        return tuple(self.standard)


@dataclass(frozen=True)
class Levels:
    """Concurrent choices of several amounts: entry j of a MultiDiscrete action picks one of the amounts of order j.

    Raises:
        ValueError: no order, an order without amounts, an amount below 0 or not above the one before it, or an order
            under `once` or `interval` that is not among the names.
    """

    amounts: Mapping[str, tuple[float, ...]]  # order name -> its amounts, rising, in the order's unit
    once: tuple[str, ...] = ()  # acts, not courses: whoever holds a decision over several steps gives them at the first
    interval: str = ""  # the order that says how long the step lasts; "": none

    def __post_init__(self) -> None:
        if not self.amounts:
            raise ValueError("Levels needs at least one order with its amounts")
        for name, amounts in self.amounts.items():
            rising = all(a < b for a, b in zip(amounts, amounts[1:], strict=False))
            if not amounts or amounts[0] < 0 or not rising:
                raise ValueError(f"the amounts of {name} must be at least 0 and rising, got {amounts}")
        unknown = sorted({*self.once, *([self.interval] if self.interval else [])} - set(self.amounts))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} has no amounts; the orders are {', '.join(self.amounts)}")

    def __len__(self) -> int:
        return len(self.amounts)

    @property
    def names(self) -> tuple[str, ...]:
        """The orders, one an entry of the action."""
        return tuple(self.amounts)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many amounts each entry chooses from."""
        return tuple(len(amounts) for amounts in self.amounts.values())

    def table(self, orders: tuple[Quantity, ...], device: torch.device | str = "cpu") -> Tensor:
        """float32 [entries, most amounts, A]: what each choice orders, in the columns of `orders`.

        The orders of a whole action are the sum over its entries; a choice that an entry does not have is NaN.
        """
        table = torch.full((len(self), max(self.counts), len(orders)), torch.nan)
        columns = [order.name for order in orders]
        for entry, (name, amounts) in enumerate(self.amounts.items()):
            table[entry, : len(amounts)] = 0.0
            table[entry, : len(amounts), columns.index(name)] = torch.tensor(amounts, dtype=torch.float32)
        return table.to(device)


Actions = Menu | Doses | Switches | Levels


class Outcomes(NamedTuple):
    """What became of patients, name -> float32 [B], in a step or over a whole episode.

    Figures to judge deciders by: unlike the reward and the cost, none of them is what a policy is trained on.
    """

    totals: dict[str, Tensor]  # events (1.0 where it happened) and amounts: an episode adds them up
    peaks: dict[str, Tensor]  # levels, those of the first chart included: an episode keeps the highest


class Task(ABC):
    """What is wanted, and what a decider sees and may order: subclass it (a frozen dataclass is natural).

    All methods take and give batches [B], are pure, and treat every row by itself. What a task must say is abstract or
    has no default; all else has the default that fits a task without the feature.
    """

    name: str
    orders: tuple[str, ...]  # the columns of every action; a world must take exactly these
    horizon_hours: float  # of an episode, unless the caller says otherwise
    observation: tuple[Column, ...]
    actions: Actions
    records: tuple[Record, ...] = ()
    losses: Losses | None = None
    trend: tuple[str, ...] = ()  # measures drawn over time when an episode is rendered
    oracle: str = "oracle"  # the catalogue's name that world="oracle" stands for
    told: tuple[str, ...] = ()  # of the world's `truth`, repeated in info for judging; no observation holds it
    refuses: bool = False  # whether some orders may not be carried out: see `admissible`, `refused`, `reasons`

    @abstractmethod
    def reward(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """Named terms float32 [B], always the same names; their sum is the reward.

        Asked once of a step that changed nothing (before is after, no orders): info names the terms from the first
        reset.

        Args:
            before: the chart that the orders were given on.
            action: float32 [B, A] what was carried out, in the orders' units.
            after: the chart one step later.
        """

    @abstractmethod
    def cost(self, before: Chart, action: Tensor, after: Chart) -> Tensor:
        """Safety cost float32 [B], never negative; kept apart from the reward. Arguments as for `reward`."""

    def cost_and_parts(self, before: Chart, action: Tensor, after: Chart) -> tuple[Tensor, dict[str, Tensor]]:
        """`cost` and `cost_parts`; a task that makes the one of the other overrides this to make both once."""
        return self.cost(before, action, after), self.cost_parts(before, action, after)

    def cost_parts(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """The harms that `cost` is made of: name -> float32 [B], never negative, always the same names for a world.

        `cost` remains the task's own total (a sum, or 1 where any is there), never below one of its parts. info has
        each as `cost_<name>`. None: the cost is of one piece. Arguments as for `reward`.
        """
        return {}

    @abstractmethod
    def terminated(self, chart: Chart) -> Tensor:
        """bool [B]: the episode ends here."""

    def clock(self, chart: Chart) -> Tensor:
        """Hours float32 [B] since the episode began."""
        return chart["hours"]

    def outcomes(self, before: Chart, action: Tensor, after: Chart) -> Outcomes:
        """What became of the patients in this step, always the same names. Arguments as for `reward`."""
        return Outcomes({}, {})

    def reread(self, chart: Chart) -> Chart:
        """The chart with its derived measures computed anew, after measurement noise was added to the others."""
        return chart

    def read_at(self, chart: Chart) -> Mapping[str, Tensor] | None:
        """When each noisy measure was read: measure -> int64 [B], equal for equal readings. None: all of them now.

        A charted value keeps the error that it was read with.
        """
        return None

    def admissible(self, chart: Chart) -> Tensor:
        """bool [B, A]: which orders the chart allows, each taken by itself. Becomes info["action_mask"]."""
        some = next(iter(chart.values()))
        return torch.ones(some.shape[0], len(self.orders), dtype=torch.bool, device=some.device)

    def refused(self, chart: Chart, action: Tensor, admissible: Tensor) -> Tensor:
        """bool [B, A]: which orders of a set are not carried out; never one that was not given.

        Args:
            chart: the orders are given on.
            action: float32 [B, A] all orders of the set, in their units.
            admissible: bool [B, A] what `admissible` says of the chart.
        """
        return (action > 0) & ~admissible

    def reasons(self, chart: Chart, action: Tensor) -> list[list[tuple[str, str]]]:
        """For each of B patients (order, why it was refused), in the columns' order."""
        return [[] for _ in range(len(action))]

    def views(self) -> Mapping[str, Callable[[WorldModel, Task], View]]:
        """The forms of observation besides "chart": name -> function of world and task that makes a `View`."""
        return {}

    def patients_of(self, folder: str | Path, world: WorldModel) -> Patients:
        """The patients whose records lie in a folder.

        Raises:
            ValueError: this task knows no such records; or what is wrong with them.
        """
        raise ValueError(
            f'patients={folder!r}: task {self.name!r} reads no folders; use "generated" or an object with factors(key)'
        )

    def recalled(self, world: WorldModel) -> tuple[str, ...]:
        """Measures of every moment, with or without those on request, that `paint` needs.

        Raises:
            ValueError: no pictures are painted of this world's patients.
        """
        raise ValueError(f"task {self.name!r} paints no pictures of world {world.name!r}; use render_mode=None")

    def paint(self, episodes: Any, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
        """The picture uint8 [H, W, 3] of one row's episode.

        Args:
            episodes: the running `clinenv.episodes.Episodes`.
            moments: oldest first: each measure of `recalled` [N, *shape], and under "orders" what was carried out
                just before, float32 [N, A].
            row: of N.
        """
        raise NotImplementedError(f"task {self.name!r} paints no pictures")
