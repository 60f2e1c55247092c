"""How fast PPO trains here, beside Stable-Baselines3's: `python -m benchmarks.ppo_speed --out ppo_speed.json`.

In one run, on one thread, in the learned world of `ECGDrug-v0`:

- **Steps a second**, end to end (rollout and update), of `agents.ppo` and of SB3's PPO on one batch of patients
  (`SB3VecEnv`), with the same patients at once, steps, epochs, network (tanh), optimiser and minibatch, for several
  sizes of the minibatch. The two take turns, so what else the machine does hits both; the ratio is the median of the
  turns'. Ours once with eager and once with compiled gradient steps (`compile=True`), which are made before the clock
  runs. SB3's environment leaves out the spread in info, which nobody reads.
- **Time to a fixed return**: what the dofetilide label's rule earns, on the same validation patients in the learned
  world. For `agents.ppo` with its preset, SB3 batched with each of its minibatches, and SB3 as its manual begins: eight
  single environments in a DummyVecEnv. Validation is not counted; who has not arrived within `--limit` seconds of the
  processor is told by what it earned by then.

Seconds are those of the wall clock and of the processor; the latter say what the former cannot on a shared machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from tqdm import tqdm

import clinenv  # noqa: F401  (registers the ids)
from agents import ppo
from agents.baselines.ecg_rules import DofetilideLabelRule
from agents.courses import Courses
from agents.policy_agent import PolicyAgent
from agents.ppo_config import PPOConfig, preset_for
from agents.ppo_policy import Trained
from agents.protocol import Agent, menu_of
from agents.rollout import judge
from agents.sb3.vec_env import SB3VecEnv
from benchmarks.common.results import RESULTS, made_by, write_json
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.command_line import whole
from world_models.protocol import WorldModel

MODULE = "benchmarks.ppo_speed"
WORLD = "ecg-wm-small"
COURSE = 24  # steps of 48 h
VALIDATION_SEED = 31_000_000  # folded by "validation"
SINGLE = 8  # single environments in a DummyVecEnv


class Spent(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float


def spent(work: Callable[[], object]) -> Spent:
    """What some work takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


class Native:
    """`agents.ppo`, an iteration at a time."""

    def __init__(self, world: WorldModel, config: PPOConfig, seed: int, total: int) -> None:
        envs = _patients(world, config.num_envs)
        courses = Courses(envs.unwrapped.episodes, seed)  # type: ignore[attr-defined]
        self._learner = ppo.Learner(courses, envs.single_action_space, False, config, seed)
        self._total = total

    @property
    def steps(self) -> int:
        """Patient-steps so far."""
        return self._learner.steps

    def iterate(self) -> None:
        """One rollout and one update."""
        config = self._learner.config
        self._learner.iterate(config.learning_rate * max(0.0, 1.0 - self.steps / self._total))

    def agent(self, simulator: Simulator) -> Agent:
        """The policy as it is now."""
        network, history = self._learner.network, self._learner.history
        return PolicyAgent(Trained(network, history.shape[2], history.shape[1], False), simulator)


class SB3:
    """Stable-Baselines3's PPO on any of its VecEnvs, an iteration at a time, with the settings of a config."""

    def __init__(self, vec: VecEnv, config: PPOConfig, seed: int, total: int) -> None:
        self._rollout = config.n_steps * vec.num_envs
        self._model = PPO(
            "MlpPolicy",
            vec,
            n_steps=config.n_steps,
            batch_size=config.minibatch,
            n_epochs=config.epochs,
            learning_rate=lambda _: config.learning_rate * max(0.0, 1.0 - self.steps / total),
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip,
            ent_coef=config.entropy,
            vf_coef=config.value_weight,
            max_grad_norm=config.max_norm,
            policy_kwargs={"net_arch": list(config.hidden)},
            device="cpu",
            seed=seed,
        )

    @property
    def steps(self) -> int:
        """Patient-steps so far."""
        return self._model.num_timesteps if hasattr(self, "_model") else 0

    def iterate(self) -> None:
        """One rollout and one update."""
        self._model.learn(self._rollout, reset_num_timesteps=self.steps == 0)

    def agent(self, simulator: Simulator) -> Agent:
        """The policy as it is now."""
        return PolicyAgent(self._model.policy, simulator)


class _Weighed(gym.RewardWrapper):
    """A single environment that pays reward less the weighed cost, as `SB3VecEnv` does for a batch."""

    def __init__(self, env: gym.Env, weight: float) -> None:
        super().__init__(env)
        self._weight = weight

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The end of the 48 hours is the end."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) - self._weight * info["cost"], terminated or truncated, False, info


def _patients(world: WorldModel, count: int, **settings: Any) -> gym.vector.VectorEnv:
    return gym.make_vec(
        "ECGDrug-v0",
        num_envs=count,
        vectorization_mode="vector_entry_point",
        world=world,
        uncertainty=False,
        **settings,
    )


