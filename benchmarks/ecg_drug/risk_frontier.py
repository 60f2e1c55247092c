"""What caution costs: planners with each risk measure, made in the learned world and judged in the oracle.

    python -m benchmarks.ecg_drug.risk_frontier [--quick] [--members DIR] [--runs DIR] [--out DIR]

All are CEM with the same horizon, candidates and particles on the same patients with the same luck; they differ in the
objective alone: the mean return, a weight on the mean cost, mu - lambda sigma of the return (all of sigma, what is not
known, chance) and mu + lambda sigma of the cost, CVaR of either, a chance constraint on the cost whose multiplier is
found by dual ascent in the learned world, and the worst member of an ensemble. For each: return, cost, and CVaR 5 % of
both (the mean of the worst twentieth of patients), with paired bootstrap intervals against the planner that is
indifferent to risk.

Writes risk_frontier.csv and .png to --out. Judged groups of patients are kept in --runs: a run that was killed goes on.
Members of the ensemble are made in --members (some minutes) where they are not there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.dual_ascent import Ascended, Ascent, ascend
from agents.planning.objective import ChanceConstraint, Objective, ReturnAndCost
from agents.planning.risk import CVaR, MeanMinusSigma, WorstMember
from agents.rollout import EpisodeResults, admission_factors, judge
from benchmarks.common.intervals import columns, percentile_interval, resamples
from benchmarks.common.kept_runs import KeptRuns
from benchmarks.common.results import RESULTS, made_by, write_csv, write_figure
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.bootstrap import Interval
from world_models.ecg_wm.finetune import FineTuning
from world_models.ecg_wm.members import make_members
from world_models.ecg_wm.model import ECGWorldModel

MODULE = "benchmarks.ecg_drug.risk_frontier"
REFERENCE = "mean return"
WORST = 0.05  # share of patients in a tail
CHANCES = 4  # futures of one belief, where the parts of sigma are told apart
GROUP = 50  # patients judged together
# Two days ahead, as the planners' presets for this task, with futures enough for the worst twentieth of them
AHEAD: dict[str, Any] = dict(horizon=24, block=2, nothing=0.8, replan_every=2)
CONFIG = CEMConfig(**AHEAD, candidates=16, particles=20, iterations=2, elites=4, finalists=3)
ASCENT = Ascent(rounds=8, rate=20.0)
ASCENT_SEED = 21_000_000  # of the patients that a multiplier is found on


@dataclass(frozen=True)
class Arm:
    """A planner of the table."""

    name: str
    family: str  # a line of the figure
    parameter: float
    objective: Objective
    options: Mapping[str, Any] = field(default_factory=dict)  # of its simulator
    ensemble: bool = False


def arms() -> list[Arm]:
    """All of the table; the multiplier of the chance constraint is still 0."""
    parted = {"chances": CHANCES}
    rare = {"events": "expected"}  # a mean needs no drawn events
    found = [Arm(REFERENCE, "mean", 0.0, ReturnAndCost(), rare)]
    found += [Arm(f"cost weight {w:g}", "cost weight", w, ReturnAndCost(cost_weight=w), rare) for w in (0.05, 0.2, 1.0)]
    for lam in (0.5, 2.0):
        for part in ("both", "epistemic", "aleatoric"):
            risk, name = MeanMinusSigma(lam, part), f"return, sigma {part}, lambda {lam:g}"
            found.append(Arm(name, f"return, sigma {part}", lam, ReturnAndCost(risk), parted))
    for lam in (1.0, 4.0):
        objective = ReturnAndCost(cost_weight=0.05, cost_risk=MeanMinusSigma(lam))
        found.append(Arm(f"cost weight 0.05, sigma both, lambda {lam:g}", "cost, sigma both", lam, objective))
    for alpha in (0.25, WORST):
        found.append(Arm(f"return, CVaR {alpha:g}", "return, CVaR", alpha, ReturnAndCost(CVaR(alpha))))
    for weight in (0.05, 0.2):
        objective = ReturnAndCost(cost_weight=weight, cost_risk=CVaR(WORST))
        found.append(Arm(f"cost weight {weight:g}, CVaR {WORST:g}", "cost, CVaR", weight, objective))
    for alpha in (0.2, 0.1):
        found.append(Arm(f"P(any harm) <= {alpha:g}", "chance constraint", alpha, ChanceConstraint(0.0, alpha), rare))
    found.append(Arm("ensemble, mean return", "ensemble", 0.0, ReturnAndCost(), rare, ensemble=True))
    found.append(Arm("ensemble, worst member", "ensemble", 1.0, ReturnAndCost(WorstMember()), rare, ensemble=True))
    return found


QUICK = (REFERENCE, "cost weight 0.2", "return, sigma epistemic, lambda 2", f"cost weight 0.2, CVaR {WORST:g}")
QUICK += ("P(any harm) <= 0.1",)


def cvar_return(returns: Tensor) -> Tensor:
    """Mean of the worst twentieth of returns [..., N]."""
    return CVaR(WORST)(returns)


def cvar_cost(costs: Tensor) -> Tensor:
    """Mean of the worst twentieth of costs [..., N]: the highest."""
    return -CVaR(WORST)(-costs)


def rows_of(results: Mapping[str, EpisodeResults]) -> list[dict[str, Any]]:
    """A row an arm: figures, paired differences to the reference, the share of its return kept and of its CVaR cost
    cut, all with 95 % intervals over the same resampled patients."""
    count = len(results[REFERENCE].returns)
    sampled = resamples(count)
    figures: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
        "return": ("returns", lambda x: x.mean(-1)),
        "cost": ("costs", lambda x: x.mean(-1)),
        "return_cvar": ("returns", cvar_return),
        "cost_cvar": ("costs", cvar_cost),
        "any_harm": ("costs", lambda x: (x > 0).to(x.dtype).mean(-1)),
    }
    table = []
    for name, episodes in results.items():
        row: dict[str, Any] = {"arm": name, "patients": count}
        for figure, (of, statistic) in figures.items():
            own, base = (getattr(r, of).to(torch.float64) for r in (episodes, results[REFERENCE]))
            mine, theirs = statistic(own[sampled]), statistic(base[sampled])
            point, other = statistic(own), statistic(base)
            row |= columns(figure, Interval(float(point), *percentile_interval(mine)))
            row |= columns(
                f"{figure}_minus_reference", Interval(float(point - other), *percentile_interval(mine - theirs))
            )
            if figure in ("return", "cost_cvar"):
                share = Interval(float(point / other), *percentile_interval(mine / theirs))
                row |= columns(f"{figure}_share_of_reference", share)
        row["torsades"] = float(episodes.outcomes.totals["torsades"].mean())
        row["mean_steps_with_orders_mg"] = float(episodes.given.sum(-1).mean())
        table.append(row)
    return table


class Frontier:
    """The judged patients, the worlds, and what is kept of earlier runs."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        task = ECGDrugTask()
        self.oracle = Simulator(catalog.load("oracle"), task)
        self.learned = catalog.load(args.world)
        self.steps = round(task.horizon_hours / self.oracle.world.hours_per_step)
        self.key = keys.fold(keys.from_seed(args.seed, args.patients), "judge")  # apart from all training
        seal = getattr(self.learned, "weights_sha256", None)
        self.settings = {"world": self.learned.name, "seal": seal, "config": asdict(CONFIG), "seed": args.seed}

    def world(self, arm: Arm) -> Any:
        """The world that an arm plans in."""
        if not arm.ensemble:
            return self.learned
        if not isinstance(self.learned, ECGWorldModel):
            raise ValueError(f"world {self.learned.name!r} is no ECG world, of which an ensemble can be made")
        how = FineTuning()
        folders = make_members(self.learned, Path(self.args.members), self.args.ensemble, self.args.resampled, how)
        return catalog.load("ensemble:" + ",".join(map(str, folders)))

    def planner(self, arm: Arm, objective: Objective, seed: int) -> WorldPlanner:
        """Plans in the arm's world by this objective."""
        simulator = Simulator(self.world(arm), self.oracle.task, **arm.options)
        more: dict[str, Any] = {"seed": seed, "name": arm.name, "episode_hours": self.oracle.task.horizon_hours}
        return WorldPlanner(simulator, CONFIG, objective=objective, **more)

    def multiplier(self, arm: Arm, constraint: ChanceConstraint) -> Ascended:
        """The constraint with the multiplier that keeps it in the learned world, on patients of their own."""
        simulator = Simulator(self.learned, self.oracle.task)
        count = self.args.ascent_patients

        def costs(tried: ChanceConstraint, i: int) -> Tensor:
            key = keys.fold(keys.from_seed(ASCENT_SEED + i * count, count), "judge")
            factors = admission_factors(self.oracle.reset(key)[1], self.oracle.world, self.learned)

            def judged(rows: slice) -> EpisodeResults:
                planner = self.planner(arm, tried, ASCENT_SEED + i)
                return judge(planner, simulator, key, self.steps, factors)

            told = {"ascent": i, "objective": str(tried), "options": dict(arm.options)}
            kept = KeptRuns(Path(self.args.runs), {**self.settings, **told}, count, count)
            return kept.episodes(f"{arm.name}, round {i}", judged).costs

        with tqdm(total=ASCENT.rounds, desc=f"{arm.name}: dual ascent", leave=False) as bar:
            return ascend(constraint, costs, ASCENT, lambda *_: bar.update())

    def episodes(self, arm: Arm, objective: Objective) -> EpisodeResults:
        """In the oracle, of all patients."""
        told = {"arm": arm.name, "objective": str(objective), "options": dict(arm.options)}
        if arm.ensemble:
            told["members"] = self.world(arm).weights_sha256
        kept = KeptRuns(Path(self.args.runs), {**self.settings, **told}, self.args.patients, GROUP)

        def judged(rows: slice) -> EpisodeResults:
            planner = self.planner(arm, objective, self.args.seed + rows.start)
            return judge(planner, self.oracle, self.key[rows], self.steps)

        return kept.episodes(arm.name, judged)


