"""The clinician's rule improved for the learned ward, beforehand and online: `python -m benchmarks.ward.rollouts`.

On `EHRWardDose-v0`, all from the learned ward (`--world`) alone: the rule with its knobs tuned there
(`agents.baselines.tuned_rules`), and the online planner, which at each planning visit imagines what edits of the
next orders of a rule (`--bases`: the tuned one, or the clinician's) would do, each followed by the rule itself, and
carries out those that gain surely (`agents.planning.rollout_policy`). Judged in the oracle ward on patients whom
nothing else meets, paired with the clinician's rule by luck: the return, its terms and harm, with 95 % bootstrap
intervals over patients. Of each patient several courses are judged, with other luck, and deaths are taken at their
chances (`agents.expected`): a few that luck decides would be most of the return's spread.

Writes ward_rollouts.csv to --out. Judged groups of patients are kept in --runs: a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.baselines.tuned_rules import kept_knobs, tune_knobs
from agents.baselines.ward_rule import KNOBS, LARGEST, TunedClinician
from agents.expected import judge_expected
from agents.making import seal_of
from agents.planning.base_policies import base_policy
from agents.planning.parameter_cem import ParameterCEM
from agents.planning.planners import planner_for
from agents.planning.presets import rollout_of
from agents.planning.rollout_policy import RolloutConfig
from agents.protocol import Agent
from agents.rollout import EpisodeResults, format_table, paired_table
from benchmarks.common.intervals import put_mean
from benchmarks.common.kept_runs import KeptRuns
from benchmarks.common.results import RESULTS, made_by, write_csv
from clinenv.envs.ehr_ward.orders import DOSES
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from world_models import catalog, keys, tree
from world_models.command_line import MOST, MOST_THREADS, whole

MODULE = "benchmarks.ward.rollouts"
RULE, TUNED = "clinician's rule", "rule tuned in the learned ward"
STEPS, GROUP = 84, 25
SEARCH = ParameterCEM(14, 32, 8)
TUNING_SEED = 8_411_000_000  # of the first patient that the knobs are tuned on, in the learned ward
SEED = 8_800_000_000  # of the first judged patient; training and tuning take others


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="ehr-ward-small", help="the learned ward: a name or a folder")
    parser.add_argument("--patients", type=whole(2, MOST), default=500)
    parser.add_argument("--tuning-patients", type=whole(1, MOST), default=300, help="of each round of tuning")
    parser.add_argument("--courses", type=whole(1, 64), default=8, help="of each patient, with other luck")
    parser.add_argument("--planner-courses", type=whole(1, 64), default=4, help="of those, under a planner")
    parser.add_argument("--bases", nargs="+", choices=("rule", "tuned"), default=["tuned"], help="that a planner edits")
    parser.add_argument("--presets", nargs="+", choices=("fast", "small", "careful"), default=["small"])
    parser.add_argument("--seed", type=whole(0, 10**12), default=SEED, help="of the first judged patient")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/ward_rollouts"), help="where judged groups are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def table(found: dict[str, EpisodeResults], patients: int) -> list[dict[str, Any]]:
    """One row an agent, of its courses' means by patient; paired, with its terms, with the rule's and with the tuned
    rule's on the same luck.

    Args:
        found: of each agent its courses, those of a patient in a run; both rules have at least as many as any other.
    """
    rows: list[dict[str, Any]] = []
    for name, episodes in found.items():
        courses = len(episodes.returns) // patients
        rule, own = (_means(x, patients, courses) for x in (found[RULE], episodes))
        row: dict[str, Any] = dict(paired_table({RULE: rule, name: own}, reference=RULE)[-1])
        row["courses"] = courses
        for term, value in own.terms.items():
            put_mean(row, f"term_{term}", value)
            put_mean(row, f"term_{term}_minus_reference", value - rule.terms[term])
        tuned = _means(found[TUNED], patients, courses)
        put_mean(row, "return_minus_tuned", own.returns - tuned.returns)
        for term, value in own.terms.items():
            put_mean(row, f"term_{term}_minus_tuned", value - tuned.terms[term])
        rows.append(row)
    return rows


def _means(episodes: EpisodeResults, patients: int, courses: int) -> EpisodeResults:
    """By patient, of his first so many courses."""

    def mean(x: Tensor) -> Tensor:
        return x.to(torch.float32).unflatten(0, (patients, -1))[:, :courses].mean(1)

    return tree.map_leaves(mean, episodes)


def main(argv: list[str] | None = None) -> int:
    """Judge and write. Returns the exit status."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    try:
        if args.planner_courses > args.courses:
            raise ValueError(f"--planner-courses {args.planner_courses} is above --courses {args.courses}; lower it")
        found = _judged(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = table(found, args.patients)
    print(format_table(rows))
    for row in rows[1:]:
        print(row["agent"])
        for end, whose in (("_minus_reference", "the rule's"), ("_minus_tuned", "the tuned rule's")):
            for name in [name for name in row if name.endswith(end)]:
                low, high = row[f"{name}_low"], row[f"{name}_high"]
                print(f"  {name.removesuffix(end):20s} minus {whose} {row[name]:+.3f} [{low:+.3f}, {high:+.3f}]")
    made = made_by(MODULE, argv, {"first judged patient": args.seed, "bootstrap": 0}, ["ward-oracle", args.world])
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "ward_rollouts.csv", rows, made)
    return 0


