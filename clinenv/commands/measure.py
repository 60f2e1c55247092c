"""`clinenv measure`: the intervals of a recorded 12-lead ECG, and whether to trust them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.commands.output import output_paths, write_whole
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, label_and_unit

if TYPE_CHECKING:
    from torch import Tensor

    from world_models.data.ecg.wfdb.reader import Recording

__all__ = [
    "INTERVALS",
    "Measurement",
    "add_arguments",
    "add_record_arguments",
    "check_measurable",
    "check_rate",
    "measure_record",
    "run",
]

INTERVALS = (
    "heart_rate_bpm",
    "pr_ms",
    "qrs_ms",
    "qt_ms",
    "qtcf_ms",
    "jt_peak_ms",
    "jt_peak_c_ms",
    "tpeak_tend_ms",
)
T_WAVE = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")
BASELINE = ("heart_rate_bpm", "qrs_ms", "qtcf_ms", "tpeak_tend_ms")  # what a patient's course starts from
RATE_HZ = 500.0  # at which ECGs are measured, and worlds read them
SAMPLES = 5000  # ten seconds, what a world reads


@dataclass(frozen=True)
class Measurement:
    """One recorded ECG and what was read off it."""

    record: str
    ecg_mv: Tensor  # [12, T] at 500 Hz, as recorded
    intervals: dict[str, float]  # INTERVALS; NaN where the ECG has none (PR without a P wave)
    t_wave: dict[str, float]  # T_WAVE, always by the tangent's marks; NaN where there is no T wave to be read
    quality: float  # 0 (worthless) to 1
    trusted: bool  # False: do not rely on the intervals
    measurable: bool  # False: nothing on it can be relied on, so nothing can start from it
    r_samples: Tensor  # [K] R peaks in samples, padded with -1
    age_years: float | None  # as the header states it
    sex_female: bool | None
    warnings: tuple[str, ...]
    convention: str  # where waves start and end: "reader" or "tangent"
    leads_made: tuple[str, ...] = ()  # of the twelve, in `ecg_mv`: not recorded, but reconstructed from the others

    def as_json(self) -> dict[str, Any]:
        """The numbers for a JSON file: tenths of a millisecond, the T wave's to three decimals, null for what could not
        be measured."""
        numbers = {name: round(v, 1) if math.isfinite(v) else None for name, v in self.intervals.items()}
        shape = {name: round(v, 3) if math.isfinite(v) else None for name, v in self.t_wave.items()}
        return {
            "record": self.record,
            **numbers,
            **shape,
            "quality": round(self.quality, 3),
            "trusted": self.trusted,
            "measurable": self.measurable,
            "convention": self.convention,
            "leads_reconstructed": list(self.leads_made),
            "warnings": list(self.warnings),
        }


def measure_record(
    path: str | Path, convention: str = "tangent", rate_hz: float | None = None, repair: bool = True
) -> Measurement:
    """Read a WFDB record (any lead order, gain and rate) and measure it.

    Intervals are read on all leads, reconstructed ones too (they come out nearer to those of the whole record so);
    quality and trust are those of the recorded leads alone.

    Args:
        convention: "tangent", by which the worlds and the drug trial measure, or "reader", where cardiologists put
            their marks (P starts some 10 ms earlier, T ends some 14 ms later); see
            `world_models.ecg.delineation.delineate`.
        rate_hz: at which the record was sampled, where its header does not state it.
        repair: reconstruct leads that are missing, flat or without samples, as long as two of I, II, V1-V6 are good;
            False: such a record is an error.

    Raises:
        UsageError: the record cannot be read, or is not a usable 12-lead ECG.
    """
    import torch

    from world_models.data.ecg.wfdb.completed import completed, eight_of, said_of
    from world_models.data.ecg.wfdb.reader import RecordError, read_ecg
    from world_models.ecg.delineation.delineate import delineate
    from world_models.ecg.recorded import t_wave_factors

    try:
        recording = read_ecg(path, sampling_rate_hz=RATE_HZ, rate_hz=rate_hz, whole=not repair)
        ecg_mv, made = completed(recording) if repair else (recording.ecg_mv, ())
    except RecordError as error:
        raise UsageError(str(error)) from error
    with torch.no_grad():
        marks = delineate(ecg_mv[None], RATE_HZ, convention)
        alone = delineate(eight_of(recording.ecg_mv)[None], RATE_HZ, convention) if made else marks
        tangent = marks if convention == "tangent" else delineate(ecg_mv[None], RATE_HZ)
        t_wave = {name: float(t_wave_factors(tangent)[f"baseline_{name}"][0]) for name in T_WAVE}
    intervals = {name: float(getattr(marks, name)[0]) for name in INTERVALS}
    trusted = bool(marks.trusted[0] & alone.trusted[0])
    warnings = list(recording.warnings)
    if made:
        warnings.append(said_of(made))
    missing = [label_and_unit(name)[0] for name, value in intervals.items() if not math.isfinite(value)]
    if missing:
        warnings.append(f"not measurable on this ECG: {', '.join(missing)}")
    beats, ectopic = int((marks.r_samples[0] >= 0).sum()), int(marks.ectopic_beats[0])
    if ectopic:
        warnings.append(
            f"ectopy or an irregular rhythm: {ectopic} of {beats} beats are premature or of another shape; the heart "
            "rate counts all beats, QT and its correction are those of the others and of the RR before them"
        )
    measurable = bool(marks.measurable[0] & alone.measurable[0])
    if not measurable:
        warnings.append("nothing on this recording can be measured: it does not look like a heart's beats")
    elif not trusted:
        warnings.append("the intervals of this ECG should not be trusted: the quality flag is down")
    return Measurement(
        record=recording.name,
        ecg_mv=ecg_mv,
        intervals=intervals,
        t_wave=t_wave,
        quality=float(torch.minimum(marks.quality[0], alone.quality[0])),
        trusted=trusted,
        measurable=measurable,
        r_samples=marks.r_samples[0],
        age_years=recording.age_years,
        sex_female=recording.sex_female,
        warnings=tuple(warnings),
        convention=convention,
        leads_made=made,
    )


def _eight(ecg_mv: Tensor) -> Tensor:
    """Leads I, II, V1-V6 of [12, T]."""
    from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS

    return ecg_mv[[LEADS.index(name) for name in INDEPENDENT_LEADS]]


def _completed(recording: Recording) -> tuple[Tensor, tuple[str, ...]]:
    """The ECG [12, T] with its lost leads reconstructed, and the names of those.

    Raises:
        UsageError: fewer than two good leads.
    """
    from world_models.ecg.lead_names import INDEPENDENT_LEADS, LEADS
    from world_models.ecg.lead_repair import LEAST_GOOD, lost_leads, repair_leads

    good = (~lost_leads(_eight(recording.ecg_mv)[None])).sum()
    if good < LEAST_GOOD and not recording.leads_lost:
        return recording.ecg_mv, ()  # not a matter of leads (a wrong gain, say): the measurement says what it is
    try:
        repaired = repair_leads(recording.ecg_mv[None])
    except ValueError as error:
        raise UsageError(f"record {recording.name}: {error}") from error
    lost = {name for name, gone in zip(INDEPENDENT_LEADS, repaired.lost[0].tolist(), strict=True) if gone}
    if lost & {"I", "II"}:
        lost |= set(LEADS[2:6])
    return repaired.ecg_mv[0], tuple(name for name in LEADS if name in lost)


def check_measurable(found: Measurement) -> None:
    """Refuse an ECG that nothing can start from.

    Raises:
        UsageError: no beat, or not the intervals a baseline needs.
    """
    lost = [name for name in BASELINE if not math.isfinite(found.intervals[name])]
    if found.measurable and not lost:
        return
    labels = ", ".join(label_and_unit(name)[0] for name in lost)
    what = f"{labels} cannot be measured" if lost else "nothing on it can be measured"
    why = "".join(f" ({w})" for w in found.warnings if "check gain and unit" in w)
    raise UsageError(
        f"record {found.record}: {what} (quality {found.quality:.2f}){why}, so there is no baseline to start from; "
        "give a cleaner recording, or correct its header"
    )


def add_record_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of every command that reads a record."""
    parser.add_argument("--ecg", required=True, metavar="RECORD", help="a WFDB record, with or without .hea")
    parser.add_argument(
        "--rate-hz", type=float, metavar="HZ", help="sampling rate of the record (default: as its header states)"
    )


