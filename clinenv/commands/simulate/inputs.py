"""What `clinenv simulate` is told: its arguments, and the checks of patient and regimen against a world."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.commands.measure import add_record_arguments, check_rate
from clinenv.ecg.measurement import Measurement

if TYPE_CHECKING:
    from world_models.protocol import WorldModel

__all__ = ["Patient", "Regimen", "add_arguments", "add_patient_arguments", "check_settings"]
__all__ += ["patient_of", "regimen_of"]

MAX_HOURS, MAX_SAMPLES, MAX_LAMBDA = 168.0, 4096, 1000.0  # limits of use, not of the worlds; 168 h is a week
SEEDS = 1 << 64  # each stands for one patient; higher ones would repeat those from 0
_STEP_TOLERANCE = 1e-6  # of a step: times are given as decimals


@dataclass(frozen=True)
class Patient:
    """Who is simulated, besides the ECG."""

    age_years: float
    sex_female: bool
    weight_kg: float | None  # None: not known, so each sample takes one from the cohort

    def as_json(self) -> dict[str, float | str | None]:
        """What the reports' JSON says of the patient."""
        return {"age_years": self.age_years, "sex": "F" if self.sex_female else "M", "weight_kg": self.weight_kg}


@dataclass(frozen=True)
class Regimen:
    """What is given, and how long is simulated."""

    drug: str
    column: int  # of the world's action
    dose_mg: float
    dose_hours: tuple[float, ...]  # since the ECG
    hours: float  # how long is simulated


def regimen_of(
    world: WorldModel[Any], drug: str, dose_mg: float, every_hours: float | None, times: str | None, hours: float
) -> Regimen:
    """Check what is to be given against the orders this world takes.

    Args:
        every_hours: between two doses; None: as `times` says.
        times: hours of the doses, "0,12,24"; None: one dose at hour 0.

    Raises:
        UsageError: unknown drug, a dose that is not positive or above the largest order, times off the world's steps
            or outside the simulated hours.
    """
    drugs = [quantity.name.removesuffix("_mg") for quantity in world.orders]
    if drug.lower() not in drugs:
        raise UsageError(f"--drug {drug}: not a drug that world {world.name} knows; choose one of {', '.join(drugs)}")
    column = drugs.index(drug.lower())
    largest = world.orders[column].high
    if not 0 < dose_mg <= largest:
        raise UsageError(
            f"a dose of {dose_mg:g} mg {drugs[column]} is outside 0 to {largest:g} mg, the largest single order; "
            "give a single dose, and check the unit (--dose-ug or --dose-mg)"
        )
    if not 0 < hours <= MAX_HOURS:
        raise UsageError(f"--hours {hours:g} is outside 0 to {MAX_HOURS:g}; give a number of hours in between")
    dose_hours = _dose_hours(world, every_hours, times, hours)
    _check_on_steps(world, dose_hours, hours)
    if len({round(t / world.hours_per_step) for t in dose_hours}) < len(dose_hours):
        raise UsageError(f"--times {times}: two doses at one time; give each time once")
    return Regimen(drugs[column], column, dose_mg, dose_hours, hours)


def _dose_hours(
    world: WorldModel[Any], every_hours: float | None, times: str | None, hours: float
) -> tuple[float, ...]:
    step = world.hours_per_step
    if every_hours is not None:
        if not every_hours > 0:
            raise UsageError(f"--every-hours {every_hours:g} must be above 0; leave it out for a single dose")
        if every_hours < step:  # listing such doses might take forever
            raise UsageError(
                f"--every-hours {every_hours:g} is less than a step of world {world.name}; give a multiple of {step:g}"
            )
        return tuple(i * every_hours for i in range(math.ceil(hours / every_hours - 1e-9)))
    if times is None:
        return (0.0,)
    try:
        return tuple(sorted(float(part) for part in times.split(",")))
    except ValueError:
        raise UsageError(f"--times {times!r} is not a list of hours; write it as 0,12,24") from None


def _check_on_steps(world: WorldModel[Any], dose_hours: tuple[float, ...], hours: float) -> None:
    """Refuse doses outside the simulated hours, and times between the world's steps."""
    step = world.hours_per_step
    outside = [t for t in dose_hours if not 0 <= t < hours]
    if outside:
        raise UsageError(f"a dose at {outside[0]:g} h is outside 0 to {hours:g} h; give times before --hours")
    off = [t for t in (*dose_hours, hours) if abs(t / step - round(t / step)) > _STEP_TOLERANCE]
    if off:
        raise UsageError(
            f"{off[0]:g} h does not fall on a step of world {world.name}, which advances by {step:g} h at a time; "
            f"give dose times and --hours as multiples of {step:g}"
        )


