"""Policies made in the learned ward, judged in the oracle: `python -m benchmarks.ward.policies --world ehr-ward-small`.

Over the same patients with the same random keys: no orders, the clinician's rule, the rule at the menu's standard
amounts, PPO on the menu's switches from nothing, PPO on the rule's knobs from the rule (several seeds), and knobs
found by the cross-entropy method in the learned ward, once for each lambda (sought is the mean return minus lambda
times its SD over patients), and by a gradient shrunk term by term (`agents.planning.shrunk_gradient`). The last row
has its knobs from that gradient in the oracle itself: what was to be had.

Beside what each earned in the oracle stands what it earned in the learned ward on that ward's own patients. Two gaps
are told apart: `optimism` (learned minus oracle) holds what the world gets wrong for everybody; `exploitation` (gain on
the rule promised minus gain earned) is what a policy made of the world's errors. How the learned ward ranks the
policies, and what choosing by it costs, stands in the JSON (Spearman's rank correlation, regret).

Writes policies_ehr.csv and policies_ehr.json to --out. What was trained goes to --runs and is used again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor
from tqdm import tqdm

from agents.baselines.tuned_rules import kept_knobs, tune_knobs
from agents.baselines.ward_rule import KNOBS, LARGEST, Clinician, NoOrders, StandardClinician, TunedClinician
from agents.planning.parameter_cem import ParameterCEM
from agents.planning.risk import MeanMinusSigma
from agents.planning.shrunk_gradient import ShrunkGradient, climb
from agents.protocol import Agent
from agents.rollout import EpisodeResults, judge, mean_results
from agents.run_folder import weights_sum
from agents.sb3.ward import WardPolicy, WardPPO, train_ward
from benchmarks.common.intervals import put_mean
from benchmarks.common.results import RESULTS, made_by, write_csv, write_json
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.ehr_world.ward_rollouts import TEST_SEED
from world_models.quantities.ward import INQUIRIES

MODULE = "benchmarks.ward.policies"
RULE = "clinician's rule"
UPPER = "tuned rule, gradient in the oracle (upper reference)"
# patients that nothing else meets: CEM's, the gradient's, and PPO's (which are further folded by episode)
SEARCH_SEED, CLIMB_SEED, PPO_SEED = 8_400_000_000, 8_500_000_000, 8_600_000_000


def table(
    earned: Mapping[str, EpisodeResults], promised: Mapping[str, EpisodeResults], rule: str = RULE
) -> list[dict[str, Any]]:
    """One row a policy; `earned` in the oracle, `promised` in the learned ward, each paired within itself."""
    rows = []
    for name, got in earned.items():
        hoped, base, base_hoped = promised[name], earned[rule], promised[rule]
        became, hours = got.outcomes.totals, got.outcomes.totals["hours"]
        row: dict[str, Any] = {"policy": name, "patients": got.returns.shape[0]}
        put_mean(row, "return", got.returns)
        put_mean(row, "return_minus_rule", got.returns - base.returns)
        put_mean(row, "mortality", became["died"])
        put_mean(row, "mortality_minus_rule", became["died"] - base.outcomes.totals["died"])
        row["discharged"] = float(became["discharged"].mean())
        row["hours_of_stay"] = float(hours.mean())
        put_mean(row, "harm_cost", got.costs)
        put_mean(row, "harm_cost_minus_rule", got.costs - base.costs)
        row |= {f"term_{k}": float(v.mean()) for k, v in got.terms.items()}
        row["tests_a_day"] = float(got.given[:, : len(INQUIRIES)].sum() / hours.sum() * 24.0)
        row["refused_a_day"] = float(got.refused.sum() / hours.sum() * 24.0)
        put_mean(row, "learned_return", hoped.returns)
        row["learned_mortality"] = float(hoped.outcomes.totals["died"].mean())
        row |= {f"learned_term_{k}": float(v.mean()) for k, v in hoped.terms.items()}
        put_mean(row, "learned_minus_rule", hoped.returns - base_hoped.returns)
        row["optimism"] = row["learned_return"] - row["return"]
        row["exploitation"] = row["learned_minus_rule"] - row["return_minus_rule"]
        rows.append(row)
    return rows


def ranking(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the learned ward ranks K policies as the oracle does: Spearman's rho, and the oracle return lost by
    taking the policy that the learned ward likes best (simple regret)."""
    real = torch.tensor([float(r["return"]) for r in rows], dtype=torch.float64)
    said = torch.tensor([float(r["learned_return"]) for r in rows], dtype=torch.float64)
    ranks = torch.stack([torch.as_tensor(rankdata(real.numpy())), torch.as_tensor(rankdata(said.numpy()))])
    rho = float(torch.corrcoef(ranks)[0, 1]) if len(rows) > 1 else float("nan")
    best, chosen = int(real.argmax()), int(said.argmax())
    return {
        "policies": len(rows),
        "spearman": rho,
        "regret": float(real[best] - real[chosen]),
        "best_in_oracle": rows[best]["policy"],
        "best_in_learned": rows[chosen]["policy"],
    }


