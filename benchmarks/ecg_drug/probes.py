"""Are the drug oracle's patients such as a cardiologist knows? `python -m benchmarks.ecg_drug_probes [--patients N]`.

Each row is a fact of a label or a trial: what the oracle's patients show, with its 95 % interval (bootstrap over
patients, Wilson's for shares; none for ratios of the hazard's law), the published range and its source. Kinetics, QTc
under single and repeated doses, torsades by drug, cohort, sex and potassium, harms of verapamil, arrhythmia burden.

The trial's fit, the labels' figures and these ranges were before the eyes of whoever set the oracle's parameters, so
that rows lie within their ranges is calibration kept under watch, not independent evidence. (k) marks general
knowledge, not looked up.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.probe_courses import SEED
from benchmarks.ecg_drug.probe_effects import burden, harms, repolarisation, torsades
from benchmarks.ecg_drug.probe_kinetics import kinetics
from world_models.command_line import whole

__all__ = ["main", "probes"]

RESULT = RESULTS / "ecg_drug_probes.csv"
PATIENTS = 2000
# shares of a per cent need more patients than means
PARTS = ((kinetics, 0.25), (repolarisation, 0.5), (torsades, 2.0), (harms, 2.0), (burden, 0.5))


def probes(patients: int) -> Iterator[dict[str, Any]]:
    """The table, row by row."""
    for part, share in PARTS:
        yield from part(max(round(patients * share), 20))


def main(argv: list[str] | None = None) -> int:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=whole(20, 1_000_000), default=PATIENTS, help="more for rare events")
    parser.add_argument("--out", type=Path, default=RESULT, help="CSV to write")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = list(tqdm(probes(options.patients), desc="probes", unit="row"))
    for r in rows:
        mark = " " if r["within"] else "!"
        found = f"{r['simulated']:8.3g} [{r['simulated_low']:.3g}, {r['simulated_high']:.3g}]"
        print(f"{mark} {r['about']:<12} {r['probe']:<84} {found:<26} {r['low']:g}..{r['high']:g} {r['unit']}")
    seeds = {"first patient": SEED, "bootstrap": 0}
    write_csv(options.out, rows, made_by("benchmarks.ecg_drug.probes", argv, seeds, ["oracle"]))
    print(f"{sum(bool(r['within']) for r in rows)} of {len(rows)} within their range; wrote {options.out.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
