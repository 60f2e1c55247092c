"""`clinenv measure`: the intervals of a recorded 12-lead ECG, with a word on whether to trust them."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, label_and_unit

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "INTERVALS", "Measurement", "arguments", "check_measurable", "check_rate", "measure_record", "outputs",
    "record_arguments", "run",
]  # fmt: skip

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
BASELINE = ("heart_rate_bpm", "qrs_ms", "qtcf_ms", "tpeak_tend_ms")  # what a patient's course starts from
RATE_HZ = 500.0
SAMPLES = 5000  # ten seconds, what a world reads
BEAT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")  # of a median beat
BEAT_BEFORE_S, BEAT_AFTER_S = 0.35, 0.65
RECORD_FILES = (".hea", ".dat", ".mat")
LONGEST_NAME = 200  # bytes: a temporary name beside it has to fit, too


@dataclass(frozen=True)
class Measurement:
    """One recorded ECG and what was read off it."""

    record: str
    ecg_mv: Tensor  # [12, T] at 500 Hz, as recorded
    intervals: dict[str, float]  # INTERVALS; NaN where the ECG has none (PR without a P wave)
    quality: float  # 0 (worthless) to 1
    trusted: bool  # False: do not rely on the intervals
    measurable: bool  # False: nothing on it can be relied on, so nothing can start from it
    r_samples: Tensor  # [K] R peaks in samples, padded with -1
    age_years: float | None  # as the header states it
    sex_female: bool | None
    warnings: tuple[str, ...]
    convention: str  # where waves start and end: "reader" or "tangent"

    def as_json(self) -> dict[str, Any]:
        """The numbers for a JSON file: tenths of a millisecond, null for what could not be measured."""
        numbers = {name: round(v, 1) if math.isfinite(v) else None for name, v in self.intervals.items()}
        return {
            "record": self.record,
            **numbers,
            "quality": round(self.quality, 3),
            "trusted": self.trusted,
            "measurable": self.measurable,
            "convention": self.convention,
            "warnings": list(self.warnings),
        }


def measure_record(path: str | Path, convention: str = "tangent", rate_hz: float | None = None) -> Measurement:
    """Read a WFDB record (any lead order, gain and rate) and measure it.

    Args:
        convention: "tangent", by which the worlds and the drug trial measure, or "reader", where cardiologists put their
            marks (P starts some 10 ms earlier, T ends some 14 ms later); see `world_models.ecg.delineation.delineate`.
        rate_hz: at which the record was sampled, where its header does not state it.

    Raises:
        UsageError: the record cannot be read, or is not a usable 12-lead ECG.
    """
    import torch

    from world_models.data.ecg.wfdb.reader import RecordError, read_ecg
    from world_models.ecg.delineation.delineate import delineate

    try:
        recording = read_ecg(path, sampling_rate_hz=RATE_HZ, rate_hz=rate_hz)
    except RecordError as error:
        raise UsageError(str(error)) from error
    with torch.no_grad():
        marks = delineate(recording.ecg_mv[None], RATE_HZ, convention)
    intervals = {name: float(getattr(marks, name)[0]) for name in INTERVALS}
    trusted = bool(marks.trusted[0])
    warnings = list(recording.warnings)
    missing = [label_and_unit(name)[0] for name, value in intervals.items() if not math.isfinite(value)]
    if missing:
        warnings.append(f"not measurable on this ECG: {', '.join(missing)}")
    beats, ectopic = int((marks.r_samples[0] >= 0).sum()), int(marks.ectopic_beats[0])
    if ectopic:
        warnings.append(
            f"ectopy or an irregular rhythm: {ectopic} of {beats} beats are premature or of another shape; the heart rate "
            "counts all beats, QT and its correction are those of the others and of the RR before them"
        )
    measurable = bool(marks.measurable[0])
    if not measurable:
        warnings.append("nothing on this recording can be measured: it does not look like a heart's beats")
    elif not trusted:
        warnings.append("the intervals of this ECG should not be trusted: the quality flag is down")
    return Measurement(
        record=recording.name,
        ecg_mv=recording.ecg_mv,
        intervals=intervals,
        quality=float(marks.quality[0]),
        trusted=trusted,
        measurable=measurable,
        r_samples=marks.r_samples[0],
        age_years=recording.age_years,
        sex_female=recording.sex_female,
        warnings=tuple(warnings),
        convention=convention,
    )


def check_measurable(found: Measurement) -> None:
    """Refuse an ECG that nothing can start from.

    Raises:
        UsageError: no beat, or not the intervals a baseline needs.
    """
    lost = [n for n in BASELINE if not math.isfinite(found.intervals[n])]
    if found.measurable and not lost:
        return
    what = (
        f"{', '.join(label_and_unit(n)[0] for n in lost)} cannot be measured"
        if lost
        else "nothing on it can be measured"
    )
    why = "".join(f" ({w})" for w in found.warnings if "check gain and unit" in w)
    raise UsageError(
        f"record {found.record}: {what} (quality {found.quality:.2f}){why}, so there is no baseline to start from; give a "
        "cleaner recording, or correct its header"
    )


def outputs(given: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """Where --out and --json are to be written (None: not asked for), each known to take a file.

    Asked before an hour of work, not after. The commands may run with every right, so that nothing but a plain file is
    ever replaced, and none that they read.

    Raises:
        UsageError: the folder does not exist or is not writable, the path is a folder, a device or a file that is read,
            or both are one file.
    """
    out, numbers = (
        None if path is None else _can_write(path, flag, given)
        for flag, path in (("--out", getattr(given, "out", None)), ("--json", given.json))
    )
    if out is not None and numbers is not None and numbers.resolve() == out.resolve():
        raise UsageError(f"--out and --json both name {out}; give two files")
    return out, numbers


def _can_write(path: str, flag: str, given: argparse.Namespace) -> Path:
    target, folder = Path(path), Path(path).parent
    if not path or "\0" in path or len(os.fsencode(target.name)) > LONGEST_NAME:
        raise UsageError(f"{flag} {path[:40]!r} is no name of a file (1 to {LONGEST_NAME} bytes); give another")
    if not folder.is_dir():
        raise UsageError(f"{flag} {target}: the folder {folder} does not exist; make it first or choose another")
    if target.is_dir():
        raise UsageError(f"{flag} {target} is a folder; give the name of a file in it")
    if target.exists() and not target.is_file():
        raise UsageError(f"{flag} {target} is a device or a pipe, no plain file; give the name of a file")
    if _is_read(target.resolve(), given):
        raise UsageError(f"{flag} {target} is a file of the record or the world that is read; give another name")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{flag} {target}: the folder {folder} is not writable; choose another")
    return target


def _is_read(target: Path, given: argparse.Namespace) -> bool:
    """Whether a command would write over its own input, or over another record."""
    world = Path(getattr(given, "world", None) or "")
    weights = target.is_file() and bool(world.parts) and target.parent == world.resolve()
    return target.suffix.lower() in RECORD_FILES or target == Path(given.ecg).resolve() or weights


def record_arguments(parser: argparse.ArgumentParser) -> None:
    """State what every command that reads a record is told of it."""
    parser.add_argument("--ecg", required=True, metavar="RECORD", help="a WFDB record, with or without .hea")
    parser.add_argument(
        "--rate-hz", type=float, metavar="HZ", help="rate at which it was sampled (default: as its header states)"
    )


def check_rate(rate_hz: float | None) -> None:
    """Refuse a rate that is no positive number.

    Raises:
        UsageError: it is not.
    """
    if rate_hz is not None and not 0 < rate_hz < math.inf:
        raise UsageError(f"--rate-hz {rate_hz:g} is not above 0; give the rate at which the record was sampled")


def arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv measure`."""
    record_arguments(parser)
    parser.add_argument("--json", metavar="OUT", help="write the numbers to this file, too")
    parser.add_argument(
        "--convention",
        choices=("reader", "tangent"),
        default="reader",
        help="where waves end: as cardiologists mark them (default), or by the tangent, as drug trials and the worlds do",
    )


def run(given: argparse.Namespace) -> int:
    """Measure, print, and write JSON when asked to."""
    from clinenv.commands.report import write_whole

    check_rate(given.rate_hz)
    _, target = outputs(given)
    found = measure_record(given.ecg, given.convention, given.rate_hz)
    if target is not None:
        write_whole(target, json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n")
    print(f"record {found.record} ({found.convention} convention)")
    for name, value in found.intervals.items():
        label, unit = label_and_unit(name)
        print(f"  {label:<12} {f'{value:7.0f} {unit}' if math.isfinite(value) else '      - (not measurable)'}")
    print(f"  {'Quality':<12} {found.quality:7.2f} ({'trusted' if found.trusted else 'do not trust'})")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if target is not None:
        print(f"wrote {target}")
    print(NOT_FOR_CLINICAL_USE)
    return 0
