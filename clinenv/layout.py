"""Where everything stands in the flat observation, and on which scale."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from clinenv.arguments import as_numbers
from clinenv.task import Column, Record
from world_models.protocol import WorldModel
from world_models.quantity import Quantity, by_name

__all__ = ["OLDEST_RECORD_HOURS", "Layout", "age_label", "chart_layout", "layout"]

OLDEST_RECORD_HOURS = 96.0  # an older record reads as this old
_AGE_SCALE_HOURS = 12.0  # this old reads 1


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

    def __len__(self) -> int:
        """Numbers in a row."""
        return len(self.names)

    def box(self) -> spaces.Box:
        """The observation's bounds, scaled."""
        return spaces.Box(self.scaled(self.low), self.scaled(self.high), dtype=np.float32)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values [..., n] in units, each on its affine scale."""
        values, centre = self._logs(values), self._logs(self.centre)
        return ((values - centre) / self.scale).astype(np.float32)

    def _logs(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.log, np.log(np.where(self.log, values, 1.0)), values) if self.log.any() else values

    def describe(self, observation: np.ndarray) -> dict[str, Any]:
        """What a scaled row says: label -> value in its unit (a float, or an array [N] for a batch [N, n]).

        Raises:
            ValueError: no row of numbers, or one of another length.
        """
        numbers = as_numbers(observation, "cpu")
        if numbers is None or numbers.is_complex():
            raise ValueError(
                f"observation {reprlib.repr(observation)} is no row of {len(self.names)} numbers; give one"
            )
        observation = numbers.numpy().astype(np.float32)
        if observation.shape[-1:] != (len(self.names),):
            raise ValueError(f"an observation of {len(self.names)} entries was expected, got shape {observation.shape}")
        values = observation * self.scale + self._logs(self.centre)
        values = np.where(self.log, np.exp(np.where(self.log, values, 0.0)), values).astype(np.float32)
        columns = np.moveaxis(values, -1, 0)
        return {name: float(c) if c.ndim == 0 else c.copy() for name, c in zip(self.names, columns, strict=True)}


def layout(entries: Sequence[tuple[Column, Quantity]]) -> Layout:
    """The layout of columns, each with the quantity that it shows.

    Raises:
        ValueError: no entries, a scale that is not above 0, a measure without finite bounds, or shown by its logarithm
            with bounds that reach 0.
    """
    names: list[str] = []
    units: list[str] = []
    rows: list[np.ndarray] = []
    if not entries:
        raise ValueError("an observation needs at least one column")
    for column, quantity in entries:
        size = int(np.prod(quantity.shape, dtype=int))
        low, high = column.bounds or (quantity.low, quantity.high)
        stated = (column.centre, column.scale, low, high, column.log)
        row = [np.broadcast_to(np.asarray(v, np.float32), (size,)) for v in stated]
        rows.append(np.stack(row))
        names += [column.name] if quantity.shape == () else [f"{column.name}[{i}]" for i in range(size)]
        units += [quantity.unit] * size
    centre, scale, low, high, log = np.concatenate(rows, axis=1)
    if not ((scale > 0) & np.isfinite(scale)).all():
        raise ValueError(f"{names[int(np.argmin((scale > 0) & np.isfinite(scale)))]} needs a finite scale above 0")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("every measure of an observation needs finite bounds")
    if not ((low > 0) | (log == 0)).all():
        raise ValueError(
            f"{names[int(np.argmax((low <= 0) & (log > 0)))]} is shown by its logarithm: give it bounds above 0"
        )
    return Layout(tuple(names), tuple(units), centre, scale, low, high, log > 0)


def age_label(record: str) -> str:
    """The label of a record's age in the row."""
    return f"hours_since_{record}"


def chart_layout(
    columns: Sequence[Column],
    records: Sequence[Record],
    world: WorldModel,
    more: Sequence[tuple[Column, Quantity]] = (),
) -> Layout:
    """The layout of columns of the world's chart, the age of each record, and what a view adds."""
    entries = [(column, by_name(world.measures, column.name)) for column in columns]
    for record in records:
        label = age_label(record.name)
        entries.append((Column(label, 0.0, _AGE_SCALE_HOURS), Quantity(label, "h", 0.0, OLDEST_RECORD_HOURS)))
    return layout([*entries, *more])
