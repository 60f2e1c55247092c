"""How well lost leads are reconstructed, and what that costs the intervals: on real records nobody trained on.

    python -m benchmarks.ecg_drug.missing_leads [--ptbxl DIR] [--ludb DIR] [--out DIR] [--threads N]

Of each record of PTB-XL's folds 7 and 8 and of LUDB's even half, one to six of the eight independent leads are taken
away, chosen by the record's key (the limb leads that would give I or II back with them), and made again by
`world_models.ecg.lead_repair`. r is the correlation of a reconstructed lead with the recorded one over the ten seconds,
both between 0.5 and 40 Hz, and over the median beat. Errors of intervals are against LUDB's manual marks ("reader"
convention, the median of the leads' own medians), as a ratio to the complete record's, and beside the reading of the
complete record in both databases. With two leads missing r of 0.9 in the median and a ratio of at most 1.25 were asked
for. "left" reads the same record with the leads left out, as `delineate` does by itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.delineation import DATA, read_ludb
from world_models import keys
from world_models.data.ecg import ludb, ptbxl
from world_models.ecg.delineation.delineate import delineate, median_beats
from world_models.ecg.lead_names import LEADS
from world_models.ecg.lead_repair import repair_leads

INTERVALS = ("pr_ms", "qrs_ms", "qt_ms")
SEED = 13
DRAWS = 3  # sets of leads that each marked record loses
PLACES = [0, 1, *range(6, 12)]  # of I, II, V1-V6 among the twelve
BAND_HZ = (0.5, 40.0)
MOMENTS = "world_models/ecg/lead_moments.json"


def without(ecg: Tensor, count: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """ECGs [B, 12, T] with `count` of the eight leads NaN, and which [B, 8]. III to aVF are NaN where I or II is: they
    could give it back."""
    rank = keys.uniform(keys.fold(numbers, SEED), count, "missing leads", (8,)).argsort(-1).argsort(-1)
    gone = rank < count
    twelve = torch.zeros(len(ecg), 12, dtype=torch.bool)
    twelve[:, PLACES] = gone
    twelve[:, 2:6] = gone[:, :2].any(-1, keepdim=True)
    return torch.where(twelve.unsqueeze(-1), torch.nan, ecg), gone


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Along the last axis."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt().clamp_min(1e-9)


def in_band(ecg: Tensor) -> Tensor:
    """The ECG between 0.5 and 40 Hz."""
    spectrum = torch.fft.rfft(ecg)
    f = torch.fft.rfftfreq(ecg.shape[-1], 1 / 500.0)
    return torch.fft.irfft(spectrum * ((f >= BAND_HZ[0]) & (f <= BAND_HZ[1])), n=ecg.shape[-1])


def median_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Median absolute difference where both are told."""
    return float(np.nanmedian(np.abs(found - truth)))


def rows_of(name: str, ecg: Tensor, numbers: Tensor, marks: np.ndarray | None) -> list[dict]:
    """One row a number of missing leads; with marks, each record loses leads in `DRAWS` ways."""
    convention = "tangent" if marks is None else "reader"
    draws = 1 if marks is None else DRAWS
    whole = delineate(ecg, 500.0, convention)
    keep = whole.trusted.repeat(draws)
    r_samples = whole.r_samples.repeat(draws, 1)
    beats = median_beats(ecg, whole.r_samples, 500.0, 0.5, 0.8).repeat(draws, 1, 1)
    band = in_band(ecg[:, PLACES]).repeat(draws, 1, 1)
    table = []
    for count in range(1, 7):
        pieces = [without(ecg, count, keys.fold(numbers, draw)) for draw in range(draws)]
        holed, gone = torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])
        repaired = repair_leads(holed)
        read = {"made": delineate(repaired.ecg_mv, 500.0, convention), "left": delineate(holed, 500.0, convention)}
        made = median_beats(repaired.ecg_mv, r_samples, 500.0, 0.5, 0.8)
        chosen = gone & keep.unsqueeze(-1)
        long = correlation(in_band(repaired.ecg_mv[:, PLACES]), band)[chosen]
        beat = correlation(made, beats)[chosen]
        row: dict[str, object] = {
            "records": name,
            "missing": count,
            "leads_made": int(chosen.sum()),
            "r_10s_median": round(float(long.median()), 3),
            "r_10s_p10": round(float(long.quantile(0.1)), 3),
            "r_beat_median": round(float(beat.median()), 3),
            "r_beat_p10": round(float(beat.quantile(0.1)), 3),
            "r_expected_median": round(float(repaired.expected_r[chosen].median()), 3),
        }
        for i, interval in enumerate(INTERVALS):
            complete = getattr(whole, interval).repeat(draws).numpy()
            told = {k: getattr(v, interval).numpy() for k, v in read.items()}
            for k, v in told.items():
                row[f"{interval}_{k}_off_complete"] = round(median_error(v[keep], complete[keep]), 1)
            if marks is not None:
                truth = np.tile(marks[:, i], draws)
                usual = median_error(complete, truth)
                row[f"{interval}_error_complete"] = round(usual, 1)
                row |= {
                    f"{interval}_{k}_error_ratio": round(median_error(v, truth) / usual, 2) for k, v in told.items()
                }
        table.append(row)
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    return table


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ecg_drug.missing_leads", description=__doc__)
    parser.add_argument("--ptbxl", type=Path, default=DATA / "ptbxl")
    parser.add_argument("--ludb", type=Path, default=DATA / "ludb")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    entries = [e for e in ptbxl.read_table(options.ptbxl).entries if e.fold in ptbxl.SPLITS["valid"]]
    ecg = torch.stack([ptbxl.read_entry(entry).ecg_mv for entry in entries])
    table = rows_of("ptbxl folds 7, 8", ecg, torch.tensor([e.ecg_id for e in entries]), None)
    numbers, _, _, marks = read_ludb(options.ludb, (0,))
    records = {int(r.name): r.ecg_mv for r in ludb.iterate(options.ludb) if int(r.name) % 2 == 0}
    ecg = torch.stack([records[int(number)] for number in numbers])
    assert ecg.shape[1] == len(LEADS)
    table += rows_of("ludb even half", ecg, torch.from_numpy(numbers), marks)
    write_csv(
        options.out / "missing_leads.csv",
        table,
        made_by("benchmarks.ecg_drug.missing_leads", None, {"leads": SEED}, files=[MOMENTS]),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
