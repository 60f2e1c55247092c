"""Care teams judged in the ward's oracle: `python -m benchmarks.ward.team`; `--quick` in under three minutes.

Over the same patients with the same random keys, all with an interval:

- at standard amounts (`CareTeam-v0`): the clinician's rule as one decider, split over the three roles, and with each
  role silent in turn; three policies that learn by themselves on the team's reward in the learned ward
  (`agents.team.ppo`), trained to their plateau on validation patients (`benchmarks.ward.team_training`), and the noise
  they begin with, untrained; the joint planner that edits the split rule by what the learned ward foretells
  (`agents.team.joint_planner`);
- at the rule's own amounts (`CareTeamDose-v0`): the rule as one decider, and split.

Deaths are taken at their chances (`agents.expected`): drawn, a few that luck decides are most of the spread.

Beside what each earned in the oracle stands what it earned in the learned ward on that ward's own patients, and the
`exploitation` gap: the gain on the split rule promised minus the gain earned.

Writes team.csv, team.json and, of the trainings, team_training.csv to --out. Trained teams and what each decider
earned are kept in --runs, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from agents.baselines.ward_rule import Clinician, StandardClinician
from agents.expected import judge_expected
from agents.protocol import Agent
from agents.team.joint_planner import JointPlanner, JointPlanning
from agents.team.learned import learned_team, untrained_team
from agents.team.ppo import TeamPPO
from agents.team.split_rule import split_rule
from benchmarks.common.intervals import put_mean
from benchmarks.common.results import RESULTS, made_by, write_csv, write_json
from benchmarks.ward.team_training import VALIDATION_SEED, Judges, Trained, trained_teams, training_text
from clinenv.envs.care_team.rights import ROLES
from clinenv.envs.care_team.task import CareTeamTask
from clinenv.simulator import Simulator
from world_models import catalog, checkpoint, keys
from world_models.ehr_world.ward_rollouts import TEST_SEED
from world_models.files import write_text

MODULE = "benchmarks.ward.team"
SPLIT = split_rule().name  # what the others are compared with


class Earned(NamedTuple):
    """What one decider earned in one world, [N] each; of deaths, discharges and hours the expected ones."""

    returns: Tensor
    costs: Tensor
    died: Tensor
    discharged: Tensor
    hours: Tensor


def earned(
    agent: Agent, simulator: Simulator, key: Tensor, steps: int, kept: Path | None = None, label: str = ""
) -> Earned:
    """What `agent` earns on the patients of `key`, deaths at their chances; read from the file `kept` where it was
    found before."""
    if kept is not None and kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))
        return Earned(**{name: torch.tensor(values) for name, values in found.items()})
    with tqdm(total=steps, desc=label, leave=False) as bar:

        def said(done: int) -> None:
            bar.update(done - bar.n)

        got = judge_expected(agent, simulator, key, steps, progress=said)
    became = got.outcomes.totals
    result = Earned(got.returns, got.costs, became["died"], became["discharged"], became["hours"])
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps({name: values.tolist() for name, values in result._asdict().items()}) + "\n")
    return result


def table(truth: Mapping[str, Earned], promised: Mapping[str, Earned], reference: str = SPLIT) -> list[dict[str, Any]]:
    """One row a decider: `truth` in the oracle, `promised` in the learned ward, each paired within itself."""
    rows = []
    for name, got in truth.items():
        hoped = promised[name]
        row: dict[str, Any] = {"decider": name, "patients": len(got.returns)}
        put_mean(row, "return", got.returns)
        put_mean(row, "return_minus_split", got.returns - truth[reference].returns)
        put_mean(row, "mortality", got.died)
        row |= {"discharged": float(got.discharged.mean()), "hours_of_stay": float(got.hours.mean())}
        put_mean(row, "harm_cost", got.costs)
        put_mean(row, "learned_return", hoped.returns)
        put_mean(row, "learned_minus_split", hoped.returns - promised[reference].returns)
        row["exploitation"] = row["learned_minus_split"] - row["return_minus_split"]
        rows.append(row)
    return rows


def text_table(rows: list[dict[str, Any]]) -> str:
    """The rows as fixed-width text."""

    def cell(row: Mapping[str, Any], name: str) -> str:
        return f"{row[name]:.2f} [{row[name + '_low']:.2f}, {row[name + '_high']:.2f}]"

    lines = [f"{'decider':48s} {'return':22s} {'minus split rule':22s} {'died %':>6s} {'home %':>6s} {'learned':>8s}"]
    for r in rows:
        lines.append(
            f"{r['decider']:48s} {cell(r, 'return'):22s} {cell(r, 'return_minus_split'):22s} "
            f"{100 * r['mortality']:6.1f} {100 * r['discharged']:6.1f} {r['learned_return']:8.2f}"
        )
    return "\n".join(lines)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="ehr-ward-small", help="the learned ward: a shipped name or a folder")
    parser.add_argument("--patients", type=int, default=48, help="judged, in pairs")
    parser.add_argument("--max-steps", type=int, default=84, help="of a stay, four hours each")
    parser.add_argument("--iterations", type=int, nargs="+", default=[40, 160, 400], help="of PPO; 0 leaves it out")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-4], help="PPO's learning rates")
    parser.add_argument("--validation", type=int, default=128, help="patients that PPO's setting is chosen by")
    parser.add_argument("--num-envs", type=int, default=128, help="of PPO")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of PPO")
    planning = JointPlanning()
    parser.add_argument("--horizon", type=int, default=planning.horizon, help="of the planner; 0 leaves it out")
    parser.add_argument("--particles", type=int, default=planning.particles)
    parser.add_argument("--edits", type=int, default=planning.edits, help="tried of each role at a decision")
    parser.add_argument("--caution", type=float, default=planning.caution, help="standard errors an edit must gain")
    parser.add_argument("--quick", action="store_true", help="few patients, short stays, little training")
    parser.add_argument("--seed", type=int, default=TEST_SEED, help="of the first judged patient")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", default="runs/team", help="where trained teams and what was earned are kept")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args(argv)
    if args.quick:
        small = {"patients": 16, "max_steps": 18, "iterations": [4], "rates": [1e-3], "validation": 16}
        small |= {"num_envs": 128, "seeds": 1, "horizon": 6, "particles": 4, "edits": 3}
        for name, value in small.items():
            if getattr(args, name) == parser.get_default(name):
                setattr(args, name, value)
    least = {"patients": 2, "max_steps": 1, "validation": 2, "num_envs": 1, "seeds": 1, "horizon": 0, "threads": 1}
    if min(args.iterations) < 0 or (0 in args.iterations and len(args.iterations) > 1):
        parser.error(f"--iterations {args.iterations}: give 0 alone to leave PPO out, else 1 or more each")
    if min(args.rates) <= 0:
        parser.error(f"--rates {args.rates}: each must be above 0")
    for name, value in least.items():
        if getattr(args, name) < value:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)} is below {value}; give at least that")
    return args


class Decider(NamedTuple):
    """What makes a decider for the world it is judged in, and the file that keeps what it earned there."""

    make: Callable[[Simulator], Agent]
    kept: str


def _the_same(agent: Agent, _: Simulator) -> Agent:
    return agent


def deciders(planner: JointPlanner | None, trained: Trained | None) -> dict[str, Decider]:
    """Every row of the table by its name, in its order."""
    made: dict[str, Decider] = {}

    def add(name: str, make: Callable[[Simulator], Agent], kept: str = "") -> None:
        made[name] = Decider(make, kept or re.sub(r"[^a-z0-9]+", "_", name.lower()))

    add("rule at standard amounts", lambda _: StandardClinician())
    for team in (split_rule(), *(split_rule(without=role) for role in ROLES)):
        add(team.name, partial(_the_same, team))
    if trained is not None:
        add("split rule with PPO's first noise, untrained", lambda where: untrained_team(where, TeamPPO().confidence))
        seed, acts = (None, "mode") if trained.modal else (0, "sampled")
        for number, folder in enumerate(trained.folders):
            make = partial(learned_team, folder, seed=seed)
            add(f"independent PPO, seed {number}", make, f"{folder.name}-{acts}")
    if planner is not None:
        settings = "-".join(f"{value:g}" for value in dataclasses.astuple(planner.config))
        add(planner.name, partial(_the_same, planner), f"planner-{settings}")
    add("rule, its own amounts", lambda _: Clinician())
    add("split rule, its own amounts", lambda _: split_rule(standard=False))
    return made


def main(argv: list[str] | None = None) -> int:
    """Make the teams, judge them and write. Returns the exit status.

    Raises:
        SystemExit: a world that cannot be used, or a number that is none; nothing is written then.
    """
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    try:
        oracle, learned = (Simulator(catalog.load(w), CareTeamTask()) for w in ("ward-oracle", args.world))
        planning = JointPlanning(args.horizon, args.particles, args.edits, args.caution) if args.horizon else None
        planner = None if planning is None else JointPlanner(learned, split_rule(), planning)
    except (ValueError, KeyError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    known = args.world in catalog.WORLDS
    seal = checkpoint.sha256(catalog.weights_folder(args.world) if known else args.world)
    runs = Path(args.runs) / f"{Path(args.world).name}-{seal[:8]}"
    trained = None
    if args.iterations != [0]:
        judges, config = Judges(learned, args.validation, args.max_steps), TeamPPO(num_envs=args.num_envs)
        trained = trained_teams(judges, config, runs, args.rates, args.iterations, range(args.seeds))
        print(training_text(trained.rows))
    made = deciders(planner, trained)
    key = keys.from_seed(args.seed, args.patients)
    setting = f"{args.patients}-{args.max_steps}-{args.seed}"
    truth: dict[str, Earned] = {}
    promised: dict[str, Earned] = {}
    seconds: dict[str, float] = {}
    for name, decider in made.items():
        for simulator, store in ((oracle, truth), (learned, promised)):
            world, start = simulator.world.name, time.process_time()
            kept = runs / f"expected-{setting}" / world / f"{decider.kept}.json"
            store[name] = earned(decider.make(simulator), simulator, key, args.max_steps, kept, f"{name}: {world}")
            seconds[f"{name}: {world}"] = time.process_time() - start
    rows = table(truth, promised)
    print(text_table(rows))
    seeds = {"first judged patient": args.seed, "first validation patient": VALIDATION_SEED}
    seeds |= {"trainings": list(range(args.seeds)), "planner": 0, "bootstrap": 0}
    about = made_by(MODULE, argv, seeds, ["ward-oracle", args.world])
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "runs")} | {"world": Path(args.world).name}
    write_csv(Path(args.out) / "team.csv", rows, about)
    if trained is not None:
        write_csv(Path(args.out) / "team_training.csv", trained.rows, about)
    write_json(Path(args.out) / "team.json", {"arguments": settings, "cpu_seconds": seconds, "rows": rows}, about)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