def plot(path: Path, rows: Sequence[Mapping[str, Any]], made: Mapping[str, Any]) -> None:
    """Return against CVaR 5 % of the cost and of the return, a colour a family."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    families = list(dict.fromkeys(str(row["family"]) for row in rows))
    colours = plt.get_cmap("tab20")
    titles = {"cost_cvar": "safety cost of the worst 5 %", "return_cvar": "return of the worst 5 %"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for i, family in enumerate(families):
            line = [r for r in rows if r["family"] == family]
            x, y = [float(r[name]) for r in line], [float(r["return"]) for r in line]
            spans = {}
            for side, value in (("xerr", name), ("yerr", "return")):
                ends = [(float(r[value]), float(r[f"{value}_low"]), float(r[f"{value}_high"])) for r in line]
                spans[side] = [[max(v - a, 0.0) for v, a, _ in ends], [max(b - v, 0.0) for v, _, b in ends]]
            axis.errorbar(x, y, **spans, marker="o", color=colours(i), label=family, linewidth=0.8, alpha=0.9)
        axis.set(xlabel=title, ylabel="return")
    axes[0].legend(frameon=False, fontsize=7)
    figure.suptitle(f"CEM in the learned world judged in the oracle, {rows[0]['patients']} patients, 95 % intervals")
    write_figure(path, figure, made)
    plt.close(figure)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few arms and patients: to see that it runs")
    parser.add_argument("--world", default="ecg-wm-small", help="the learned world")
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--only", nargs="*", help="names of arms; the reference is always judged")
    parser.add_argument("--ensemble", type=int, default=4, help="members of the ensemble")
    parser.add_argument("--resampled", type=int, default=256, help="patients that the members are resampled from")
    parser.add_argument("--ascent-patients", type=int, default=100, help="of each round of a dual ascent")
    parser.add_argument("--members", default="runs/members", help="folder of the ensemble's members")
    parser.add_argument("--runs", default="runs/risk_frontier", help="where judged patients are kept")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--seed", type=int, default=20_000_000, help="of the first judged patient")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args(argv)
    if args.quick:
        args.patients, args.ascent_patients = min(args.patients, 24), min(args.ascent_patients, 10)
    known = [arm.name for arm in arms()]
    unknown = sorted(set(args.only or ()) - set(known))
    if unknown or args.patients < 1:
        parser.error(
            f"no arm {', '.join(unknown)}; there are: {'; '.join(known)}" if unknown else "--patients: 1 or more"
        )
    return args


def main(argv: list[str] | None = None) -> int:
    """Judge every arm and write. Returns the exit status."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    run = Frontier(args)
    wanted = set(args.only or (QUICK if args.quick else [arm.name for arm in arms()])) | {REFERENCE}
    chosen = [arm for arm in arms() if arm.name in wanted]
    results, told = {}, {}
    for arm in chosen:
        start, objective = time.perf_counter(), arm.objective
        extra: dict[str, Any] = {"family": arm.family, "parameter": arm.parameter}
        if isinstance(objective, ChanceConstraint):
            found = run.multiplier(arm, objective)
            objective = found.constraint
            extra |= {"multiplier": found.constraint.multiplier, "share_in_learned": found.shares[-1]}
        results[arm.name] = run.episodes(arm, objective)
        told[arm.name] = {**extra, "seconds": time.perf_counter() - start}
    rows = [{**row, **told[row["arm"]]} for row in rows_of(results)]
    for row in rows:
        print(
            f"{row['arm']:42s} return {row['return']:6.3f} ({row['return_share_of_reference']:4.0%} of the reference's)"
            f"  CVaR cost {row['cost_cvar']:6.2f} ({row['cost_cvar_share_of_reference']:4.0%})"
            f"  CVaR return {row['return_cvar']:6.2f}  any harm {row['any_harm']:.3f}  torsades {row['torsades']:.3f}"
        )
    seeds = {"first judged patient": args.seed, "dual ascent": ASCENT_SEED, "bootstrap": 0}
    made = made_by(MODULE, argv, seeds, ["oracle", args.world])
    out = Path(args.out)
    write_csv(out / "risk_frontier.csv", rows, made)
    plot(out / "risk_frontier.png", rows, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
