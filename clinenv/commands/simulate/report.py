"""From a simulated patient to the report's content: wording and median beats, no new numbers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from clinenv.commands.measure import BEAT_AFTER_S, BEAT_BEFORE_S, BEAT_LEADS, RATE_HZ, Measurement
from clinenv.commands.report import Beats, ReportContent, RiskLine

if TYPE_CHECKING:
    from torch import Tensor

    from clinenv.commands.simulate.command import Result
    from clinenv.commands.simulate.inputs import Order, Patient

__all__ = ["content_of"]

SHOWN_LEADS = ("I", "II", "V2", "V5")
LEAST_ALIKE = 0.8  # correlation of the recorded and the model's median beat, below which the report warns
SHOWN_COURSES = ("qtcf_ms", "heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms")


def content_of(
    found: Measurement,
    patient: Patient,
    order: Order,
    result: Result,
    risk: Mapping[str, Any],
    world: Mapping[str, str],
    warnings: list[str],
    given: argparse.Namespace,
    command: str,
) -> ReportContent:
    """The report of one simulation."""
    dose = f"{order.dose_mg * 1000:g} µg" if order.dose_mg < 1 else f"{order.dose_mg:g} mg"
    times = ", ".join(f"{t:g}" for t in order.times)
    beats, alike = _beats(found, result)
    if alike < LEAST_ALIKE:
        warnings = [
            *warnings,
            f"the model draws this patient's beat poorly (correlation {alike:.2f} with the recorded)",
        ]
    weight = "not given" if patient.weight_kg is None else f"{patient.weight_kg:g} kg"
    return ReportContent(
        title=f"{order.drug.capitalize()} {dose}: simulated course over {order.hours:g} hours",
        regimen=f"{order.drug} {dose} by mouth at {times} h, patient of ECG record {found.record}",
        patient=(
            ("ECG record", found.record),
            ("Age", f"{patient.age_years:g} years"),
            ("Sex", "female" if patient.sex_female else "male"),
            ("Weight", weight),
            ("Hour of the day at the ECG", f"{given.clock_hour:g} h"),
            ("World", world["World"]),
            ("Samples", f"{given.samples}, seed {given.seed}"),
        ),
        intervals=found.intervals,
        quality=(
            f"Quality {found.quality:.2f} of 1: "
            + ("the measurement can be relied on." if found.trusted else "the measurement should not be relied on.")
        ),
        trusted=found.trusted,
        ecg_before_mv=found.ecg_mv.numpy(),
        ecg_after_mv=result.ecg_after_mv.numpy(),
        sampling_rate_hz=RATE_HZ,
        after=f"{result.peak_hour:g} h after the ECG, where the median QTcF is longest",
        beats=beats,
        courses={name: result.courses[name] for name in SHOWN_COURSES},
        dose_hours=order.times,
        risk=_risk(risk, order),
        model=tuple(world.items()),
        warnings=tuple(warnings),
        command=command,
        samples=given.samples,
        notes=(
            "Time 0 is the recorded ECG. The samples share the patient and differ in what the ECG does not tell: "
            "kinetics, sensitivity, variation within the day.",
            f"The model's own beat before the dose correlates with the recorded one by r = {alike:.2f} (eight leads).",
        ),
    )


def _risk(risk: Mapping[str, Any], order: Order) -> tuple[RiskLine, ...]:
    def share(name: str) -> tuple[str, str]:
        r = risk[name]
        counted = f"{r['samples']} of {r['of']} samples; 95 % interval {100 * r['low']:.0f} to {100 * r['high']:.0f} %"
        return f"{100 * r['probability']:.0f} %", counted

    rise = risk["largest_qtcf_rise_ms"]
    return (
        RiskLine("QTcF above 500 ms at any hour", *share("qtcf_above_500_ms")),
        RiskLine("QTcF more than 60 ms above the recorded ECG", *share("qtcf_rise_above_60_ms")),
        RiskLine(f"Torsades de pointes within {order.hours:g} h", *share("torsades")),
        RiskLine(
            "Largest QTcF rise, mean μ and SD σ over samples",
            f"{rise['mean']:.0f} ± {rise['sd']:.0f} ms",
            "the largest rise over the recorded ECG's QTcF within each sample's course",
        ),
        RiskLine(
            f"Risk score S = μ + λσ, λ = {rise['lambda']:g}",
            f"{rise['score']:.0f} ms",
            "expected rise, and the spread weighed by λ: what is uncertain counts as worse",
        ),
    )


def _beats(found: Measurement, result: Result) -> tuple[Beats, float]:
    """Median beats of the recorded ECG and of the model's before and after; how alike the first two are (r)."""
    from world_models.ecg.delineation.delineate import delineate, median_beats

    def beat(ecg_mv: Tensor, r_samples: Tensor | None = None) -> np.ndarray:
        r = delineate(ecg_mv[None], RATE_HZ).r_samples if r_samples is None else r_samples[None]
        return median_beats(ecg_mv[None], r, RATE_HZ, BEAT_BEFORE_S, BEAT_AFTER_S)[0].numpy()

    recorded, before, after = (
        beat(found.ecg_mv, found.r_samples), beat(result.ecg_before_mv), beat(result.ecg_after_mv)
    )  # fmt: skip
    shown = [BEAT_LEADS.index(lead) for lead in SHOWN_LEADS]
    words = {"recorded": recorded, "model, before the dose": before, f"model, at {result.peak_hour:g} h": after}
    beats = Beats({name: b[shown] for name, b in words.items()}, SHOWN_LEADS, RATE_HZ, BEAT_BEFORE_S)
    power = float(np.sqrt((recorded**2).sum() * (before**2).sum()))
    return beats, float((recorded * before).sum()) / power if power > 0 else 0.0