def tune(
    simulator: Simulator, config: ParameterCEM, patients: int, lam: float, seed: int, label: str, steps: int = 84
) -> Tensor:
    """Knobs [P] of the rule found in `simulator`, from the rule itself, on new patients every iteration."""

    first = SEARCH_SEED + seed * 1_000_000
    with tqdm(total=config.iterations, desc=label) as bar:

        def said(_: int, score: float) -> None:
            bar.set_postfix(score=f"{score:.2f}")
            bar.update()

        knobs = (len(KNOBS), LARGEST)
        risk = MeanMinusSigma(lam)
        return tune_knobs(simulator, TunedClinician, knobs, config, patients, first, steps, seed, risk, said)


def ascend(simulator: Simulator, config: ShrunkGradient, seed: int, label: str, steps: int = 84) -> Tensor:
    """Knobs [P] of the rule by `climb` in `simulator`, from the rule itself, on new patients at every look."""

    def evaluate(drawn: Tensor, patient: Tensor, look: int) -> dict[str, Tensor]:
        key = keys.from_seed(CLIMB_SEED + seed * 1_000_000 + look * 10_000, int(patient.max()) + 1)[patient]
        return judge(TunedClinician(drawn), simulator, key, steps).terms

    with tqdm(total=config.rounds, desc=label) as bar:

        def said(_: int, gain: float) -> None:
            bar.set_postfix(gain=f"{gain:.2f}")
            bar.update()

        fate = (("survival", "discharge"),)
        return climb(evaluate, torch.zeros(len(KNOBS)), config, seed, LARGEST, fate, said)


