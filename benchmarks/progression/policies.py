"""Deciders made in a learned clinic, judged in the progression oracle: `python -m benchmarks.progression.policies`.

Over the same patients with the same random keys: no treatment with a visit every six or twelve months, random levels,
the guideline rule, the rule told the recorded conditions (what reading the ECG costs), the rule with knobs found by
the cross-entropy method in the learned world, PPO trained in the learned world (each seed, and their mean), PPO
trained in the oracle (`--oracle-steps`), and CEM planning in the learned world, on the first `--cem-patients`
patients, from what a policy sees and the latent. Everyone reads the oracle's ECGs through the learned world's own
encoder and probe.

PPO starts from nothing, the tuned rule from the rule. What the rule takes for a condition, the reader's thresholds or
0.5, is chosen on validation patients of the oracle whom nobody else meets.

Returns are QALYs against ten years in health, so none is above 0. Differences are paired, intervals are 95 % bootstrap
over patients. `promised_return` is what the learned world says of patients of the same age, sex and conditions; the gap
is promised minus earned. Writes policies_progression.csv and .json to --out; what was found is kept in --runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor
from tqdm import tqdm

from agents.baselines.constant import Constant
from agents.baselines.progression_rule import KNOBS, LARGEST, ProgressionRule, TunedRule
from agents.baselines.tuned_rules import tune_knobs
from agents.baselines.uniform import Uniform
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.parameter_cem import ParameterCEM
from agents.policy_agent import PolicyAgent
from agents.protocol import Agent
from agents.rollout import EpisodeResults, admission_factors, judge, mean_results, paired_table
from agents.run_folder import weights_sum
from agents.sb3.presets import Preset, preset_for
from agents.sb3.vec_env import SB3VecEnv
from benchmarks.common.intervals import put_mean
from benchmarks.common.paired import with_promise
from benchmarks.common.results import RESULTS, made_by, write_csv, write_json
from clinenv.envs.ecg_progression.env import ECGProgressionVectorEnv
from clinenv.envs.ecg_progression.rewards import HORIZON_YEARS
from clinenv.envs.ecg_progression.task import LEVELS, ECGProgressionTask
from clinenv.simulator import Simulator
from world_models import catalog, checkpoint, keys, tree
from world_models.cardiac_jepa.model import CardiacJEPAWorld
from world_models.cardiac_jepa.reading import ReadOracle
from world_models.protocol import Chart
from world_models.quantities.progression import INTERVALS_MONTHS

MODULE = "benchmarks.progression.policies"
RULE = "guideline rule"
STEPS = 120  # a visit a month for ten years
# Patients that nothing else meets; those judged are further folded by "judge".
VALID_SEED, SEARCH_SEED, PPO_SEED = 8_700_000_000, 8_710_000_000, 8_720_000_000
SEEN = ("age_years", "sex_female", "years", "months_since_visit", "treated", "bleeding", "latent")
# A plan is one decision held for three years of half-yearly visits: long enough for a drug to pay, few enough to
# search.
CEM = CEMConfig(horizon=6, candidates=48, particles=8, iterations=3, elites=8, finalists=4, block=6)


class OracleOfTheLiving(ReadOracle):
    """The oracle, which makes and reads an ECG only where an episode still runs; elsewhere probe and latent are 0."""

    @torch.no_grad()
    def observe(self, state: Any, also: Sequence[str] = ()) -> Chart:
        """Charts as the clinic reads them; see the class."""
        chart = self.oracle.observe(state)
        runs = ((chart["dead"] < 0.5) & (chart["years"] < HORIZON_YEARS - 1e-4)).nonzero().squeeze(1)
        if len(runs) == 0:
            runs = torch.zeros(1, dtype=torch.int64, device=self.device)
        read = super().observe(tree.take(state, runs), also)
        for name in sorted(read.keys() - chart.keys()):
            chart[name] = read[name].new_zeros(len(state.key), *read[name].shape[1:]).index_copy(0, runs, read[name])
        return chart


def thresholds(oracle: Simulator, patients: int, seed: int = VALID_SEED) -> tuple[Tensor, dict[str, float]]:
    """[C] of the rule: the reader's own or 0.5, whichever earns more on validation patients; and what each earned."""
    reader = oracle.world.reader.threshold.detach().cpu().clamp(0.01, 0.99)  # a code nobody had has no threshold
    offered = {"reader": reader, "0.5": torch.full_like(reader, 0.5)}
    key = keys.from_seed(seed, patients)
    earned = {n: float(judge(ProgressionRule(x), oracle, key, STEPS).returns.mean()) for n, x in offered.items()}
    return offered[max(earned, key=earned.get)], earned


