"""Deciders made in the learned world, judged in the oracle: `python -m benchmarks.ecg_drug.policies`.

Over the same patients with the same random keys: no treatment, random, half the label's dose of dofetilide given to
everyone without looking at anything, the dofetilide label's rule, PPO trained in the learned world (several seeds),
CEM planning in the learned world, and PPO trained in the oracle itself as the upper reference. Beside what each earned
in the oracle stands what the learned world promised for the same patients: the difference is the exploitation gap.
Then CEM's risk aversion lambda is swept, on the safety cost (mu + lambda sigma of it is charged) and on the return (mu
- lambda sigma of it is sought): return, safety cost and CVaR 5 %.

Writes policies.csv, policies.json, policies_lambda.csv and policies_lambda.png to --out; trained policies go to --runs
and are used again by the next run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from agents.baselines.constant import FixedRegimen, no_treatment
from agents.baselines.ecg_rules import HALF_MG, HOURS_BETWEEN_DOSES, DofetilideLabelRule, menu_row
from agents.baselines.uniform import Uniform
from agents.planning.controller import PLANNER_PRESETS, WorldPlanner
from agents.planning.risk import MeanMinusSigma
from agents.policy_agent import PolicyAgent
from agents.protocol import Agent, menu_of
from agents.rollout import EpisodeResults, admission_factors, format_table, judge, mean_results, paired_table
from agents.run_folder import weights_sum
from agents.sb3.presets import PRESETS
from agents.sb3.train import train
from benchmarks.common.paired import with_promise
from benchmarks.common.results import RESULTS, made_by, write_csv, write_figure, write_json
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys, tree

MODULE = "benchmarks.ecg_drug.policies"
REFERENCE = "dofetilide label rule"
BLIND = "dofetilide 0.25 mg every 12 h, without looking"
LAMBDAS = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)


def plot_sweep(path: Path, rows: Sequence[Mapping[str, Any]], rule: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Return, safety cost and CVaR 5 % against lambda, one line each for lambda on cost and on return."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True)
    titles = {"return": "return", "cost": "safety cost", "return_cvar": "mean return of the worst 5 %"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for of, colour, aside in (("cost", "#1f4e79", -0.04), ("return", "#7a9e3a", 0.04)):
            line = [r for r in rows if r["lambda_on"] == of]
            middle = [float(r[name]) for r in line]
            below = [float(r[name]) - float(r[f"{name}_low"]) for r in line]
            above = [float(r[f"{name}_high"]) - float(r[name]) for r in line]
            lam = [float(r["lambda"]) + aside for r in line]
            axis.errorbar(lam, middle, [below, above], marker="o", capsize=3, color=colour, label=f"lambda on {of}")
        axis.axhline(float(rule[name]), color="#b04a2f", linestyle="--", label="label rule")
        axis.set(title=title, xlabel="lambda")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"CEM in the learned world judged in the oracle, {rows[0]['patients']} patients, 95 % intervals")
    write_figure(path, figure, made, dpi=130)
    plt.close(figure)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="ecg-wm-small", help="the learned world")
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--steps", type=int, default=750_000, help="patient-steps of each PPO training")
    parser.add_argument("--seeds", type=int, default=3, help="PPO trainings in the learned world")
    parser.add_argument("--cost-weight", type=float, help="of PPO and CEM (default: PPO preset's)")
    presets = list(PLANNER_PRESETS)
    parser.add_argument("--planner", choices=presets, default="small", help="planner preset")
    parser.add_argument("--sweep-patients", type=int, default=250)
    parser.add_argument("--sweep-planner", choices=presets, default="fast", help="the same, of the lambda sweep")
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--sweep-only", action="store_true", help="leave policies.csv as it is")
    threads = "torch threads; several that share their cores with other work are slower than one"
    parser.add_argument("--threads", type=int, default=1, help=threads)
    parser.add_argument("--seed", type=int, default=20_000_000, help="of the first judged patient")
    parser.add_argument("--runs", default="runs/policies", help="where trained policies are kept")
    parser.add_argument("--out", default=str(RESULTS))
    return parser.parse_args(argv)


class _Judge:
    """The judged patients, in the oracle and in the learned world, and the deciders."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        preset = PRESETS["ppo"]
        self.preset = preset if args.cost_weight is None else preset.but(cost_weight=args.cost_weight)
        task = ECGDrugTask()
        self.oracle = Simulator(catalog.load("oracle"), task)
        self.learned = Simulator(catalog.load(args.world), task)
        self.name = self.learned.world.name
        self.horizon = round(task.horizon_hours / self.oracle.world.hours_per_step)
        # "judge" keeps these patients apart from all that training, which starts from plain seeds, can meet.
        self.key = keys.fold(keys.from_seed(args.seed, args.patients), "judge")
        self.factors = admission_factors(self.oracle.reset(self.key)[1], self.oracle.world, self.learned.world)
        self.drugs = [q.name for q in self.oracle.world.orders]
        self.seconds: dict[str, float] = {}

    def rules(self) -> dict[str, Agent]:
        """Deciders that learn nothing."""
        menu = menu_of(self.oracle)
        return {
            "no treatment": no_treatment(),
            "random": Uniform(menu.shape[0], seed=self.args.seed),
            BLIND: FixedRegimen(menu_row(menu, self.drugs, dofetilide_mg=HALF_MG), HOURS_BETWEEN_DOSES, BLIND),
            REFERENCE: DofetilideLabelRule(menu, self.drugs),
        }

    def trained(self) -> dict[str, Agent]:
        """PPO in the learned world, a decider a seed, and in the oracle; what --runs holds is used again."""
        args, found = self.args, {}
        for world in (args.world, "oracle"):
            for seed in range(args.seeds if world == args.world else 1):
                start = time.perf_counter()
                made = (weights_sum(world) or "")[:8]
                folder = (
                    Path(args.runs) / f"ppo-{Path(world).name}{made}-{self.preset.cost_weight:g}-{args.steps}-{seed}"
                )
                train(folder, args.steps, world=world, preset=self.preset, seed=seed)
                own = f"PPO in {self.name}, seed {seed}"
                name = own if world == args.world else "PPO in the oracle (upper reference)"
                found[name] = PolicyAgent(folder, self.oracle, name)
                self.seconds[name] = time.perf_counter() - start
        return found

    def planner(self, config: Any, **risk: MeanMinusSigma) -> WorldPlanner:
        """CEM in the learned world."""
        weight = self.preset.cost_weight
        return WorldPlanner(self.learned, config, cost_weight=weight, seed=self.args.seed, **risk)

    def run(self, agent: Agent, simulator: Simulator, count: int, label: str) -> EpisodeResults:
        """Courses of the first `count` patients."""
        with tqdm(total=self.horizon, desc=label, leave=False) as bar:
            # The oracle makes its patients from the keys; the learned world is told what their admission charts show.
            fixed = {k: v[:count] for k, v in self.factors.items()} if simulator is self.learned else None
            return judge(agent, simulator, self.key[:count], self.horizon, fixed, progress=lambda _: bar.update())

    def both(self, agents: Mapping[str, Agent]) -> tuple[dict[str, EpisodeResults], dict[str, EpisodeResults]]:
        """What each earned in the oracle and what the learned world promised; seeds of one recipe also as their
        mean."""
        earned: dict[str, EpisodeResults] = {}
        promised: dict[str, EpisodeResults] = {}
        for name, agent in agents.items():
            start = time.perf_counter()
            earned[name] = self.run(agent, self.oracle, self.args.patients, f"{name}: oracle")
            self.seconds[f"{name}, judged"] = time.perf_counter() - start
            promised[name] = self.run(agent, self.learned, self.args.patients, f"{name}: {self.name}")
        ours = [n for n in agents if n.startswith(f"PPO in {self.name}")]
        if len(ours) > 1:
            name = f"PPO in {self.name}, mean of {len(ours)} seeds"
            earned[name], promised[name] = (mean_results([x[n] for n in ours]) for x in (earned, promised))
        return earned, promised

    def rows(
        self, earned: Mapping[str, EpisodeResults], promised: Mapping[str, EpisodeResults]
    ) -> list[dict[str, Any]]:
        """Rows of policies.csv."""
        rows = paired_table(earned, reference=REFERENCE)
        with_promise(rows, earned, promised)
        for row in rows:
            episodes = earned[str(row["agent"])]
            row.update({f"term_{k}": float(v.mean()) for k, v in episodes.terms.items()})
            totals = zip(self.drugs, episodes.ordered.mean(0), strict=True)
            row.update({f"mean_total_{n}": float(v) for n, v in totals})
        return rows

    def sweep(self, reference: EpisodeResults) -> list[dict[str, Any]]:
        """Rows of policies_lambda.csv; the last is the reference's."""
        count, preset = self.args.sweep_patients, PLANNER_PRESETS[self.args.sweep_planner]
        # A standard deviation of four particles says little: twice as many as the preset has.
        config = replace(preset, particles=2 * preset.particles)
        found: dict[str, EpisodeResults] = {}
        for of in ("cost", "return"):
            for lam in LAMBDAS:
                name = f"CEM, lambda {lam:g} on {of}"
                agent = self.planner(config, **{"cost_risk" if of == "cost" else "risk": MeanMinusSigma(lam)})
                found[name] = self.run(agent, self.oracle, count, name)
        few = tree.take(reference, slice(count))
        lines = paired_table({**found, REFERENCE: few}, reference=REFERENCE)
        for line in lines:
            words = str(line["agent"]).split()
            line["lambda"], line["lambda_on"] = (words[2], words[4]) if words[0] == "CEM," else ("", "")
        return lines


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    print(format_table(list(rows)))
    for row in rows:
        gap = f"{row['gap_return']:+.2f} [{row['gap_return_low']:+.2f}, {row['gap_return_high']:+.2f}]"
        print(f"{row['agent']:45s} promised {row['promised_return']:8.2f}  exploitation gap {gap}")


