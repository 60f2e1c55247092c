"""Pre-training on pairs against supervised learning, each arm trained until it no longer gains.

    python -m benchmarks.progression.fair_arms --data FILE.h5 --work DIR --out DIR    # or --patients N; --quick

Macro AUROC of the test patients (fold 19) under four schedules: "fair", every stage of every arm at the same rates to
its plateau on validation patients of its own share; "equal", so many seconds of processor time an arm, tuning included
(default: what supervised learning took to its plateau at that share); "paper", the epochs of the published code
(supervised 20; pre-training 50, fine-tuning 30); "mixed", pre-trained by these epochs and from there to the plateau,
against supervised learning at its plateau. The difference of the leads under "paper" and "fair" is what unequal
training makes of the paper's Figure 4. Intervals are of a bootstrap over patients, of the mean over `--seeds`. Every
arm is kept under --work: the same command goes on where it was stopped, and `--arms`, `--fractions`, `--schedules` make
some of them at a time. Full width: `--preset xresnet1d50 --fractions 0.01`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.intervals import Bootstrap, Interval, bootstrap_macro, columns
from benchmarks.common.results import made_by, write_tables
from benchmarks.progression.arms import PRESETS, TUNED, WHOLE, SplitCohort, cohort_of, data_mark
from benchmarks.progression.fair import FORMS, SCHEDULES, Epochs, FairSettings, run_fair_arm
from benchmarks.progression.figure4 import TASKS, fair_figure
from world_models.cardiac_jepa.auroc import contrast, mean_of
from world_models.command_line import MOST_THREADS, device, folder, number, whole
from world_models.data.ecg.monolith import read_monolith
from world_models.plateau import Patience

__all__ = ["Judged", "differences", "main", "unequal"]

Key = tuple[str, float, str, str]  # schedule, share, form, protocol
DEFAULT = ("random", "supervised", "ours", "inverse", "paper", "authors")
QUICK_ARMS = ("random", "supervised", "ours", "paper")
PUBLISHED_LEAD = 0.05  # macro AUROC, triage, at 10 % of the patients: the paper's Figure 4


class Judged:
    """Bootstraps of every arm and seed on both tasks, and what the arms cost."""

    def __init__(self, cohort: SplitCohort, resamples: int, least: int) -> None:
        m = cohort.data
        self.cohort, self.resamples, self.least = cohort, resamples, least
        self.rows = {
            "triage": m.first[cohort.test],
            "monitoring": torch.ones(len(cohort.test), dtype=torch.bool),
        }
        self.runs: dict[tuple[str, Key], list[Bootstrap]] = {}
        self.costs: list[dict[str, Any]] = []

    def add(self, schedule: str, share: float, form: str, scores: dict[str, torch.Tensor]) -> None:
        """Judge one seed of an arm."""
        m, test = self.cohort.data, self.cohort.test
        for protocol, score in scores.items():
            for task, keep in self.rows.items():
                rows = test[keep]
                found = bootstrap_macro(score[keep], m.label[rows], m.patient[rows], self.resamples, 0, self.least)
                self.runs.setdefault((task, (schedule, share, form, protocol)), []).append(found)

    def keys(self) -> list[Key]:
        """Every arm and protocol that was judged, in the order of judging."""
        return list(dict.fromkeys(key for _, key in self.runs))

    def mean(self, task: str, key: Key) -> Bootstrap:
        """The mean over seeds."""
        return mean_of(self.runs[task, key])

    def lead(self, task: str, key: Key) -> list[tuple[float, Bootstrap]] | None:
        """The terms of an arm's lead over supervised learning of its schedule and share; None: there is none."""
        schedule, share, form, _ = key
        other = ("fair" if schedule == "mixed" else schedule, share, "supervised", WHOLE)
        if form.startswith("supervised") or (task, key) not in self.runs or (task, other) not in self.runs:
            return None
        return [(1.0, self.mean(task, key)), (-1.0, self.mean(task, other))]


def _seed_range(found: list[Bootstrap]) -> float:
    values = [b.macro.value for b in found]
    return max(values) - min(values)


def arm_rows(judged: Judged) -> list[dict[str, Any]]:
    """A row an arm and protocol: macro AUROC of both tasks."""
    rows = []
    for key in judged.keys():
        schedule, share, form, protocol = key
        row: dict[str, Any] = {"schedule": schedule, "share": share, "method": FORMS[form].name, "protocol": protocol}
        row["seeds"] = len(judged.runs["triage", key])
        for task in TASKS:
            row |= columns(task, judged.mean(task, key).macro)
            row[f"{task}_seed_range"] = _seed_range(judged.runs[task, key])
        rows.append(row)
    return rows


