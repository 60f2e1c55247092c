"""`clinenv measure`: the intervals of a recorded 12-lead ECG, and whether to trust them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from clinenv import ecg
from clinenv.commands.errors import UsageError
from clinenv.commands.output import output_paths, write_whole
from clinenv.ecg.measurement import Measurement
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, label_and_unit

__all__ = [
    "add_arguments",
    "add_record_arguments",
    "check_measurable",
    "check_rate",
    "measure_record",
    "run",
]

BASELINE = ("heart_rate_bpm", "qrs_ms", "qtcf_ms", "tpeak_tend_ms")  # what a patient's course starts from


def measure_record(
    path: str | Path, convention: str = "tangent", rate_hz: float | None = None, repair: bool = True
) -> Measurement:
    """`clinenv.ecg.measure` of a WFDB record, by the tangent as the worlds measure, for a command: what cannot be used
    is a wrong input.

    Raises:
        UsageError: the record cannot be read, or is not a usable 12-lead ECG.
    """
    from world_models.data.ecg.wfdb.header import RecordError

    try:
        return ecg.measure(path, rate_hz=rate_hz, convention=convention, repair=repair)
    except RecordError as error:
        raise UsageError(str(error)) from error


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
