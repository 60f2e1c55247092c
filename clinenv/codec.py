"""From an action to orders in their units: one codec for each kind of choice that `clinenv.task` knows."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from clinenv.arguments import as_numbers
from clinenv.task import Actions, Doses, Levels, Menu, Switches
from world_models.quantity import Quantity

__all__ = ["ACTION_FORMS", "ACTION_UNITS", "Codec", "codec_of", "pick_levels"]

ACTION_FORMS = ("multidiscrete",)  # besides the one that a kind of choice has by itself
ACTION_UNITS = ("scaled", "mg", "units")  # "mg" and "units" are one: the amounts themselves
_ROUNDING = 1e-6  # a dose may be this far, relatively, outside its Box
_HALF = 0.5  # an order that is yes or no is given from here upwards
_NAMED = 12  # labels that an error lists


class Codec(ABC):
    """Actions as a decider gives them, and the orders that they mean.

    Attributes:
        space: of one action.
        labels: of the entries, in the action's order.
    """

    space: Space[Any]
    labels: list[str]

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, actions: Any, count: int) -> Tensor:
        """Orders float32 [count, A] of the actions [count] or [count, D], numpy, torch or lists.

        Raises:
            ValueError: wrong shape, no real numbers, or a value outside the action space.
        """
        given = as_numbers(actions, self.device)
        if given is None or given.is_complex():
            more = ", ..." if len(self.labels) > _NAMED else ""
            raise ValueError(
                f"actions {reprlib.repr(actions)} are no real numbers; the entries are "
                f"{', '.join(self.labels[:_NAMED])}{more}: see action_space"
            )
        return self._orders(given, count)

    def single(self, action: Any) -> Tensor | None:
        """Orders float32 [1, A] of one plain action of `space` on the CPU, as calling would give them, but sooner; None
        of anything else, which is to be handed to the codec itself."""
        return None

    @abstractmethod
    def _orders(self, given: Tensor, count: int) -> Tensor:
        """The orders of actions that are numbers."""

    @abstractmethod
    def mask(self, admissible: Tensor) -> Tensor:
        """int8 [B, entries]: 1 where an entry orders nothing but what is admissible, bool [B, A]."""

    def choices(self, admissible: Tensor) -> Tensor:
        """bool [B, choices]: which choices can be had, as sb3-contrib's MaskablePPO takes the masks of `space`."""
        return self.mask(admissible).bool()


class MenuCodec(Codec):
    """A `Menu` as `Discrete`."""

    space: spaces.Discrete

    def __init__(self, actions: Menu, orders: tuple[Quantity, ...], device: torch.device) -> None:
        super().__init__(device)
        self.space = spaces.Discrete(len(actions))
        self.labels = [label for label, _ in actions.entries]
        self._table = actions.table(orders, device)
        self._each = list(self._table.split(1))

    def single(self, action: Any) -> Tensor | None:
        """See `Codec.single`."""
        plain = type(action) in (int, np.int64, np.int32) and 0 <= action < len(self._each)
        return self._each[action] if plain else None

    def _orders(self, given: Tensor, count: int) -> Tensor:
        if tuple(given.shape) != (count,) or not _whole(given):
            raise ValueError(
                f"a menu takes {count} whole numbers, got {given.dtype} of shape {tuple(given.shape)}; "
                f"the entries are {', '.join(f'{i} {label}' for i, label in enumerate(self.labels))}"
            )
        index = given.to(torch.int64)  # what is too large for it becomes negative
        outside = (index < 0) | (index >= len(self.labels))
        if bool(outside.any()):
            raise ValueError(f"action {given[outside][0].item()} is outside the menu 0..{len(self.labels) - 1}")
        return self._table[index]

    def mask(self, admissible: Tensor) -> Tensor:
        """int8 [B, entries]: see `Codec.mask`."""
        return (~((self._table > 0) & ~admissible.unsqueeze(1)).any(-1)).to(torch.int8)