def kept(path: Path, make: Callable[[], Tensor], about: Mapping[str, Any]) -> Tensor:
    """Knobs of `path` if they were found with the same settings; else those of `make`, written there."""
    return kept_knobs(path, [k.name for k in KNOBS], make, about)


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as fixed-width text."""

    def cell(row: Mapping[str, Any], name: str) -> str:
        return f"{row[name]:.2f} [{row[name + '_low']:.2f}, {row[name + '_high']:.2f}]"

    head = f"{'policy':48s} {'return':22s} {'minus rule':22s}"
    lines = [f"{head} {'died %':>6s} {'hours':>6s} {'harm':>5s} {'learned':>8s}"]
    for r in rows:
        lines.append(
            f"{r['policy']:48s} {cell(r, 'return'):22s} {cell(r, 'return_minus_rule'):22s} {100 * r['mortality']:6.1f} "
            f"{r['hours_of_stay']:6.0f} {r['harm_cost']:5.2f} {r['learned_return']:8.2f}"
        )
    return "\n".join(lines)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="ehr-ward-small", help="the learned ward: a shipped name or a folder")
    parser.add_argument("--patients", type=int, default=1000, help="judged, in pairs")
    parser.add_argument("--steps", type=int, default=300_000, help="patient-steps of PPO on the rule's knobs")
    parser.add_argument("--scratch-steps", type=int, default=150_000, help="of PPO on the switches; 0 leaves it out")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of PPO and CEM in the learned ward")
    aversion = "of CEM: it seeks the mean minus lambda SDs over patients, once for each"
    parser.add_argument("--lambda", dest="lambdas", type=float, nargs="*", default=[0.0, 0.2], help=aversion)
    parser.add_argument("--iterations", type=int, default=14, help="of CEM in the learned ward")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--cem-patients", type=int, default=48, help="each candidate meets in an iteration")
    parser.add_argument("--pairs", type=int, default=768, help="patients the gradient meets twice in a round")
    parser.add_argument("--rounds", type=int, default=3, help="of the gradient in the learned ward; 0 leaves it out")
    parser.add_argument("--oracle-rounds", type=int, default=2, help="of the gradient in the oracle; 0 leaves it out")
    parser.add_argument("--cost-weight", type=float, default=0.0, help="what PPO pays for a unit of harm")
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--max-steps", type=int, default=84, help="of a stay, four hours each")
    parser.add_argument("--seed", type=int, default=TEST_SEED, help="of the first judged patient")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", default="runs/policies_ehr", help="where trained policies are kept")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args(argv)
    if args.patients < 2 or args.steps < 1 or args.seeds < 1:
        parser.error(f"need --patients >= 2, --steps and --seeds >= 1, got {args.patients}, {args.steps}, {args.seeds}")
    return args


class _Makers:
    """Makes deciders in the learned ward (and one in the oracle); what --runs holds is used again."""

    def __init__(self, args: argparse.Namespace, oracle: Simulator, learned: Simulator) -> None:
        self.args, self.oracle, self.learned = args, oracle, learned
        self.weights = (weights_sum(args.world) or "")[:8]
        self.runs = Path(args.runs) / f"{Path(args.world).name}-{self.weights}"
        self.config = ParameterCEM(args.iterations, args.candidates, max(1, args.candidates // 4))
        self.agents: dict[str, Agent] = {a.name: a for a in (NoOrders(), Clinician(), StandardClinician())}
        self.families: dict[str, list[str]] = {}  # trainings of one recipe
        self.cpu_s: dict[str, float] = {}

    def ppo(self, form: str, steps: int, seed: int) -> WardPolicy:
        """PPO on the menu's switches from nothing, or on the rule's knobs from the rule."""
        args = self.args
        # from nothing: faster, and with some reward for trying
        other = {"learning_rate": 1e-3, "ent_coef": 0.001} if form == "switches" else {}
        preset = WardPPO(form, num_envs=args.num_envs, cost_weight=args.cost_weight, **other)
        folder = self.runs / f"ppo-{form}-{steps}-{args.num_envs}-{args.cost_weight:g}-{seed}"
        with tqdm(total=steps, desc=f"PPO {form} {seed}", unit="step") as bar:

            def said(done: int, score: float) -> None:
                bar.set_postfix(ret=f"{score:.2f}")
                bar.update(done - bar.n)

            train_ward(folder, steps, args.world, preset, seed, PPO_SEED + seed * 10_000, said)
        return WardPolicy(folder, self.oracle)

    def cem(self, lam: float, seed: int) -> TunedClinician:
        """The rule with knobs by the cross-entropy method in the learned ward."""
        args = self.args
        about = {
            **vars(self.config),
            "patients": args.cem_patients,
            "lambda": lam,
            "seed": seed,
            "steps": args.max_steps,
        }

        def find() -> Tensor:
            label = f"CEM lambda {lam:g} seed {seed}"
            return tune(self.learned, self.config, args.cem_patients, lam, seed, label, args.max_steps)

        return TunedClinician(kept(self.runs / f"cem-{lam:g}-{seed}.json", find, about))

    def gradient(self, world: Simulator, rounds: int, seed: int) -> TunedClinician:
        """The rule with knobs by a shrunk gradient in `world`."""
        climbing = ShrunkGradient(rounds, self.args.pairs, judged=max(2, self.args.pairs // 4))
        about = {**vars(climbing), "strides": list(climbing.strides), "seed": seed, "steps": self.args.max_steps}
        where = Path(self.args.runs) / "oracle" if world is self.oracle else self.runs

        def find() -> Tensor:
            return ascend(world, climbing, seed, f"gradient in {world.world.name} seed {seed}", self.args.max_steps)

        return TunedClinician(kept(where / f"gradient-{seed}.json", find, about))

    def add(self, family: str, name: str, build: Callable[[], Agent]) -> None:
        """A decider by its name; the processor time of its making is noted."""
        start = time.process_time()
        self.agents[name] = build()
        self.cpu_s[name] = time.process_time() - start
        self.families.setdefault(family, []).append(name)

    def add_all(self) -> None:
        """Every decider that the arguments ask for."""
        args, short = self.args, self.learned.world.name
        for seed in range(args.seeds):
            tail = f", seed {seed}" if args.seeds > 1 else ""
            if args.scratch_steps and seed == 0:
                self.add("scratch", f"PPO on switches in {short}", lambda: self.ppo("switches", args.scratch_steps, 0))
            self.add(
                "PPO", f"PPO on the rule's knobs in {short}{tail}", lambda s=seed: self.ppo("knobs", args.steps, s)
            )
            for lam in args.lambdas:
                name = f"tuned rule, CEM in {short}, lambda {lam:g}{tail}"
                self.add(f"CEM lambda {lam:g}", name, lambda x=lam, s=seed: self.cem(x, s))
            if args.rounds:
                name = f"tuned rule, gradient in {short}{tail}"
                self.add("gradient", name, lambda s=seed: self.gradient(self.learned, args.rounds, s))
        if args.oracle_rounds:
            self.add("oracle", UPPER, lambda: self.gradient(self.oracle, args.oracle_rounds, 0))

    def judged(self) -> tuple[dict[str, EpisodeResults], dict[str, EpisodeResults]]:
        """What every decider earns in the oracle and in the learned ward; seeds of one recipe also as their mean."""
        args, short = self.args, self.learned.world.name
        key = keys.from_seed(args.seed, args.patients)
        earned: dict[str, EpisodeResults] = {}
        promised: dict[str, EpisodeResults] = {}
        for name, agent in self.agents.items():
            for simulator, store in ((self.oracle, earned), (self.learned, promised)):
                start = time.process_time()
                with tqdm(total=args.max_steps, desc=f"{name}: {simulator.world.name}", leave=False) as bar:

                    def step(_: int, b: tqdm = bar) -> None:
                        b.update()

                    store[name] = judge(agent, simulator, key, args.max_steps, progress=step)
                self.cpu_s[f"{name}, judged in {simulator.world.name}"] = time.process_time() - start
        for family, members in self.families.items():
            if len(members) > 1:
                name = f"{family} in {short}, mean of {len(members)} seeds"
                earned[name] = mean_results([earned[m] for m in members])
                promised[name] = mean_results([promised[m] for m in members])
        return earned, promised


def main(argv: list[str] | None = None) -> int:
    """Make the deciders, judge them and write. Returns the exit status.

    Raises:
        SystemExit: a world that cannot be used.
    """
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    try:
        oracle, learned = (Simulator(catalog.load(w), EHRWardTask()) for w in ("ward-oracle", args.world))
    except (ValueError, KeyError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    makers = _Makers(args, oracle, learned)
    makers.add_all()
    earned, promised = makers.judged()
    rows = table(earned, promised)
    of_interest = [r for r in rows if r["policy"] in makers.agents]
    ranks = {"all": ranking(of_interest), "near the rule": ranking([r for r in of_interest if "rule" in r["policy"]])}
    print(text_table(rows))
    print(json.dumps(ranks, indent=1))
    seeds = {"first judged patient": args.seed, "first of CEM": SEARCH_SEED, "first of the gradient": CLIMB_SEED}
    seeds |= {"first of PPO": PPO_SEED, "trainings": list(range(args.seeds)), "bootstrap": 0}
    made = made_by(MODULE, argv, seeds, ["ward-oracle", args.world])
    out = Path(args.out)
    write_csv(out / "policies_ehr.csv", rows, made)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "runs")}
    tuned_ones = {n: a for n, a in makers.agents.items() if isinstance(a, TunedClinician)}
    knobs = {n: dict(zip([k.name for k in KNOBS], a.knobs.tolist(), strict=True)) for n, a in tuned_ones.items()}
    about = {**settings, "world": Path(args.world).name, "weights": makers.weights, "torch": torch.__version__}
    whole = {"arguments": about, "cpu_seconds": makers.cpu_s, "ranking": ranks, "knobs": knobs, "rows": rows}
    write_json(out / "policies_ehr.json", whole, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
