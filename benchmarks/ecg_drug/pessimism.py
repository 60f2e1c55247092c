"""How much a plan promises too much, and what pessimism makes of it.

    python -m benchmarks.ecg_drug.pessimism [--quick] [--worlds DIR] [--out DIR]

A search finds what a world gets wrong to its favour. For each patient a plan of the whole stay, doses of four drugs
every two hours, is led uphill by gradients through the learned world, and what the world promises of it is compared
with what it earns in the oracle: the exploitation gap. Both take torsades at their chances, so the gap is the world's
error and not luck. Searched are the shipped world, and worlds that know too little (`narrow_worlds`: a few hundred
patients, two of the four drugs never given), alone and as an ensemble:

- doubt as a penalty (MOPO), of one world's own spread or of an ensemble's disagreement;
- mean minus lambda epistemic sigma, and the worst member, over the particles of an ensemble;
- an end where nothing is known (MOReL), which no gradient sees: searched by sampling (CEM), beside a search of that
  kind without it;
- the world fitted further to a trial: so many patients meet the plans of the unpenalised search, and what was charted
  of them joins the courses that it learned from. What the trial's patients went through is told.

Writes pessimism.csv to --out. Plans are kept in --runs; a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.planning.objective import Objective, ReturnAndCost
from agents.planning.risk import MeanMinusSigma, WorstMember
from agents.rollout import admission_factors
from benchmarks.common.intervals import columns, percentile_interval, resamples
from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.adversary import CEMSearch, GradientSearch, Search
from benchmarks.ecg_drug.narrow_worlds import narrow_pools, narrow_worlds
from clinenv.envs.ecg_drug.task import SINGLE_DOSE_MG, ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.bootstrap import Interval
from world_models.ecg_wm.finetune import FineTuning, fine_tuned
from world_models.ecg_wm.logged import logged_courses
from world_models.tensor_file import read_tensors, save_tensors

MODULE = "benchmarks.ecg_drug.pessimism"
JUDGED = 64  # futures of each plan, in either world
TRIAL_SEED = 22_000_000
REFIT = FineTuning(steps=60, event_steps=30, batch=96, learning_rate=2e-3)


@dataclass(frozen=True)
class Arm:
    """A search in a world."""

    name: str
    world: str  # "shipped", "narrow", "narrow ensemble", "narrow refitted"
    search: Search = field(default_factory=GradientSearch)
    objective: Objective = field(default_factory=ReturnAndCost)
    options: Mapping[str, Any] = field(default_factory=dict)


def arms() -> list[Arm]:
    """All of the table; the first of each world and search is the one without pessimism."""
    found = []
    for world, weights in (("shipped", (0.5,)), ("narrow", (0.25, 0.5, 1.0)), ("narrow ensemble", (1.0, 4.0))):
        found.append(Arm(f"{world}, none", world))
        found += [Arm(f"{world}, MOPO {w:g}", world, options={"pessimism": {"weight": w}}) for w in weights]
    for lam in (1.0, 2.0):
        risk, options = ReturnAndCost(MeanMinusSigma(lam, "epistemic")), {"chances": 2}
        name = f"narrow ensemble, epistemic sigma {lam:g}"
        found.append(Arm(name, "narrow ensemble", GradientSearch(particles=16), risk, options))
    worst = ReturnAndCost(WorstMember())
    found.append(Arm("narrow ensemble, worst member", "narrow ensemble", GradientSearch(particles=16), worst))
    found.append(Arm("narrow, none, by sampling", "narrow", CEMSearch()))
    for weight in (2.0, 10.0):
        options = {"pessimism": {"kind": "morel", "weight": weight}}
        found.append(Arm(f"narrow, MOReL {weight:g}, by sampling", "narrow", CEMSearch(), options=options))
    found.append(Arm("narrow refitted, none", "narrow refitted"))
    return found


QUICK = ("narrow, none", "narrow, MOPO 0.5")


class Comparison:
    """Patients, worlds and plans that are kept."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.task = args, ECGDrugTask()
        self.oracle = Simulator(catalog.load("oracle"), self.task, events="expected")
        self.key = keys.fold(keys.from_seed(args.seed, args.patients), "judge")
        self.high = torch.tensor([SINGLE_DOSE_MG[q.name] for q in self.oracle.world.orders])
        folder = Path(args.worlds)
        needed = args.members if any("ensemble" in arm.world for arm in args.arms) else 1
        narrow = any(arm.world != "shipped" for arm in args.arms)
        self.folders = narrow_worlds(folder, needed, args.learned_from, args.training) if narrow else []
        self.trial: dict[str, Any] = {}
        self._worlds: dict[str, Any] = {}

    def world(self, name: str) -> Any:
        """The world of an arm, made once."""
        if name not in self._worlds:
            make = {
                "shipped": lambda: catalog.load("ecg-wm-small"),
                "narrow": lambda: catalog.load(self.folders[0]),
                "narrow ensemble": lambda: catalog.load("ensemble:" + ",".join(map(str, self.folders))),
                "narrow refitted": self._refitted,
            }
            self._worlds[name] = make[name]()
        return self._worlds[name]

    def plans(self, arm: Arm, key: Tensor, label: str) -> Tensor:
        """Orders [B, 24, 4] of each patient, kept under `label`."""
        world = self.world(arm.world)
        told = {"arm": str(arm), "world": world.weights_sha256 or arm.world, "seed": self.args.seed, "of": label}
        told |= {"patients": len(key), "learned_from": self.args.learned_from, "trial": self.args.trial_patients}
        path = Path(self.args.runs) / f"{label}-{arm.name.replace(', ', '-').replace(' ', '_')}.safetensors"
        if path.exists():
            kept, said = read_tensors(path)
            if said.get("told") == json.dumps(told):
                return kept["orders"]
        graded = arm.search.by_gradient
        simulator = Simulator(world, self.task, grad=graded, events="expected", **arm.options)
        factors = admission_factors(self.oracle.reset(key)[1], self.oracle.world, world)
        start = simulator.reset(keys.fold(key, "belief"), factors)
        orders = arm.search(simulator, start, arm.objective, self.high, keys.fold(key, "search"), arm.name)
        save_tensors(path, {"orders": orders}, {"told": json.dumps(told)})
        return orders

    def row(self, arm: Arm, baselines: Mapping[str, Tensor]) -> tuple[dict[str, Any], Tensor]:
        """The row of an arm, and what each patient earned [B]; `baselines`: earned without pessimism, by world and
        search."""
        start = time.perf_counter()
        orders = self.plans(arm, self.key, "judged")
        seconds = time.perf_counter() - start
        world = self.world(arm.world)
        plain = Simulator(world, self.task, events="expected")
        told = self.oracle.reset(self.key)
        factors = admission_factors(told[1], self.oracle.world, world)
        believed = plain.reset(keys.fold(self.key, "belief"), factors)
        plans = orders.unsqueeze(1)
        promised = plain.imagine(*believed, plans, JUDGED, keys.fold(self.key, "promised"))
        earned = self.oracle.imagine(*told, plans, JUDGED, keys.fold(self.key, "earned"))
        of = {
            "promised": promised.returns.mean(-1)[:, 0].double(),
            "earned": earned.returns.mean(-1)[:, 0].double(),
            "promised_cost": promised.costs.mean(-1)[:, 0].double(),
            "earned_cost": earned.costs.mean(-1)[:, 0].double(),
            "torsades": earned.terminated.mean(-1)[:, 0].double(),
        }
        of["gap"] = of["promised"] - of["earned"]
        base = baselines.get(_baseline(arm), of["earned"])
        of["earned_minus_none"] = of["earned"] - base
        sampled = resamples(len(orders))
        row: dict[str, Any] = {"arm": arm.name, "world": arm.world, "patients": len(orders)}
        for name, values in of.items():
            row |= columns(name, Interval(float(values.mean()), *percentile_interval(values[sampled].mean(-1))))
        gap, mine = of["gap"][sampled].mean(-1), of["earned"][sampled].mean(-1).abs()
        share = float(of["gap"].mean() / of["earned"].mean().abs())
        row |= columns("gap_share_of_return", Interval(share, *percentile_interval(gap / mine)))
        row |= {f"mean_{q.name}": float(orders[..., i].sum(1).mean()) for i, q in enumerate(self.oracle.world.orders)}
        row |= {"seconds": seconds, **(self.trial if arm.world == "narrow refitted" else {})}
        return row, of["earned"]

    def _refitted(self) -> Any:
        """The narrow world fitted further to what a trial of its own plans showed."""
        world, count = self.world("narrow"), self.args.trial_patients
        key = keys.fold(keys.from_seed(TRIAL_SEED, count), "judge")
        orders = self.plans(Arm("narrow, none", "narrow"), key, "trial")
        real = Simulator(self.oracle.world, self.task)
        course = real.rollout(*real.reset(key), orders)
        self.trial = {
            "trial_patients": count,
            "trial_return": float(course.rewards.sum(1).mean()),
            "trial_cost": float(course.costs.sum(1).mean()),
            "trial_torsades": float(course.charts["torsades"][:, -1].mean()),
        }
        logged = logged_courses(world, course.charts, orders, world.hours_per_step, keys.fold(key, "logged"))
        pools = [*narrow_pools(self.args.learned_from), logged]
        return fine_tuned(world, pools, REFIT, Path(self.args.worlds) / f"refit-{count}", 0)


