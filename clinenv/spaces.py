"""From quantities to Gymnasium spaces, and from an action to orders in mg."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from clinenv.task import Column, Doses, Menu
from world_models.quantity import Quantity, by_name

__all__ = ["ACTION_UNITS", "Layout", "Orders", "action_space", "layout", "waveform_space"]

ACTION_UNITS = ("scaled", "mg")


@dataclass(frozen=True)
class Layout:
    """Where everything stands in the flat observation: one label an entry, and its affine scale."""

    names: tuple[str, ...]  # label of each entry: the measure's name, with [i] where it has several
    units: tuple[str, ...]
    centre: np.ndarray  # float32 [n], in the unit
    scale: np.ndarray  # float32 [n], in the unit
    low: np.ndarray  # float32 [n], bounds in the unit
    high: np.ndarray

    def box(self) -> spaces.Box:
        """The observation's bounds, scaled."""
        return spaces.Box(self.scaled(self.low), self.scaled(self.high), dtype=np.float32)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        return ((values - self.centre) / self.scale).astype(np.float32)

    def describe(self, observation: np.ndarray) -> dict[str, Any]:
        """Label -> value in its unit (a float, or an array [N] for a batch [N, n])."""
        values = np.asarray(observation, dtype=np.float32) * self.scale + self.centre
        if values.shape[-1] != len(self.names):
            raise ValueError(f"an observation of {len(self.names)} entries was expected, got shape {values.shape}")
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
        row = [np.broadcast_to(np.asarray(v, np.float32), (size,)) for v in (column.centre, column.scale, low, high)]
        rows.append(np.stack(row))
        names += [column.name] if quantity.shape == () else [f"{column.name}[{i}]" for i in range(size)]
        units += [quantity.unit] * size
    centre, scale, low, high = np.concatenate(rows, axis=1)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("every measure of an observation needs finite bounds")
    return Layout(tuple(names), tuple(units), centre, scale, low, high)


def waveform_space(quantity: Quantity) -> spaces.Box:
    """A waveform as one flat row of samples, in its unit: Stable-Baselines3 takes flat rows or images, no matrix."""
    return spaces.Box(quantity.low, quantity.high, (int(np.prod(quantity.shape)),), np.float32)


def action_space(actions: Menu | Doses, unit: str = "scaled") -> spaces.Discrete | spaces.Box:
    """Discrete for a menu; for doses a Box over the named orders.

    Args:
        unit: of the Box. "scaled": [-1, 1] each, where a > 0 orders a times the largest dose and a <= 0 orders
            nothing; "mg": the amounts themselves.
    """
    if unit not in ACTION_UNITS:
        raise ValueError(f"action_unit {unit!r} is unknown; choose one of {', '.join(ACTION_UNITS)}")
    if isinstance(actions, Menu):
        return spaces.Discrete(len(actions))
    highest = np.array(list(actions.highest.values()), dtype=np.float32)
    if unit == "mg":
        return spaces.Box(np.zeros_like(highest), highest, dtype=np.float32)
    return spaces.Box(-np.ones_like(highest), np.ones_like(highest), dtype=np.float32)


class Orders:
    """Callable: actions [B] or [B, D] -> orders float32 [B, A] on the device, checked."""

    def __init__(self, actions: Menu | Doses, orders: tuple[Quantity, ...], unit: str, device: torch.device) -> None:
        self.device = device
        self.unit = unit
        self.labels = [label for label, _ in actions.entries] if isinstance(actions, Menu) else list(actions.names)
        self.menu = actions.table(orders, device) if isinstance(actions, Menu) else None
        if isinstance(actions, Doses):
            positions = [[order.name for order in orders].index(name) for name in actions.names]
            self.columns = [positions.index(a) if a in positions else None for a in range(len(orders))]
            self.highest = torch.tensor(list(actions.highest.values()), dtype=torch.float32, device=device)

    def __call__(self, actions: Any, count: int) -> Tensor:
        """Orders of `count` rows.

        Raises:
            ValueError: wrong shape, not a number, an index outside the menu, or an amount outside the Box.
        """
        given = torch.as_tensor(actions, device=self.device)
        if self.menu is not None:
            return self.menu[self._index(given, count)]
        given = given.to(torch.float32)
        if tuple(given.shape) != (count, len(self.labels)):
            raise ValueError(f"actions need the shape {(count, len(self.labels))}, got {tuple(given.shape)}")
        low = 0.0 if self.unit == "mg" else -1.0
        high = self.highest if self.unit == "mg" else torch.ones_like(self.highest)
        fine = (given >= low - 1e-6) & (given <= high * (1 + 1e-6))  # also False for NaN
        if not bool(fine.all()):
            row, column = (int(i) for i in (~fine).nonzero()[0])
            raise ValueError(
                f"action {float(given[row, column])} for {self.labels[column]} (row {row}) is outside "
                f"[{low:g}, {float(high[column]):g}]; clip it first, e.g. with gymnasium.wrappers.ClipAction"
            )
        amounts = given.clamp(min=0.0)
        amounts = torch.minimum(amounts, high) * (1.0 if self.unit == "mg" else self.highest)
        nothing = torch.zeros_like(amounts[:, 0])
        return torch.stack([nothing if c is None else amounts[:, c] for c in self.columns], -1)

    def _index(self, given: Tensor, count: int) -> Tensor:
        if tuple(given.shape) != (count,) or given.is_floating_point() or given.dtype == torch.bool:
            raise ValueError(
                f"a menu takes {count} whole numbers, got {given.dtype} of shape {tuple(given.shape)}; "
                f"the entries are {', '.join(f'{i} {label}' for i, label in enumerate(self.labels))}"
            )
        index = given.to(torch.int64)
        outside = (index < 0) | (index >= len(self.labels))
        if bool(outside.any()):
            raise ValueError(f"action {int(index[outside][0])} is outside the menu 0..{len(self.labels) - 1}")
        return index
