"""`clinenv simulate`: what a drug does to the intervals of the patient whose ECG was recorded, as many samples see it.

The samples share the patient (the recorded ECG, age, sex, weight) and differ in all the ECG does not tell: kinetics,
sensitivity, the day's variation. Their spread is the band.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clinenv.commands.errors import UsageError
from clinenv.commands.measure import Measurement, check_measurable, measure_record, outputs
from clinenv.commands.simulate.inputs import Order, Patient, check_settings, order_of, patient_of
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, label_and_unit
from clinenv.rendering.simulation_charts import IntervalCourse

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Result", "risk_of", "run", "simulate", "ten_seconds"]

COURSES = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qtcf_ms", "jt_peak_c_ms", "tpeak_tend_ms", "qt_ms", "jt_peak_ms")
QTCF_LIMIT_MS, RISE_LIMIT_MS = 500.0, 60.0  # the top classes of ICH E14


@dataclass(frozen=True)
class Result:
    """What the samples did. Arrays over the steps, hour 0 first."""

    courses: dict[str, IntervalCourse]
    torsades: np.ndarray  # [samples] bool: at any hour
    highest_qtcf_ms: np.ndarray  # [samples], after hour 0
    largest_rise_ms: np.ndarray  # [samples], of QTcF over the recorded ECG's
    supported: np.ndarray  # [samples] bool: never beyond what the world was fitted or trained on
    peak_hour: float  # of the median QTcF, after hour 0
    ecg_before_mv: Tensor  # [12, 5000] as the world draws the patient before any dose
    ecg_after_mv: Tensor  # [12, 5000] at the peak, of the sample nearest to the median


def simulate(
    world: Any, found: Measurement, patient: Patient, order: Order, samples: int, seed: int, clock_hour: float | None
) -> Result:
    """Run `samples` of this patient under this order.

    Raises:
        UsageError: the world cannot start from this ECG.
    """
    import torch

    from world_models import keys, tree
    from world_models.inputs import admit

    chart = {"ecg_mv": ten_seconds(found.ecg_mv, found.r_samples)[None].to(world.device)}
    known = {"age_years": patient.age_years, "sex_female": float(patient.sex_female), "weight_kg": patient.weight_kg}
    chart |= {n: torch.tensor([v], device=world.device) for n, v in known.items() if v is not None}
    with torch.no_grad():
        try:
            factors = dict(world.read(chart))
            if clock_hour is not None and "admission_clock_hour" in {q.name for q in world.factors}:
                factors["admission_clock_hour"] = torch.tensor([clock_hour], device=world.device)
            key = keys.from_seed(seed, samples, world.device)
            state = admit(world, key, tree.repeat(factors, samples))
        except ValueError as error:
            raise UsageError(f"world {world.name} cannot start from record {found.record}: {error}") from error
        action = torch.zeros(samples, len(world.orders), device=world.device)
        doses = {round(t / world.hours_per_step) for t in order.times}
        states, charts = [state], [world.observe(state)]
        supported = torch.ones(samples, dtype=torch.bool, device=world.device)
        for step in range(round(order.hours / world.hours_per_step)):
            given = action.clone()
            if step in doses:
                given[:, order.column] = order.dose_mg
            state = world.transition(state, given)
            supported &= world.support(state)
            states.append(state)
            charts.append(world.observe(state))
        hours = np.arange(len(charts)) * world.hours_per_step
        over = {n: torch.stack([c[n] for c in charts]).double().cpu().numpy() for n in COURSES}  # [steps + 1, samples]
        middle = np.median(over["qtcf_ms"], axis=1)
        peak = 1 + int(middle[1:].argmax())
        row = int(np.abs(over["qtcf_ms"][peak] - middle[peak]).argmin())
        alone = slice(row, row + 1)
        drawn = [world.observe(tree.take(states[i], alone), ("ecg_mv",))["ecg_mv"][0].cpu() for i in (0, peak)]
    baseline = charts[0]["baseline_qtcf_ms"].double().cpu().numpy()
    low, high = np.quantile(np.stack(list(over.values())), (0.05, 0.95), axis=2)
    return Result(
        courses={
            name: IntervalCourse(hours, np.median(values, axis=1), low[i], high[i], found.intervals[name])
            for i, (name, values) in enumerate(over.items())
        },
        torsades=torch.stack([c["torsades"] for c in charts]).bool().any(0).cpu().numpy(),
        highest_qtcf_ms=over["qtcf_ms"][1:].max(axis=0),
        largest_rise_ms=(over["qtcf_ms"][1:] - baseline).max(axis=0),
        supported=supported.cpu().numpy(),
        peak_hour=float(hours[peak]),
        ecg_before_mv=drawn[0],
        ecg_after_mv=drawn[1],
    )


def ten_seconds(ecg_mv: Tensor, r_samples: Tensor, samples: int = 5000) -> Tensor:
    """The ECG [12, T] as the [12, 5000] a world reads: cut, or a shorter one continued by its own beats.

    It goes on as it did a whole number of beats before, so the rhythm keeps its step where a copy begins.
    """
    import torch

    length = ecg_mv.shape[1]
    if length >= samples:
        return ecg_mv[:, :samples]
    peaks = r_samples[r_samples >= 0]
    back = peaks[-1] - peaks  # whole beats, from each R to the last
    enough = back[back >= samples - length]
    shift = int(enough.min()) if len(enough) else int(back.max()) if len(back) else 0
    place = torch.arange(samples)
    over = (place - length).clamp_min(0) // max(shift or length, 1) + 1
    return ecg_mv[:, torch.where(place < length, place, place - over * max(shift or length, 1))]


def _share(hits: np.ndarray) -> dict[str, float | int]:
    """A probability from counts, with Wilson's 95 % interval (doi 10.1080/01621459.1927.10502953)."""
    count, hit, z = len(hits), int(hits.sum()), 1.959964
    p = hit / count
    centre, half = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    low, high = ((centre + sign * half) / (1 + z * z / count) for sign in (-1, 1))
    return {"probability": p, "low": max(low, 0.0), "high": min(high, 1.0), "samples": hit, "of": count}


