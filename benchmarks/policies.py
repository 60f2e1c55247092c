"""Deciders made in the learned world, judged in the oracle: `python -m benchmarks.policies`.

Over the same patients with the same luck: no treatment, random, half the label's dose of dofetilide given to everyone
without looking at anything, the dofetilide label's rule, PPO trained in the learned
world (several seeds), CEM planning in the learned world, and PPO trained in the oracle itself as the upper reference.
Beside what each earned in the oracle stands what the learned world promised for the same patients: the difference is
the exploitation gap. Then CEM's risk aversion lambda is swept, on the safety cost (mu + lambda sigma of it is charged)
and on the return (mu - lambda sigma of it is sought): return, safety cost and CVaR 5 %.

Writes policies.csv, policies.json, policies_lambda.csv and policies_lambda.png to --out; trained policies go to --runs
and are used again by the next run.
"""

from __future__ import annotations

import argparse
import json
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
from agents.protocol import Agent, menu_of
from agents.rollout import EpisodeResults, admission_factors, format_table, judge, mean_results, paired_table
from agents.sb3.policy_agent import PolicyAgent
from agents.sb3.presets import PRESETS
from agents.sb3.train import train, weights_sum
from benchmarks.files import write_csv
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys, tree
from world_models.files import replacing, write_text

REFERENCE = "dofetilide label rule"
BLIND = "dofetilide 0.25 mg every 12 h, without looking"
LAMBDAS = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)


def with_promise(
    rows: list[dict[str, Any]], earned: Mapping[str, EpisodeResults], promised: Mapping[str, EpisodeResults]
) -> None:
    """Add to each row what the learned world promised, and the gap (promised minus earned) with its interval."""
    names = [str(row["agent"]) for row in rows]
    promises = {str(r["agent"]): r for r in paired_table({n: promised[n] for n in names})}
    for row in rows:
        name = str(row["agent"])
        both = paired_table({"earned": earned[name], "promised": promised[name]}, reference="earned")[1]
        for figure in ("return", "cost", *earned[name].outcomes.totals):
            row[f"promised_{figure}"] = promises[name][figure]
            for suffix in ("", "_low", "_high"):
                row[f"gap_{figure}{suffix}"] = both[f"{figure}_minus_reference{suffix}"]


