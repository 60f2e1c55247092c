"""The oracle's ECG beside what was asked of it: intervals, T wave, real beats kept, fibrillation seen; and its speed.

    python -m benchmarks.ecg_drug.drawn --trial DIR --ptbxl DIR --ludb DIR [--out CSV] [--rows N]

Writes drawn.csv, its rows in four parts:

- "asked": ECGs drawn as the oracle draws them (`as_read.drawn_as_asked`), read by `delineate` and `measure_t_wave`; the
  difference between what is read and what was asked. On the bank's beats: intervals and T waves of N rows of the trial
  (ECGRDVQ) for each drug, 1 to 6 h after the dose, and before dosing. On real beats (PTB-XL's normal ECGs and LUDB's
  sinus rhythms that the delineator trusts): as recorded, and changed by what each drug changed in one of the trial's
  people, drawn by lot. `within_limit` says how many lie within the limit asked for.
- "kept": correlation of recorded and drawn median beat (`likeness`), eight leads: the whole beat before a dose, the QRS
  before and after.
- "fibrillation": on how many ECGs the delineator finds no PR and takes the recording for a heart's: drawn in
  fibrillation and in sinus rhythm, and real ones (LUDB, PTB-XL's AFIB).
- "speed": processor time an ECG, of shaping (reading QRS, bending T) and of drawing.
"""

from __future__ import annotations

import argparse
import ast
import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.common.results import HEIGHTS, RESULTS, made_by, write_csv
from benchmarks.ecg_drug.t_wave import READ_INTERVALS, TRIAL_COLUMNS, read_ludb, read_ptbxl, show, trial_targets
from world_models import keys
from world_models.data.ecg import ecgrdvq, ludb
from world_models.data.ecg.wfdb.reader import read_ecg
from world_models.ecg.as_read import drawn_as_asked
from world_models.ecg.delineation.delineate import Delineation, delineate
from world_models.ecg.likeness import beat_correlation, beat_windows
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.recorded import beat_of, t_wave_factors
from world_models.ecg.t_wave import TWave, measure_t_wave
from world_models.ecg.waveform import Intervals, synthesise_ecg
from world_models.oracles.ecg_drug.world import ECGDrugOracle

SEED = 2026
HOURS = (1.0, 6.0)  # after the dose
LIMITS = {
    **dict.fromkeys(READ_INTERVALS, 1.0),
    "amplitude_percent": 5.0,
    "asymmetry": 0.03,
    "flatness": 0.02,
    "erd_30_ms": 2.0,
    "lrd_30_ms": 2.0,
}
CHANGED = ("JTPEAK", "TPEAKTEND", "PR", "QRS")


def differences(source: str, drug: str, ecg: Tensor, asked: Intervals, wanted: TWave) -> list[dict]:
    """One row a measure: read less asked."""
    found, read = delineate(ecg, 500.0), measure_t_wave(ecg).t_wave
    off = {n: getattr(found, n) - getattr(asked, n) for n in READ_INTERVALS}
    off |= {n: a - b for n, a, b in zip(TWave._fields, read, wanted, strict=True)}
    off["amplitude_percent"] = 100.0 * off.pop("amplitude_uv") / wanted.amplitude_uv
    rows = []
    for measure, difference in off.items():
        x = difference.numpy()
        x = x[np.isfinite(x)]
        told = {"part": "asked", "source": source, "definition": drug, "measure": measure, "ecgs": len(x)}
        sizes = {"median_absolute": float(np.median(np.abs(x))), "q90_absolute": float(np.percentile(np.abs(x), 90))}
        limit = LIMITS[measure]
        rows.append(
            told
            | sizes
            | {"median": float(np.median(x)), "limit": limit, "within_limit": float((np.abs(x) <= limit).mean())}
        )
    return rows


def after_dose(table: pd.DataFrame, drug: str) -> pd.DataFrame:
    """The trial's rows of one drug, from one to six hours after the dose."""
    return table[(table.EXTRT == drug) & table.TPT.between(*HOURS)]


def on_drawn_beats(table: pd.DataFrame, count: int) -> list[dict]:
    """The bank's beats at the trial's rows."""
    rows = []
    arms = {"before dosing": table[table.TPT < 0]} | {d.lower(): after_dose(table, d) for d in sorted(set(table.EXTRT))}
    for drug, part in arms.items():
        intervals, wanted = trial_targets(part, count)
        key = keys.from_seed(SEED, count)
        morphology = MorphologyBank.load().sample(key)
        drawn = drawn_as_asked(intervals, morphology, wanted)
        ecg = synthesise_ecg(key, 0, drawn.intervals, morphology, t_shape=drawn.t_shape)
        rows += differences("drawn beats", drug, ecg, intervals, wanted)
    return rows


