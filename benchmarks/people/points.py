"""Decision points of a question: who could be given the order when, whether it was begun, what came, what was known.

A decision point is a time in a stay at which the target is known, fresh and within the question's range, and none of
the order was begun within the washout. It is treated if the order is begun there. The others lie in every hour, at any
minute of it (a charted setting: where it was charted anew, unchanged), and count as untreated if nothing of the order
begins up to their outcome. Times of the history are whole hours: to the minute, they would tell at what kind of minute
orders are charted, and so who got one. Values after the decision are outcome, never history. Points whose outcome
nobody measured are counted and left out: the estimates are of those who are looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.people.questions import Question
from benchmarks.people.stays import FIO2, RUNS_ON_H, Begun, Stay, doses_begun, rates_begun, settings_begun

__all__ = ["Found", "Points", "begun_of", "decision_points", "found_in"]

MOST_DAYS = 13.0  # of a stay: worlds know 14
FIRST_H = 1.0
OLD_H = 48.0  # ages are cut here
RECENT_H = 6.0
MINUTES_SEED = 15  # of the untreated points' minutes
UNCHANGED = 0.05  # of a charted setting
CONTROL_AGE_H = 48.0
MOST_ITEMS, MOST_ORDERS = 48, 30  # of the history: those that most stays have


class Found(NamedTuple):
    """Decision points [N] of one stay, before their history is laid out."""

    hour: np.ndarray
    treated: np.ndarray  # bool
    dose: np.ndarray  # NaN: untreated, or not told
    before: np.ndarray  # rate or setting until then
    baseline: np.ndarray  # the target's last value
    outcome: np.ndarray  # NaN: not measured
    outcome_after_h: np.ndarray
    control_baseline: np.ndarray
    control: np.ndarray


class Points(NamedTuple):
    """Decision points [N] of many stays whose outcome was measured."""

    history: np.ndarray  # float32 [N, F]; NaN: not known
    treated: np.ndarray
    dose: np.ndarray
    before: np.ndarray
    baseline: np.ndarray
    outcome: np.ndarray
    outcome_after_h: np.ndarray
    control_baseline: np.ndarray
    control: np.ndarray
    stay: np.ndarray  # int64, index into the stays
    hour: np.ndarray
    subject: np.ndarray  # int64
    cluster: np.ndarray  # int64: hospital where a source has several, else patient
    measured: np.ndarray  # [2] share of untreated and treated points whose outcome was measured


def begun_of(q: Question, stay: Stay) -> Begun:
    """Begins of the question's order in a stay."""
    if q.kind == "setting":
        return settings_begun(*stay.values.get(FIO2, (np.zeros(0), np.zeros(0))), q.least)
    orders = stay.orders.get(q.order, ())
    if q.kind == "rate":
        return rates_begun(orders, q.units, q.least)
    return doses_begun(orders, q.units, q.least, q.not_routes)


def found_in(q: Question, stay: Stay) -> Found:
    """The decision points of one stay, those without an outcome too."""
    begun = begun_of(q, stay)
    end = min(stay.length_h, 24 * MOST_DAYS)
    times = _series(stay, q.target)
    if not len(times[0]):
        return _none()
    if q.kind == "setting":
        at, value = _series(stay, FIO2)
        still = np.zeros(len(at), dtype=bool)
        still[1:] = np.abs(np.diff(value)) < UNCHANGED
        grid = at[still]
    else:
        grid = np.arange(FIRST_H, max(end, FIRST_H), 1.0)
        grid = grid + np.random.default_rng([MINUTES_SEED, abs(stay.stay_id)]).random(len(grid))
    hour = np.concatenate([begun.hour[begun.clear], grid])
    count = int(begun.clear.sum())
    treated = np.arange(len(hour)) < count
    dose = np.concatenate([begun.dose[begun.clear], np.full(len(grid), np.nan)])
    before = np.concatenate([begun.before[begun.clear], _running(q, stay, begun, grid)])
    baseline, age = _baseline(q, stay, times, hour)
    last_begin = _last(begun.hour, hour)
    low, high = q.baseline
    fits = (baseline >= low) & (baseline <= high) & (age <= q.baseline_age_h) & (hour >= FIRST_H) & (hour < end)
    fits &= hour - last_begin > q.washout_h
    hour, treated, dose, before, baseline = (x[fits] for x in (hour, treated, dose, before, baseline))
    outcome, after = _outcome(q, stay, times, hour)
    later = _next(begun.hour, hour)  # of a treated point: after its own
    until = np.where(np.isnan(after), q.to_h, after)
    clean = treated | (later > hour + until)
    if q.kind == "dose":
        dose = np.where(treated, _total(begun, hour, until), np.nan)
    control_times = _series(stay, q.control)
    held, held_age = _value_before(control_times, hour - stay.lag_h)
    held = np.where(held_age + stay.lag_h <= CONTROL_AGE_H, held, np.nan)
    control, control_after = _value_after(control_times, hour + q.from_h, hour + q.control_to_h)
    control = np.where(treated | (later > hour + np.nan_to_num(control_after - hour)), control, np.nan)
    out = Found(hour, treated, dose, before, baseline, outcome, after, held, control)
    return Found(*(x[clean] for x in out))


