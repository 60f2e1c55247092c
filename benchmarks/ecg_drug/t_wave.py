"""T-wave morphology: healthy adults beside a trial's pre-dose values, noise, and drawn ECGs beside what was asked.

    python -m benchmarks.ecg_drug.t_wave --trial DIR --ptbxl DIR --ludb DIR [--out CSV] [--drawn N]

Writes t_wave.csv, its rows in three parts:

- "values": quantiles of the five measures. The trial (ECGRDVQ, its own table) before dosing and over all its ECGs,
  drugs included; PTB-XL's records whose SCP codes say NORM with a likelihood of 80 or more (Wagner 2020,
  doi 10.1038/s41597-020-0495-6), adults, the first of each patient, and of these the young with slow hearts, as the
  trial's subjects are; LUDB's sinus rhythms without a pacemaker, healthy or not. Under each definition that was tried.
- "noise": the median change of a measure when white noise is added to the eight independent leads of the PTB-XL and
  LUDB records.
- "asked": ECGs drawn at the intervals and for the T wave of N rows each of the trial (drugs included) and of the real
  records, on the plain morphology and on the bank's; the difference between what `measure_t_wave` reads and what was
  asked. For intervals: the difference between the delineator's readings with and without the bend.

Records whose marks the delineator does not trust are left out.
"""

from __future__ import annotations

import argparse
import ast
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.common.results import HEIGHTS, RESULTS, made_by, write_csv
from world_models import keys
from world_models.data.ecg import ecgrdvq, ludb
from world_models.data.ecg.wfdb.reader import read_ecg
from world_models.ecg.delineation.delineate import Delineation, delineate
from world_models.ecg.derived_leads import derive_twelve
from world_models.ecg.morphology import MorphologyBank, default_morphology
from world_models.ecg.t_synthesis import shape_t_wave
from world_models.ecg.t_wave import Definition, TMarks, TWave, measure_t_wave, t_wave
from world_models.ecg.waveform import Intervals, synthesise_ecg

SEED = 2025
NOISE_UV = (5.0, 10.0, 20.0)
QUANTILES = (10, 25, 50, 75, 90)
LEAST_LIKELIHOOD, AGES_YEARS = 80.0, (18.0, 89.0)  # PTB-XL writes 300 for an age above 89
YOUNG_YEARS, SLOW_RR_MS = 40.0, 850.0
TRIAL_COLUMNS = dict(
    zip(TWave._fields, ("Twave_amplitude", "Twave_asymmetry", "Twave_flatness", "ERD_30", "LRD_30"), strict=True)
)
READ_INTERVALS = ("pr_ms", "qrs_ms", "qt_ms", "jt_peak_ms", "tpeak_tend_ms")
# X, Y, Z from I, II, V1-V6: Edenbrandt and Pahlm 1988, the pseudo-inverse of Dower's matrix
INVERSE_DOWER = (
    (0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194),
    (-0.227, 0.887, 0.057, -0.019, -0.106, -0.022, 0.041, 0.048),
    (0.022, 0.102, -0.229, -0.310, -0.246, -0.063, 0.055, 0.108),
)
ROOT_MEAN_SQUARE = tuple(tuple(8**-0.5 if i == j else 0.0 for j in range(8)) for i in range(8))
DEFINITIONS = {
    "chosen": Definition(),
    "inverse Dower": Definition(vector=INVERSE_DOWER),
    "root mean square of eight leads": Definition(vector=ROOT_MEAN_SQUARE),
    "T from 100 ms before its peak": Definition(begin_ms=100.0),
    "T from 130 ms before its peak": Definition(begin_ms=130.0),
    "legs up to the T end": Definition(foot=1.0),
    "smoothed over 42 ms": Definition(smooth=21),
    "smoothed over 18 ms": Definition(smooth=9),
}