def plot_sweep(path: Path, rows: Sequence[Mapping[str, Any]], rule: Mapping[str, Any]) -> None:
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
    with replacing(path) as part:
        figure.savefig(part, dpi=130)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policies", description=__doc__.split("\n")[0])
    parser.add_argument("--world", default="ecg-wm-small", help="the learned world")
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--steps", type=int, default=750_000, help="patient-steps of each PPO training")
    parser.add_argument("--seeds", type=int, default=3, help="PPO trainings in the learned world")
    parser.add_argument("--cost-weight", type=float, help="of PPO and CEM (default: PPO preset's)")
    parser.add_argument("--planner", default="small", help="planner preset")
    parser.add_argument("--sweep-patients", type=int, default=250)
    parser.add_argument("--sweep-planner", default="fast", help="planner preset of the lambda sweep")
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--sweep-only", action="store_true", help="leave policies.csv as it is")
    threads = "torch threads; several that share their cores with other work are slower than one"
    parser.add_argument("--threads", type=int, default=1, help=threads)
    parser.add_argument("--seed", type=int, default=20_000_000, help="of the first judged patient")
    parser.add_argument("--runs", default="runs/policies", help="where trained policies are kept")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"))
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    out, runs = Path(args.out), Path(args.runs)
    out.mkdir(parents=True, exist_ok=True)

    preset = PRESETS["ppo"]
    if args.cost_weight is not None:
        preset = preset.but(cost_weight=args.cost_weight)
    task = ECGDrugTask()
    oracle, learned = Simulator(catalog.load("oracle"), task), Simulator(catalog.load(args.world), task)
    horizon = round(task.horizon_hours / oracle.world.hours_per_step)
    # "judge" keeps these patients apart from all that training, which starts from plain seeds, can meet.
    luck = keys.fold(keys.from_seed(args.seed, args.patients), "judge")
    factors = admission_factors(oracle.reset(luck)[1], oracle.world, learned.world)

    menu = menu_of(oracle)
    names = [q.name for q in oracle.world.orders]
    agents: dict[str, Agent] = {
        "no treatment": no_treatment(),
        "random": Uniform(menu.shape[0], seed=args.seed),
        BLIND: FixedRegimen(menu_row(menu, names, dofetilide_mg=HALF_MG), HOURS_BETWEEN_DOSES, BLIND),
        REFERENCE: DofetilideLabelRule(menu, names),
    }
    seconds: dict[str, float] = {}
    for world in () if args.sweep_only else (args.world, "oracle"):
        for seed in range(args.seeds if world == args.world else 1):
            start = time.perf_counter()
            made = (weights_sum(world) or "")[:8]
            folder = runs / f"ppo-{Path(world).name}{made}-{preset.cost_weight:g}-{args.steps}-{seed}"
            train(folder, args.steps, world=world, preset=preset, seed=seed)
            own = f"PPO in {learned.world.name}, seed {seed}"
            name = own if world == args.world else "PPO in the oracle (upper reference)"
            agents[name] = PolicyAgent(folder, oracle, name)
            seconds[name] = time.perf_counter() - start
    planner = WorldPlanner(learned, args.planner, cost_weight=preset.cost_weight, seed=args.seed)
    if args.sweep_only:
        agents = {REFERENCE: agents[REFERENCE]}
    else:
        agents[f"CEM in {learned.world.name}"] = planner

    def run(agent: Agent, simulator: Simulator, count: int, label: str) -> EpisodeResults:
        with tqdm(total=horizon, desc=label, leave=False) as bar:
            # The oracle draws its patients from the keys; the learned world is told what their admission charts show.
            fixed = {k: v[:count] for k, v in factors.items()} if simulator is learned else None
            return judge(agent, simulator, luck[:count], horizon, fixed, progress=lambda _: bar.update())

    earned: dict[str, EpisodeResults] = {}
    promised: dict[str, EpisodeResults] = {}
    for name, agent in agents.items():
        start = time.perf_counter()
        earned[name] = run(agent, oracle, args.patients, f"{name}: oracle")
        seconds[f"{name}, judged"] = time.perf_counter() - start
        promised[name] = run(agent, learned, args.patients, f"{name}: {learned.world.name}")
    ours = [n for n in agents if n.startswith(f"PPO in {learned.world.name}")]
    if len(ours) > 1:
        name = f"PPO in {learned.world.name}, mean of {len(ours)} seeds"
        earned[name], promised[name] = (mean_results([x[n] for n in ours]) for x in (earned, promised))
    rows = paired_table(earned, reference=REFERENCE)
    with_promise(rows, earned, promised)
    for row in rows:
        episodes = earned[str(row["agent"])]
        row.update({f"term_{k}": float(v.mean()) for k, v in episodes.terms.items()})
        row.update({f"mean_total_{n}": float(v) for n, v in zip(names, episodes.ordered.mean(0), strict=True)})
    if not args.sweep_only:
        print(format_table(rows))
        for row in rows:
            gap = f"{row['gap_return']:+.2f} [{row['gap_return_low']:+.2f}, {row['gap_return_high']:+.2f}]"
            print(f"{row['agent']:45s} promised {row['promised_return']:8.2f}  exploitation gap {gap}")
        write_csv(out / "policies.csv", rows)
        settings = {k: v for k, v in vars(args).items() if k not in ("out", "runs")}
        about = {**settings, "cost_weight": preset.cost_weight, "preset": preset.to_json(), "torch": torch.__version__}
        text = json.dumps({"arguments": about, "seconds": seconds, "rows": rows}, indent=1, default=str) + "\n"
        write_text(out / "policies.json", text)

    if not args.no_sweep:
        sweep: dict[str, EpisodeResults] = {}
        # A standard deviation of four particles says little: twice as many as the preset has.
        usual = PLANNER_PRESETS[args.sweep_planner]
        config = replace(usual, particles=2 * usual.particles)
        for of in ("cost", "return"):
            for lam in LAMBDAS:
                risk = {"cost_risk" if of == "cost" else "risk": MeanMinusSigma(lam)}
                agent = WorldPlanner(learned, config, cost_weight=preset.cost_weight, seed=args.seed, **risk)
                name = f"CEM, lambda {lam:g} on {of}"
                sweep[name] = run(agent, oracle, args.sweep_patients, name)
        few = tree.take(earned[REFERENCE], slice(args.sweep_patients))
        lines = paired_table({**sweep, REFERENCE: few}, reference=REFERENCE)
        for line in lines:
            words = str(line["agent"]).split()
            line["lambda"], line["lambda_on"] = (words[2], words[4]) if words[0] == "CEM," else ("", "")
        write_csv(out / "policies_lambda.csv", lines)
        plot_sweep(out / "policies_lambda.png", lines[:-1], lines[-1])
        print(format_table(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
