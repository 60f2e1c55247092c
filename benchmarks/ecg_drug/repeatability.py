"""How far one careful reading of an ECG lies from another: what `noise="clinic"` adds to the observed measures.

    python -m benchmarks.ecg_drug.repeatability --data ../shared/data/ecgrdvq

Trial NCT01873950 (doi 10.1038/clpt.2014.155) made ECGs in triplicate, within minutes: their standard deviation, pooled
over all subjects, periods and times with two readings or more, is that of a reader and of the moment together. Placebo
and drugs count alike. The task holds the figures rounded (`clinenv.envs.ecg_drug.task`), beside which they are printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.results import RESULTS, made_by, write_csv
from clinenv.envs.ecg_drug.task import ECGDrugTask
from world_models.data.ecg.ecgrdvq import tidied

__all__ = ["repeatability"]

# what a chart calls it -> the table's column; QT, QTcF and J-Tpeak c follow from these
READ = {
    "heart_rate_bpm": "RR",
    "pr_ms": "PR",
    "qrs_ms": "QRS",
    "jt_peak_ms": "JTPEAK",
    "tpeak_tend_ms": "TPEAKTEND",
    "t_amplitude_uv": "Twave_amplitude",
    "t_asymmetry": "Twave_asymmetry",
    "t_flatness": "Twave_flatness",
    "erd_30_ms": "ERD_30",
    "lrd_30_ms": "LRD_30",
}
LEAST_READINGS = 2


def repeatability(path: str | Path) -> list[dict[str, Any]]:
    """One row a measure: readings, triplicates, pooled SD, and the SD that the task holds.

    Raises:
        FileNotFoundError, ValueError: as `ecgrdvq.tidied`.
    """
    table, task = tidied(path), {column.name: column for column in ECGDrugTask().observation}
    rows = []
    for name, column in READ.items():
        value = 60_000.0 / table[column] if name == "heart_rate_bpm" else table[column]
        frame = table[["RANDID", "VISIT", "TPT"]].assign(value=value).dropna(subset=["value"])
        grouped = frame.groupby(["RANDID", "VISIT", "TPT"])["value"]
        size = grouped.transform("size")
        kept = frame[size >= LEAST_READINGS]
        off = kept["value"] - grouped.transform("mean")[size >= LEAST_READINGS]
        groups = kept.groupby(["RANDID", "VISIT", "TPT"]).ngroups
        sd = float(np.sqrt(np.square(off).sum() / (len(kept) - groups)))
        held = task[name].noise_sd
        rows.append({"measure": name, "readings": len(kept), "triplicates": groups, "sd": sd, "task_sd": held})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Print the table and write it; the process' exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the trial's table, or the table")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(argv)
    try:
        rows = repeatability(chosen.data)
        write_csv(chosen.out / "repeatability.csv", rows, made_by("benchmarks.ecg_drug.repeatability", argv, {}, []))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        print(f"{row['measure']:<16} {row['sd']:8.3f}  held {row['task_sd']:g}  ({row['triplicates']} triplicates)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