def differences(judged: Judged) -> list[dict[str, Any]]:
    """Leads over supervised learning of the same schedule and share, paired over patients."""
    rows = []
    for key in judged.keys():
        for task in TASKS:
            terms = judged.lead(task, key)
            if terms is not None:
                found = contrast(*terms)
                told = {"schedule": key[0], "share": key[1], "method": FORMS[key[2]].name, "protocol": key[3]}
                rows.append({**told, "task": TASKS[task], **columns("lead", found), "above_zero": found.low > 0})
    return rows


def unequal(judged: Judged) -> list[dict[str, Any]]:
    """How much of a lead under the paper's schedule is unequal training: that lead, the fair one, and what lies
    between them, paired over patients."""
    rows = []
    for share, form in dict.fromkeys((key[1], key[2]) for key in judged.keys()):
        for task in TASKS:
            paper, fair = (judged.lead(task, (schedule, share, form, TUNED)) for schedule in ("paper", "fair"))
            if paper is None or fair is None:
                continue
            between = contrast(*paper, *((-weight, b) for weight, b in fair))
            row: dict[str, Any] = {"share": share, "method": FORMS[form].name, "task": TASKS[task]}
            row |= columns("lead_of_the_papers_schedule", contrast(*paper)) | columns("fair_lead", contrast(*fair))
            nothing = Interval(math.nan, math.nan, math.nan)
            for name, schedule in (("lead_at_equal_seconds", "equal"), ("lead_of_mixed", "mixed")):
                terms = judged.lead(task, (schedule, share, form, TUNED))
                row |= columns(name, nothing if terms is None else contrast(*terms))
            row |= columns("unequal_training", between)
            row["published_lead"] = PUBLISHED_LEAD if task == "triage" and math.isclose(share, 0.1) else ""
            rows.append(row)
    return rows


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    s, p = FairSettings(""), Patience()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.progression.fair_arms", description=_first_line())
    parser.add_argument("--data", type=Path, help="a monolith (HDF5)")
    parser.add_argument("--patients", type=whole(100), help="without --data: simulated, kept under --work")
    parser.add_argument("--work", type=folder, required=True, help="folder of the arms")
    parser.add_argument("--out", type=folder, required=True, help="folder of the tables")
    parser.add_argument("--quick", action="store_true", help="a small cohort and short runs: minutes, no evidence")
    parser.add_argument("--arms", nargs="+", choices=list(FORMS), help=f"default: {' '.join(DEFAULT)}")
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    parser.add_argument("--fractions", nargs="+", type=number(0, 1, above=True), help="default: 0.01 0.1 1")
    parser.add_argument("--seeds", nargs="+", type=whole(0), default=[0], help="of shares and training")
    parser.add_argument("--rates", nargs="+", type=number(0, 10, above=True), default=list(s.rates), help="of all arms")
    parser.add_argument(
        "--equal-seconds",
        type=number(0, 1e9, above=True),
        help="of processor time an arm; default: what supervised took",
    )
    parser.add_argument("--check", type=whole(1), default=p.check, help="steps between two checks")
    parser.add_argument("--checks", type=whole(1), default=p.checks, help="without a gain after which a run may stop")
    parser.add_argument("--least-steps", type=whole(0), default=p.least_steps, help="before which no run stops")
    parser.add_argument("--most-steps", type=whole(1), default=p.most_steps, help="of a run")
    parser.add_argument("--batch", type=whole(2), default=s.batch, help="pairs")
    parser.add_argument("--finetune-batch", type=whole(1), default=s.finetune_batch)
    parser.add_argument(
        "--valid-for-train", type=number(0, 10), default=s.valid_for_train, help="patients for each one"
    )
    parser.add_argument("--compile", action="store_true", help="train encoders through compiled kernels (needs g++)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default=s.preset)
    parser.add_argument("--resamples", type=whole(1), default=1000, help="of the test patients")
    parser.add_argument("--least", type=whole(1), default=10, help="test ECGs with and without a label for it to count")
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1)
    a = parser.parse_args(argv)
    if a.data is not None and a.patients is not None:
        parser.error("give either --data FILE.h5 or --patients N")
    if a.data is None and a.patients is None and not a.quick:
        parser.error("give --data FILE.h5 or --patients N, or --quick")
    if a.data is not None and not a.data.is_file():
        parser.error(f"--data {a.data} is no file; check the path")
    if len(set(a.rates)) < 2:
        parser.error(f"--rates {a.rates}: two different ones at least, or nothing is tuned")
    if "equal" in a.schedules and a.equal_seconds is None and "fair" not in a.schedules:
        parser.error("--schedules equal without fair needs --equal-seconds")
    return a