def _unclear(found: Measurement, what: str) -> str:
    """The warning about an age or a sex that stands in the header and cannot be used; empty where there is none."""
    return next((text for text in found.warnings if text.startswith(f"the header's {what}")), "")


def patient_of(
    world: WorldModel[Any], found: Measurement, age: float | None, sex: str | None, weight: float | None
) -> Patient:
    """Who the patient is: from the arguments, else from the record's header, within what this world accepts.

    Args:
        age: in years.
        sex: "F" or "M".
        weight: in kg.

    Raises:
        UsageError: age or sex is not known from either, or a value is outside the world's bounds.
    """
    age_flag = "--age" if age is not None else f"the age in the header of record {found.record},"
    age = found.age_years if age is None else age
    if age is None:
        reason = _unclear(found, "age") or f"the header of record {found.record} states no age"
        raise UsageError(f"{reason}; give it with --age YEARS")
    female = found.sex_female if sex is None else sex == "F"
    if female is None:
        reason = _unclear(found, "sex") or f"the header of record {found.record} states no sex"
        raise UsageError(f"{reason}; give it with --sex F or --sex M")
    bounds = {quantity.name: quantity for quantity in world.factors}
    for flag, name, value in ((age_flag, "age_years", age), ("--weight", "weight_kg", weight)):
        allowed = bounds.get(name)
        if value is not None and allowed is not None and not allowed.low <= value <= allowed.high:
            raise UsageError(
                f"{flag} {value:g} is outside {allowed.low:g} to {allowed.high:g}, the range of world {world.name}; "
                "give a value within it"
            )
    return Patient(float(age), female, weight)


def add_patient_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments that say whose ECG it is: the record, age, sex and weight."""
    add = parser.add_argument
    add_record_arguments(parser)
    add("--age", type=float, metavar="YEARS", help="age (default: as the record's header states)")
    add("--sex", type=str.upper, choices=("F", "M"), help="sex (default: as the record's header states)")
    add(
        "--weight", type=float, metavar="KG", help="body weight (default: unknown, each sample has one of the cohort's)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv simulate`."""
    add = parser.add_argument
    add_patient_arguments(parser)
    add("--drug", required=True, help="ranolazine, dofetilide, verapamil or quinidine")
    dose = parser.add_mutually_exclusive_group(required=True)
    dose.add_argument("--dose-ug", type=float, metavar="UG", help="each dose in micrograms")
    dose.add_argument("--dose-mg", type=float, metavar="MG", help="each dose in milligrams")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--every-hours", type=float, metavar="H", help="hours between doses (default: a single dose)")
    when.add_argument("--times", metavar="0,12,...", help="hours of the doses, counted from the ECG")
    add("--hours", type=float, default=24.0, help="how long to simulate (default 24)")
    add("--clock-hour", type=float, default=8.0, metavar="H", help="hour of the day at the ECG (default 8)")
    add("--samples", type=int, default=32, metavar="N", help="how many possible courses to simulate (default 32)")
    add("--world", default="ecg-wm-small", help="ecg-wm-small, oracle, or a folder of weights (default ecg-wm-small)")
    add("--seed", type=int, default=0, help="the same seed gives the same report (default 0)")
    add(
        "--lambda",
        dest="risk_aversion",
        type=float,
        default=1.0,
        metavar="L",
        help="weight of the samples' spread in the risk score (default 1)",
    )
    add("--out", required=True, metavar="HTML", help="write the report to this file")
    add("--json", metavar="OUT", help="also write the numbers to this file")


def check_settings(given: argparse.Namespace) -> None:
    """Refuse 'nan' and 'inf', which float() accepts, and settings out of range.

    Raises:
        UsageError: there is such a value.
    """
    for name, value in vars(given).items():
        if isinstance(value, float) and not math.isfinite(value):
            flag = "lambda" if name == "risk_aversion" else name.replace("_", "-")
            raise UsageError(f"--{flag} {value} is not a finite number; give one")
    check_rate(given.rate_hz)
    if not 2 <= given.samples <= MAX_SAMPLES:
        raise UsageError(f"--samples {given.samples} is outside 2 to {MAX_SAMPLES}; 32 is the default")
    if not 0 <= given.clock_hour <= 24:
        raise UsageError(f"--clock-hour {given.clock_hour:g} is outside 0 to 24; give an hour of the day")
    if not 0 <= given.seed <= SEEDS - given.samples:
        raise UsageError(f"--seed {given.seed} is outside 0 to {SEEDS - given.samples}; give a whole number within it")
    if not 0 <= given.risk_aversion <= MAX_LAMBDA:
        raise UsageError(
            f"--lambda {given.risk_aversion:g} is outside 0 to {MAX_LAMBDA:g}; 0 ignores the spread, 1 is the default"
        )