def read_ptbxl(folder: Path) -> tuple[Tensor, np.ndarray]:
    """ECGs [N, 12, 5000] mV of healthy adults, one a patient, and their ages [N] in years."""
    table = pd.read_csv(folder / "ptbxl_database.csv")
    likelihood = np.array([ast.literal_eval(codes).get("NORM", 0.0) for codes in table.scp_codes])
    table = table[(likelihood >= LEAST_LIKELIHOOD) & table.pacemaker.isna() & table.age.between(*AGES_YEARS)]
    ecgs, ages = [], []
    for row in table.drop_duplicates("patient_id").itertuples():
        path = folder / row.filename_hr
        if path.with_suffix(".hea").is_file():  # of a part of PTB-XL the table is whole
            ecgs.append(read_ecg(path).ecg_mv)
            ages.append(row.age)
    return torch.stack(ecgs), np.array(ages)


def read_ludb(folder: Path) -> Tensor:
    """ECGs [N, 12, 5000] mV of LUDB's sinus rhythms without a pacemaker."""
    records = (r for r in ludb.iterate(folder) if r.rhythm and not r.pacing)
    return torch.stack([r.ecg_mv for r in records if all("sinus" in line.lower() for line in r.rhythm)])


def quantile_rows(source: str, definition: str, values: dict[str, np.ndarray]) -> list[dict]:
    """One row a measure: how many, mean, standard deviation and quantiles."""
    rows = []
    for measure, all_values in values.items():
        x = all_values[np.isfinite(all_values)]
        told = {"part": "values", "source": source, "definition": definition, "measure": measure, "ecgs": len(x)}
        quantiles = {f"q{q}": float(v) for q, v in zip(QUANTILES, np.percentile(x, QUANTILES), strict=True)}
        rows.append({**told, "mean": float(x.mean()), "sd": float(x.std()), **quantiles})
    return rows


def read_all(found: Delineation, definition: Definition) -> dict[str, np.ndarray]:
    """The five measures of delineated recordings, NaN where they are not trusted."""
    read = t_wave(found.median_beat, marks_of(found), definition=definition)
    trusted = found.trusted & torch.stack([torch.isfinite(x) for x in read]).all(0)
    return {n: torch.where(trusted, x, torch.nan).numpy() for n, x in zip(TWave._fields, read, strict=True)}


def marks_of(found: Delineation) -> TMarks:
    """The marks that `t_wave` needs."""
    return TMarks(found.qrs_onset_ms, found.qrs_offset_ms, found.t_peak_ms, found.t_end_ms)


def noise_rows(ecg: Tensor, clean: Delineation) -> list[dict]:
    """Median absolute change of each measure under noise, for each definition."""
    key = keys.from_seed(SEED, ecg.shape[0])
    rows = []
    before = {name: read_all(clean, d) for name, d in DEFINITIONS.items()}
    for size in NOISE_UV:
        noise = derive_twelve(keys.noise(key, int(size), "t_wave_noise", (8, ecg.shape[-1])) * (size * 1e-3))
        noisy = delineate(ecg + noise, 500.0)
        for name, definition in DEFINITIONS.items():
            for measure, values in read_all(noisy, definition).items():
                change = np.abs(values - before[name][measure])
                told = {"part": "noise", "source": "PTB-XL NORM and LUDB", "definition": name, "measure": measure}
                counted = {"ecgs": int(np.isfinite(change).sum()), "noise_uv": size}
                rows.append({**told, **counted, "median_absolute": float(np.nanmedian(change))})
    return rows


def asked_rows(source: str, intervals: Intervals, wanted: TWave) -> list[dict]:
    """How far what is read off drawn ECGs lies from what was asked."""
    count = intervals.pr_ms.shape[0]
    key = keys.from_seed(SEED, count)
    rows = []
    for beats, morphology in (("plain", default_morphology(count)), ("bank", MorphologyBank.load().sample(key))):
        shape = shape_t_wave(intervals, morphology, wanted)
        drawn = synthesise_ecg(key, 0, intervals, morphology, t_shape=shape)
        bent, plain = delineate(drawn, 500.0), delineate(synthesise_ecg(key, 0, intervals, morphology), 500.0)
        off = {n: a - b for n, a, b in zip(TWave._fields, measure_t_wave(drawn).t_wave, wanted, strict=True)}
        off["amplitude_percent"] = 100.0 * off.pop("amplitude_uv") / wanted.amplitude_uv
        off |= {f"{n} with and without": getattr(bent, n) - getattr(plain, n) for n in READ_INTERVALS}
        for measure, difference in off.items():
            x = difference.numpy()
            x = x[np.isfinite(x)]
            told = {"part": "asked", "source": source, "definition": f"{beats} morphology", "measure": measure}
            sizes = {
                "median_absolute": float(np.median(np.abs(x))),
                "q90_absolute": float(np.percentile(np.abs(x), 90)),
            }
            rows.append({**told, "ecgs": len(x), "mean": float(x.mean()), **sizes})
    return rows


