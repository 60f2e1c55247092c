"""Any of the ECG databases to one HDF5 monolith: float16, resumable, a checksum a row, by patient and time.

    python -m world_models.data.ecg.to_monolith --source ptbxl DIR --out FILE.h5
    python -m world_models.data.ecg.to_monolith --source mimic-iv-ecg DIR --labels records_w_diag_icd10.csv --out OUT.h5

What the columns hold by source stands in `monolith_sources`; MIMIC-IV-ECG goes the way of `mimic_iv_ecg`. A run that
was stopped goes on when its command is given again. At the end some records are read again beside their rows: the
difference is float16's rounding, at most 0.5 uV up to 2 mV and 2 uV up to 8 mV.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from world_models.command_line import number, whole
from world_models.data.ecg import mimic_iv_ecg
from world_models.data.ecg.monolith import MonolithError, read_index
from world_models.data.ecg.monolith_convert import convert, round_trip
from world_models.data.ecg.monolith_sources import SOURCES

__all__ = ["main"]

MIMIC = "mimic-iv-ecg"
USUAL_HZ = {MIMIC: 100.0}  # as its benchmark takes it; others at their own
OWN_HZ = 500.0


def _from_mimic(options: argparse.Namespace, rate: float) -> str:
    flow = mimic_iv_ecg.build(
        options.folder,
        options.labels,
        options.out,
        rate=rate,
        seconds=options.seconds,
        workers=options.workers,
        most_missing=options.most_missing,
        quiet=options.quiet,
    )
    return flow.diagram()


def _from_source(options: argparse.Namespace, rate: float) -> str:
    out = Path(options.out)
    if out.exists():  # before the tables are read
        raise MonolithError(f"{out} exists already; give another --out or remove it")
    if not out.parent.is_dir():
        raise MonolithError(f"no folder {out.parent}; make it first")
    folder = Path(options.folder)
    if not folder.is_dir():
        raise MonolithError(f"no folder {folder}; give the one that holds the database")
    rows = SOURCES[options.source](folder)
    begun = time.monotonic()
    written, skipped = convert(
        rows,
        out,
        rate=rate,
        seconds=options.seconds,
        workers=options.workers,
        most_unreadable=options.most_missing,
        quiet=options.quiet,
    )
    took = time.monotonic() - begun
    held = read_index(out)
    sides = ", ".join(
        f"{name} {int(((held.fold >= low) & (held.fold < high)).sum())}"
        for name, low, high in (("train", 0, 18), ("valid", 18, 19), ("test", 19, 20))
    )
    lines = [
        f"{rows.source}: {written} ECGs of {len(held.patient.unique())} patients ({sides}), {skipped} left out",
        f"{out.stat().st_size / 2**20:.1f} MiB, {took:.1f} s in this run; labels met: "
        f"{int(held.label.any(0).sum())} of {len(held.codes)}",
    ]
    if options.check:
        found = round_trip(rows, out, rate, options.seconds, options.check)
        lines.append(
            f"read again: {found.ecgs} records differ by at most {found.largest_uv:.3f} uV, {found.rms_uv:.3f} uV RMS"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m world_models.data.ecg.to_monolith",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", help="folder of the database")
    parser.add_argument("--source", required=True, choices=[*SOURCES, MIMIC])
    parser.add_argument("--out", required=True, help="the monolith to write")
    parser.add_argument("--labels", help=f"records_w_diag_icd10.csv, for {MIMIC} alone")
    parser.add_argument("--rate", type=number(100, 10_000), help=f"Hz ({OWN_HZ:g}; {MIMIC}: {USUAL_HZ[MIMIC]:g})")
    parser.add_argument("--seconds", type=number(4, 120), default=10.0, help="length of an ECG (10)")
    parser.add_argument("--workers", type=whole(1, 1024), default=2)
    parser.add_argument("--most-missing", type=number(0, 1), default=0.01, help="share unreadable allowed (0.01)")
    parser.add_argument("--check", type=whole(0), default=64, help="records read again at the end (64)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    if (options.labels is not None) != (options.source == MIMIC):
        parser.error(f"--labels goes with --source {MIMIC}, and only with it")
    rate = options.rate or USUAL_HZ.get(options.source, OWN_HZ)
    try:
        print(_from_mimic(options, rate) if options.source == MIMIC else _from_source(options, rate))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
