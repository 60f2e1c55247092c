"""Planners at equal transitions: `python -m benchmarks.ecg_drug.planners`.

On `ECGDrug-v0`, made in the learned world and judged in the oracle, over the same patients with the same luck: each
planner of `agents.planning` with each --budget of imagined transitions a decision, the label's rule, and half its dose
without looking. Then how far what was imagined lay from what came, by steps ahead, and beside it the planner that owns
the oracle (the patients' true states, other luck).

Writes planners.csv and planners_foresight.csv to --out. Judged groups of patients are kept in --runs: a run that was
killed goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from agents.planning.base_policies import base_policy
from agents.planning.budget import Budget
from agents.planning.cem import CEMConfig
from agents.planning.gradient import GradientConfig
from agents.planning.icem import ICEMConfig
from agents.planning.inverse_planner import InverseConfig
from agents.planning.mppi import MPPIConfig
from agents.planning.plan_config import PlanConfig
from agents.planning.planners import at_their_chances, planner_for
from agents.planning.random_shooting import ShootingConfig
from agents.planning.rollout_policy import RolloutConfig
from agents.planning.tree_search import TreeConfig
from agents.rollout import EpisodeResults, format_table, judge, paired_table
from benchmarks.common.foresight import Foresight, RecordingSimulator, by_depth
from benchmarks.common.kept_runs import KeptRuns
from benchmarks.common.results import RESULTS, made_by, write_csv
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.command_line import MOST, MOST_THREADS, whole
from world_models.files import write_text

MODULE = "benchmarks.ecg_drug.planners"
RULE = "dofetilide label rule"
STEPS, GROUP = 24, 30
# A decision every four hours, 48 hours ahead: with fewer steps ahead no planner sees what a drug is worth.
AHEAD: dict[str, Any] = dict(horizon=24, block=2, nothing=0.8, particles=4, candidates=48, replan_every=2)
CONFIGS: dict[str, PlanConfig | RolloutConfig] = {
    "random shooting": ShootingConfig(**AHEAD),
    "CEM": CEMConfig(**AHEAD),
    "CEM, 8 steps ahead": CEMConfig(**{**AHEAD, "horizon": 8, "block": 1, "nothing": 0.7}),
    "CEM over schedules": CEMConfig(**{**AHEAD, "block": 1, "schedule": True, "every": (3, 4, 6, 12)}),
    "iCEM": ICEMConfig(**AHEAD),
    "MPPI": MPPIConfig(**AHEAD),
    "gradient": GradientConfig(**AHEAD),
    "tree search": TreeConfig(**{**AHEAD, "candidates": 32}),
    "inverse dynamics": InverseConfig(**{**AHEAD, "block": 1}),
    "rollout of the rule": RolloutConfig(horizon=24, particles=6, edits=24, replan_every=2, finals=4),
}
NAMES = {"random shooting": "shooting", "tree search": "tree", "rollout of the rule": "rollout"}
NAMES |= {"inverse dynamics": "inverse"}


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="ecg-wm-small", help="the learned world: a name or a folder")
    parser.add_argument("--patients", type=whole(2, MOST), default=120)
    parser.add_argument("--budgets", type=whole(200, MOST), nargs="+", default=[12_000], help="transitions a decision")
    parser.add_argument("--planners", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--seed", type=whole(0, MOST), default=22_000_000, help="of the first judged patient")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/planners"), help="where judged groups are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(argv)


class _Run:
    """Judged patients, and the planners."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, task = args, ECGDrugTask()
        self.oracle = RecordingSimulator(catalog.load("oracle"), task)
        self.learned = Simulator(catalog.load(args.world), task)
        self.key = keys.fold(keys.from_seed(args.seed, args.patients), "judge")
        self.foresight: list[dict[str, Any]] = []

    def planner(self, name: str, budget: int, first: int, owner: bool = False) -> Any:
        """A new one; its luck follows the number of the first patient it is given."""
        kind, config = NAMES.get(name, name.split(",")[0].split(" ")[0].lower()), CONFIGS[name]
        world = Simulator(self.oracle.world, self.oracle.task) if owner else at_their_chances(self.learned)
        if kind == "gradient":
            world = Simulator(world.world, world.task, grad=True, events="expected")
        more: dict[str, Any] = {"budget": Budget(transitions=budget), "seed": first, "episode_hours": 48.0}
        if owner:
            more["state_of"] = lambda: self.oracle.state
        return planner_for(world, kind, config, **more)

    def episodes(self, label: str, settings: Any, make: Callable[[int], Any]) -> EpisodeResults:
        """Of all patients, by groups."""
        kept = KeptRuns(self.args.runs, {"of": settings, "seed": self.args.seed}, self.args.patients, GROUP)

        def judged(rows: slice) -> EpisodeResults:
            agent = make(rows.start)
            self.oracle.begin()
            found = judge(agent, self.oracle, self.key[rows], STEPS)
            if isinstance(agent, Foresight):
                write_text(beside(rows), json.dumps(agent.told()))
            return found

        def beside(rows: slice) -> Path:
            kept.folder.mkdir(parents=True, exist_ok=True)
            return kept.folder / f"{label} {rows.start}.json"

        found = kept.episodes(label, judged)
        told = [json.loads(beside(rows).read_text()) for rows in kept.groups if beside(rows).exists()]
        self.foresight += [{"planner": label, **row} for row in by_depth(told)]
        return found

    def all(self) -> dict[str, EpisodeResults]:
        """The rules, and every planner at every budget."""
        found = {
            RULE: self.episodes(RULE, RULE, lambda _: base_policy(self.oracle)),
            "constant": self.episodes("constant", "constant", lambda _: base_policy(self.oracle, "constant")),
        }
        for budget in self.args.budgets:
            for name in self.args.planners:
                found |= self._planned(name, budget)
            found |= self._planned("CEM", budget, owner=True)
        return found

    def _planned(self, name: str, budget: int, owner: bool = False) -> dict[str, EpisodeResults]:
        label = f"{name}, {budget} transitions" + (", owns the oracle" if owner else "")
        settings = [label, asdict(CONFIGS[name]), str(self.args.world)]

        def make(first: int) -> Foresight:
            return Foresight(self.planner(name, budget, first, owner), self.oracle)

        return {label: self.episodes(label, settings, make)}


def main(argv: list[str] | None = None) -> int:
    """Judge and write. Returns the exit status."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    try:
        run = _Run(args)
        found = run.all()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = paired_table(found, reference=RULE)
    print(format_table(rows))
    made = made_by(MODULE, argv, {"first judged patient": args.seed, "bootstrap": 0}, ["oracle", args.world])
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "planners.csv", rows, made)
    if run.foresight:
        write_csv(args.out / "planners_foresight.csv", run.foresight, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
