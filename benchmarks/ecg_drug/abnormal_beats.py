"""Beats of kinds that drawing trained little on: bundle branch block, hypertrophy, infarction, ST-T change.

    python -m benchmarks.ecg_drug.abnormal_beats --ludb DIR --ptbxl DIR [--world NAME] [--out DIR]

Recorded patients whom no stage was trained on (split "valid" of `data.ecg.real_beats`), by what PTB-XL's statements and
LUDB's table call their ECG; one ECG may belong to several kinds. For each kind, beside normal ones: the correlation of
the recorded median beat with what the decoder makes of its latent, with what is drawn of it before any drug, and of the
beat drawn as at dofetilide's peak (`beats_real.charts_of`) with the oracle's of the same recorded patient and the same
chart: whole beat, and QRS alone, on the canonical axis. Medians with intervals over patients, and tenth percentiles.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import numpy_median_interval
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.beats_real import Patients, charts_of, correlation
from benchmarks.ecg_drug.diffusion_steps import world_of
from benchmarks.ecg_drug.own_beats import drawn_of
from world_models.command_line import folder
from world_models.data.ecg import ludb, ptbxl
from world_models.data.ecg.real_beats import R_SAMPLE, RealBeats, real_beats
from world_models.data.ecg.wfdb.reader import RecordError
from world_models.ecg.t_wave import t_wave
from world_models.ecg_wm.beats import PIECES, QRS_START, RATE_HZ
from world_models.ecg_wm.encode import canonical_of, marks_of, recorded_beats
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.pairs import own_beat
from world_models.ecg_wm.recorded import INTERVALS

__all__ = ["KINDS", "kinds_of_ludb", "kinds_of_ptbxl", "main"]

KINDS = ("normal", "conduction", "hypertrophy", "infarction", "ST-T")
SURE = 80.0  # %, of a normal ECG's statement
# SCP statements of each kind (scp_statements.csv, diagnostic classes CD, HYP, MI, STTC; those common in the set)
_CONDUCTION = ("CLBBB", "CRBBB", "ILBBB", "IRBBB", "IVCD", "LAFB", "LPFB", "WPW")
_HYPERTROPHY = ("LVH", "RVH", "LAO/LAE", "RAO/RAE", "SEHYP", "VCLVH")
_INFARCTION = ("IMI", "ASMI", "AMI", "ALMI", "ILMI", "LMI", "IPMI", "IPLMI", "PMI", "INJAS", "INJAL", "INJIN", "INJLA")
_ST_T = ("NDT", "NST_", "STD_", "STE_", "ISC_", "ISCAL", "ISCIN", "ISCAN", "ISCAS", "ISCLA", "DIG", "LNGQT", "INVT")
STATEMENTS = {"conduction": _CONDUCTION, "hypertrophy": _HYPERTROPHY, "infarction": _INFARCTION, "ST-T": _ST_T}
MOST_SHIFT = 4  # canonical samples of the QRS, of 48
FEWEST = 5  # patients of a kind that is shown


def kinds_of_ptbxl(statements: Mapping[str, float]) -> set[str]:
    """Of an ECG with these SCP statements (likelihood in %; 0: present, how surely is not told)."""
    found = {kind for kind, names in STATEMENTS.items() if any(n in statements for n in names)}
    return found or ({"normal"} if statements.get("NORM", 0.0) >= SURE else set())


def kinds_of_ludb(row: Mapping[str, str]) -> set[str]:
    """Of an ECG with this row of ludb.csv; paced and fibrillating ones belong to none."""
    if row.get("Cardiac pacing", "").strip() or not row.get("Rhythms", "").strip().lower().startswith("sinus"):
        return set()
    columns = {
        "conduction": "Conduction abnormalities",
        "hypertrophy": "Hypertrophies",
        "infarction": "Ischemia",
        "ST-T": "Non-specific repolarization abnormalities",
    }
    return {kind for kind, name in columns.items() if row.get(name, "").strip()} or {"normal"}


def kinds_of(found: RealBeats, ludb_folder: Path | None, ptbxl_folder: Path | None) -> list[set[str]]:
    """Of each ECG."""
    by_record: dict[tuple[str, str], set[str]] = {}
    if ludb_folder is not None:
        by_record |= {("ludb", name): kinds_of_ludb(row) for name, row in ludb.read_table(ludb_folder).items()}
    if ptbxl_folder is not None:
        for entry in ptbxl.read_table(ptbxl_folder).entries:
            by_record["ptbxl", entry.record.name] = kinds_of_ptbxl(entry.scp)
    return [by_record.get(key, set()) for key in zip(found.source, found.record, strict=True)]


@torch.no_grad()
def correlations(world: ECGWorldModel, found: RealBeats) -> dict[str, Tensor]:
    """What -> correlation [N], NaN where the T wave cannot be read."""
    read = torch.stack(t_wave(found.beat_mv, marks_of(found.measured), RATE_HZ, R_SAMPLE), dim=-1)
    canonical, leads, samples, whole = canonical_of(found.beat_mv, found.measured)
    intervals = torch.stack([whole[name] for name in INTERVALS], dim=-1)
    onset = torch.nan_to_num(found.measured.qrs_onset_ms, nan=0.0)
    people = Patients(found.beat_mv, canonical, leads, samples, onset, intervals, read, found.source)
    shape, recorded = recorded_beats(world.vae, found.beat_mv, found.measured, read)
    where = (samples.unsqueeze(1) & leads.unsqueeze(-1)).float()
    qrs = torch.zeros_like(where)
    qrs[..., QRS_START : QRS_START + PIECES[3]] = 1.0
    out = {"decoder": correlation(canonical, world.vae.shape(shape), where)}
    known = torch.isfinite(read).all(-1)
    before, after = charts_of(people, False), charts_of(people, True)
    shown = drawn_of(world, shape, recorded, before)
    out["shown before"] = torch.where(known, correlation(canonical, shown, where), torch.nan)
    drawn = drawn_of(world, shape, recorded, after)
    safe = {n: torch.nan_to_num(v, nan=50.0) for n, v in after.items()}
    truth = own_beat(safe, canonical)
    out["under drug, beside the oracle's"] = torch.where(known, correlation(truth, drawn, where), torch.nan)
    out["under drug, QRS beside the recorded"] = torch.where(
        known, correlation(canonical, drawn, where * qrs), torch.nan
    )
    return out


def rows_of(found: dict[str, Tensor], kinds: list[set[str]]) -> list[dict[str, Any]]:
    """A row a kind and correlation."""
    rows = []
    for kind in KINDS:
        inside = torch.tensor([kind in each for each in kinds])
        for what, value in found.items():
            r = value[inside & torch.isfinite(value)]
            if len(r) < FEWEST:
                continue
            low, high = numpy_median_interval(r.numpy())
            row = {"kind": kind, "what": what, "patients": len(r), "median": float(r.median())}
            rows.append(row | {"median_low": low, "median_high": high, "p10": float(r.quantile(0.1))})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Write ood_beats_ecg_wm.csv and print it. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of a learned ECG world")
    parser.add_argument("--ludb", type=Path, default=None, help="folder of LUDB 1.0.1")
    parser.add_argument("--ptbxl", type=Path, default=None, help="folder of PTB-XL 1.0.3 (500 Hz)")
    parser.add_argument("--out", type=folder, default=RESULTS)
    chosen = parser.parse_args(argv)
    if chosen.ludb is None and chosen.ptbxl is None:
        parser.error("there are no recorded patients: give --ludb DIR, --ptbxl DIR, or both")
    torch.set_num_threads(1)
    try:
        world = world_of(chosen.world)
        found = real_beats(chosen.ptbxl, chosen.ludb, None, "valid")
        kinds = kinds_of(found, chosen.ludb, chosen.ptbxl)
    except (ValueError, OSError, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = rows_of(correlations(world, found), kinds)
    for row in rows:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    made = made_by("benchmarks.ecg_drug.abnormal_beats", argv, {"bootstrap": 7}, [chosen.world])
    write_csv(chosen.out / "ood_beats_ecg_wm.csv", rows, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
