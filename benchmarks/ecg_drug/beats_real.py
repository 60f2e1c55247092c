"""Beats of real patients that no stage was trained on: decoded, shown, under a drug, and read back.

    python -m benchmarks.ecg_drug.beats_real --ptbxl DIR --ludb DIR [--weights FOLDER] [--out CSV] [--figures DIR]

Patients: PTB-XL's folds 7 and 8 and LUDB's even records, whose ECGs the delineator trusts (split "valid" of
`data.ecg.real_beats`). The table has six parts:

- "decoder": correlation of the recorded median beat with what the decoder makes of its latent, eight leads, from P
  onset to T end where the beat stands alone, each at its own time; quantiles over patients.
- "shown": the same of the median beat of the ECG that is drawn, with and without what the decoder leaves out, R marks
  aligned, from P onset to T end (what `clinenv simulate --json` calls `beat_correlation`).
- "under drug": the T wave and the intervals changed as dofetilide's peak changed the trial's: how the drawn QRS, and
  the whole beat, correlate with the recorded, and what changed.
- "reads as asked": median absolute difference between what is read of the drawn ECG and what was asked, and the share
  within three times the limits of LIMITS; generated and recorded patients, before and under the drug.
- "leads": two of the eight lost; correlation of the rebuilt ones with the recorded.
- "speed": ECGs a second, with the number of threads, and a second of one core's work.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_csv, write_figure
from benchmarks.ecg_drug.beats_read import READ, Request, dosed_charts, missing_of, slowed
from world_models import catalog, keys, tree
from world_models.data.ecg.real_beats import AFTER_S, BEFORE_S, R_SAMPLE, real_beats
from world_models.ecg.beat_axis import curved
from world_models.ecg.delineation.delineate import delineate, median_beats
from world_models.ecg.likeness import aligned_correlation
from world_models.ecg.t_wave import t_wave
from world_models.ecg_wm import beats
from world_models.ecg_wm.beats import RATE_HZ
from world_models.ecg_wm.encode import canonical_of, marks_of, recorded_beats
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.recorded import INTERVALS, Recorded
from world_models.ecg_wm.synthesis import synthesise
from world_models.ecg_wm.t_measures import T_MEASURES
from world_models.protocol import Chart

SEED = 4_300_000_000
QUANTILES = (5, 10, 25, 50)
LIMITS = (1.0, 1.0, 1.0, 1.0, 1.0, 0.05, 0.03, 0.02, 2.0, 2.0)  # of READ: ms, share of the amplitude, scores, ms
# Means of the trial's subjects 2.5 h after dofetilide 500 ug against their own pre-dose mean: amplitude as a factor
PEAK = {"t_amplitude_uv": 0.6, "t_asymmetry": 0.22, "t_flatness": 0.11, "erd_30_ms": 21.0, "lrd_30_ms": 16.0}
PEAK_INTERVALS = {"jt_peak_ms": 35.0, "tpeak_tend_ms": 38.0}
COHORT_PATIENTS = 512
ROUGHEST_FLATNESS, MOST_ASYMMETRY = 0.66, 1.3


class Patients(NamedTuple):
    """N recorded patients."""

    beat_mv: Tensor  # [N, 8, 800] R at 300
    canonical: Tensor  # [N, 8, SAMPLES]
    leads: Tensor  # [N, 8]
    samples: Tensor  # [N, SAMPLES]
    onset: Tensor  # [N] ms from R
    intervals: Tensor  # [N, 5] INTERVALS
    t_wave: Tensor  # [N, 5]
    source: list[str]


def patients_of(ptbxl: Path | None, ludb: Path | None) -> Patients:
    """The recorded patients, those whose T wave can be read."""
    found = real_beats(ptbxl, ludb, None, "valid")
    read = torch.stack(t_wave(found.beat_mv, marks_of(found.measured), RATE_HZ, R_SAMPLE), dim=-1)
    canonical, leads, samples, whole = canonical_of(found.beat_mv, found.measured)
    intervals = torch.stack([whole[name] for name in INTERVALS], dim=-1)
    columns = (found.beat_mv, canonical, leads, samples, found.measured.qrs_onset_ms, intervals, read)
    return Patients(*columns, found.source)


def quantile_row(part: str, what: str, r: Tensor, of: str = "all") -> dict[str, Any]:
    """One row of quantiles of correlations [N]."""
    found = torch.quantile(r, torch.tensor([q / 100 for q in QUANTILES]))
    return {"part": part, "what": what, "of": of, "n": len(r)} | {
        f"p{q}": float(v) for q, v in zip(QUANTILES, found, strict=True)
    }


def correlation(a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    """Correlation [N] of beats [N, 8, L] about zero where [N, 8 or 1, L] says so."""
    a, b = a * where, b * where
    return (a * b).sum((1, 2)) / (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt().clamp_min(1e-12)


def _level(people: Patients) -> Tensor:
    """The recorded beats about the isoelectric level just before the QRS, as the canonical axis has it."""
    at = (R_SAMPLE + people.onset * (RATE_HZ / 1000) - 3).round().long().clamp(0, people.beat_mv.shape[-1] - 1)
    return people.beat_mv - people.beat_mv.gather(2, at[:, None, None].expand(-1, 8, 1))


def decoder_rows(world: ECGWorldModel, people: Patients) -> list[dict[str, Any]]:
    """Recorded against decoded beats; and of two leads lost, how they are rebuilt."""
    ends = beats.piece_ends(*people.intervals[:, 1:].unbind(1))
    at = R_SAMPLE + people.onset * (RATE_HZ / 1000)
    length = people.beat_mv.shape[-1]
    tau = (torch.arange(length) - at.unsqueeze(-1)) * (1000 / RATE_HZ)
    rr = 60_000 / people.intervals[:, :1]
    inside = (tau > ends[:, 1:2]) & (tau < ends[:, 6:7]) & (tau > ends[:, 6:7] - rr) & (tau < ends[:, 1:2] + rr)
    recorded = _level(people)

    def decoded(leads: Tensor) -> Tensor:
        mean, _ = world.vae.encode(people.canonical, leads, people.samples)
        return beats.from_canonical(world.vae.shape(mean), ends, at, length, RATE_HZ)

    where = (inside.unsqueeze(1) & people.leads.unsqueeze(-1)).float()
    r = correlation(recorded, decoded(people.leads), where)
    rows = [quantile_row("decoder", "recorded against decoded beat", r)]
    for source in sorted(set(people.source)):
        chosen = torch.tensor([s == source for s in people.source])
        rows.append(quantile_row("decoder", "recorded against decoded beat", r[chosen], source))
    key = keys.from_seed(SEED + 1, len(at))
    order = torch.argsort(keys.uniform(key, 0, "leads", (8,)), dim=-1)
    for lost in (1, 2, 4, 6):
        kept = (torch.argsort(order, dim=-1) >= lost) & people.leads
        where = (inside.unsqueeze(1) & (people.leads & ~kept).unsqueeze(-1)).float()
        r = correlation(recorded, decoded(kept), where)
        rows.append(quantile_row("leads", f"{lost} of 8 lost, the lost ones", r[where.sum((1, 2)) > 0]))
    return rows


def charts_of(people: Patients, drug: bool) -> Chart:
    """What is asked for: the patients' own, or as at dofetilide's peak."""
    chart = dict(zip(INTERVALS, people.intervals.unbind(-1), strict=True))
    chart |= dict(zip(T_MEASURES, people.t_wave.unbind(-1), strict=True))
    if drug:
        chart = {
            name: value * PEAK[name] if name == "t_amplitude_uv" else value + PEAK.get(name, 0.0)
            for name, value in chart.items()
        }
        chart |= {name: chart[name] + by for name, by in PEAK_INTERVALS.items()}
        chart["t_asymmetry"] = chart["t_asymmetry"].clamp_max(MOST_ASYMMETRY)
        chart["t_flatness"] = chart["t_flatness"].clamp_max(ROUGHEST_FLATNESS)
    return slowed(chart) if drug else chart


def requests_of(world: ECGWorldModel, people: Patients, measured: Any, drug: bool) -> dict[str, Request]:
    """The same charts asked of the recorded patients, of their decoded beats alone, and of generated patients; of the
    latter also those of dosed patients of the oracle's cohorts, some of whom have not been dosed yet."""
    chart = charts_of(people, drug)
    mean, recorded = recorded_beats(world.vae, people.beat_mv, measured, people.t_wave)
    asked = torch.stack([chart[name] for name in T_MEASURES], dim=-1)
    nothing = Recorded.nothing(mean)
    generated = world.vae.prior(keys.from_seed(SEED + 2, len(mean)), asked)
    requests = {
        "recorded": Request(mean, recorded, chart),
        "decoded": Request(mean, nothing, chart),
        "generated": Request(generated, nothing, chart),
    }
    if drug:
        key = keys.from_seed(SEED + 6, COHORT_PATIENTS)
        theirs = dosed_charts(key)
        shape = world.vae.prior(key, torch.stack([theirs[name] for name in T_MEASURES], dim=-1))
        requests["cohorts"] = Request(shape, Recorded.nothing(shape), theirs)
    return requests