def check_rate(rate_hz: float | None) -> None:
    """Refuse a sampling rate that is not a positive number.

    Raises:
        UsageError: it is not one.
    """
    if rate_hz is not None and not 0 < rate_hz < math.inf:
        raise UsageError(f"--rate-hz {rate_hz:g} is not above 0; give the rate at which the record was sampled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv measure`."""
    add_record_arguments(parser)
    parser.add_argument("--json", metavar="OUT", help="also write the numbers to this file")
    parser.add_argument(
        "--convention",
        choices=("reader", "tangent"),
        default="reader",
        help="where waves begin and end: as cardiologists mark them (reader, the default), or by the tangent, as drug "
        "trials and the worlds measure",
    )


def run(given: argparse.Namespace) -> int:
    """Measure, print, and write JSON when asked to.

    Raises:
        UsageError: an argument or the record cannot be used.
        OSError: the file cannot be written.
    """
    check_rate(given.rate_hz)
    _, target = output_paths(given)
    found = measure_record(given.ecg, given.convention, given.rate_hz)
    if target is not None:
        write_whole(target, json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n")
    print(f"record {found.record} ({found.convention} convention)")
    for name, value in found.intervals.items():
        label, unit = label_and_unit(name)
        print(f"  {label:<12} {f'{value:7.0f} {unit}' if math.isfinite(value) else '      - (not measurable)'}")
    for name, value in found.t_wave.items():
        label, unit = label_and_unit(name)
        figure = f"{value:7.0f} {unit}" if unit else f"{value:7.2f}"
        print(f"  {label:<12} {figure if math.isfinite(value) else '      - (not measurable)'}")
    print(f"  {'Quality':<12} {found.quality:7.2f} ({'trusted' if found.trusted else 'do not trust'})")
    if found.leads_made:
        print(f"  {'Made leads':<12} {', '.join(found.leads_made)} (reconstructed from the others)")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if target is not None:
        print(f"wrote {target}")
    print(NOT_FOR_CLINICAL_USE)
    return 0