def trial_targets(table, count: int) -> tuple[Intervals, TWave]:
    """Intervals and T waves of `count` rows of the trial, evenly through its table."""
    columns = ["RR", "PR", "QRS", "JTPEAK", "TPEAKTEND", *TRIAL_COLUMNS.values()]
    whole = table[columns].dropna()
    whole = whole[whole.PR.between(90, 300) & whole.TPEAKTEND.between(40, 150)]
    part = whole.iloc[np.linspace(0, len(whole) - 1, count).round().astype(int)]
    rr, pr, qrs, jt, tail, *t = (torch.tensor(part[c].to_numpy(dtype=np.float32)) for c in columns)
    return Intervals.of(60000.0 / rr, pr, qrs, jt, tail), TWave(*t)


def real_targets(found: Delineation, count: int) -> tuple[Intervals, TWave]:
    """Intervals and T waves of `count` trusted recordings, evenly through them."""
    read = read_all(found, DEFINITIONS["chosen"])
    rows = np.flatnonzero(np.isfinite(read["flatness"]) & np.isfinite(found.pr_ms.numpy()))
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    names = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")
    return Intervals.of(*(getattr(found, n)[rows] for n in names)), TWave(
        *(torch.tensor(x[rows]) for x in read.values())
    )


def show(rows: Iterable[dict]) -> None:
    """The rows in columns, for the reader of the command's output."""
    for row in rows:
        numbers = (f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, int | float))
        print(f"{row['part']:7s}{row['source']:37s}{row['definition']:32s}{row['measure']:32s}", *numbers)


def main(argv: list[str] | None = None) -> None:
    """The table, written and printed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trial", type=Path, required=True, help="folder of ECGRDVQ's clinical table, or the CSV")
    parser.add_argument("--ptbxl", type=Path, required=True, help="folder of PTB-XL 1.0.3 (500 Hz)")
    parser.add_argument("--ludb", type=Path, required=True, help="folder of LUDB 1.0.1")
    parser.add_argument("--out", type=Path, default=RESULTS / "t_wave.csv")
    parser.add_argument("--drawn", type=int, default=200, help="ECGs drawn for each comparison with what was asked")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    table = ecgrdvq.load_raw(options.trial)
    normal, ages = read_ptbxl(options.ptbxl)
    ecg = torch.cat((normal, read_ludb(options.ludb)))
    found = delineate(ecg, 500.0)
    is_normal = np.arange(len(ecg)) < len(normal)
    young = np.concatenate((ages < YOUNG_YEARS, np.zeros(len(ecg) - len(ages), bool)))
    groups = {
        "PTB-XL NORM, adults": is_normal,
        "PTB-XL NORM, under 40 a, RR > 850 ms": young & (found.rr_ms.numpy() > SLOW_RR_MS),
        "LUDB, sinus rhythm": ~is_normal,
    }

    rows = []
    for source, part in (("trial, before dosing", table[table.TPT < 0]), ("trial, all ECGs", table)):
        values = {n: part[c].to_numpy(dtype=float) for n, c in TRIAL_COLUMNS.items()}
        rows += quantile_rows(source, "the trial's own", values)
    for name, definition in DEFINITIONS.items():
        read = read_all(found, definition)
        for source, chosen in groups.items():
            rows += quantile_rows(source, name, {n: x[chosen] for n, x in read.items()})
    rows += noise_rows(ecg, found)
    rows += asked_rows("trial, all ECGs", *trial_targets(table, options.drawn))
    rows += asked_rows("PTB-XL NORM and LUDB", *real_targets(found, options.drawn))
    show(rows)
    seeds = {"noise and drawn ECGs": SEED}
    write_csv(options.out, rows, made_by("benchmarks.ecg_drug.t_wave", argv, seeds, files=[HEIGHTS]))
    print(options.out)


if __name__ == "__main__":
    main()