def drawn_beats(world: ECGWorldModel, asked: Request, seed: int) -> Tensor:
    """Median beats [N, 8, 800] of the ECGs that are drawn."""
    key = keys.from_seed(seed, len(asked.m))
    ecg = synthesise(world.vae, asked.m, asked.recorded, key, torch.zeros_like(key), asked.chart)
    return median_beats(ecg, delineate(ecg, RATE_HZ).r_samples, RATE_HZ, BEFORE_S, AFTER_S)


def shown_rows(
    world: ECGWorldModel, people: Patients, requests: dict[str, Request], drug: bool
) -> list[dict[str, Any]]:
    """Recorded against drawn median beats."""
    rows = []
    part = "under drug" if drug else "shown"
    for name in ("decoded", "recorded"):
        drawn = drawn_beats(world, requests[name], SEED + 3)
        what = {"decoded": "decoder alone", "recorded": "with what it leaves out"}[name]
        lost = people.leads.unsqueeze(-1)
        place = torch.arange(people.beat_mv.shape[-1])
        tau = (place - R_SAMPLE) * (1000 / RATE_HZ) - people.onset.unsqueeze(-1)
        pr, qt = people.intervals[:, 1:2], people.intervals[:, 2:].sum(-1, keepdim=True)
        whole = ((tau >= -pr) & (tau <= qt)).unsqueeze(1) & lost
        r, shift = aligned_correlation(people.beat_mv, drawn, whole)
        rows.append(quantile_row(part, f"whole beat, {what}", r))
        moved = curved(drawn, place + shift.unsqueeze(-1))
        qrs = ((tau >= 0) & (tau <= people.intervals[:, 2:3])).unsqueeze(1) & lost
        rows.append(quantile_row(part, f"QRS, {what}", correlation(people.beat_mv, moved, qrs.float())))
    return rows