def main(argv: list[str] | None = None) -> int:
    """Train, judge, sweep and write. Returns the exit status."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    run = _Judge(args)
    agents = run.rules()
    if args.sweep_only:
        agents = {REFERENCE: agents[REFERENCE]}
    else:
        agents |= run.trained()
        agents[f"CEM in {run.name}"] = run.planner(PLANNER_PRESETS[args.planner])
    earned, promised = run.both(agents)
    trained = {} if args.sweep_only else {f"PPO {i}": i for i in range(args.seeds)}
    made = made_by(MODULE, argv, {"first judged patient": args.seed, "bootstrap": 0, **trained}, ["oracle", args.world])
    if not args.sweep_only:
        rows = run.rows(earned, promised)
        _print(rows)
        write_csv(out / "policies.csv", rows, made)
        settings = {k: v for k, v in vars(args).items() if k not in ("out", "runs")}
        preset = {"cost_weight": run.preset.cost_weight, "preset": run.preset.to_json(), "torch": torch.__version__}
        content = {"arguments": {**settings, **preset}, "seconds": run.seconds, "rows": rows}
        write_json(out / "policies.json", content, made)
    if not args.no_sweep:
        lines = run.sweep(earned[REFERENCE])
        write_csv(out / "policies_lambda.csv", lines, made)
        plot_sweep(out / "policies_lambda.png", lines[:-1], lines[-1], made)
        print(format_table(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