def changes(table: pd.DataFrame, drug: str, count: int, seed: int) -> dict[str, Tensor]:
    """What the drug changed in one of its people, [count] each by lot: the amplitude's ratio, else differences."""
    columns = [*TRIAL_COLUMNS.values(), *CHANGED]
    own = table[table.TPT < 0].groupby(["RANDID", "EXTRT"])[columns].mean()
    part = after_dose(table, drug).dropna(subset=columns)
    before = own.loc[list(zip(part.RANDID, part.EXTRT, strict=True))].to_numpy(dtype=np.float64)
    after = part[columns].to_numpy(dtype=np.float64)
    change = after - before
    change[:, 0] = after[:, 0] / before[:, 0]
    change = change[np.isfinite(change).all(-1) & (np.abs(change[:, 7]) < 100.0)]  # two PR of the trial are wrapped
    chosen = change[np.random.default_rng(seed).integers(len(change), size=count)]
    return {n: torch.tensor(chosen[:, i], dtype=torch.float32) for i, n in enumerate(columns)}


def changed(intervals: Intervals, own: TWave, change: dict[str, Tensor]) -> tuple[Intervals, TWave]:
    """Intervals and T waves under the changes, within what can be drawn."""
    jt, tail, pr, qrs = (change[n] for n in CHANGED)
    amplitude, asymmetry, flatness, erd, lrd = (change[n] for n in TRIAL_COLUMNS.values())
    then = Intervals.of(
        intervals.heart_rate_bpm,
        (intervals.pr_ms + pr).clamp(80.0, 400.0),
        (intervals.qrs_ms + qrs).clamp(55.0, 200.0),
        (intervals.jt_peak_ms + jt).clamp_min(100.0),
        (intervals.tpeak_tend_ms + tail).clamp_min(40.0),
    )
    return then, TWave(
        own.amplitude_uv * amplitude,
        (own.asymmetry + asymmetry).clamp_min(0.01),
        (own.flatness + flatness).clamp(0.05, 0.95),
        (own.erd_30_ms + erd).clamp_min(12.0),
        (own.lrd_30_ms + lrd).clamp_min(10.0),
    )


def of_rows(found: Delineation, rows: Tensor) -> Delineation:
    """Some recordings."""
    return Delineation(*(x[rows] for x in found))


def on_real_beats(source: str, ecg: Tensor, table: pd.DataFrame) -> list[dict]:
    """Recorded beats, as they are and under each drug."""
    found = delineate(ecg, 500.0)
    read = torch.stack(list(t_wave_factors(found).values()))
    found = of_rows(found, (found.trusted & ~found.pr_ms.isnan() & torch.isfinite(read).all(0)).nonzero().squeeze(-1))
    own, beat = TWave(*t_wave_factors(found).values()), beat_of(found)
    intervals = Intervals.of(*(getattr(found, n) for n in Intervals._fields if n != "qt_ms"))
    count = len(found.pr_ms)
    key = keys.from_seed(SEED, count)
    whole, qrs = beat_windows(found)
    rows = []
    for drug in ("as recorded", *sorted(set(table.EXTRT))):
        asked, wanted = intervals, own
        if drug != "as recorded":
            asked, wanted = changed(intervals, own, changes(table, drug, count, SEED))
        drawn = drawn_as_asked(asked, beat["morphology"], wanted, beat["residual_mv"])
        shown = {"t_shape": drawn.t_shape, "residual": drawn.residual}
        drawn_ecg = synthesise_ecg(key, 0, drawn.intervals, beat["morphology"], **shown)
        rows += differences(source, drug.lower(), drawn_ecg, asked, wanted)
        after = delineate(drawn_ecg, 500.0).median_beat
        for measure, window in (("whole beat, r", whole), ("QRS, r", qrs)):
            r = beat_correlation(found.median_beat, after, window).numpy()
            told = {"part": "kept", "source": source, "definition": drug.lower(), "measure": measure, "ecgs": count}
            rows.append(told | {"median": float(np.median(r)), "q10": float(np.percentile(r, 10))})
    return rows


