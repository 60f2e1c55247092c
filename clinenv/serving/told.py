"""What is told of a patient: the chart as text, in units and as numbers. Never what the world hides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinenv.episodes import Episodes
from clinenv.rendering.labels import condition_label, label_and_unit, order_title
from clinenv.view import Kept, View
from world_models.protocol import Oracle
from world_models.quantities.progression import CODES, TREATMENTS

__all__ = ["Notes", "facts", "numbers"]

_MOST_LISTED = 64  # entries of a measure that the text lists; of a latent it gives the length alone
_CONDITIONS = tuple(condition_label(code, 80).replace("  ", " ") for code in CODES)
# what the entries of a measure are of, where its numbers alone would not tell
_ENTRIES: dict[str, tuple[str, ...]] = {
    "probe": _CONDITIONS,
    "condition_before": _CONDITIONS,
    "found": _CONDITIONS,
    "treated": TREATMENTS,
}


class Notes:
    """The text of a running course: the task's own note where it writes one (`Task.views`), else the chart in words.

    Args:
        episodes: of one patient.
    """

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes
        simulator = episodes.simulator
        make = simulator.task.views().get("text")
        self._view: View | None = None if make is None else make(simulator.world, simulator.task)
        self._kept: Kept | None = None

    def begin(self, observation: Any) -> str:
        """The text of the first observation."""
        self._kept = None
        return self.write(observation)

    def write(self, observation: Any) -> str:
        """The text of the observation that was handed out last."""
        if self._view is None:
            return self._listed(observation)
        now, given = self._episodes.running, None if self._kept is None else self._episodes.given
        row = now.shown.row
        self._kept = Kept(row, self._view.keep(row, now.chart, self._kept, given))
        return self._view.release(self._view.show(row, self._kept, now.chart))[0]

    def _listed(self, observation: Any) -> str:
        layout = self._episodes.interface.layout
        values = layout.describe(observation)
        measures: dict[str, list[float]] = {}
        for name, value in values.items():
            measures.setdefault(name.partition("[")[0], []).append(value)
        units = {name.partition("[")[0]: unit for name, unit in zip(layout.names, layout.units, strict=True)}
        orders = tuple(order_title(name) for name in self._episodes.simulator.task.orders)
        return "\n".join(_line(name, numbers, units[name], orders) for name, numbers in measures.items())


def facts(episodes: Episodes, info: Mapping[str, Any]) -> dict[str, Any]:
    """What of an info is sent: hours, cost and its parts, the reward's terms; and `support`, but not of an oracle.

    An oracle's `support` reads the hidden state, and `Task.told` names what is repeated of its truth for judging: both
    stay here.
    """
    told = {name: info[name] for name in ("hours", "cost")}
    for name in ("reward", "cost"):
        parts = {key.removeprefix(f"{name}_"): value for key, value in info.items() if key.startswith(f"{name}_")}
        told[f"{name}_parts"] = {key: value for key, value in parts.items() if key not in episodes.simulator.task.told}
    told["support"] = None if isinstance(episodes.simulator.world, Oracle) else info["support"]
    return told


def numbers(values: np.ndarray | Sequence[float]) -> list[float | None]:
    """The numbers of an observation, each exactly as its float32 is; None for what is none."""
    return [number if math.isfinite(number) else None for number in np.asarray(values).astype(float).tolist()]


def _line(name: str, values: list[float], unit: str, orders: tuple[str, ...]) -> str:
    title = label_and_unit(name)[0] or name  # "hours" alone is all unit
    if len(values) > _MOST_LISTED:
        length = math.sqrt(sum(value * value for value in values))
        return f"{title}: {len(values)} numbers, of length {length:.3g} together"
    if len(values) == 1:
        return f"{title}: {_told(values[0], unit)}"
    entries = _ENTRIES.get(name, orders)
    entries = entries if len(entries) == len(values) else tuple(str(i) for i in range(len(values)))
    if unit == "bool":
        there = [entry for entry, value in zip(entries, values, strict=True) if value > 0.5]
        return f"{title}: {', '.join(there) or 'none'}"
    said = [f"{entry} {_told(value, unit)}" for entry, value in zip(entries, values, strict=True) if value != 0]
    rest = ["all else 0" if said else "all 0"] if len(said) < len(values) else []
    return f"{title}: {'; '.join([*said, *rest])}"


def _told(value: float, unit: str) -> str:
    if math.isnan(value):
        return "not known"
    if unit == "bool":
        return "yes" if value > 0.5 else "no"
    number = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return number if unit in ("1", "", "fraction") else f"{number} {unit}"
