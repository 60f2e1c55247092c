"""One to 24 steps of two hours: the learned world beside every rival that can be rolled on.

    python -m benchmarks.ecg_drug.rollout --work DIR [--world NAME] [--rivals ...] [--out DIR]

Oracle patients of every cohort in sinus rhythm, known by the admission chart and beat; a dose of one drug at once, or
half of it every twelve hours. A rival foretells one ECG from the one before and one order: it is applied step after
step to what it said last ("repeated"), or, for the single dose and up to a day, asked at once for the hour ("direct"),
as it was trained. Errors at each step are means over patients whose ECG then shows sinus rhythm, with intervals over
patients: measures, and the beat on the canonical axis. `population` is the mean course of other patients under the
same plan. Simulated patients throughout: none of it is clinical evidence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.common.intervals import put_mean
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.diffusion_steps import world_of
from benchmarks.ecg_drug.oracle_patients import course_of, one_dose, particles_of, sinus_patients
from benchmarks.ecg_drug.own_beats import beat_factors, beat_of
from benchmarks.ecg_drug.rivals.frame import COVARIATES, Given, Rival
from benchmarks.ecg_drug.table_rivals import NAMES, entries
from world_models import keys, tree
from world_models.command_line import folder, number, whole
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.pairs import SPLIT_SEED, cached_pairs, canonical_beat
from world_models.protocol import Chart
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["JUDGED", "Foretold", "main", "rolled"]

TEST_SEED, OTHERS_SEED = 12_000_000_000, 12_500_000_000
STEP_H, STEPS, EVERY = 2.0, 24, 6
SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24)  # steps of the table
LONGEST_H = 24.0  # that rivals were trained on
JUDGED = ("qtcf_ms", "pr_ms", "tpeak_tend_ms", "heart_rate_bpm", "t_amplitude_uv", "t_asymmetry", "t_flatness")
BEAT_SAMPLES = 4  # particles behind a learned world's mean beat: each is drawn


class Foretold(NamedTuple):
    """Of B patients at one step."""

    chart: Chart  # JUDGED, [B] each
    beat: Tensor | None  # [B, 8, 200] mV; None: the model has none


class Test(NamedTuple):
    """B patients and what happened to them."""

    key: Tensor
    charts: list[Chart]  # STEPS + 1
    doses: Tensor  # [B, STEPS, D]
    drug: Tensor  # [B] 1 + column
    beats: dict[int, Tensor]  # step -> [B, 8, 200] mV of SHOWN and 0


def patients_of(count: int, every: int | None, seed: int = TEST_SEED, drawn: bool = True) -> Test:
    """`count` patients lived through by the oracle."""
    oracle, state = sinus_patients(seed, count, STEP_H)
    drug, doses = one_dose(state.key, STEPS, every)
    charts = course_of(oracle, state, doses)
    shown = (0, *SHOWN) if drawn else ()
    return Test(state.key, charts, doses, drug, {n: canonical_beat(charts[n], state.morphology) for n in shown})


def world_rolled(world: ECGWorldModel, test: Test, samples: int) -> Iterator[tuple[int, Foretold]]:
    """What the learned world foretells at each of SHOWN: medians, and the mean beat of some particles."""
    state = particles_of(world, test.charts[0], test.key, samples, beat_factors(world, test.beats[0]))
    for i in range(STEPS):
        state = world.transition(state, test.doses[:, i].repeat_interleave(samples, 0))
        if i + 1 in SHOWN:
            chart = world.observe(state)
            median = {n: chart[n].reshape(-1, samples).nanmedian(1).values for n in JUDGED}
            few = (torch.arange(len(state.key)) % samples < BEAT_SAMPLES).nonzero().flatten()
            first = tree.take((dict(test.charts[0]), test.beats[0]), few // samples)
            beat = beat_of(world, tree.take(state, few), {n: v[few] for n, v in chart.items()}, first)
            yield i + 1, Foretold(median, beat.unflatten(0, (len(test.key), -1)).mean(1))


def rolled(rival: Rival, test: Test) -> Iterator[tuple[int, Foretold]]:
    """A single-step rival applied to what it said last."""
    chart, beat = dict(test.charts[0]), test.beats[0]
    fixed = {n: test.charts[0][n] for n in COVARIATES}
    hours = torch.full_like(fixed["clock_hour"], STEP_H)
    for i in range(STEPS):
        dose = test.doses[:, i].amax(-1)
        drug = torch.where(dose > 0, test.drug, 0)
        told = fixed | {"clock_hour": torch.remainder(fixed["clock_hour"] + i * STEP_H, 24.0)}
        found = rival.sample(Given(beat, chart, drug, dose, hours, told), keys.fold(test.key, i), 1)
        chart, beat = {n: v[0] for n, v in found.chart.items()}, found.beat[0]
        if i + 1 in SHOWN:
            yield i + 1, Foretold({n: chart[n] for n in JUDGED}, beat)


def direct(rival: Rival, test: Test, samples: int) -> Iterator[tuple[int, Foretold]]:
    """A rival asked at once for the hour after the single dose."""
    fixed = {n: test.charts[0][n] for n in COVARIATES}
    for step in SHOWN:
        if step * STEP_H <= LONGEST_H:
            hours, dose = torch.full_like(fixed["clock_hour"], step * STEP_H), test.doses[:, 0].amax(-1)
            given = Given(test.beats[0], test.charts[0], test.drug, dose, hours, fixed)
            found = rival.sample(given, keys.fold(test.key, step), samples)
            yield (
                step,
                Foretold({n: found.chart[n].contiguous().nanmedian(0).values for n in JUDGED}, found.beat.mean(0)),
            )


def population(test: Test, others: Test) -> Iterator[tuple[int, Foretold]]:
    """Other patients' mean change at that step under the same drug."""
    for step in SHOWN:
        chart = {}
        for n in JUDGED:
            change = others.charts[step][n] - others.charts[0][n]
            by = torch.stack([change[others.drug == 1 + d].nanmean() for d in range(len(DRUGS))])
            chart[n] = test.charts[0][n] + by[test.drug - 1]
        yield step, Foretold(chart, None)


