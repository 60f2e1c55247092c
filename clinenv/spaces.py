"""From quantities to Gymnasium spaces, and from an action to orders in their units."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from clinenv.task import Actions, Column, Levels, Menu, Switches
from world_models.quantity import Quantity, by_name

__all__ = ["ACTION_UNITS", "Layout", "Orders", "action_space", "as_numbers", "layout", "pick_levels"]
__all__ += ["waveform_space"]

ACTION_UNITS = ("scaled", "mg", "units")  # "mg" and "units" are one: the amounts themselves


@dataclass(frozen=True)
class Layout:
    """Where everything stands in the flat observation: one label an entry, and its affine scale."""

    names: tuple[str, ...]  # label of each entry: the measure's name, with [i] where it has several
    units: tuple[str, ...]
    centre: np.ndarray  # float32 [n], in the unit
    scale: np.ndarray  # float32 [n], in the unit
    low: np.ndarray  # float32 [n], bounds in the unit
    high: np.ndarray
    log: np.ndarray  # bool [n]: centre and values are taken by their logarithm

    def box(self) -> spaces.Box:
        """The observation's bounds, scaled."""
        return spaces.Box(self.scaled(self.low), self.scaled(self.high), dtype=np.float32)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        values, centre = self._logs(values), self._logs(self.centre)
        return ((values - centre) / self.scale).astype(np.float32)

    def _logs(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.log, np.log(np.where(self.log, values, 1.0)), values) if self.log.any() else values

    def describe(self, observation: np.ndarray) -> dict[str, Any]:
        """Label -> value in its unit (a float, or an array [N] for a batch [N, n])."""
        numbers = as_numbers(observation, "cpu")
        if numbers is None or numbers.is_complex():
            raise ValueError(f"observation {reprlib.repr(observation)} is no row of {len(self.names)} numbers; give one")
        observation = numbers.numpy().astype(np.float32)
        if observation.shape[-1:] != (len(self.names),):
            raise ValueError(f"an observation of {len(self.names)} entries was expected, got shape {observation.shape}")
        values = observation * self.scale + self._logs(self.centre)
        values = np.where(self.log, np.exp(np.where(self.log, values, 0.0)), values).astype(np.float32)
        columns = np.moveaxis(values, -1, 0)
        return {name: float(c) if c.ndim == 0 else c.copy() for name, c in zip(self.names, columns, strict=True)}


def layout(
    columns: tuple[Column, ...], measures: tuple[Quantity, ...], extra: tuple[tuple[Column, Quantity], ...] = ()
) -> Layout:
    """The layout of a task's columns, then of `extra` ones that are no measure of the world."""
    names: list[str] = []
    units: list[str] = []
    rows: list[np.ndarray] = []
    pairs = [(column, by_name(measures, column.name)) for column in columns]
    for column, quantity in (*pairs, *extra):
        size = int(np.prod(quantity.shape, dtype=int))
        low, high = column.bounds or (quantity.low, quantity.high)
        stated = (column.centre, column.scale, low, high, column.log)
        row = [np.broadcast_to(np.asarray(v, np.float32), (size,)) for v in stated]
        rows.append(np.stack(row))
        names += [column.name] if quantity.shape == () else [f"{column.name}[{i}]" for i in range(size)]
        units += [quantity.unit] * size
    centre, scale, low, high, log = np.concatenate(rows, axis=1)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("every measure of an observation needs finite bounds")
    if not ((low > 0) | (log == 0)).all():
        raise ValueError(
            f"{names[int(np.argmax((low <= 0) & (log > 0)))]} is shown by its logarithm: give it bounds above 0"
        )
    return Layout(tuple(names), tuple(units), centre, scale, low, high, log > 0)


def waveform_space(quantity: Quantity) -> spaces.Box:
    """A waveform as one flat row of samples, in its unit: Stable-Baselines3 takes flat rows or images, no matrix."""
    return spaces.Box(quantity.low, quantity.high, (int(np.prod(quantity.shape)),), np.float32)