def _baseline(arm: Arm) -> str:
    return f"{'narrow' if 'refitted' in arm.world else arm.world} {type(arm.search).__name__}"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two arms, a few patients: to see that it runs")
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="names of arms")
    parser.add_argument("--members", type=int, default=4, help="of the narrow ensemble")
    parser.add_argument("--learned-from", type=int, default=256, help="patients that the narrow worlds learn from")
    parser.add_argument("--training", type=int, default=240, help="training steps of a narrow world")
    parser.add_argument(
        "--trial-patients", type=int, default=32, help="that meet the plans before the world is refitted"
    )
    parser.add_argument("--worlds", default="runs/narrow", help="folder of the narrow worlds")
    parser.add_argument("--runs", default="runs/pessimism", help="where plans are kept")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--seed", type=int, default=20_000_000, help="of the first judged patient")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args(argv)
    if args.quick:
        args.patients = min(args.patients, 16)
    wanted = args.only or (QUICK if args.quick else [arm.name for arm in arms()])
    unknown = sorted(set(wanted) - {arm.name for arm in arms()})
    if unknown:
        parser.error(f"no arm {', '.join(unknown)}; there are: {'; '.join(arm.name for arm in arms())}")
    if min(args.patients, args.members - 1, args.trial_patients, args.training) < 1:
        parser.error("--patients, --trial-patients and --training must be at least 1, --members at least 2")
    args.arms = [arm for arm in arms() if arm.name in wanted]
    return args


def main(argv: list[str] | None = None) -> int:
    """Search, judge and write. Returns the exit status."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    run = Comparison(args)
    rows, baselines = [], {}
    for arm in args.arms:
        row, earned = run.row(arm, baselines)
        if "none" in arm.name and "refitted" not in arm.world:
            baselines[_baseline(arm)] = earned
        rows.append(row)
        print(
            f"{row['arm']:38s} promised {row['promised']:6.3f}  earned {row['earned']:6.3f}  gap {row['gap']:+.3f} "
            f"[{row['gap_low']:+.3f}, {row['gap_high']:+.3f}] ({row['gap_share_of_return']:+.1%})  earned more than "
            f"without {row['earned_minus_none']:+.3f} [{row['earned_minus_none_low']:+.3f}, "
            f"{row['earned_minus_none_high']:+.3f}]",
            flush=True,
        )
    seeds = {"first judged patient": args.seed, "trial": TRIAL_SEED, "bootstrap": 0}
    made = made_by(MODULE, argv, seeds, ["oracle", "ecg-wm-small", *run.folders])
    write_csv(Path(args.out) / "pessimism.csv", rows, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