def row_of(model: str, plan: str, how: str, step: int, found: Foretold, test: Test) -> dict[str, Any]:
    """Errors at one step, of those in sinus rhythm then."""
    sinus = test.charts[step]["atrial_fibrillation"] < 0.5
    row: dict[str, Any] = {"model": model, "plan": plan, "how": how, "step": step, "hours": step * STEP_H}
    row["patients"] = int(sinus.sum())
    for n in JUDGED:
        off = (found.chart[n] - test.charts[step][n])[sinus].abs()
        put_mean(row, f"mae_{n}", off[~off.isnan()])
    if found.beat is not None:
        put_mean(row, "beat_mae_uv", (found.beat - test.beats[step])[sinus].abs().mean((1, 2)) * 1000)
    return row


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="ecg-wm-small", help="name or folder of a learned ECG world")
    parser.add_argument("--rivals", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--patients", type=whole(16), default=512)
    parser.add_argument("--samples", type=whole(BEAT_SAMPLES, 1000), default=32, help="of each patient")
    parser.add_argument("--budget", type=number(1, 1e6), default=600.0, help="processor seconds of each network")
    parser.add_argument("--train", type=whole(32), default=20_000, help="pairs that rivals learn from")
    parser.add_argument("--validation", type=whole(16), default=512)
    parser.add_argument("--work", type=folder, default=Path("runs/ecg_tables"), help="as of `tables`: kept training")
    parser.add_argument("--out", type=folder, default=RESULTS)
    return parser.parse_args(argv)


@torch.no_grad()
def _judged(chosen: argparse.Namespace, world: ECGWorldModel) -> Iterator[dict[str, Any]]:
    plans = {"single": None, "every 12 h": EVERY}
    tests = {name: patients_of(chosen.patients, every) for name, every in plans.items()}
    for plan, test in tests.items():
        others = patients_of(4 * chosen.patients, plans[plan], OTHERS_SEED, drawn=False)
        for step, found in population(test, others):
            yield row_of("population", plan, "mean course", step, found, test)
        for step, found in world_rolled(world, test, chosen.samples):
            yield row_of(world.name, plan, "rolled on", step, found, test)
    if not chosen.rivals:
        return
    pairs = cached_pairs("train", chosen.train, chosen.work)
    validation = cached_pairs("validation", chosen.validation, chosen.work)
    work = chosen.work / f"budget_{chosen.budget:g}_train_{chosen.train}"
    with torch.enable_grad():
        found_rivals = list(entries(chosen.rivals, pairs, validation, chosen.budget, 1.0, work))
    for entry in found_rivals:
        for plan, test in tests.items():
            for step, found in rolled(entry.rival, test):
                yield row_of(entry.rival.name, plan, "repeated", step, found, test)
        for step, found in direct(entry.rival, tests["single"], min(chosen.samples, 8)):
            yield row_of(entry.rival.name, "single", "direct", step, found, tests["single"])


def main(argv: list[str] | None = None) -> int:
    """Write rollout_ecg_wm.csv and print it. Returns the exit status."""
    chosen = _arguments(argv)
    torch.set_num_threads(1)
    try:
        rows = []
        for row in _judged(chosen, world_of(chosen.world)):
            rows.append(row)
            told = ("qtcf_ms", "t_amplitude_uv")
            print(row["model"], row["plan"], row["how"], row["step"], [round(row[f"mae_{n}"], 2) for n in told])
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seeds = {"patients": TEST_SEED, "population": OTHERS_SEED, **SPLIT_SEED, "bootstrap": 0}
    made = made_by("benchmarks.ecg_drug.rollout", argv, seeds, ["oracle", chosen.world])
    columns = {name: "" for row in rows for name in row}
    write_csv(chosen.out / "rollout_ecg_wm.csv", [columns | row for row in rows], made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