def read_rows(world: ECGWorldModel, requests: dict[str, Request], drug: bool) -> list[dict[str, Any]]:
    """What is read less what was asked."""
    rows = []
    for who, asked in requests.items():
        key = keys.from_seed(SEED + 4, len(asked.m))
        off = missing_of(world.vae, asked, key).abs()
        for i, name in enumerate(READ):
            known = off[:, i][torch.isfinite(off[:, i])]
            rows.append(
                {
                    "part": "reads as asked",
                    "what": name,
                    "of": f"{who}, {'under drug' if drug else 'before'}",
                    "n": len(known),
                    "median_difference": float(known.median()),
                    "p90": float(known.quantile(0.9)),
                    "limit": LIMITS[i],
                    "within_3_limits": float((known <= 3 * LIMITS[i]).float().mean()),
                }
            )
    return rows


def speed_rows(world: ECGWorldModel, asked: Request, copies: int = 8, runs: int = 5) -> list[dict[str, Any]]:
    """ECGs a second, and a second of one processor core; the medians of some runs."""
    many = tree.repeat(asked, copies)
    key = keys.from_seed(SEED + 5, len(many.m))
    rates, alone = [], []
    for _ in range(runs):
        start, spent = time.perf_counter(), time.process_time()
        synthesise(world.vae, many.m, many.recorded, key, torch.zeros_like(key), many.chart)
        rates.append(len(key) / (time.perf_counter() - start))
        alone.append(len(key) / (time.process_time() - spent))
    of, middle = f"{torch.get_num_threads()} threads", runs // 2
    return [
        {"part": "speed", "what": what, "of": of, "n": len(key), "p50": sorted(found)[middle]}
        for what, found in (("ECGs a second", rates), ("ECGs a second of one core", alone))
    ]


