"""The charts that a log's decisions were made on, back from its observations: what agents read, in units.

An observation holds (value - centre) / scale in float32. A value comes back as the roundest number that gives the very
same observation, or one next to it in float32 that does, so that a rule decides as it did: thresholds are met exactly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from agents.offline.logged import Logged
from clinenv.interface import Interface
from clinenv.simulator import Simulator
from clinenv.view import Kept
from world_models.protocol import Chart

__all__ = ["ChartReader"]

# not observed, since whoever is decided for is there: what rules may read besides
_HERE = {"alive": 1.0, "discharged": 0.0, "dead": 0.0, "torsades": 0.0}
_FINE = 1e-5  # of a column's scale, or of a value shown by its logarithm
_NEIGHBOURS = 4  # float32 numbers tried either way


class ChartReader:
    """Reads the observations of one simulator's task (observation="chart").

    Raises:
        ValueError: the log's observation has other entries than this task's.
    """

    def __init__(self, simulator: Simulator, logged: Logged) -> None:
        interface = Interface(simulator.world, simulator.task)
        layout, names = interface.layout, logged.about.observation_names
        if tuple(layout.names) != names:
            raise ValueError(
                f"the log observes {', '.join(names[:4])}, ...; task {simulator.task.name!r} in world "
                f"{simulator.world.name!r} observes {', '.join(layout.names[:4])}, ...: log it anew"
            )
        self._logged, self._layout, self._interface = logged, layout, interface
        self._digits = np.ceil(-np.log10(layout.scale.astype(np.float64) * _FINE)).astype(int)
        shapes = {quantity.name: quantity.shape for quantity in simulator.world.measures}
        self._places: list[tuple[str, tuple[int, ...], slice]] = []
        start = 0
        for column in interface.view.columns:
            size = int(np.prod(shapes[column.name], dtype=int))
            self._places.append((column.name, shapes[column.name], slice(start, start + size)))
            start += size
        self._more = {n: value for n, value in _HERE.items() if n in shapes and n not in {p[0] for p in self._places}}

    def at(self, step: int) -> Chart:
        """The chart of everybody [N] before this step; of who has left, as he left."""
        logged = self._logged
        last = logged.length.clamp_max(step)
        return self.of(logged.observation[torch.arange(len(last)), last])

    def of(self, observation: Tensor) -> Chart:
        """The chart of observations float32 [B, n]."""
        rows = self._exact(self._units(observation.numpy().astype(np.float64)), observation)
        count = len(rows)
        chart = {
            name: torch.from_numpy(rows[:, place]).reshape(count, *shape).contiguous()
            for name, shape, place in self._places
        }
        return chart | {name: torch.full((count,), value) for name, value in self._more.items()}

    def _exact(self, rounded: np.ndarray, observation: Tensor) -> np.ndarray:
        """float32 [B, n]: the rounded values, or of those that give another observation a neighbour that gives it."""
        rows = rounded
        below, above = rounded, rounded
        for _ in range(_NEIGHBOURS):
            wrong = (self._shown(rows) != observation).numpy()
            if not wrong.any():
                break
            below, above = np.nextafter(below, np.float32(-np.inf)), np.nextafter(above, np.float32(np.inf))
            for near in (below, above):
                fits = (self._shown(near) == observation).numpy()
                rows = np.where(wrong & fits, near, rows)
        return rows

    def _shown(self, rows: np.ndarray) -> Tensor:
        """The observation float32 [B, n] of values in units."""
        values = torch.from_numpy(rows)
        return self._interface.show(Kept(values, values[:, :0]), {})

    def _units(self, scaled: np.ndarray) -> np.ndarray:
        """float32 [B, n]: values in units, rounded."""
        layout = self._layout
        centre = np.where(layout.log, np.log(np.where(layout.log, layout.centre, 1.0)), layout.centre)
        values = scaled * layout.scale + centre
        values = np.where(layout.log, np.exp(np.where(layout.log, values, 0.0)), values)
        size = np.floor(np.log10(np.where(layout.log, np.maximum(values, 1e-12), 1.0)))
        digits = np.where(layout.log, -size - np.log10(_FINE), self._digits)
        grain = 10.0**digits
        return (np.round(values * grain) / grain).astype(np.float32)