def risk_of(result: Result, risk_aversion: float) -> dict[str, Any]:
    """The risk numbers: shares of the samples, and S = mean + lambda * SD of the largest QTcF rise (ECG-WM's score)."""
    mean, sd = float(result.largest_rise_ms.mean()), float(result.largest_rise_ms.std(ddof=1))
    return {
        "qtcf_above_500_ms": _share(result.highest_qtcf_ms > QTCF_LIMIT_MS),
        "qtcf_rise_above_60_ms": _share(result.largest_rise_ms > RISE_LIMIT_MS),
        "torsades": _share(result.torsades),
        "largest_qtcf_rise_ms": {"mean": mean, "sd": sd, "lambda": risk_aversion, "score": mean + risk_aversion * sd},
    }


def _warnings(found: Measurement, patient: Patient, order: Order, result: Result, world_name: str) -> list[str]:
    notes = list(found.warnings)
    if found.age_years is not None and abs(found.age_years - patient.age_years) > 1:
        notes.append(f"age {patient.age_years:g} was given, the record's header says {found.age_years:g}")
    if found.sex_female is not None and found.sex_female != patient.sex_female:
        notes.append("the record's header states the other sex than was given")
    if patient.weight_kg is None:
        notes.append("weight not given: each sample draws one from the cohort")
    if found.ecg_mv.shape[1] < 5000:
        notes.append("the recording is shorter than ten seconds: continued by its own beats for the world to read")
    beyond = int((~result.supported).sum())
    if beyond:
        notes.append(
            f"{beyond} of {len(result.supported)} samples leave what world {world_name} was fitted or trained on; "
            "their numbers are extrapolations"
        )
    start = result.courses["qtcf_ms"].median[0]
    gap = start - found.intervals["qtcf_ms"]
    if math.isfinite(gap) and abs(gap) > 10:
        notes.append(f"the world starts {abs(gap):.0f} ms {'above' if gap > 0 else 'below'} the measured QTcF")
    return notes