def _batched(world: WorldModel, config: PPOConfig) -> SB3VecEnv:
    envs = _patients(world, config.num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    return SB3VecEnv(envs, config.cost_weight, bootstrap_truncated=False)


def _singles(world: WorldModel, config: PPOConfig) -> DummyVecEnv:
    def single() -> gym.Env:
        return _Weighed(gym.make("ECGDrug-v0", world=world, uncertainty=False), config.cost_weight)

    return DummyVecEnv([single] * SINGLE)


def speeds(
    world: WorldModel, config: PPOConfig, minibatches: Sequence[int], turns: int, compiled: bool = True
) -> list[dict[str, Any]]:
    """Steps a second of all, for each size of the minibatch."""
    rows = []
    for size in tqdm(minibatches, desc="steps a second", unit="minibatch"):
        own = replace(config, minibatch=size)
        learners: list[Native | SB3] = [Native(world, own, 0, 10**9), SB3(_batched(world, own), own, 0, 10**9)]
        learners += [Native(world, replace(own, compile=True), 0, 10**9)] if compiled else []
        for learner in learners:
            learner.iterate()  # whatever is made once
        taken = [tuple(spent(learner.iterate) for learner in learners) for _ in range(turns)]
        steps = own.num_envs * own.n_steps
        row: dict[str, Any] = {"minibatch": size, "turns": turns}
        for clock in ("wall", "cpu"):
            seconds = [[getattr(turn[i], clock) for turn in taken] for i in range(len(learners))]
            for prefix, mine in zip(("", "sb3_", "compiled_"), seconds, strict=False):
                row[f"{prefix}steps_per_second_{clock}"] = round(steps / statistics.median(mine))
            for prefix, mine in zip(("", "compiled_"), seconds[::2], strict=False):
                ratios = [b / a for a, b in zip(mine, seconds[1], strict=True)]
                row[f"{prefix}ratio_{clock}"] = round(statistics.median(ratios), 2)
                row[f"{prefix}ratio_{clock}_low"] = round(min(ratios), 2)
                row[f"{prefix}ratio_{clock}_high"] = round(max(ratios), 2)
        rows.append(row)
    return rows


def time_to(
    learner: Native | SB3, earned: Callable[[Agent], float], simulator: Simulator, wanted: float, limit_s: float
) -> dict[str, Any]:
    """Seconds and steps until the policy earns as much as wanted, asked after every iteration."""
    wall = cpu = 0.0
    best = -float("inf")
    while best < wanted and cpu < limit_s:
        took = spent(learner.iterate)
        wall, cpu = wall + took.wall, cpu + took.cpu
        best = max(best, earned(learner.agent(simulator)))
    return {
        "arrived": best >= wanted,
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "steps": learner.steps,
        "best_return": round(best, 3),
    }


def contest(world: WorldModel, args: argparse.Namespace) -> tuple[float, list[dict[str, Any]]]:
    """The return wanted, and how long each needs for it, for each seed."""
    simulator = Simulator(world, ECGDrugTask())
    key = keys.fold(keys.from_seed(VALIDATION_SEED, args.patients), "validation")

    def earned(agent: Agent) -> float:
        return float(judge(agent, simulator, key, COURSE).returns.mean())

    wanted = earned(DofetilideLabelRule(menu_of(simulator), [q.name for q in world.orders]))
    preset = replace(preset_for("ECGDrug-v0"), num_envs=args.num_envs)
    single = replace(preset, n_steps=COURSE * 8, minibatch=64)  # 1,536 rows an update, and minibatches as SB3's own
    makers: dict[str, Callable[[int], Native | SB3]] = {
        f"agents.ppo, its preset: minibatch {preset.minibatch}, {preset.epochs} epochs": lambda seed: Native(
            world, preset, seed, args.total
        )
    }
    if not args.no_compiled:
        makers["agents.ppo, its preset, compiled"] = lambda seed: Native(
            world, replace(preset, compile=True), seed, args.total
        )
    for size in args.contest_minibatches:
        own = replace(preset, minibatch=size)
        makers[f"SB3 on the batch, minibatch {size}, {own.epochs} epochs"] = lambda seed, own=own: SB3(
            _batched(world, own), own, seed, args.total
        )
    if not args.no_single:
        makers[f"SB3 on {SINGLE} single environments, minibatch {single.minibatch}"] = lambda seed: SB3(
            _singles(world, single), single, seed, args.total
        )
    rows = []
    with tqdm(total=len(makers) * args.seeds, desc="time to a return", unit="training") as bar:
        for name, make in makers.items():
            for seed in range(args.seeds):
                rows.append({"who": name, "seed": seed, **time_to(make(seed), earned, simulator, wanted, args.limit)})
                bar.update()
    return wanted, rows


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--num-envs", type=whole(1, 1 << 20), default=1024, help="patients at once")
    sizes = {"type": whole(1, 1 << 24), "nargs": "+"}
    parser.add_argument("--minibatches", **sizes, default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--contest-minibatches", **sizes, default=[512, 2048], help="of SB3, to the fixed return")
    parser.add_argument("--turns", type=whole(1, 1000), default=7, help="of each, taken in turn")
    parser.add_argument("--patients", type=whole(1, 1 << 20), default=1000, help="on whom returns are validated")
    parser.add_argument("--seeds", type=whole(1, 100), default=3, help="trainings of each to the fixed return")
    parser.add_argument("--limit", type=whole(1, 86400), default=300, help="seconds of the processor for one training")
    parser.add_argument("--total", type=whole(1), default=1_500_000, help="steps over which the learning rate falls")
    parser.add_argument("--no-single", action="store_true", help="leave the single environments out")
    parser.add_argument("--no-compiled", action="store_true", help="leave compiled gradient steps out")
    parser.add_argument("--out", type=Path, default=RESULTS / "ppo_speed.json")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    world = catalog.load(WORLD)
    preset = preset_for("ECGDrug-v0")
    rows = speeds(world, replace(preset, num_envs=args.num_envs), args.minibatches, args.turns, not args.no_compiled)
    for row in rows:
        print(row)
    wanted, arrivals = contest(world, args)
    print(f"the label's rule earns {wanted:.3f}")
    for arrival in arrivals:
        print(arrival)
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    content = {
        "arguments": settings,
        "preset": asdict(preset),
        "threads": 1,
        "steps_per_second": rows,
        "wanted_return": wanted,
        "time_to_return": arrivals,
    }
    write_json(
        args.out, content, made_by(MODULE, argv, {"trainings": args.seeds, "patients": VALIDATION_SEED}, [WORLD])
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