def action_space(
    actions: Actions, unit: str = "scaled"
) -> spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete | spaces.Box:
    """Discrete for a menu, MultiBinary for switches, MultiDiscrete for levels; for doses a Box over the named orders.

    Args:
        unit: of the Box. "scaled": [-1, 1] each, where a > 0 orders a times the largest dose and a <= 0 orders
            nothing; "mg" or "units": the amounts themselves, in the orders' units.
    """
    if unit not in ACTION_UNITS:
        raise ValueError(f"action_unit {unit!r} is unknown; choose one of {', '.join(ACTION_UNITS)}")
    if isinstance(actions, Menu):
        return spaces.Discrete(len(actions))
    if isinstance(actions, Switches):
        return spaces.MultiBinary(len(actions))
    if isinstance(actions, Levels):
        return spaces.MultiDiscrete(actions.counts)
    highest = np.array(list(actions.highest.values()), dtype=np.float32)
    if unit != "scaled":
        return spaces.Box(np.zeros_like(highest), highest, dtype=np.float32)
    return spaces.Box(-np.ones_like(highest), np.ones_like(highest), dtype=np.float32)


class Orders:
    """Callable: actions [B] or [B, D] -> orders float32 [B, A] on the device, checked."""

    def __init__(self, actions: Actions, orders: tuple[Quantity, ...], unit: str, device: torch.device) -> None:
        self.device = device
        self.scaled = unit == "scaled"
        self.labels = [label for label, _ in actions.entries] if isinstance(actions, Menu) else list(actions.names)
        self.menu = actions.table(orders, device) if isinstance(actions, Menu) else None
        self.switches = isinstance(actions, Switches)
        self.counts = torch.tensor(actions.counts, device=device) if isinstance(actions, Levels) else None
        if self.counts is not None:
            self.levels = actions.table(orders, device)
            self.exists = ~self.levels[:, :, 0].isnan()
        elif self.menu is None:
            names = [order.name for order in orders]
            positions = [names.index(name) for name in actions.names]
            self.positions = torch.tensor(positions, device=device)
            self.columns = [positions.index(a) if a in positions else None for a in range(len(orders))]
            amounts = actions.standard if isinstance(actions, Switches) else actions.highest
            self.highest = torch.tensor(list(amounts.values()), dtype=torch.float32, device=device)
            yes_or_no = [orders[i].unit == "bool" for i in positions]
            self.yes_or_no = torch.tensor(yes_or_no, device=device) if any(yes_or_no) else None

    def __call__(self, actions: Any, count: int) -> Tensor:
        """Orders of `count` rows.

        Raises:
            ValueError: wrong shape, no real numbers, an index outside the menu or the levels, a switch that is neither 0
                nor 1, or an amount outside the Box.
        """
        given = self._numbers(actions)
        if self.menu is not None:
            return self.menu[self._index(given, count)]
        if self.counts is not None:
            return pick_levels(self.levels, self._levels(given, count))
        given = given.to(torch.float32)
        if tuple(given.shape) != (count, len(self.labels)):
            raise ValueError(f"actions need the shape {(count, len(self.labels))}, got {tuple(given.shape)}")
        amounts = self._switched(given) if self.switches else self._dosed(given)
        nothing = torch.zeros_like(amounts[:, 0])
        return torch.stack([nothing if c is None else amounts[:, c] for c in self.columns], -1)

    def _numbers(self, actions: Any) -> Tensor:
        """The actions as a tensor of real numbers."""
        given = as_numbers(actions, self.device)
        if given is None or given.is_complex():
            raise ValueError(
                f"actions {reprlib.repr(actions)} are no real numbers; the entries are {', '.join(self.labels[:12])}"
                f"{', ...' if len(self.labels) > 12 else ''}: see action_space"
            )
        return given

    def mask(self, admissible: Tensor) -> Tensor:
        """int8 [B, entries]: 1 where the entry holds nothing but admissible orders; admissible is bool [B, A].

        For levels [B, sum of their counts]: one place a choice, entry after entry, as sb3-contrib's MaskablePPO takes
        the mask of a MultiDiscrete action.
        """
        if self.counts is not None:
            choices = self.levels[self.exists]
            return (~((choices > 0) & ~admissible.unsqueeze(1)).any(-1)).to(torch.int8)
        if self.menu is None:
            return admissible[:, self.positions].to(torch.int8)
        return (~((self.menu > 0) & ~admissible.unsqueeze(1)).any(-1)).to(torch.int8)

    def _switched(self, given: Tensor) -> Tensor:
        wrong = (given != 0) & (given != 1)  # True for NaN
        if bool(wrong.any()):
            row, column = (int(i) for i in wrong.nonzero()[0])
            raise ValueError(
                f"switch {float(given[row, column])} for {self.labels[column]} (row {row}) is neither 0 (nothing) nor 1 "
                "(its standard amount)"
            )
        return given * self.highest

    def _dosed(self, given: Tensor) -> Tensor:
        low = -1.0 if self.scaled else 0.0
        high = torch.ones_like(self.highest) if self.scaled else self.highest
        fine = (given >= low - 1e-6) & (given <= high * (1 + 1e-6))  # also False for NaN
        if not bool(fine.all()):
            row, column = (int(i) for i in (~fine).nonzero()[0])
            raise ValueError(
                f"action {float(given[row, column])} for {self.labels[column]} (row {row}) is outside "
                f"[{low:g}, {float(high[column]):g}]; clip it first, e.g. with gymnasium.wrappers.ClipAction"
            )
        amounts = given.clamp(min=0.0)
        amounts = torch.minimum(amounts, high) * (self.highest if self.scaled else 1.0)
        if self.yes_or_no is not None:
            amounts = torch.where(self.yes_or_no, (amounts >= 0.5).to(torch.float32), amounts)
        return amounts

    def _index(self, given: Tensor, count: int) -> Tensor:
        if tuple(given.shape) != (count,) or given.is_floating_point() or given.dtype == torch.bool:
            raise ValueError(
                f"a menu takes {count} whole numbers, got {given.dtype} of shape {tuple(given.shape)}; "
                f"the entries are {', '.join(f'{i} {label}' for i, label in enumerate(self.labels))}"
            )
        index = given.to(torch.int64)  # what is too large for it becomes negative
        outside = (index < 0) | (index >= len(self.labels))
        if bool(outside.any()):
            raise ValueError(f"action {given[outside][0].item()} is outside the menu 0..{len(self.labels) - 1}")
        return index

    def _levels(self, given: Tensor, count: int) -> Tensor:
        if tuple(given.shape) != (count, len(self.labels)) or given.is_floating_point() or given.dtype == torch.bool:
            raise ValueError(
                f"levels take whole numbers of shape {(count, len(self.labels))}, got {given.dtype} of shape "
                f"{tuple(given.shape)}; one entry for each of {', '.join(self.labels)}"
            )
        index = given.to(torch.int64)
        outside = (index < 0) | (index >= self.counts)
        if bool(outside.any()):
            row, entry = (int(i) for i in outside.nonzero()[0])
            raise ValueError(
                f"level {given[row, entry].item()} for {self.labels[entry]} (row {row}) is outside "
                f"0..{int(self.counts[entry]) - 1}"
            )
        return index


def as_numbers(values: Any, device: torch.device | str) -> Tensor | None:
    """The values as a tensor on the device; None where they are no numbers, or some of them are masked or missing."""
    if isinstance(values, Tensor):
        plain = values.layout == torch.strided and values.device.type != "meta"
        given = values.detach().to(device) if plain else None
    else:
        try:
            masked = [np.ma.is_masked(part) for part in (values, *(values if isinstance(values, list | tuple) else ()))]
            given = None if any(masked) else torch.as_tensor(np.asarray(values), device=device)
        except (TypeError, ValueError, RuntimeError):  # None, text, objects, lists of unlike lengths, tensors in lists
            given = None
    return given


def pick_levels(table: Tensor, index: Tensor) -> Tensor:
    """Orders float32 [..., A] of the choices index int64 [..., D] in the table [D, M, A] of `Levels.table`.

    Each order stands in one entry only, so the sum over the entries is exact.
    """
    orders = table[0][index[..., 0]]
    for entry in range(1, table.shape[0]):
        orders = orders + table[entry][index[..., entry]]
    return orders