def _as_json(
    found: Measurement, patient: Patient, order: Order, result: Result, risk: Mapping, given: argparse.Namespace,
    world: Mapping[str, str], warnings: list[str],
) -> dict[str, Any]:  # fmt: skip
    def rounded(values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: rounded(value) for name, value in values.items()}
        if isinstance(values, np.ndarray):
            return [rounded(float(value)) for value in values]
        return (round(values, 4) if math.isfinite(values) else None) if isinstance(values, float) else values

    return {
        "note": NOT_FOR_CLINICAL_USE,
        "record": found.record,
        "measured": found.as_json(),
        "patient": {
            "age_years": patient.age_years, "sex": "F" if patient.sex_female else "M", "weight_kg": patient.weight_kg,
        },
        "order": {"drug": order.drug, "dose_mg": order.dose_mg, "times_h": list(order.times), "hours": order.hours},
        "world": dict(world),
        "samples": given.samples,
        "seed": given.seed,
        "hours": rounded(result.courses["qtcf_ms"].hours),
        "courses": {
            name: {"median": rounded(c.median), "p05": rounded(c.low), "p95": rounded(c.high)}
            for name, c in result.courses.items()
        },
        "peak_hour": result.peak_hour,
        "risk": rounded(risk),
        "warnings": warnings,
    }  # fmt: skip


def run(given: argparse.Namespace) -> int:
    """Read, measure, simulate, and only then write."""
    check_settings(given)
    out, target = outputs(given)
    assert out is not None, "argparse asks for --out or has a default"
    from clinenv.commands.report import page, write_whole
    from clinenv.commands.simulate.report import content_of
    from clinenv.commands.worlds import about, load_world

    world = load_world(given.world)
    lacking = sorted({*COURSES, "ecg_mv"} - {q.name for q in world.measures})
    if lacking:
        raise UsageError(
            f"--world {given.world}: this world has no {', '.join(lacking)}, so no drug's course on the ECG can be simulated "
            "in it; take ecg-wm-small or oracle"
        )
    dose_mg = given.dose_mg if given.dose_mg is not None else given.dose_ug / 1000.0
    order = order_of(world, given.drug, dose_mg, given.every_hours, given.times, given.hours)
    found = measure_record(given.ecg, rate_hz=given.rate_hz)
    check_measurable(found)
    patient = patient_of(world, found, given.age, given.sex, given.weight)
    result = simulate(world, found, patient, order, given.samples, given.seed, given.clock_hour)
    risk = risk_of(result, given.risk_aversion)
    described = about(given.world, world)
    warnings = _warnings(found, patient, order, result, world.name)
    command = "clinenv " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["simulate"] else ""
    content = content_of(found, patient, order, result, risk, described, warnings, given, command)
    html = page(content)
    numbers = json.dumps(
        _as_json(found, patient, order, result, risk, given, described, warnings), indent=2, allow_nan=False
    )
    write_whole(out, html)
    if target is not None:
        write_whole(target, numbers + "\n")
    _say(found, order, result, risk, warnings)
    print(f"wrote {out}" + (f" and {target}" if target is not None else ""))
    print(NOT_FOR_CLINICAL_USE)
    return 0


def _say(found: Measurement, order: Order, result: Result, risk: Mapping, warnings: list[str]) -> None:
    """The short version, on the terminal."""
    times = ", ".join(f"{t:g}" for t in order.times)
    print(f"record {found.record}: {order.drug} {order.dose_mg:g} mg at {times} h")
    for name, course in list(result.courses.items())[:6]:
        label, unit = label_and_unit(name)
        i = int(np.flatnonzero(course.hours == result.peak_hour)[0])
        print(
            f"  {label:<11} {course.median[0]:5.0f} -> {course.median[i]:5.0f} {unit:<3} "
            f"({course.low[i]:.0f} to {course.high[i]:.0f}) at {result.peak_hour:g} h"
        )
    words = {"qtcf_above_500_ms": "QTcF > 500 ms", "qtcf_rise_above_60_ms": "rise > 60 ms", "torsades": "torsades"}
    shares = (f"{words[n]}: {risk[n]['samples']} of {risk[n]['of']}" for n in words)
    print("  samples with " + ", ".join(shares))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
