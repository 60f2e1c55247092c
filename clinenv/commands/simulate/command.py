"""`clinenv simulate`: what a drug does to the intervals of the patient whose ECG was recorded, over many samples.

The samples share the patient (the recorded ECG, age, sex, weight) and differ in what the ECG does not tell: kinetics,
sensitivity, variation within the day. Their spread is the band.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np

from clinenv.commands.errors import UsageError
from clinenv.commands.measure import check_measurable, measure_record
from clinenv.commands.output import output_paths, write_whole
from clinenv.commands.simulate.beats import likeness
from clinenv.commands.simulate.inputs import Patient, Regimen, check_settings, patient_of, regimen_of
from clinenv.ecg.measurement import SAMPLES, Measurement
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, label_and_unit
from clinenv.rendering.simulation_charts import IntervalCourse

if TYPE_CHECKING:
    from torch import Tensor

    from world_models.protocol import Treated, WorldModel

__all__ = ["SimulationResult", "admitted", "risk_of", "rounded", "run", "share", "simulate", "ten_seconds"]
__all__ += ["calibrated"]

COURSES = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qtcf_ms", "jt_peak_c_ms", "tpeak_tend_ms", "qt_ms", "jt_peak_ms")
COURSES_OF_T = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")  # where the world has them
PRINTED_COURSES = (*COURSES[:6], COURSES_OF_T[0])
BAND = (0.05, 0.95)  # quantiles of the samples, before a world corrects them (`CalibratesBands`)
QTCF_LIMIT_MS, RISE_LIMIT_MS = 500.0, 60.0  # the top classes of ICH E14
Z_95 = 1.959964  # standard normal quantile of a two-sided 95 % interval
AGE_GAP_YEARS, QTCF_GAP_MS = 1.0, 10.0  # between what was given or simulated and the record: more is worth a warning


@dataclass(frozen=True)
class SimulationResult:
    """What the samples did. Arrays over the steps, hour 0 first."""

    courses: dict[str, IntervalCourse]
    torsades: np.ndarray  # [samples] bool: at any hour
    fibrillation: float  # share of the samples' ECGs after hour 0 that show it
    highest_qtcf_ms: np.ndarray  # [samples], after hour 0
    largest_rise_ms: np.ndarray  # [samples], of QTcF over the recorded ECG's
    supported: np.ndarray  # [samples] bool: never beyond what the world was fitted or trained on
    peak_hour: float  # of the median QTcF, after hour 0
    ecg_before_mv: Tensor  # [12, 5000] as the world synthesises the patient's ECG before any dose
    ecg_after_mv: Tensor  # [12, 5000] at the peak, of the sample nearest to the median
    # recorded against drawn median beat before any dose, eight leads: as the decoder alone has it, and as it is shown,
    # with what else the world keeps of the recorded beat (the same where a world keeps nothing else)
    beat_correlation: dict[str, float]


def simulate(
    world: WorldModel[Any],
    found: Measurement,
    patient: Patient,
    regimen: Regimen,
    samples: int,
    seed: int,
    clock_hour: float | None,
) -> SimulationResult:
    """Run `samples` of this patient under this regimen.

    Args:
        seed: of the first sample; the others have the seeds after it.
        clock_hour: hour of the day at the ECG; None: each sample has its own.

    Raises:
        UsageError: the world cannot start from this ECG.
    """
    import torch

    from world_models import tree
    from world_models.protocol import Treated

    with torch.no_grad():
        state = admitted(world, found, patient, samples, seed, clock_hour)
        states, supported = _course(world, state, regimen, samples)
        charts = [world.observe(state) for state in states]
        hours = np.arange(len(charts)) * world.hours_per_step
        whom = Treated(regimen.drug, regimen.dose_mg, patient.sex_female)
        names = (*COURSES, *(n for n in COURSES_OF_T if n in charts[0]))
        over = {n: torch.stack([c[n] for c in charts]).double().cpu().numpy() for n in names}  # [steps + 1, samples]
        median = np.median(over["qtcf_ms"], axis=1)
        peak = 1 + int(median[1:].argmax())
        far = np.abs(over["qtcf_ms"][peak] - median[peak])
        if "atrial_fibrillation" in charts[0]:  # shown in the rhythm of the recording, where one of the samples has it
            rhythm = [charts[i]["atrial_fibrillation"].cpu().numpy() for i in (0, peak)]
            other = rhythm[0] != rhythm[1]
            far = far if other.all() else np.where(other, np.inf, far)
        nearest = int(far.argmin())
        alone = slice(nearest, nearest + 1)
        before, after = (world.observe(tree.take(states[i], alone), ("ecg_mv",))["ecg_mv"][0].cpu() for i in (0, peak))
        bare = admitted(world, found, patient, 1, seed + nearest, clock_hour, bare=True)
        decoded = world.observe(bare, ("ecg_mv",))["ecg_mv"][0].cpu()
    none = torch.zeros(samples)
    baseline = charts[0]["baseline_qtcf_ms"].double().cpu().numpy()
    with catch_warnings():  # an hour at which no sample has the measure (PR in fibrillation) is a gap
        simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(np.stack(list(over.values())), BAND, axis=2)
        middle = {name: np.nanmedian(values, axis=1) for name, values in over.items()}
    return SimulationResult(
        courses={
            name: IntervalCourse(
                hours,
                middle[name],
                *calibrated(world, name, low[i], middle[name], high[i], whom),
                found.t_wave[name] if name in COURSES_OF_T else found.intervals[name],
            )
            for i, name in enumerate(over)
        },
        torsades=torch.stack([c["torsades"] for c in charts]).bool().any(0).cpu().numpy(),
        fibrillation=float(torch.stack([c.get("atrial_fibrillation", none) for c in charts[1:]]).mean()),
        highest_qtcf_ms=over["qtcf_ms"][1:].max(axis=0),
        largest_rise_ms=(over["qtcf_ms"][1:] - baseline).max(axis=0),
        supported=supported.cpu().numpy(),
        peak_hour=float(hours[peak]),
        ecg_before_mv=before,
        ecg_after_mv=after,
        beat_correlation={
            name: likeness(found.ecg_mv, ecg_mv) for name, ecg_mv in (("decoder", decoded), ("shown", before))
        },
    )


def calibrated(
    world: WorldModel[Any],
    name: str,
    low: np.ndarray,
    middle: np.ndarray,
    high: np.ndarray,
    whom: Treated,
) -> tuple[np.ndarray, np.ndarray]:
    """The ends [...] of the samples' band as the world corrects it, if it does; the median stays inside."""
    import torch

    from world_models.protocol import CalibratesBands

    if not isinstance(world, CalibratesBands):
        return low, high
    ends = [torch.as_tensor(end, dtype=torch.float64) for end in (low, high)]
    below, above = world.calibrated(name, ends[0], ends[1], whom)
    return np.minimum(below.numpy(), middle), np.maximum(above.numpy(), middle)


