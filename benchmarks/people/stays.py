"""Recorded stays as plain arrays: every value with its time, every order with its begin, to the minute.

Decision points are laid through these, not through steps: a step of four hours would hide whether a pressure was
taken before or after the pressor was begun. Hourly tables hold an hour at its begin, so that a value of theirs counts
as known an hour later (`lag_h`) and as an outcome only from the next full hour on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from world_models.data.ehr.episode import PatientEpisode

__all__ = [
    "FIO2",
    "HOURLY_SOURCES",
    "RUNS_ON_H",
    "Begun",
    "Order",
    "Stay",
    "rates_begun",
    "doses_begun",
    "settings_begun",
    "stay_of",
]

HOURLY_SOURCES = ("eicu", "challenge2019")
FIO2 = "fio2_fraction"
RUNS_ON_H = 4.0  # an infusion whose end is not told runs until it is charted anew, at most so long
GAP_H = 1.0  # a new bag this soon after the last one continues it
TOGETHER_H = 1.0  # doses begun within this time are one


class Order(NamedTuple):
    """One order that was carried out; hours since the stay's start."""

    start_h: float
    end_h: float  # NaN: not told
    dose: float  # NaN: not told
    unit: str
    rate: float  # NaN: not told
    rate_unit: str
    route: str
    infusion: bool


class Begun(NamedTuple):
    """Begins [N] of an order, by time."""

    hour: np.ndarray
    dose: np.ndarray  # the rise or the amount, in the question's unit; NaN: not told
    before: np.ndarray  # rate or setting until then; 0 of an amount
    clear: np.ndarray  # bool: it can be told that it was begun here, and not earlier


@dataclass(frozen=True, slots=True)
class Stay:
    """One stay."""

    stay_id: int
    subject: int
    hospital: str
    length_h: float
    age_years: float  # NaN: not told, as below
    sex_female: float
    started_hour_of_day: float
    lag_h: float  # after its time a value counts as known
    values: dict[str, tuple[np.ndarray, np.ndarray]]  # item -> times, values, by time
    orders: dict[str, tuple[Order, ...]]  # item -> by start


def stay_of(e: PatientEpisode, lag_h: float) -> Stay:
    """An episode's numbers and executed orders; prescriptions, whose execution is not told, are left out."""
    asked: dict[str, list[tuple[float, float]]] = {}
    for q in e.inquiries():
        if q.value is not None:
            asked.setdefault(q.item, []).append((e.hours(q.collected), q.value))
    done: dict[str, list[Order]] = {}
    for i in e.interventions():
        if i.kind in ("administration", "infusion", "procedure"):
            order = Order(
                e.hours(i.start), np.nan if i.end is None else e.hours(i.end), _known(i.dose), i.unit, _known(i.rate),
                i.rate_unit, i.route.upper(), i.kind == "infusion",
            )  # fmt: skip
            done.setdefault(i.item, []).append(order)
    start = e.started
    return Stay(
        stay_id=e.stay_id,
        subject=e.subject_id,
        hospital=e.hospital,
        length_h=e.hours_alive,
        age_years=_known(e.age_years),
        sex_female=np.nan if e.sex_female is None else float(e.sex_female),
        started_hour_of_day=start.hour + start.minute / 60,
        lag_h=lag_h,
        values={n: _series(pairs) for n, pairs in asked.items()},
        orders={n: tuple(sorted(rows, key=lambda o: o.start_h)) for n, rows in done.items()},
    )


def _known(x: float | None) -> float:
    return np.nan if x is None else float(x)


def _series(pairs: Iterable[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(sorted(pairs))
    return table[:, 0], table[:, 1]


def rates_begun(orders: tuple[Order, ...], units: dict[str, float], least: float) -> Begun:
    """Starts of an infusion and rises of its rate by `least`.

    A rate in a unit that cannot be converted is a start of unknown size where nothing ran, and no rise otherwise. What
    has no rate at all (a push, a note that it was given) is not clear.
    """
    rows: list[tuple[float, float, float, bool]] = []
    running, until = 0.0, -np.inf
    for o in orders:
        if not o.infusion or np.isnan(o.rate):
            rows.append((o.start_h, np.nan, 0.0, False))
            continue
        rate = o.rate * units.get(o.rate_unit, np.nan)
        before = running if o.start_h <= until + GAP_H else 0.0
        if o.rate > 0:
            if before == 0.0 and (np.isnan(rate) or rate >= least):
                rows.append((o.start_h, rate, 0.0, True))
            elif rate - before >= least:  # never of unknown ones
                rows.append((o.start_h, rate - before, before, True))
        running = rate if o.rate > 0 else 0.0
        until = o.start_h + RUNS_ON_H if np.isnan(o.end_h) else o.end_h
    return _begun(rows)


def doses_begun(orders: tuple[Order, ...], units: dict[str, float], least: float, not_routes: tuple[str, ...]) -> Begun:
    """Amounts; those begun within an hour are one. One smaller than `least`, or by another route, is not clear."""
    rows: list[tuple[float, float, float, bool]] = []
    for o in orders:
        dose = o.dose * units.get(o.unit, np.nan)
        clear = not o.route.startswith(not_routes) if not_routes else True
        if clear and rows and rows[-1][3] and o.start_h - rows[-1][0] < TOGETHER_H:
            at, first, *_ = rows[-1]
            rows[-1] = (at, first + dose, 0.0, True)  # unknown if one of them is
        else:
            rows.append((o.start_h, dose, 0.0, clear))
    return _begun([(h, d, b, clear and not d < least) for h, d, b, clear in rows])


def settings_begun(times: np.ndarray, values: np.ndarray, least: float, oldest_h: float = 12.0) -> Begun:
    """Rises by `least` of a charted setting over its last charting, at most `oldest_h` ago."""
    at, first = np.unique(times, return_index=True)
    value = np.maximum.reduceat(values, first) if len(times) else values
    rise, gap = np.diff(value), np.diff(at)
    risen = rise >= least - 1e-6
    clear = gap[risen] <= oldest_h
    return Begun(at[1:][risen], rise[risen], value[:-1][risen], clear)


def _begun(rows: list[tuple[float, float, float, bool]]) -> Begun:
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Begun(table[:, 0], table[:, 1], table[:, 2], table[:, 3] > 0.5)
