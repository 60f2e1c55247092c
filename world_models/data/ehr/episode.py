"""PatientEpisode: one stay in hospital, as orders and what came of them, whatever the data came from.

An inquiry asks for a value (a lab, a vital sign, a culture) and has a collection time and a result time of its own; an
intervention (a drug, an infusion, a procedure) changes the patient and returns nothing. Both stand in time steps as
sets: sorted tuples without doubles, so that equal stays are equal objects. A step without events is not stored.

Numbers are held at float32 precision, MEDS's own (`at_float32`), so that nothing is lost on the way through a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import numpy as np

__all__ = [
    "KINDS",
    "Diagnosis",
    "EpisodeError",
    "InquiryEvent",
    "InterventionEvent",
    "PatientEpisode",
    "TimeStep",
    "at_float32",
    "build_episode",
]

KINDS = ("administration", "infusion", "procedure", "prescription")
OLDEST_YEARS = 130.0
WIDEST_STEP_HOURS = 24.0 * 366
LAST_YEAR = 9990  # so that a step's end is a datetime still
LARGEST = float(np.finfo(np.float32).max)
_NEVER = datetime.max


class EpisodeError(ValueError):
    """A stay that cannot be: the message names the value, the limit and the remedy."""


class InquiryEvent(NamedTuple):
    """One value asked for. Exactly one of `value` and `label` is given."""

    item: str  # our name: an item of inquiry_items, or "culture//<specimen>//<test>" or "susceptibility//..."
    value: float | None  # in `unit`
    label: str | None  # a label outcome (an organism, "negative") or a censored number ("<0.01", ">60")
    collected: datetime
    resulted: datetime | None  # None: the source does not say
    unit: str  # "" for a label
    source: str  # the code it had in the source, unit left out: "LAB//50971"

    def sort_key(self) -> tuple[Any, ...]:
        """By collection time, then item, value and all the rest."""
        resulted = self.resulted or _NEVER
        return (self.collected, self.item, _number(self.value), self.label or "", resulted, self.unit, self.source)


class InterventionEvent(NamedTuple):
    """One thing done. `dose` is an amount in `unit`, `rate` an amount per time in `rate_unit`; either may be
    unknown."""

    item: str  # our name (intervention_items), or the source's own, lower case
    kind: str  # one of KINDS; a prescription is an order whose execution the source does not tell
    start: datetime
    end: datetime | None  # None: at once, or not told
    dose: float | None
    unit: str
    rate: float | None
    rate_unit: str
    route: str
    source: str

    def sort_key(self) -> tuple[Any, ...]:
        """By start, then kind, item and all the rest."""
        return (
            self.start,
            self.kind,
            self.item,
            self.end or _NEVER,
            _number(self.dose),
            _number(self.rate),
            self.unit,
            self.rate_unit,
            self.route,
            self.source,
        )


class Diagnosis(NamedTuple):
    """A discharge diagnosis. It is known only at discharge: to condition on it is to look into the future."""

    sequence: int | None  # 1 is primary; None where the source does not rank
    version: str  # "9" or "10" of the ICD
    code: str

    def sort_key(self) -> tuple[Any, ...]:
        """By rank; what has none comes last."""
        return (math.inf if self.sequence is None else self.sequence, self.version, self.code)


class TimeStep(NamedTuple):
    """All that was collected or started in [start, start + hours_per_step)."""

    number: int  # from 0
    start: datetime
    inquiries: tuple[InquiryEvent, ...]
    interventions: tuple[InterventionEvent, ...]


@dataclass(frozen=True, slots=True)
class PatientEpisode:
    """One stay. Checked when it is made; see `EpisodeError`."""

    subject_id: int
    stay_id: int  # hadm_id in MIMIC, RecordID in Challenge 2012, patient in 2019, patientunitstayid in eICU
    started: datetime  # the origin of the steps: registration in the emergency ward, else admission
    admitted: datetime
    discharged: datetime
    hours_per_step: float
    steps: tuple[TimeStep, ...]  # those with events, by index
    diagnoses: tuple[Diagnosis, ...] = ()
    died: datetime | None = None
    died_in_hospital: bool | None = None
    truncated: bool = False  # the record stops before the patient leaves (Challenge 2012: at 48 h)
    age_years: float | None = None
    sex_female: bool | None = None
    race: str = ""
    admission_type: str = ""
    admission_location: str = ""
    discharge_location: str = ""
    hospital: str = ""  # the source and what it calls the hospital, "eICU 59"; "" where it is not told

    def __post_init__(self) -> None:
        _check_stay(self)
        width = timedelta(hours=self.hours_per_step)
        last = -1
        for step in self.steps:
            if step.number <= last:
                _fail(self, f"step {step.number} stands after step {last}", "sort the steps by number")
            last = step.number
            if step.start != self.started + step.number * width:
                _fail(self, f"step {step.number} starts at {step.start}", "use build_episode to lay out the steps")
            _check_step(self, step, step.start + width)

    @property
    def n_steps(self) -> int:
        """Steps from `started` to `discharged`, those without events counted."""
        return max(1, math.ceil(self.length_of_stay_hours / self.hours_per_step))

    @property
    def length_of_stay_hours(self) -> float:
        """Hours from `started` to `discharged`."""
        return (self.discharged - self.started) / timedelta(hours=1)

    @property
    def hours_alive(self) -> float:
        """Hours from `started` to `discharged`, or to the death if that came first."""
        return self.hours(self.discharged if self.died is None else min(self.died, self.discharged))

    def hours(self, time: datetime) -> float:
        """Hours from `started`."""
        return (time - self.started) / timedelta(hours=1)

    def inquiries(self) -> Iterator[InquiryEvent]:
        """All inquiries, step by step."""
        return (inquiry for step in self.steps for inquiry in step.inquiries)

    def interventions(self) -> Iterator[InterventionEvent]:
        """All interventions, step by step."""
        return (intervention for step in self.steps for intervention in step.interventions)

    def regrid(self, hours_per_step: float) -> PatientEpisode:
        """The same stay on steps of another width. Raises EpisodeError for a width that cannot be."""
        whose = f"stay {self.stay_id}"
        steps = lay_out(self.started, hours_per_step, self.inquiries(), self.interventions(), whose)
        return replace(self, hours_per_step=hours_per_step, steps=steps)


@lru_cache(1 << 16)  # charts repeat their numbers, and the shortest decimal is slow to find
def at_float32(value: float) -> float:
    """The shortest decimal with the same float32: 0.1 stays 0.1, and survives MEDS's float32 column.

    Raises:
        EpisodeError: not finite, or too large for a float32.
    """
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if not np.isfinite(rounded):  # the largest one's shortest decimal lies above it, and is as good
        raise EpisodeError(f"value {value!r} is not a finite float32; drop it or mark it as missing (None)")
    return float(str(rounded))


def build_episode(
    *,
    started: datetime,
    hours_per_step: float = 4.0,
    inquiries: Iterable[InquiryEvent] = (),
    interventions: Iterable[InterventionEvent] = (),
    diagnoses: Iterable[Diagnosis] = (),
    **stay: Any,
) -> PatientEpisode:
    """A checked episode from loose events: numbers to float32, doubles removed, events laid out in steps.

    Args:
        started: the origin of the steps.
        stay: the other fields of `PatientEpisode`, but `steps`.

    Raises:
        EpisodeError: time runs backwards, an event lies outside [started, discharged], a value is not finite, ...
    """
    return PatientEpisode(
        started=started,
        hours_per_step=float(hours_per_step),
        steps=lay_out(started, float(hours_per_step), inquiries, interventions, f"stay {stay.get('stay_id')}"),
        diagnoses=tuple(sorted(set(diagnoses), key=Diagnosis.sort_key)),
        **stay,
    )


def lay_out(
    started: datetime,
    hours_per_step: float,
    inquiries: Iterable[InquiryEvent],
    interventions: Iterable[InterventionEvent],
    whose: str = "the stay",
) -> tuple[TimeStep, ...]:
    """Events as sorted sets on steps of `hours_per_step` from `started`.

    Raises:
        EpisodeError: a step width that is not above 0, an event before `started`.
    """
    if not 0 < hours_per_step <= WIDEST_STEP_HOURS:
        raise EpisodeError(
            f"hours_per_step={hours_per_step} must be above 0 and at most {WIDEST_STEP_HOURS:g}; 4 is the usual one"
        )
    width = timedelta(hours=hours_per_step)
    if not width:
        raise EpisodeError(f"hours_per_step={hours_per_step} is under a microsecond; give a wider step")

    def step_of(item: str, time: datetime) -> int:
        if time < started:
            raise EpisodeError(
                f"{whose}: {item} at {time} lies before the start {started}: time runs backwards; "
                "drop the event or move the start"
            )
        return (time - started) // width

    asked: dict[int, set[InquiryEvent]] = {}
    for inquiry in inquiries:
        here = asked.setdefault(step_of(inquiry.item, inquiry.collected), set())
        value = _at_float32(inquiry.value)
        here.add(inquiry if value == inquiry.value else inquiry._replace(value=value))
    done: dict[int, set[InterventionEvent]] = {}
    for intervention in interventions:
        there = done.setdefault(step_of(intervention.item, intervention.start), set())
        dose, rate = _at_float32(intervention.dose), _at_float32(intervention.rate)
        same = (dose, rate) == (intervention.dose, intervention.rate)
        there.add(intervention if same else intervention._replace(dose=dose, rate=rate))
    return tuple(
        TimeStep(
            number,
            started + number * width,
            tuple(sorted(asked.get(number, ()), key=InquiryEvent.sort_key)),
            tuple(sorted(done.get(number, ()), key=InterventionEvent.sort_key)),
        )
        for number in sorted(asked.keys() | done.keys())
    )


def _at_float32(value: float | None) -> float | None:
    return None if value is None else at_float32(value)


def _number(value: float | None) -> float:
    """For sorting: an unknown number stands before every known one."""
    return -math.inf if value is None else value


def _fail(episode: PatientEpisode, what: str, remedy: str) -> NoReturn:
    raise EpisodeError(f"subject {episode.subject_id}, stay {episode.stay_id}: {what}; {remedy}")


def _check_stay(e: PatientEpisode) -> None:
    if not 0 < e.hours_per_step <= WIDEST_STEP_HOURS:
        _fail(
            e, f"hours_per_step={e.hours_per_step} must be above 0, at most {WIDEST_STEP_HOURS:g}", "4 is the usual one"
        )
    if e.discharged.year > LAST_YEAR:
        _fail(e, f"discharged {e.discharged}, after the year {LAST_YEAR}", "correct the date")
    if e.discharged < e.admitted:
        _fail(
            e,
            f"discharged {e.discharged} before admitted {e.admitted}: time runs backwards",
            "drop or correct the stay",
        )
    if e.started > e.admitted:
        _fail(e, f"started {e.started} after admitted {e.admitted}", "start at the admission")
    if e.died is not None and e.died < e.started:
        _fail(e, f"died {e.died} before the start {e.started}: time runs backwards", "drop or correct the stay")
    if e.age_years is not None and not 0 <= e.age_years <= OLDEST_YEARS:
        _fail(e, f"age {e.age_years} years is outside 0..{OLDEST_YEARS:g}", "give the age at admission, or None")
    for diagnosis in e.diagnoses:
        if not diagnosis.version.isalnum() or not diagnosis.code:
            _fail(e, f"diagnosis {diagnosis}", "give the version as '9' or '10', and a code")
    if list(e.diagnoses) != sorted(set(e.diagnoses), key=Diagnosis.sort_key):
        _fail(e, "diagnoses are unsorted or doubled", "use build_episode")


def _check_step(e: PatientEpisode, step: TimeStep, stop: datetime) -> None:
    for inquiry in step.inquiries:
        if not step.start <= inquiry.collected < stop:
            _fail(e, f"{inquiry.item} collected {inquiry.collected}, outside its step", "drop it or regrid")
        _check_inquiry(e, inquiry)
    for intervention in step.interventions:
        if not step.start <= intervention.start < stop:
            _fail(e, f"{intervention.item} starts {intervention.start}, outside its step", "drop it or regrid")
        _check_intervention(e, intervention)
    asked = [event.sort_key() for event in step.inquiries]
    done = [event.sort_key() for event in step.interventions]
    if any(a >= b for keys in (asked, done) for a, b in pairwise(keys)):
        _fail(e, f"step {step.number} is unsorted or holds doubles", "use build_episode")


def _check_inquiry(e: PatientEpisode, event: InquiryEvent) -> None:
    if event.collected > e.discharged:
        _fail(e, f"{event.item} collected {event.collected}, after discharge", "drop it")
    if event.resulted is not None and event.resulted < event.collected:
        _fail(
            e,
            f"{event.item} resulted {event.resulted} before it was collected {event.collected}: time runs backwards",
            "set the result time to None or to the collection time",
        )
    if (event.value is None) == (event.label is None):
        _fail(e, f"{event.item} at {event.collected} needs exactly one of value and label", "drop empty results")
    if event.value is not None and event.value != at_float32(event.value):
        _fail(e, f"{event.item}={event.value!r} is not held at float32 precision", "use build_episode")


def _check_intervention(e: PatientEpisode, event: InterventionEvent) -> None:
    if event.kind not in KINDS:
        _fail(e, f"{event.item} is of kind {event.kind!r}", f"use one of {', '.join(KINDS)}")
    if event.start > e.discharged:
        _fail(e, f"{event.item} starts {event.start}, after discharge", "drop it")
    if event.end is not None and event.end < event.start:
        _fail(
            e, f"{event.item} ends {event.end} before it starts {event.start}: time runs backwards", "set end to None"
        )
    for number in (event.dose, event.rate):
        if number is not None and not (number >= 0 and number == at_float32(number)):
            _fail(e, f"{event.item} has dose or rate {number!r}", "use a finite number from 0 up, or None")