def admitted(
    world: WorldModel[Any],
    found: Measurement,
    patient: Patient,
    samples: int,
    seed: int,
    clock_hour: float | None,
    more: Mapping[str, float] = MappingProxyType({}),
    bare: bool = False,
) -> Any:
    """The world's state of `samples` patients with this ECG; `bare` of what the world's decoder leaves out of it.

    Args:
        more: further factors that the world has, the same for all samples; clock_hour as in `simulate`.

    Raises:
        UsageError: the world cannot start from it.
    """
    import torch

    from world_models import keys, tree
    from world_models.inputs import admit

    chart = {"ecg_mv": ten_seconds(found.ecg_mv, found.r_samples)[None].to(world.device)}
    known = {"age_years": patient.age_years, "sex_female": float(patient.sex_female), "weight_kg": patient.weight_kg}
    chart |= {n: torch.tensor([v], device=world.device) for n, v in known.items() if v is not None}
    try:
        factors = dict(world.read(chart))
        if bare:
            factors.pop("residual", None)
        if clock_hour is not None and "admission_clock_hour" in {q.name for q in world.factors}:
            factors["admission_clock_hour"] = torch.tensor([clock_hour], device=world.device)
        factors |= {name: torch.tensor([value], device=world.device) for name, value in more.items()}
        return admit(world, keys.from_seed(seed, samples, world.device), tree.repeat(factors, samples))
    except ValueError as error:
        raise UsageError(f"world {world.name} cannot start from record {found.record}: {error}") from error


