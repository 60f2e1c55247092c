"""The clinician's rule improved online, for the patient at hand: `python -m benchmarks.ward.rollouts`.

On `EHRWardDose-v0`: at each planning visit the learned ward (`--world`) imagines what edits of the rule's next orders
would do, each followed by the rule itself, and those that gain surely are carried out
(`agents.planning.rollout_policy`). Judged in the oracle ward on patients whom nothing else meets, paired with the rule
by luck: the return, its terms and harm, with 95 % bootstrap intervals. Deaths are taken at their chances in the oracle
(`agents.expected`), for a few that luck decides would be most of the return's spread.

Writes ward_rollouts.csv to --out. Judged groups of patients are kept in --runs: a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from agents.expected import judge_expected
from agents.planning.base_policies import base_policy
from agents.planning.planners import planner_for
from agents.planning.presets import rollout_of
from agents.rollout import EpisodeResults, format_table, paired_table
from benchmarks.common.intervals import put_mean
from benchmarks.common.kept_runs import KeptRuns
from benchmarks.common.results import RESULTS, made_by, write_csv
from clinenv.envs.ehr_ward.orders import DOSES
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.command_line import MOST, MOST_THREADS, whole

MODULE = "benchmarks.ward.rollouts"
RULE = "clinician's rule"
STEPS, GROUP = 84, 25
SEED = 8_800_000_000  # of the first judged patient; training and tuning take others


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="ehr-ward-small", help="the learned ward: a name or a folder")
    parser.add_argument("--patients", type=whole(2, MOST), default=500)
    parser.add_argument("--presets", nargs="+", choices=("fast", "small", "careful"), default=["small"])
    parser.add_argument("--seed", type=whole(0, 10**12), default=SEED, help="of the first judged patient")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/ward_rollouts"), help="where judged groups are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def table(found: dict[str, EpisodeResults]) -> list[dict[str, Any]]:
    """One row an agent; the terms too are paired with the rule's."""
    rows: list[dict[str, Any]] = [dict(row) for row in paired_table(found, reference=RULE)]
    for row in rows:
        episodes = found[str(row["agent"])]
        for name, term in episodes.terms.items():
            put_mean(row, f"term_{name}", term)
            put_mean(row, f"term_{name}_minus_reference", term - found[RULE].terms[name])
    return rows


def main(argv: list[str] | None = None) -> int:
    """Judge and write. Returns the exit status."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    try:
        found = _judged(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = table(found)
    print(format_table(rows))
    for row in rows[1:]:
        terms = [name.removesuffix("_minus_reference") for name in row if name.endswith("_minus_reference")]
        print(row["agent"])
        for name in terms:
            low, high = row[f"{name}_minus_reference_low"], row[f"{name}_minus_reference_high"]
            print(f"  {name:20s} minus the rule's {row[f'{name}_minus_reference']:+.3f} [{low:+.3f}, {high:+.3f}]")
    made = made_by(MODULE, argv, {"first judged patient": args.seed, "bootstrap": 0}, ["ward-oracle", args.world])
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "ward_rollouts.csv", rows, made)
    return 0


def _judged(args: argparse.Namespace) -> dict[str, EpisodeResults]:
    """The rule, and its rollouts with each preset, in the oracle."""
    task = EHRWardTask(actions=DOSES)
    oracle, learned = (Simulator(catalog.load(name), task) for name in (task.oracle, args.world))
    key = keys.fold(keys.from_seed(args.seed, args.patients), "judge")

    def episodes(label: str, settings: Any, make: Any) -> EpisodeResults:
        kept = KeptRuns(
            args.runs, {"of": settings, "seed": args.seed, "deaths": "at their chances"}, args.patients, GROUP
        )
        return kept.episodes(label, lambda rows: judge_expected(make(rows.start), oracle, key[rows], STEPS))

    found = {RULE: episodes(RULE, RULE, lambda _: base_policy(oracle))}
    for preset in args.presets:
        config = rollout_of(task, preset)
        label = f"rollout of the rule, {preset}"
        settings = [label, asdict(config), str(args.world)]
        found[label] = episodes(label, settings, lambda first, c=config: planner_for(learned, "rollout", c, seed=first))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
