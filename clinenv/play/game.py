"""What a page needs to know of an id: its patients, what of a chart it shows, and how orders are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinenv.task import Doses, Levels, Menu, Switches, Task
from world_models.protocol import Chart
from world_models.quantity import Quantity

__all__ = ["Fact", "Game", "Row", "controls", "unit_shown"]

_UNITS = {
    "mm[Hg]": "mmHg", "Cel": "°C", "10*3/uL": "10³/µL", "1": "", "bpm": "/min", "uV": "µV", "bool": "", "a": "years",
    "ug/kg/min": "µg/kg/min", "[U]/h": "U/h", "[U]/min": "U/min", "[U]/kg/h": "U/kg/h", "month": "months",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of the chart on the page, which may also be drawn over time."""

    key: str  # under which `Game.read` gives its value
    label: str
    unit: str  # as shown; "": a pure number
    group: str  # the heading it stands under
    digits: int = 1  # after the point
    normal: tuple[float, float] | None = None  # reference range, in the unit
    limit: float | None = None  # the line a reader looks for, in the unit
    least_span: float = 0.1  # smallest range of its axis, in the unit


@dataclass(frozen=True)
class Fact:
    """What is fixed about a patient, in words."""

    what: str
    value: str


@dataclass(frozen=True)
class Game:
    """One id on the page.

    Args:
        id: as registered.
        title: of the page.
        goal: what is wanted, in a sentence or two.
        task: makes the task.
        cohorts: name -> what its patients are, the default first.
        rows: of the chart.
        trend: keys of the rows drawn over time; empty: those that moved furthest.
        read: chart of one patient -> the value of each row; None where it is not known.
        facts: the first chart of one patient -> who it is.
        clock: unit of time on the axis: "h" or "years".
        reward_unit: what the reward is counted in.
        ecg_rate_hz: of the measure `ecg_mv`; None: the id has no ECG.
        truth: a chart -> what no decider was shown, told when the course is over.
    """

    id: str
    title: str
    goal: str
    task: Callable[[], Task]
    cohorts: Mapping[str, str]
    rows: tuple[Row, ...]
    trend: tuple[str, ...]
    read: Callable[[Chart], dict[str, float | None]]
    facts: Callable[[Chart], list[Fact]]
    clock: str
    reward_unit: str
    ecg_rate_hz: float | None = None
    truth: Callable[[Chart], list[Fact]] | None = None


def unit_shown(unit: str) -> str:
    """A unit of a Quantity as people write it: "mm[Hg]" is "mmHg", and a pure number has none."""
    return _UNITS.get(unit, unit)


def controls(task: Task, orders: Sequence[Quantity], names: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """How the orders of a task are given, as JSON values.

    Args:
        orders: the world's.
        names: of an order -> (label, group) on the page.

    Returns:
        kind: "menu", "switches", "levels" or "doses"; entries: in the action's order, each with label and group, and
        what it may be (amount, choices, highest) in `unit`.
    """
    units = {order.name: unit_shown(order.unit) for order in orders}
    actions = task.actions
    if isinstance(actions, Menu):
        return {"kind": "menu", "entries": [{"label": label, "group": ""} for label, _ in actions.entries]}

    def entry(name: str, **more: Any) -> dict[str, Any]:
        label, group = names[name]
        return {"name": name, "label": label, "group": group, "unit": units[name], **more}

    if isinstance(actions, Switches):
        return {"kind": "switches", "entries": [entry(name, amount=x) for name, x in actions.standard.items()]}
    if isinstance(actions, Levels):
        return {"kind": "levels", "entries": [entry(name, choices=list(x)) for name, x in actions.amounts.items()]}
    assert isinstance(actions, Doses)
    return {"kind": "doses", "entries": [entry(name, highest=x) for name, x in actions.highest.items()]}