def decision_points(
    q: Question, stays: Sequence[Stay], most_untreated: int, seed: int, by_hospital: bool
) -> Points | None:
    """All treated and up to `most_untreated` untreated points (drawn by `seed`) of a question; None: none treated."""
    found = [found_in(q, s) for s in stays]
    place = np.repeat(np.arange(len(stays)), [len(f.hour) for f in found])
    joined = Found(*(np.concatenate(column) for column in zip(*found, strict=True))) if found else _none()
    there = ~np.isnan(joined.outcome)
    treated = joined.treated
    if not (treated & there).any() or not (~treated & there).any():
        return None
    measured = np.array([there[~treated].mean(), there[treated].mean()])
    others = np.flatnonzero(~treated & there)
    drawn = np.random.default_rng(seed).permutation(others)[:most_untreated]
    rows = np.sort(np.concatenate([np.flatnonzero(treated & there), drawn]))
    place, joined = place[rows], Found(*(x[rows] for x in joined))
    items, orders = _known_items(stays)
    history = np.empty((len(rows), _width(items, orders)), dtype=np.float32)
    for s in np.unique(place):
        here = place == s
        history[here] = _history(q, stays[s], joined.hour[here], joined.before[here], items, orders)
    subject = np.array([s.subject for s in stays], dtype=np.int64)[place]
    hospitals = {name: i for i, name in enumerate(sorted({s.hospital for s in stays}))}
    hospital = np.array([hospitals[s.hospital] for s in stays], dtype=np.int64)[place]
    return Points(
        history, joined.treated, joined.dose, joined.before, joined.baseline, joined.outcome, joined.outcome_after_h,
        joined.control_baseline, joined.control, place.astype(np.int64), joined.hour, subject,
        hospital if by_hospital else subject, measured,
    )  # fmt: skip


# ---- one stay's series


def _series(stay: Stay, item: str) -> tuple[np.ndarray, np.ndarray]:
    return stay.values.get(item, (np.zeros(0), np.zeros(0)))


def _none() -> Found:
    empty = np.zeros(0)
    return Found(empty, empty > 0, *[empty] * 7)


def _last(at: np.ndarray, hour: np.ndarray) -> np.ndarray:
    """The last of the times `at` strictly before each hour; -inf: none."""
    return np.concatenate([[-np.inf], at])[np.searchsorted(at, hour - 1e-9, "left")]


def _next(at: np.ndarray, hour: np.ndarray) -> np.ndarray:
    """The first of the times `at` strictly after each hour; inf: none."""
    return np.concatenate([at, [np.inf]])[np.searchsorted(at, hour + 1e-9, "right")]