def tune(simulator: Simulator, threshold: Tensor, config: ParameterCEM, patients: int, seed: int) -> Tensor:
    """Knobs [P] of the rule found in `simulator`, from the rule itself, on new patients every iteration."""

    first = SEARCH_SEED + seed * 1_000_000
    with tqdm(total=config.iterations, desc=f"tuning the rule, seed {seed}") as bar:
        return tune_knobs(
            simulator,
            lambda knobs: TunedRule(threshold, knobs),
            (len(KNOBS), LARGEST),
            config,
            patients,
            first,
            STEPS,
            seed,
            say=lambda *_: bar.update(),
        )


def ppo(simulator: Simulator, steps: int, seed: int, preset: Preset, folder: Path, made: str) -> ActorCriticPolicy:
    """PPO after `steps` patient-steps (rounded up to whole rollouts) in `simulator`'s world; that of `folder` if it is
    the same recipe on the same weights `made`."""
    envs = ECGProgressionVectorEnv(
        preset.num_envs, simulator.task, simulator.world, uncertainty=False, autoreset_mode=AutoresetMode.SAME_STEP
    )
    vec = SB3VecEnv(envs, cost_weight=preset.cost_weight, bootstrap_truncated=False)
    top = preset.settings["learning_rate"]
    settings = {**preset.settings, "learning_rate": (lambda left: top * left) if preset.decay else top}
    model = PPO(
        "MlpPolicy", vec, seed=seed, device="cpu", policy_kwargs={"net_arch": list(preset.net_arch)}, **settings
    )
    vec.seed(PPO_SEED + seed * 1_000_000)

    def learned() -> dict[str, Tensor]:
        with tqdm(total=steps, desc=f"PPO in {simulator.world.name}, seed {seed}", unit="step") as bar:
            return model.learn(steps, lambda *_: bar.update(model.num_timesteps - bar.n) or True).policy.state_dict()

    about = {"what": "PPO", "weights": made, "steps": steps, "seed": seed, "preset": preset.to_json()}
    model.policy.load_state_dict(kept(folder, about, learned))
    return model.policy