class LevelsCodec(Codec):
    """`Levels` as `MultiDiscrete`."""

    space: spaces.MultiDiscrete

    def __init__(self, actions: Levels, orders: tuple[Quantity, ...], device: torch.device) -> None:
        super().__init__(device)
        self.space = spaces.MultiDiscrete(list(actions.counts))
        self.labels = list(actions.names)
        self._counts = torch.tensor(actions.counts, device=device)
        self._table = actions.table(orders, device)
        self._choices = self._table[~self._table[:, :, 0].isnan()]  # [sum of the counts, A]
        self._rows = self._table.cpu().numpy()
        self._most = np.array(actions.counts)
        self._entry = np.arange(len(actions))

    def single(self, action: Any) -> Tensor | None:
        """See `Codec.single`."""
        if not _plain(action, self._most.shape, "iu") or bool(((action < 0) | (action >= self._most)).any()):
            return None
        return torch.from_numpy(self._rows[self._entry, action].sum(0)[None])  # one of each column is not 0

    def _orders(self, given: Tensor, count: int) -> Tensor:
        shape = (count, len(self.labels))
        if tuple(given.shape) != shape or not _whole(given):
            raise ValueError(
                f"levels take whole numbers of shape {shape}, got {given.dtype} of shape {tuple(given.shape)}; "
                f"one entry for each of {', '.join(self.labels)}"
            )
        index = given.to(torch.int64)
        outside = (index < 0) | (index >= self._counts)
        if bool(outside.any()):
            row, entry = _first(outside)
            raise ValueError(
                f"level {given[row, entry].item()} for {self.labels[entry]} (row {row}) is outside "
                f"0..{int(self._counts[entry]) - 1}"
            )
        return pick_levels(self._table, index)

    def mask(self, admissible: Tensor) -> Tensor:
        """int8 [B, sum of the counts]: one place a choice, entry after entry."""
        return (~((self._choices > 0) & ~admissible.unsqueeze(1)).any(-1)).to(torch.int8)


class _AmountCodec(Codec):
    """One number an order: what switches and doses share."""

    def __init__(self, names: tuple[str, ...], orders: tuple[Quantity, ...], device: torch.device) -> None:
        super().__init__(device)
        self.labels = list(names)
        columns = [order.name for order in orders]
        positions = [columns.index(name) for name in names]
        self._positions = torch.tensor(positions, device=device)
        self._columns, self._count = np.array(positions), len(orders)
        self._entries = [positions.index(a) if a in positions else None for a in range(len(orders))]

    def _orders(self, given: Tensor, count: int) -> Tensor:
        given = given.to(torch.float32)
        if tuple(given.shape) != (count, len(self.labels)):
            raise ValueError(f"actions need the shape {(count, len(self.labels))}, got {tuple(given.shape)}")
        amounts = self._amounts(given)
        nothing = torch.zeros_like(amounts[:, 0])
        return torch.stack([nothing if entry is None else amounts[:, entry] for entry in self._entries], -1)

    def _in_columns(self, amounts: np.ndarray) -> Tensor:
        """Orders [1, A] of the amounts [D] of one action."""
        orders = np.zeros((1, self._count), np.float32)
        orders[0, self._columns] = amounts
        return torch.from_numpy(orders)

    @abstractmethod
    def _amounts(self, given: Tensor) -> Tensor:
        """The amounts [B, D] in the orders' units."""

    def mask(self, admissible: Tensor) -> Tensor:
        """int8 [B, D]: whether the order of each entry is admissible."""
        return admissible[:, self._positions].to(torch.int8)


class SwitchesCodec(_AmountCodec):
    """`Switches` as `MultiBinary`; or, for libraries that know none, as `MultiDiscrete` of two choices each."""

    space: spaces.MultiBinary | spaces.MultiDiscrete

    def __init__(
        self, actions: Switches, orders: tuple[Quantity, ...], device: torch.device, multidiscrete: bool = False
    ) -> None:
        super().__init__(actions.names, orders, device)
        count = len(actions)
        self.space = spaces.MultiDiscrete([2] * count) if multidiscrete else spaces.MultiBinary(count)
        self._multidiscrete = multidiscrete
        self._standard = torch.tensor(list(actions.standard.values()), dtype=torch.float32, device=device)
        self._usual = self._standard.cpu().numpy()

    def single(self, action: Any) -> Tensor | None:
        """See `Codec.single`."""
        if not _plain(action, self._usual.shape, "iu") or bool(((action != 0) & (action != 1)).any()):
            return None
        return self._in_columns(action * self._usual)

    def _amounts(self, given: Tensor) -> Tensor:
        wrong = (given != 0) & (given != 1)  # True for NaN
        if bool(wrong.any()):
            row, entry = _first(wrong)
            raise ValueError(
                f"switch {float(given[row, entry])} for {self.labels[entry]} (row {row}) is neither 0 (nothing) nor 1 "
                "(its standard amount)"
            )
        return given * self._standard

    def mask(self, admissible: Tensor) -> Tensor:
        """int8 [B, D]: whether each switch may be on; as `MultiDiscrete` int8 [B, 2 D], those of `choices`."""
        return self.choices(admissible).to(torch.int8) if self._multidiscrete else super().mask(admissible)

    def choices(self, admissible: Tensor) -> Tensor:
        """bool [B, 2 D]: of each switch whether it may stay off (always) and whether it may be on."""
        on = super().mask(admissible).bool()
        return torch.stack([torch.ones_like(on), on], -1).flatten(1)