def _value_before(series: tuple[np.ndarray, np.ndarray], hour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value at or before each hour and its age in hours; NaN: none."""
    times, values = series
    if not len(times):
        return np.full(len(hour), np.nan), np.full(len(hour), np.nan)
    i = np.searchsorted(times, hour + 1e-9, "right") - 1
    known = i >= 0
    return np.where(known, values[i], np.nan), np.where(known, hour - times[i], np.nan)


def _value_after(
    series: tuple[np.ndarray, np.ndarray], begin: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First value in [begin, end] and its time; NaN: none."""
    times, values = series
    if not len(times):
        return np.full(len(begin), np.nan), np.full(len(begin), np.nan)
    i = np.searchsorted(times, begin - 1e-9, "left")
    inside = i < len(times)
    i = np.minimum(i, len(times) - 1)
    inside &= times[i] <= end + 1e-9
    return np.where(inside, values[i], np.nan), np.where(inside, times[i], np.nan)


def _volume(series: tuple[np.ndarray, np.ndarray], begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Sum of the volumes charted in (begin, end], an hour; NaN: none was charted."""
    times, values = series
    total = np.concatenate([[0.0], np.cumsum(values)])
    i, j = (np.searchsorted(times, x + 1e-9, "right") for x in (begin, end))
    return np.where(j > i, (total[j] - total[i]) / (end - begin), np.nan)


def _mean(series: tuple[np.ndarray, np.ndarray], begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Mean of the values in (begin, end]; NaN: none."""
    times, values = series
    total = np.concatenate([[0.0], np.cumsum(values)])
    i, j = (np.searchsorted(times, x + 1e-9, "right") for x in (begin, end))
    return np.where(j > i, (total[j] - total[i]) / np.maximum(j - i, 1), np.nan)


def _baseline(
    q: Question, stay: Stay, series: tuple[np.ndarray, np.ndarray], hour: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    known_until = hour - stay.lag_h
    value, age = _value_before(series, known_until)
    if q.mean_of_window:
        value = _volume(series, known_until - q.baseline_age_h, known_until)
    return value, age + stay.lag_h


def _outcome(
    q: Question, stay: Stay, series: tuple[np.ndarray, np.ndarray], hour: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The outcome and when it was measured, hours after the decision; of a volume, the window's end."""
    if q.mean_of_window:
        volume = _volume(series, hour + q.from_h, hour + q.to_h)
        whole = hour + q.to_h <= stay.length_h
        return np.where(whole, volume, np.nan), np.full(len(hour), q.to_h)
    value, at = _value_after(series, hour + q.from_h, hour + q.to_h)
    return value, at - hour


def _running(q: Question, stay: Stay, begun: Begun, hour: np.ndarray) -> np.ndarray:
    """Rate or setting at each hour, as far as the record tells; 0 of an amount."""
    if q.kind == "setting":
        return _value_before(_series(stay, FIO2), hour - 1e-3)[0]
    return _rate_at(stay, q.order, q.units, hour) if q.kind == "rate" else np.zeros(len(hour))


def _rate_at(stay: Stay, item: str, units: dict[str, float] | None, hour: np.ndarray) -> np.ndarray:
    """Rate of an infusion just before each hour: of the last one begun, 0 once it has ended."""
    rows = [o for o in stay.orders.get(item, ()) if o.infusion and not np.isnan(o.rate)]
    if not rows:
        return np.zeros(len(hour))
    start = np.array([o.start_h for o in rows])
    end = np.array([o.start_h + RUNS_ON_H if np.isnan(o.end_h) else o.end_h for o in rows])
    rate = np.array([o.rate * (1.0 if units is None else units.get(o.rate_unit, np.nan)) for o in rows])
    i = np.searchsorted(start, hour - 1e-9, "left") - 1
    return np.where((i >= 0) & (end[i] >= hour - 1e-9), np.nan_to_num(rate[i]), 0.0)


def _total(begun: Begun, hour: np.ndarray, until: np.ndarray) -> np.ndarray:
    """Sum of the doses begun from each hour up to its outcome: a course of two units is two units. NaN: one is not
    told."""
    dose = np.where(begun.clear, begun.dose, 0.0)
    return np.array(
        [dose[(begun.hour >= h - 1e-9) & (begun.hour < h + u)].sum() for h, u in zip(hour, until, strict=True)]
    )


# ---- what was known


def _known_items(stays: Sequence[Stay]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Items and orders that most stays have."""
    out = []
    for kind, most in (("values", MOST_ITEMS), ("orders", MOST_ORDERS)):
        count: dict[str, int] = {}
        for s in stays:
            for name in getattr(s, kind):
                count[name] = count.get(name, 0) + 1
        out.append(tuple(sorted(sorted(count, key=lambda n: (-count[n], n))[:most])))
    return out[0], out[1]


def _width(items: Sequence[str], orders: Sequence[str]) -> int:
    return 3 * len(items) + 3 * len(orders) + 9


def _history(
    q: Question, stay: Stay, hour: np.ndarray, before: np.ndarray, items: Sequence[str], orders: Sequence[str]
) -> np.ndarray:
    """[N, F]: of each item the last value, its age and its change from the one before; of each order the hours since it
    was begun, how often within six hours, and its rate; the target's course; who, and since when."""
    columns: list[np.ndarray] = []
    known = hour - stay.lag_h
    for name in items:
        series = _series(stay, name)
        value, age = _value_before(series, known)
        earlier, _ = _value_before(series, known - np.nan_to_num(age) - 1e-3)
        columns += [value, np.floor(np.minimum(age, OLD_H)), value - earlier]
    for name in orders:
        rows = stay.orders.get(name, ())
        start = np.array([o.start_h for o in rows])
        since = np.floor(np.minimum(hour - _last(start, hour), OLD_H))
        recent = np.searchsorted(start, hour - 1e-9, "left") - np.searchsorted(start, hour - RECENT_H, "left")
        columns += [since, recent.astype(float), _rate_at(stay, name, None, hour)]
    series = _series(stay, q.target)
    ago = [_value_before(series, known - h)[0] for h in (2.0, 6.0, 24.0)]
    course = _mean(series, known - RECENT_H, known)
    whole = np.full(len(hour), 1.0)
    columns += [before, *ago, course, stay.age_years * whole, stay.sex_female * whole, np.floor(hour)]
    columns += [np.floor((stay.started_hour_of_day + hour) % 24.0)]
    return np.stack(columns, 1).astype(np.float32)