def _first_line() -> str:
    return (__doc__ or "").splitlines()[0]


def _settings(a: argparse.Namespace, mark: str) -> FairSettings:
    patience = Patience(check=a.check, checks=a.checks, least_steps=a.least_steps, most_steps=a.most_steps)
    found = FairSettings(
        mark,
        a.preset,
        tuple(a.rates),
        patience,
        batch=a.batch,
        finetune_batch=a.finetune_batch,
        valid_for_train=a.valid_for_train,
        compiled=a.compile,
    )
    if not a.quick:
        return found
    short = replace(patience, check=15, checks=2, least_steps=30, most_steps=min(a.most_steps, 60), warm_up=10)
    few = Epochs(2, 4, 3, 64, 64, 64)  # in the proportion of the published ones
    return replace(found, patience=short, epochs=few, batch=min(a.batch, 64), finetune_batch=min(a.finetune_batch, 32))


def _cohort(a: argparse.Namespace) -> SplitCohort:
    path = a.data
    if path is None:
        from world_models.cardiac_jepa.cohort import progression_monolith

        count = a.patients or 800
        a.work.mkdir(parents=True, exist_ok=True)
        path = progression_monolith(a.work / f"progression-{count}-0.h5", 0, count)
    return cohort_of(read_monolith(path))


def _wanted(a: argparse.Namespace) -> Iterator[tuple[float, str, str, int]]:
    """(share, schedule, form, seed), cheap shares first; within one supervised learning first, which sets the seconds
    of the others; a random encoder once a share, under "fair"."""
    forms = a.arms or (QUICK_ARMS if a.quick else DEFAULT)
    forms = sorted(set(forms), key=lambda f: (f != "supervised", list(FORMS).index(f)))
    for share in sorted(set(a.fractions or ([0.5] if a.quick else [0.01, 0.1, 1.0]))):
        for schedule in sorted(set(a.schedules), key=SCHEDULES.index):
            for form in forms:
                for seed in a.seeds:
                    if schedule == "fair" or (form != "random" and (schedule != "mixed" or FORMS[form].pairs)):
                        yield share, schedule, form, seed


def run(a: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Train what is not trained yet, and judge: the rows of every table."""
    cohort = _cohort(a)
    settings = _settings(a, data_mark(cohort.data))
    judged = Judged(cohort, a.resamples, min(a.least, 3) if a.quick else a.least)
    took: dict[float, float] = {}  # share -> seconds of supervised learning to its plateau, the mean over seeds
    for share, schedule, form, seed in _wanted(a):
        print(f"{schedule}: {FORMS[form].name} at {100 * share:g} % of the patients, seed {seed}", flush=True)
        seconds = math.inf
        if schedule == "equal":
            seconds = a.equal_seconds or took.get(share, math.nan)
            if math.isnan(seconds):
                raise ValueError("no seconds of supervised learning to go by: add it to --arms, or --equal-seconds S")
        arm = run_fair_arm(cohort, form, share, schedule, settings, a.work, seed, seconds, a.device)
        judged.add(schedule, share, form, arm.scores)
        judged.costs.append({**arm.told, "preset": a.preset, "device": a.device, "threads": a.threads})
        if schedule == "fair" and form == "supervised":
            took[share] = took.get(share, 0.0) + float(arm.told["cpu_s"]) / len(a.seeds)
    return {
        "arms": arm_rows(judged),
        "leads": differences(judged),
        "unequal": unequal(judged),
        "costs": judged.costs,
    }


def main(argv: list[str] | None = None) -> int:
    """Train, judge and write. Returns the exit status: 2 for data that cannot be used."""
    a = _arguments(argv)
    torch.set_num_threads(a.threads)
    try:
        tables = run(a)
        seeds = {"shares, training": a.seeds, "simulated patients": 0, "bootstrap": 0}
        told = made_by("benchmarks.progression.fair_arms", argv, seeds)
        if a.quick:
            told["notes"] = ["--quick: a small cohort and short runs, which show that the command works and no more"]
        write_tables(a.out / "cardiac_jepa_fair", {name: rows for name, rows in tables.items() if rows}, told)
        fair_figure(tables["arms"], a.out / "cardiac_jepa_fair_arms.png", told)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