class DosesCodec(_AmountCodec):
    """`Doses` as `Box`: scaled to [-1, 1], where 0 and below order nothing, or the amounts themselves."""

    space: spaces.Box

    def __init__(self, actions: Doses, orders: tuple[Quantity, ...], device: torch.device, scaled: bool) -> None:
        super().__init__(actions.names, orders, device)
        highest = np.array(list(actions.highest.values()), dtype=np.float32)
        low, high = (-np.ones_like(highest), np.ones_like(highest)) if scaled else (np.zeros_like(highest), highest)
        self.space = spaces.Box(low, high, dtype=np.float32)
        self._scaled = scaled
        self._highest = torch.tensor(list(actions.highest.values()), dtype=torch.float32, device=device)
        units = {order.name: order.unit for order in orders}
        yes_or_no = [units[name] == "bool" for name in actions.names]
        self._yes_or_no = torch.tensor(yes_or_no, device=device) if any(yes_or_no) else None
        self._largest, self._given_or_not = highest, np.array(yes_or_no)

    def single(self, action: Any) -> Tensor | None:
        """See `Codec.single`."""
        if not _plain(action, self._largest.shape, "f") or action.dtype != np.float32:
            return None
        if not bool(((action >= self.space.low) & (action <= self.space.high)).all()):  # also of NaN
            return None
        amounts = np.maximum(action, np.float32(0.0))
        amounts = amounts * self._largest if self._scaled else amounts
        if self._yes_or_no is not None:
            amounts = np.where(self._given_or_not, amounts >= _HALF, amounts)
        return self._in_columns(amounts)

    def _amounts(self, given: Tensor) -> Tensor:
        low = -1.0 if self._scaled else 0.0
        high = torch.ones_like(self._highest) if self._scaled else self._highest
        fine = (given >= low - _ROUNDING) & (given <= high * (1 + _ROUNDING))  # also False for NaN
        if not bool(fine.all()):
            row, entry = _first(~fine)
            raise ValueError(
                f"action {float(given[row, entry])} for {self.labels[entry]} (row {row}) is outside "
                f"[{low:g}, {float(high[entry]):g}]; clip it first, e.g. with gymnasium.wrappers.ClipAction"
            )
        amounts = torch.minimum(given.clamp(min=0.0), high) * (self._highest if self._scaled else 1.0)
        if self._yes_or_no is not None:
            amounts = torch.where(self._yes_or_no, (amounts >= _HALF).to(torch.float32), amounts)
        return amounts

    def choices(self, admissible: Tensor) -> Tensor:
        """Raises ValueError: amounts are no choices."""
        raise ValueError(
            "a Box of amounts has no choices to mask; what is not carried out is in info['refused_orders']"
        )


def codec_of(
    actions: Actions, orders: tuple[Quantity, ...], unit: str, device: torch.device, action: str | None = None
) -> Codec:
    """The codec of a task's actions.

    Args:
        orders: the world's, which name the columns.
        unit: of a Box of doses. "scaled": [-1, 1] each, where a > 0 orders a times the largest dose and a <= 0 orders
            nothing; "mg" or "units": the amounts themselves, in the orders' units.
        action: of switches. None: MultiBinary; "multidiscrete": MultiDiscrete of two choices each.

    Raises:
        ValueError: an unknown unit or form of action.
    """
    if unit not in ACTION_UNITS:
        raise ValueError(f"action_unit {unit!r} is unknown; choose one of {', '.join(ACTION_UNITS)}")
    if action is not None and action not in ACTION_FORMS:
        raise ValueError(f"action {action!r} is unknown; choose None or one of {', '.join(ACTION_FORMS)}")
    if isinstance(actions, Menu):
        return MenuCodec(actions, orders, device)
    if isinstance(actions, Switches):
        return SwitchesCodec(actions, orders, device, action == "multidiscrete")
    if isinstance(actions, Levels):
        return LevelsCodec(actions, orders, device)
    return DosesCodec(actions, orders, device, unit == "scaled")


def pick_levels(table: Tensor, index: Tensor) -> Tensor:
    """Orders float32 [..., A] of the choices index int64 [..., D] in the table [D, M, A] of `Levels.table`.

    Each order stands in one entry only, so the sum over the entries is exact.
    """
    orders = table[0][index[..., 0]]
    for entry in range(1, table.shape[0]):
        orders = orders + table[entry][index[..., entry]]
    return orders


def _plain(action: Any, shape: tuple[int, ...], kinds: str) -> bool:
    """Whether an action is a numpy array of this shape and of these kinds of number."""
    return isinstance(action, np.ndarray) and action.shape == shape and action.dtype.kind in kinds


def _whole(given: Tensor) -> bool:
    return not given.is_floating_point() and given.dtype != torch.bool


def _first(wrong: Tensor) -> tuple[int, int]:
    """Row and column of the first entry where bool [B, D] holds."""
    row, column = wrong.nonzero()[0].tolist()
    return row, column