@torch.no_grad()
def table(
    world: ECGWorldModel, ptbxl: Path | None, ludb: Path | None, figures: Path | None, made: dict[str, Any]
) -> list[dict[str, Any]]:
    """All rows; figures of some patients on the way."""
    found = real_beats(ptbxl, ludb, None, "valid")
    people = patients_of(ptbxl, ludb)
    rows = decoder_rows(world, people)
    chosen = torch.isfinite(people.t_wave).all(-1)
    columns = [column[chosen] for column in people[:-1]]
    people = Patients(*columns, [s for s, keep in zip(people.source, chosen.tolist(), strict=True) if keep])
    measured = tree.map_leaves(lambda column: column[chosen], found.measured)
    for drug in (False, True):
        requests = requests_of(world, people, measured, drug)
        rows += shown_rows(world, people, requests, drug)
        rows += read_rows(world, requests, drug)
        if drug and figures is not None:
            from benchmarks.ecg_drug.beats_figure import draw

            before = requests_of(world, people, measured, False)
            shown = {
                "recorded": people.beat_mv,
                "decoder": drawn_beats(world, before["decoded"], SEED + 3),
                "shown": drawn_beats(world, before["recorded"], SEED + 3),
                "dofetilide": drawn_beats(world, requests["recorded"], SEED + 3),
            }
            figures.mkdir(parents=True, exist_ok=True)
            write_figure(figures / "beats_real.png", draw(shown), made, dpi=80)
        if not drug:
            rows.extend(speed_rows(world, requests["recorded"]))
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The rows, one a line."""
    for row in rows:
        numbers = {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}
        print(f"{row['part']:<15} {row['what']:<45} {row['of']:<24} n={row['n']:<5} {numbers}")


def main(argv: list[str] | None = None) -> None:
    """The table, written and printed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ptbxl", type=Path, default=None, help="folder of PTB-XL 1.0.3 (500 Hz)")
    parser.add_argument("--ludb", type=Path, default=None, help="folder of LUDB 1.0.1")
    parser.add_argument("--weights", type=Path, default=None, help="folder of weights (default: what ships)")
    parser.add_argument("--out", type=Path, default=RESULTS / "beats_real.csv")
    parser.add_argument("--figures", type=Path, default=None, help="folder for pictures of some patients' beats")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    world = ECGWorldModel.load(options.weights) if options.weights else catalog.load("ecg-wm-small")
    assert isinstance(world, ECGWorldModel)
    made = made_by("benchmarks.ecg_drug.beats_real", argv, {"drawn": SEED}, [options.weights or "ecg-wm-small"])
    rows = table(world, options.ptbxl, options.ludb, options.figures, made)
    show(rows)
    write_csv(options.out, rows, made)
    print(options.out)


if __name__ == "__main__":
    main()
