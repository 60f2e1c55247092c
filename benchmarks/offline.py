"""Off-policy estimates beside the truth: which estimator to trust. `python -m benchmarks.offline` (--quick: minutes).

For each id a log of the mixed behaviour (`agents.offline.recipes`) is made in the oracle, with the dial of confounding
at 0 and at 1, and several policies are evaluated from it: each colleague by himself, and policies learned by d3rlpy
from another log (left out, and said so, where d3rlpy is not installed). Beside each estimate stands what the policy
earns in the oracle on other patients of the same kind. Estimators that divide by the behaviour's chances take the
nominal ones, which the charts alone tell; "told" ones take the chances as they were, hidden severity included, which no
analyst has.

Every (id, dial, log) is a cell, kept in --runs; the same command goes on with those that are missing. Writes
offline.csv (a row an id, dial and estimator), offline_policies.csv (a row an estimate) and offline.json to --out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from agents.offline.recipes import CASES
from benchmarks.common.results import RESULTS, made_by, write_csv, write_json
from benchmarks.ope.cells import (
    LEARN_SEED,
    LOG_SEED,
    TRUE_SEED,
    Settings,
    cells,
    estimates,
    learned_policies,
    targets_of,
    truths,
)
from benchmarks.ope.table import printed, summary
from world_models.command_line import MOST_THREADS, folder, whole
from world_models.files import write_text

MODULE = "benchmarks.offline"
HEADLINE = ("ECGDrug-v0", "EHRWard-v0", "ECGProgression-v0")
DIALS = (0.0, 1.0)

FULL = Settings(
    patients={"ECGDrug-v0": 2000, "EHRWard-v0": 500, "ECGProgression-v0": 800},
    judged={"ECGDrug-v0": 8000, "EHRWard-v0": 1000, "ECGProgression-v0": 1000},
    repeats=3,
    resamples=500,
    refits=30,
    updates=2000,
    samples=4,
)
QUICK = replace(
    FULL,
    patients={"ECGDrug-v0": 800, "EHRWard-v0": 60, "ECGProgression-v0": 80},
    judged={"ECGDrug-v0": 2000, "EHRWard-v0": 60, "ECGProgression-v0": 80},
    repeats=1,
    resamples=200,
    refits=8,
    updates=500,
    samples=2,
)


def _kept(path: Path, wanted: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds if it was made with these settings; else made now and written."""
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if all(found.get(f"made_{name}") == value for name, value in wanted.items()):
            return found
    made = json.loads(json.dumps({**make(), **{f"made_{name}": value for name, value in wanted.items()}}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(made))
    return made


def _run(ids: tuple[str, ...], settings: Settings, runs: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """All cells, and ids whose learned policies were left out."""
    plain = json.loads(json.dumps(asdict(settings)))
    plain.pop("repeats")  # a cell is the same however many there are
    found, without = [], []
    for env_id in ids:
        learned = learned_policies(env_id, settings, runs)
        without += [] if learned else [env_id]
        names = targets_of(env_id, learned)
        mine = list(cells((env_id,), DIALS, settings.repeats))
        wanted = {"settings": plain, "policies": names}
        with tqdm(total=len(names) * (1 + len(mine)), desc=env_id, unit="policy") as bar:

            def step(bar: tqdm = bar) -> None:
                bar.update()

            path = runs / f"{env_id}-truth.json"
            truth = _kept(path, wanted, lambda e=env_id, p=learned, s=step: {"truth": truths(e, settings, p, s)})
            for cell in mine:
                make = lambda c=cell, p=learned, t=truth, s=step: estimates(c, settings, p, t["truth"], s)  # noqa: E731
                found.append(_kept(runs / f"{cell.name}.json", wanted, make))
    return found, without


def main(argv: list[str] | None = None) -> int:
    """Evaluate and write. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the drug start alone, few patients, one log a dial")
    parser.add_argument("--ids", nargs="+", choices=HEADLINE, help="default: all, with --quick the drug start")
    parser.add_argument("--repeats", type=whole(1, 99), help="logs of each id and dial")
    parser.add_argument("--patients", type=whole(8, 10**6), help="of each log")
    parser.add_argument("--judged", type=whole(8, 10**6), help="patients whose mean return is the truth")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1, help="torch threads")
    parser.add_argument("--runs", type=folder, default=Path("runs/offline"), help="where cells and policies are kept")
    parser.add_argument("--out", type=folder, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    settings = QUICK if args.quick else FULL
    ids = tuple(args.ids or (HEADLINE[:1] if args.quick else HEADLINE))
    if args.repeats is not None:
        settings = replace(settings, repeats=args.repeats)
    if args.patients is not None:
        settings = replace(settings, patients=dict.fromkeys(HEADLINE, args.patients))
    if args.judged is not None:
        settings = replace(settings, judged=dict.fromkeys(HEADLINE, args.judged))
    runs = args.runs / ("quick" if args.quick else "full")
    found, without = _run(ids, settings, runs)
    for env_id in without:
        print(f"{env_id}: policies learned by d3rlpy are left out, for it is not installed")
    rows = summary(found)
    print(printed(rows))
    worlds = [name for i in ids for name in (CASES[i].task().oracle, CASES[i].learned)]
    seeds = {"first logged patient": LOG_SEED, "first learned from": LEARN_SEED, "first judged": TRUE_SEED}
    made = made_by(MODULE, argv, {**seeds, "bootstrap": 0}, worlds)
    write_csv(args.out / "offline.csv", rows, made)
    write_csv(args.out / "offline_policies.csv", [row for c in found for row in c["rows"]], made)
    content = {"settings": asdict(settings), "without_learned_policies": without, "cells": found, "table": rows}
    write_json(args.out / "offline.json", content, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