def _course(world: WorldModel[Any], state: Any, regimen: Regimen, samples: int) -> tuple[list[Any], Tensor]:
    """The states at every step, the first included, and bool [samples] who always was within the world's support."""
    import torch

    nothing = torch.zeros(samples, len(world.orders), device=world.device)
    dose = nothing.clone()
    dose[:, regimen.column] = regimen.dose_mg
    dose_steps = {round(t / world.hours_per_step) for t in regimen.dose_hours}
    states = [state]
    supported = torch.ones(samples, dtype=torch.bool, device=world.device)
    for step in range(round(regimen.hours / world.hours_per_step)):
        states.append(world.transition(states[-1], dose if step in dose_steps else nothing))
        supported &= world.support(states[-1])
    return states, supported


def ten_seconds(ecg_mv: Tensor, r_samples: Tensor, samples: int = SAMPLES) -> Tensor:
    """The ECG [12, T] as the [12, 5000] a world reads: cut, or a shorter one continued by its own beats.

    The continuation repeats a whole number of beats, so the rhythm keeps its step where a copy begins.

    Args:
        r_samples: int64 [K] R peaks in samples, padded with -1.
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


def share(hits: np.ndarray) -> dict[str, float | int]:
    """A probability from counts, with Wilson's 95 % interval (doi 10.1080/01621459.1927.10502953)."""
    count, hit, z = len(hits), int(hits.sum()), Z_95
    p = hit / count
    centre, half = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    low, high = ((centre + sign * half) / (1 + z * z / count) for sign in (-1, 1))
    return {"probability": p, "low": max(low, 0.0), "high": min(high, 1.0), "samples": hit, "of": count}


def risk_of(result: SimulationResult, risk_aversion: float) -> dict[str, Any]:
    """The risk numbers: shares of the samples, and S = mean + lambda * SD of the largest QTcF rise (ECG-WM's score)."""
    mean, sd = float(result.largest_rise_ms.mean()), float(result.largest_rise_ms.std(ddof=1))
    return {
        "qtcf_above_500_ms": share(result.highest_qtcf_ms > QTCF_LIMIT_MS),
        "qtcf_rise_above_60_ms": share(result.largest_rise_ms > RISE_LIMIT_MS),
        "torsades": share(result.torsades),
        "ecgs_in_atrial_fibrillation": {"share": result.fibrillation},
        "largest_qtcf_rise_ms": {"mean": mean, "sd": sd, "lambda": risk_aversion, "score": mean + risk_aversion * sd},
    }


def _warnings(found: Measurement, patient: Patient, result: SimulationResult, world_name: str) -> list[str]:
    notes = list(found.warnings)
    if found.age_years is not None and abs(found.age_years - patient.age_years) > AGE_GAP_YEARS:
        notes.append(f"age {patient.age_years:g} was given, the record's header says {found.age_years:g}")
    if found.sex_female is not None and found.sex_female != patient.sex_female:
        notes.append("the record's header states the other sex than was given")
    if patient.weight_kg is None:
        notes.append("weight not given: each sample draws one from the cohort")
    if found.ecg_mv.shape[1] < SAMPLES:
        notes.append("the recording is shorter than ten seconds: continued by its own beats for the world to read")
    beyond = int((~result.supported).sum())
    if beyond:
        notes.append(
            f"{beyond} of {len(result.supported)} samples leave what world {world_name} was fitted or trained on; "
            "their numbers are extrapolations"
        )
    start = result.courses["qtcf_ms"].median[0]
    gap = start - found.intervals["qtcf_ms"]
    if math.isfinite(gap) and abs(gap) > QTCF_GAP_MS:
        notes.append(f"the world starts {abs(gap):.0f} ms {'above' if gap > 0 else 'below'} the measured QTcF")
    return notes


def rounded(values: Any) -> Any:
    """Numbers of any nesting to four decimals, None where they are not finite."""
    if isinstance(values, Mapping):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, np.ndarray):
        return [rounded(float(value)) for value in values]
    return (round(values, 4) if math.isfinite(values) else None) if isinstance(values, float) else values