def kept(folder: Path, about: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of `folder` if they were made with the same settings; else those of `make`, written there."""
    about = json.loads(json.dumps(about))
    if (folder / "config.json").exists():
        tensors, old = checkpoint.load(folder)
        if all(old.get(name) == value for name, value in about.items()):
            return tensors
    tensors = {k: v.detach().clone().contiguous() for k, v in make().items()}
    checkpoint.save_checkpoint(
        folder, tensors, about, f"# {about['what']}\n\nMade by benchmarks.progression.policies.\n"
    )
    return tensors


def table(
    earned: Mapping[str, EpisodeResults], promised: Mapping[str, EpisodeResults], rule: str = RULE
) -> list[dict[str, Any]]:
    """One row an agent, all judged on the same patients."""
    rows = paired_table(earned, reference=rule)
    with_promise(rows, earned, promised)
    for i, row in enumerate(rows):
        name = str(row["agent"])
        row = {k: v for k, v in row.items() if "died" not in k}  # stands further on, without a gap
        died, died_by_rule = (earned[n].outcomes.totals["died"] for n in (name, rule))
        put_mean(row, "died", died)
        put_mean(row, "died_minus_reference", died - died_by_rule)
        row["visits"] = float(earned[name].lengths.to(torch.float32).mean())
        row |= {f"term_{k}": float(v.mean()) for k, v in earned[name].terms.items()}
        row |= {f"promised_term_{k}": float(v.mean()) for k, v in promised[name].terms.items()}
        put_mean(row, "promised_minus_reference", promised[name].returns - promised[rule].returns)
        row |= {f"ordered_{n}": float(v) for n, v in zip(LEVELS.names, earned[name].ordered.mean(0), strict=True)}
        rows[i] = row
    return rows


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="cardiac-jepa-small", help="the learned world: a shipped name or a folder")
    parser.add_argument("--patients", type=int, default=1000, help="judged, in pairs")
    parser.add_argument("--valid-patients", type=int, default=300, help="of the oracle, to choose the rule's threshold")
    parser.add_argument("--steps", type=int, default=300_000, help="patient-steps of each PPO in the learned world")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of PPO and of the tuned rule")
    parser.add_argument("--oracle-steps", type=int, default=0, help="of PPO in the oracle; 0 leaves it out")
    parser.add_argument("--iterations", type=int, default=14, help="of the rule's tuning; 0 leaves it out")
    parser.add_argument("--tune-patients", type=int, default=64, help="each candidate meets in an iteration")
    parser.add_argument("--cem-patients", type=int, default=50, help="CEM plans for; 0 leaves it out")
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--seed", type=int, default=20_000_000, help="of the first judged patient")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", default="runs/policies_progression", help="where what was found is kept")
    parser.add_argument("--out", default=str(RESULTS))
    args = parser.parse_args(argv)
    if min(args.patients, args.valid_patients) < 2 or args.steps < 1 or args.seeds < 1:
        parser.error("need --patients and --valid-patients of 2 or more, --steps and --seeds of 1 or more")
    if not 0 <= args.cem_patients <= args.patients or args.cem_patients == 1:
        parser.error(f"--cem-patients is 0, or 2 to --patients ({args.patients}), got {args.cem_patients}")
    return args


class _Run:
    """Makes and judges the deciders; what --runs holds is used again."""

    def __init__(self, args: argparse.Namespace, world: CardiacJEPAWorld) -> None:
        self.args, self.world = args, world
        self.learned = Simulator(world, ECGProgressionTask())
        self.oracle = Simulator(OracleOfTheLiving(world.reader), ECGProgressionTask())
        self.weights = (weights_sum(args.world) or "")[:8]
        self.runs = Path(args.runs) / f"{Path(args.world).name}-{self.weights}"
        self.cpu_s: dict[str, float] = {}
        self.families: dict[str, list[str]] = {}  # trainings of one recipe
        self.threshold, self.valid_return = self.timed(
            "threshold", lambda: thresholds(self.oracle, args.valid_patients)
        )
        preset = preset_for("ppo", "ECGProgression-v0").but(num_envs=args.num_envs)
        # a visit is a month or a year: discounted by the visit, death is put off by being seen more often
        self.preset = preset.but(settings={**preset.settings, "gamma": 1.0})
        self.config = ParameterCEM(args.iterations, candidates=24, elites=6) if args.iterations else None
        self.agents = self.rules()
        self.add_trained()
        # "judge" keeps these patients apart from all that training can meet
        self.key = keys.fold(keys.from_seed(args.seed, args.patients), "judge")
        chart = self.oracle.reset(self.key)[1]
        self.factors = admission_factors(chart, self.oracle.world, self.learned.world)

    def timed(self, what: str, make: Callable[[], Any]) -> Any:
        """What `make` gives; its processor time is noted."""
        start = time.process_time()
        found = make()
        self.cpu_s[what] = time.process_time() - start
        return found

    def rules(self) -> dict[str, Agent]:
        """Deciders that learn nothing."""
        idle = [0] * (len(LEVELS) - 1)
        return {
            "no treatment, every 6 months": Constant([*idle, INTERVALS_MONTHS.index(6.0)]),
            "no treatment, every 12 months": Constant([*idle, INTERVALS_MONTHS.index(12.0)]),
            "random": Uniform(LEVELS.counts, seed=self.args.seed),
            RULE: ProgressionRule(self.threshold, name=RULE),
            "guideline rule told the conditions (upper reference)": ProgressionRule(measure="condition"),
        }

    def add(self, family: str, seed: int, make: Callable[[], Agent]) -> None:
        """One training of a recipe."""
        name = f"{family}, seed {seed}"
        self.agents[name] = self.timed(name, make)
        self.families.setdefault(family, []).append(name)

    def add_trained(self) -> None:
        """PPO and the tuned rule of every seed, and PPO in the oracle if it is asked for."""
        args, world = self.args, self.world.name
        for seed in range(args.seeds):
            self.add(f"PPO in {world}", seed, lambda s=seed: self.trained(self.learned, args.steps, s, "ppo"))
            if self.config is not None:
                self.add(f"rule tuned in {world}", seed, lambda s=seed: self.tuned(s))
        if args.oracle_steps:
            make = lambda: self.trained(self.oracle, args.oracle_steps, 0, "ppo-oracle")  # noqa: E731
            self.add("PPO in the oracle (upper reference)", 0, make)

    def trained(self, simulator: Simulator, steps: int, seed: int, name: str) -> Agent:
        """PPO in `simulator`."""
        folder = self.runs / f"{name}-{steps}-{self.args.num_envs}-{seed}"
        return PolicyAgent(ppo(simulator, steps, seed, self.preset, folder, self.weights), self.oracle)

    def tuned(self, seed: int) -> Agent:
        """The rule with knobs found in the learned world."""
        assert self.config is not None
        patients, config = self.args.tune_patients, self.config
        about = {"what": "tuned rule", "weights": self.weights, "seed": seed, "patients": patients, **asdict(config)}
        about["threshold"] = [round(x, 6) for x in self.threshold.tolist()]
        find = lambda: {"knobs": tune(self.learned, self.threshold, config, patients, seed)}  # noqa: E731
        return TunedRule(self.threshold, kept(self.runs / f"tuned-{seed}", about, find)["knobs"])

    def courses(
        self, agent: Agent, simulator: Simulator, count: int, label: str, also: tuple[str, ...] = ()
    ) -> EpisodeResults:
        """Courses of the first `count` judged patients."""
        # the oracle makes its patients from the keys; the learned world is told what their first charts show
        fixed = {k: v[:count] for k, v in self.factors.items()} if simulator is self.learned else None
        with tqdm(total=STEPS, desc=f"{label}: {simulator.world.name}", leave=False) as bar:

            def turn() -> EpisodeResults:
                return judge(agent, simulator, self.key[:count], STEPS, fixed, lambda _: bar.update(), also)

            return self.timed(f"{label}, judged in {simulator.world.name}", turn)

    def rows(self) -> list[dict[str, Any]]:
        """Every decider on the same patients, seeds of one recipe also as their mean, and CEM on the first of them."""
        count = self.args.patients
        earned = {name: self.courses(agent, self.oracle, count, name) for name, agent in self.agents.items()}
        promised = {name: self.courses(agent, self.learned, count, name) for name, agent in self.agents.items()}
        for family, members in self.families.items():
            if len(members) > 1:
                name = f"{family}, mean of {len(members)} seeds"
                earned[name], promised[name] = (mean_results([x[m] for m in members]) for x in (earned, promised))
        rows = table(earned, promised)
        return [*rows, *self.planned(earned[RULE], promised[RULE])]

    def planned(self, earned: EpisodeResults, promised: EpisodeResults) -> list[dict[str, Any]]:
        """The row of CEM against the rule's courses on the same patients; none for 0 patients."""
        name, count = f"CEM in {self.world.name}", self.args.cem_patients
        if not count:
            return []
        weight, seed = self.preset.cost_weight, self.args.seed
        planner = WorldPlanner(self.learned, CEM, cost_weight=weight, seed=seed, sees=SEEN, name=name)
        some, said = (
            {RULE: tree.take(rule, slice(count)), name: self.courses(planner, simulator, count, name, ("latent",))}
            for rule, simulator in ((earned, self.oracle), (promised, self.learned))
        )
        return [table(some, said)[1]]


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    print("QALYs against ten years in health; every patient is simulated")
    for r in rows:
        cells = [
            f"{r[n]:7.3f} [{r[n + '_low']:.3f}, {r[n + '_high']:.3f}]" for n in ("return", "return_minus_reference")
        ]
        more = f"died {r['died']:.3f}  cost {r['cost']:.3f}  visits {r['visits']:5.1f}"
        promised = f"promised {r['promised_return']:.3f}  gap {r['gap_return']:+.3f}"
        print(f"{r['agent']:54s} {r['patients']:5d}  {cells[0]}  minus rule {cells[1]}  {more}  {promised}")


def main(argv: list[str] | None = None) -> int:
    """Make the deciders, judge them and write. Returns the exit status.

    Raises:
        SystemExit: a world that cannot be used.
    """
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    try:
        world = catalog.load(args.world)
        if not isinstance(world, CardiacJEPAWorld):
            raise ValueError(f"--world {args.world} is no cardiac JEPA; name one that is, or its folder")
    except (ValueError, KeyError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    run = _Run(args, world)
    rows = run.rows()
    _print(rows)
    seeds = {"first judged patient": args.seed, "first of validation": VALID_SEED, "first of the tuning": SEARCH_SEED}
    seeds |= {"first of PPO": PPO_SEED, "trainings": list(range(args.seeds)), "bootstrap": 0}
    made = made_by(MODULE, argv, seeds, ["progression-oracle", args.world])
    out = Path(args.out)
    write_csv(out / "policies_progression.csv", rows, made)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "runs")}
    about = {**settings, "world": Path(args.world).name, "weights": run.weights, "preset": run.preset.to_json()}
    about["torch"] = torch.__version__
    tuned = {n: a for n, a in run.agents.items() if isinstance(a, TunedRule)}
    knobs = {n: dict(zip(KNOBS, a.knobs.tolist(), strict=True)) for n, a in tuned.items()}
    found = {"valid_return_by_threshold": run.valid_return, "knobs": knobs, "planner": asdict(CEM)}
    content = {"arguments": about, **found, "cpu_seconds": run.cpu_s, "rows": rows}
    write_json(out / "policies_progression.json", content, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