def _judged(args: argparse.Namespace) -> dict[str, EpisodeResults]:
    """The rule, the tuned one, and their rollouts with each preset, in the oracle."""
    task = EHRWardTask(actions=DOSES)
    oracle, learned = (Simulator(catalog.load(name), task) for name in (task.oracle, args.world))
    key = keys.fold(keys.from_seed(args.seed, args.patients), "judge")
    knobs, about = _tuned(learned, args)
    tuned = TunedClinician(knobs, float(oracle.world.hours_per_step))

    def episodes(label: str, settings: Any, make: Callable[[int], Agent], courses: int) -> EpisodeResults:
        told = {"of": settings, "seed": args.seed, "deaths": "at their chances", "courses": courses}
        kept = KeptRuns(args.runs, told, args.patients, GROUP)
        return kept.episodes(label, lambda rows: _courses(make(rows.start), oracle, key[rows], courses))

    found = {RULE: episodes(RULE, RULE, lambda _: base_policy(oracle), args.courses)}
    found[TUNED] = episodes(TUNED, about, lambda _: tuned, args.courses)
    bases = {"rule": ("the rule", None, str(args.world)), "tuned": ("the tuned rule", tuned, about)}
    for base, preset in product(args.bases, args.presets):
        config, (name, policy, made) = rollout_of(task, preset), bases[base]
        label = f"rollout of {name}, {preset}"

        def make(first: int, config: RolloutConfig = config, policy: Agent | None = policy) -> Agent:
            return planner_for(learned, "rollout", config, policy=policy, seed=first)

        found[label] = episodes(label, [label, asdict(config), made], make, args.planner_courses)
    return found


def _tuned(learned: Simulator, args: argparse.Namespace) -> tuple[Tensor, dict[str, Any]]:
    """The rule's knobs [P] by a search in the learned ward, kept in --runs, and all that they depend on."""
    patients = args.tuning_patients
    about = {**asdict(SEARCH), "patients": patients, "steps": STEPS, "seed": TUNING_SEED}
    about |= {"weights": seal_of(learned.world)}
    names, hours = [k.name for k in KNOBS], float(learned.world.hours_per_step)

    def find() -> Tensor:
        knobs = (len(names), LARGEST)
        return tune_knobs(learned, lambda x: TunedClinician(x, hours), knobs, SEARCH, patients, TUNING_SEED, STEPS, 1)

    found = kept_knobs(args.runs / "tuned.json", names, find, about)
    return found, about | {"knobs": found.tolist()}


def _courses(agent: Agent, oracle: Simulator, key: Tensor, count: int) -> EpisodeResults:
    """So many courses of each patient of `key` [N], in a run: the same patients under other luck."""
    state, chart = oracle.reset(key)
    course = torch.arange(len(key) * count, device=key.device) % count
    many = key.repeat_interleave(count)
    luck = torch.where(course == 0, many, keys.fold(keys.fold(many, "course"), course))  # the first is their own
    begun = (oracle.world.rekey(tree.repeat(state, count), luck), tree.repeat(chart, count))
    return judge_expected(agent, oracle, luck, STEPS, begun=begun)


if __name__ == "__main__":
    raise SystemExit(main())