def _as_json(
    found: Measurement,
    patient: Patient,
    regimen: Regimen,
    result: SimulationResult,
    risk: Mapping[str, Any],
    given: argparse.Namespace,
    world: Mapping[str, str],
    warnings: list[str],
) -> dict[str, Any]:
    return {
        "note": NOT_FOR_CLINICAL_USE,
        "record": found.record,
        "measured": found.as_json(),
        "patient": patient.as_json(),
        "order": {
            "drug": regimen.drug,
            "dose_mg": regimen.dose_mg,
            "times_h": list(regimen.dose_hours),
            "hours": regimen.hours,
        },
        "world": dict(world),
        "samples": given.samples,
        "seed": given.seed,
        "hours": rounded(result.courses["qtcf_ms"].hours),
        "courses": {
            name: {"median": rounded(c.median), "p05": rounded(c.low), "p95": rounded(c.high)}
            for name, c in result.courses.items()
        },
        "peak_hour": result.peak_hour,
        "supported": rounded(share(result.supported)),
        "beat_correlation": rounded(result.beat_correlation),
        "risk": rounded(risk),
        "warnings": warnings,
    }


def run(given: argparse.Namespace) -> int:
    """Read, measure, simulate, and only then write.

    Raises:
        UsageError: an argument, the record or the world cannot be used.
        OSError: a file cannot be written.
    """
    check_settings(given)
    out, target = output_paths(given)
    assert out is not None, "--out is required"
    from clinenv.commands.simulate.content import content_of
    from clinenv.commands.simulate.page import page
    from clinenv.commands.worlds import about, load_world

    world = load_world(given.world)
    lacking = sorted({*COURSES, "ecg_mv"} - {q.name for q in world.measures})
    if lacking:
        raise UsageError(
            f"--world {given.world}: this world has no {', '.join(lacking)}, so no drug's course on the ECG can be "
            "simulated in it; take ecg-wm-small or oracle"
        )
    dose_mg = given.dose_mg if given.dose_mg is not None else given.dose_ug / 1000.0
    regimen = regimen_of(world, given.drug, dose_mg, given.every_hours, given.times, given.hours)
    found = measure_record(given.ecg, rate_hz=given.rate_hz)
    check_measurable(found)
    patient = patient_of(world, found, given.age, given.sex, given.weight)
    result = simulate(world, found, patient, regimen, given.samples, given.seed, given.clock_hour)
    risk = risk_of(result, given.risk_aversion)
    described = about(given.world, world)
    warnings = _warnings(found, patient, result, world.name)
    command = "clinenv " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["simulate"] else ""
    html = page(content_of(found, patient, regimen, result, risk, described, warnings, given, command))
    numbers = _as_json(found, patient, regimen, result, risk, given, described, warnings)
    text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
    write_whole(out, html)
    if target is not None:
        write_whole(target, text)
    _print_summary(found, regimen, result, risk, warnings)
    print(f"wrote {out}" + (f" and {target}" if target is not None else ""))
    print(NOT_FOR_CLINICAL_USE)
    return 0


def _print_summary(
    found: Measurement,
    regimen: Regimen,
    result: SimulationResult,
    risk: Mapping[str, Any],
    warnings: Sequence[str],
) -> None:
    times = ", ".join(f"{t:g}" for t in regimen.dose_hours)
    print(f"record {found.record}: {regimen.drug} {regimen.dose_mg:g} mg at {times} h")
    for name in (n for n in PRINTED_COURSES if n in result.courses):
        course = result.courses[name]
        label, unit = label_and_unit(name)
        i = int(np.flatnonzero(course.hours == result.peak_hour)[0])
        before, after, low, high = (
            f"{v:.0f}" if math.isfinite(v) else "-"
            for v in (course.median[0], course.median[i], course.low[i], course.high[i])
        )
        print(f"  {label:<11} {before:>5} -> {after:>5} {unit:<3} ({low} to {high}) at {result.peak_hour:g} h")
    words = {"qtcf_above_500_ms": "QTcF > 500 ms", "qtcf_rise_above_60_ms": "rise > 60 ms", "torsades": "torsades"}
    shares = (f"{words[n]}: {risk[n]['samples']} of {risk[n]['of']}" for n in words)
    print("  samples with " + ", ".join(shares))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
