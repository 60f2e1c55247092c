"""From a simulated patient to the page's content: wording and median beats, no new numbers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clinenv.commands.simulate.beats import BEAT_BEFORE_S, beside, median_beat, within
from clinenv.commands.simulate.page import MedianBeats, ReportContent, RiskLine
from clinenv.ecg.measurement import RATE_HZ, Measurement
from world_models.ecg.lead_names import INDEPENDENT_LEADS

if TYPE_CHECKING:
    from clinenv.commands.simulate.command import SimulationResult
    from clinenv.commands.simulate.inputs import Patient, Regimen

__all__ = ["content_of"]

SHOWN_LEADS = ("I", "II", "V2", "V5")
LEAST_ALIKE = 0.8  # correlation of the recorded and the model's median beat, below which the report warns
TWO_RHYTHMS = (
    "At some hours some samples fibrillate and others do not. Their heart rates lie apart, so the median rate may jump "
    "from one rhythm's to the other's; the band shows both."
)
SHOWN_COURSES = ("qtcf_ms", "heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms", "t_amplitude_uv")


def content_of(
    found: Measurement,
    patient: Patient,
    regimen: Regimen,
    result: SimulationResult,
    risk: Mapping[str, Any],
    world: Mapping[str, str],
    warnings: list[str],
    given: argparse.Namespace,
    command: str,
) -> ReportContent:
    """The report of one simulation.

    Args:
        risk: what `risk_of` counted.
        world: what `clinenv.commands.worlds.about` says of it.
        command: the command line that makes the page again, or nothing.
    """
    dose = f"{regimen.dose_mg * 1000:g} µg" if regimen.dose_mg < 1 else f"{regimen.dose_mg:g} mg"
    times = ", ".join(f"{t:g}" for t in regimen.dose_hours)
    beats, alike = _beats(found, result), result.beat_correlation["shown"]
    if alike < LEAST_ALIKE:
        poorly = f"the model draws this patient's beat poorly (correlation {alike:.2f} with the recorded)"
        warnings = [*warnings, poorly]
    weight = "not given" if patient.weight_kg is None else f"{patient.weight_kg:g} kg"
    relied_on = "the measurement can be relied on." if found.trusted else "the measurement should not be relied on."
    return ReportContent(
        title=f"{regimen.drug.capitalize()} {dose}: simulated course over {regimen.hours:g} hours",
        regimen=f"{regimen.drug} {dose} by mouth at {times} h, patient of ECG record {found.record}",
        patient=(
            ("ECG record", found.record),
            ("Age", f"{patient.age_years:g} years"),
            ("Sex", "female" if patient.sex_female else "male"),
            ("Weight", weight),
            ("Hour of the day at the ECG", f"{given.clock_hour:g} h"),
            ("World", world["World"]),
            ("Samples", f"{given.samples}, seed {given.seed}"),
            *((("Reconstructed leads", ", ".join(found.leads_made)),) if found.leads_made else ()),
        ),
        intervals=found.intervals,
        quality=f"Quality {found.quality:.2f} of 1: {relied_on}",
        ecg_before_mv=found.ecg_mv.numpy(),
        ecg_after_mv=result.ecg_after_mv.numpy(),
        sampling_rate_hz=RATE_HZ,
        after=f"{result.peak_hour:g} h after the ECG, where the median QTcF is longest",
        beats=beats,
        courses={name: result.courses[name] for name in SHOWN_COURSES if name in result.courses},
        dose_hours=regimen.dose_hours,
        risk=(*_risk(risk, regimen), _trust(result)),
        model=tuple(world.items()),
        warnings=tuple(warnings),
        command=command,
        samples=given.samples,
        leads_made=found.leads_made,
        notes=(
            "Time 0 is the recorded ECG. The samples share the patient and differ in what the ECG does not tell: "
            "kinetics, sensitivity, variation within the day.",
            *((TWO_RHYTHMS,) if result.fibrillation else ()),
            f"The beat drawn before the dose correlates with the recorded one by r = {alike:.3f} (eight leads); what "
            f"the model's decoder alone makes of it, by r = {result.beat_correlation['decoder']:.3f}.",
        ),
    )


def _risk(risk: Mapping[str, Any], regimen: Regimen) -> tuple[RiskLine, ...]:
    def share(name: str) -> tuple[str, str]:
        r = risk[name]
        counted = f"{r['samples']} of {r['of']} samples; 95 % interval {100 * r['low']:.0f} to {100 * r['high']:.0f} %"
        return f"{100 * r['probability']:.0f} %", counted

    rise, fibrillates = risk["largest_qtcf_rise_ms"], risk["ecgs_in_atrial_fibrillation"]["share"]
    rhythm = RiskLine(
        f"ECGs in atrial fibrillation within {regimen.hours:g} h",
        f"{100 * fibrillates:.0f} %",
        "of all samples' ECGs after the first: this world's patients are admitted for fibrillation",
    )
    return (
        RiskLine("QTcF above 500 ms at any hour", *share("qtcf_above_500_ms")),
        RiskLine("QTcF more than 60 ms above the recorded ECG", *share("qtcf_rise_above_60_ms")),
        RiskLine(f"Torsades de pointes within {regimen.hours:g} h", *share("torsades")),
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
        *((rhythm,) if fibrillates else ()),
    )


def _trust(result: SimulationResult) -> RiskLine:
    """How many samples the world can be asked about: beyond its data, what it says is extrapolated."""
    inside, of = int(result.supported.sum()), len(result.supported)
    return RiskLine(
        "Within what the world was fitted or trained on",
        f"{100 * inside / of:.0f} %",
        f"{inside} of {of} samples, throughout their course; the others are extrapolations",
    )


def _beats(found: Measurement, result: SimulationResult) -> MedianBeats:
    """Median beats of the recorded ECG and of the model's before and after."""
    recorded = median_beat(found.ecg_mv, found.r_samples)
    words = {"recorded": recorded}
    for name, ecg_mv in (
        ("model, before the dose", result.ecg_before_mv),
        (f"model, at {result.peak_hour:g} h", result.ecg_after_mv),
    ):
        words[name] = beside(recorded, median_beat(ecg_mv))
    shown = [INDEPENDENT_LEADS.index(lead) for lead in SHOWN_LEADS]
    cut = {name: within(beat)[shown].numpy() for name, beat in words.items()}
    return MedianBeats(cut, SHOWN_LEADS, RATE_HZ, BEAT_BEFORE_S)