def real_fibrillation(ptbxl: Path, ludb_folder: Path) -> dict[str, Tensor]:
    """Real ECGs in fibrillation [N, 12, 5000] mV, without a pacemaker."""
    table = pd.read_csv(ptbxl / "ptbxl_database.csv")
    told = [
        name
        for name, codes in zip(table.filename_hr, table.scp_codes, strict=True)
        if "AFIB" in ast.literal_eval(codes)
    ]
    paths = [ptbxl / name for name in told if (ptbxl / name).with_suffix(".hea").is_file()]
    marked = [
        r.ecg_mv
        for r in ludb.iterate(ludb_folder)
        if not r.pacing and any("fibrillation" in x.lower() for x in r.rhythm)
    ]
    return {"PTB-XL, AFIB": torch.stack([read_ecg(p).ecg_mv for p in paths]), "LUDB, fibrillation": torch.stack(marked)}


def fibrillation_rows(real: dict[str, Tensor], count: int) -> list[dict]:
    """What the delineator says of rhythms."""
    world = ECGDrugOracle("persistent")
    key = keys.from_seed(SEED, count)
    ecgs = {}
    for name, shown in (("drawn, fibrillation", 1.0), ("drawn, sinus rhythm", 0.0)):
        state = world.initial(key, {"admission_fibrillation": torch.full((count,), shown)})
        ecgs[name] = world.observe(state, ("ecg_mv",))["ecg_mv"]
    rows = []
    for source, ecg in {**ecgs, **real}.items():
        found = delineate(ecg, 500.0)
        told = {"part": "fibrillation", "source": source, "definition": "delineate", "ecgs": len(ecg)}
        spread = [float((d := r[r >= 0].diff().double()).std() / d.mean()) for r in found.r_samples]
        for measure, value in (
            ("no PR, share", found.pr_ms.isnan().double().mean()),
            ("a heart's, share", found.measurable.double().mean()),
            ("SD of RR over their mean", np.median(spread)),
            ("heart rate, bpm", found.heart_rate_bpm.nanmedian()),
        ):
            rows.append(told | {"measure": measure, "median": float(value)})
    return rows


def speed_rows(count: int, table: pd.DataFrame) -> list[dict]:
    """Processor milliseconds an ECG: the best of three, batches of `count`."""
    intervals, wanted = trial_targets(table, count)
    key, morphology = keys.from_seed(SEED, count), MorphologyBank.load().sample(keys.from_seed(SEED, count))

    def timed(work) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return 1000.0 * min(times) / count

    drawn = drawn_as_asked(intervals, morphology, wanted)
    told = {"part": "speed", "source": "drawn beats", "definition": f"{torch.get_num_threads()} thread", "ecgs": count}
    works = {
        "shaped, ms": lambda: drawn_as_asked(intervals, morphology, wanted),
        "drawn, ms": lambda: synthesise_ecg(key, 0, drawn.intervals, morphology, t_shape=drawn.t_shape),
        "drawn unbent, ms": lambda: synthesise_ecg(key, 0, intervals, morphology),
    }
    return [told | {"measure": name, "median": timed(work)} for name, work in works.items()]


def main(argv: list[str] | None = None) -> None:
    """The table, written and printed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trial", type=Path, required=True, help="folder of ECGRDVQ's clinical table, or the CSV")
    parser.add_argument("--ptbxl", type=Path, required=True, help="folder of PTB-XL 1.0.3 (500 Hz)")
    parser.add_argument("--ludb", type=Path, required=True, help="folder of LUDB 1.0.1")
    parser.add_argument("--out", type=Path, default=RESULTS / "drawn.csv")
    parser.add_argument("--rows", type=int, default=200, help="ECGs drawn for each drug, and timed")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    table = ecgrdvq.load_raw(options.trial)
    rows = on_drawn_beats(table, options.rows)
    rows += on_real_beats("PTB-XL NORM", read_ptbxl(options.ptbxl)[0], table)
    rows += on_real_beats("LUDB, sinus rhythm", read_ludb(options.ludb), table)
    rows += fibrillation_rows(real_fibrillation(options.ptbxl, options.ludb), options.rows)
    rows += speed_rows(options.rows, table)
    show(rows)
    made = made_by("benchmarks.ecg_drug.drawn", argv, {"drawn ECGs and changes by lot": SEED}, files=[HEIGHTS])
    write_csv(options.out, rows, made)
    print(options.out)


if __name__ == "__main__":
    main()
