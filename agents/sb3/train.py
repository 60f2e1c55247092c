"""Train an SB3 policy on a clinical environment: `python -m agents.sb3.train --algo ppo --steps 500000 --out runs/ppo`.

Resumable: the same command goes on where it was stopped. Metrics go to metrics.jsonl, one line an update.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

import clinenv  # noqa: F401  (registers the ids)
from agents.sb3 import store
from agents.sb3.presets import Preset, preset_for
from agents.sb3.vec_env import SB3VecEnv, clinical
from clinenv.interface import Interface
from clinenv.registration import ENVIRONMENTS
from world_models import catalog, checkpoint
from world_models.command_line import MOST_THREADS, folder, number, whole
from world_models.protocol import WorldModel

__all__ = ["main", "train", "weights_sum"]

_SAME = ("algo", "env_id", "world", "world_sha256", "preset", "env_kwargs")  # what a resumed run cannot change
_ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "dqn": DQN}


class _Report(BaseCallback):
    """Progress bar, metrics file, and the policy saved every so often."""

    def __init__(self, folder: Path, config: dict[str, Any], total: int, show: bool, save_every_s: float) -> None:
        super().__init__()
        self.folder, self.config, self.total, self.save_every_s = folder, config, total, save_every_s
        self.show = show
        self.saved_at = self.started = time.monotonic()

    def _on_training_start(self) -> None:
        self.start_steps = self.num_timesteps
        label = f"{self.config['algo']} in {self.config['world']}"
        self.bar = tqdm(total=self.total, initial=self.num_timesteps, desc=label, unit="step", disable=not self.show)
        self.metrics = open(self.folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115 (closed at the end)
        self.lines_at = self.num_timesteps

    def _on_step(self) -> bool:
        if self.num_timesteps - self.lines_at >= 24 * self.training_env.num_envs:
            self._line()
        return True

    def _line(self) -> None:
        self.lines_at = self.num_timesteps
        self.bar.update(self.num_timesteps - self.bar.n)
        recent = list(self.model.ep_info_buffer or ())
        seconds = time.monotonic() - self.started
        line = {"steps": self.num_timesteps, "seconds": round(seconds, 2)}
        line["steps_per_second"] = round((self.num_timesteps - self.start_steps) / max(seconds, 1e-9))
        if recent:
            for name, key in (("return", "r"), ("cost", "cost"), ("length", "l")):
                line[name] = round(float(np.mean([e[key] for e in recent])), 5)
            self.bar.set_postfix(ret=f"{line['return']:.2f}", cost=f"{line['cost']:.2f}")
        self.metrics.write(json.dumps(line) + "\n")
        self.metrics.flush()
        if time.monotonic() - self.saved_at > self.save_every_s:
            store.save(self.model, self.folder, self.config)
            self.saved_at = time.monotonic()

    def _on_training_end(self) -> None:
        if self.num_timesteps > self.lines_at:
            self._line()
        self.bar.update(self.num_timesteps - self.bar.n)
        self.bar.close()
        self.metrics.close()


def weights_sum(world: str | Path | WorldModel) -> str | None:
    """SHA-256 of a learned world's weights, for a world given by its name or folder; None where there are none."""
    if not isinstance(world, str):
        return None
    entry = catalog.WORLDS.get(world)
    if entry is not None and entry.weights is None:
        return None
    folder = catalog.weights_folder(world) if entry is not None else Path(world)
    return checkpoint.sha256(folder) if folder.is_dir() else None


def _make(env_id: str, preset: Preset, world: str | Path | WorldModel, **kwargs: Any) -> VectorEnv:
    return gym.make_vec(
        env_id, num_envs=preset.num_envs, vectorization_mode="vector_entry_point", world=world, **kwargs
    )


def train(
    out: str | Path,
    steps: int,
    algo: str = "ppo",
    world: str | Path | WorldModel = "ecg-wm-small",
    env_id: str = "ECGDrug-v0",
    preset: Preset | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
    save_every_s: float = 60.0,
    make: Callable[..., VectorEnv] = _make,
    **env_kwargs: Any,
) -> Path:
    """Train until `steps` patient-steps have been seen in all; returns the folder of the policy.

    Args:
        out: folder for policy.safetensors, optimizer.safetensors, policy.json and metrics.jsonl.
        algo: ppo or dqn; `preset` (default: the algorithm's own) decides the rest.
        world: name, folder or object, as the environment takes it.
        seed: of SB3's networks and sampling, and of the patients.
        resume: go on from `out` if it holds a policy of the same algorithm, world (weights too) and preset. (DQN's
            replay buffer is not kept: it fills anew.)
        make: builds the vector environment, called as make(env_id, preset, world, autoreset_mode=..., **env_kwargs).

    Raises:
        ValueError: an unknown algorithm, steps below 1, or `out` holds a policy of another kind.
    """
    if algo not in _ALGORITHMS:
        raise ValueError(f"algo {algo!r} is unknown; choose one of {', '.join(_ALGORITHMS)}")
    ids = [row["id"] for row in ENVIRONMENTS]
    if env_id not in ids and make is _make:
        raise ValueError(f"environment {env_id!r} is none of clinenv's; choose one of {', '.join(ids)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    preset = preset or preset_for(algo, env_id)
    folder = Path(out)
    config = {
        "algo": algo,
        "env_id": env_id,
        "world": world if isinstance(world, str) else world.name,
        "world_sha256": weights_sum(world),
        "preset": json.loads(json.dumps(preset.to_json())),
        "seed": seed,
        "env_kwargs": {k: v for k, v in env_kwargs.items() if isinstance(v, str | int | float | bool | type(None))},
    }
    resume = resume and (folder / "policy.json").exists()
    if resume:
        old = store.read_config(folder)
        differing = [k for k in _SAME if old.get(k) != config[k]]
        if differing:
            raise ValueError(f"{folder} holds a policy with another {', '.join(differing)}; choose another --out")
        if old["steps_done"] >= steps:
            return folder
    envs = make(env_id, preset, world, autoreset_mode=AutoresetMode.SAME_STEP, **env_kwargs)
    try:
        # Course and horizon are the same 24 steps for everyone and the hour is observed: the end is the end.
        vec = SB3VecEnv(envs, cost_weight=preset.cost_weight, bootstrap_truncated=False)
        patients = clinical(envs)
        config["observation_names"] = list(Interface(patients.world, patients.task).layout.names)
        settings = dict(preset.settings)
        if preset.decay:
            top = settings["learning_rate"]
            settings["learning_rate"] = lambda remaining: top * remaining
        policy_kwargs = {"net_arch": list(preset.net_arch)}
        if algo == "dqn" and not isinstance(vec.action_space, Discrete):
            raise ValueError(f"dqn needs a menu, but {env_id} takes {vec.action_space}; take ppo")
        model = _ALGORITHMS[algo]("MlpPolicy", vec, seed=seed, device="cpu", policy_kwargs=policy_kwargs, **settings)
        done = store.restore(model, folder) if resume else 0
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            (folder / "metrics.jsonl").unlink(missing_ok=True)
        vec.seed(seed + done)  # a resumed run meets new patients
        report = _Report(folder, config, steps, progress, save_every_s)
        model.learn(steps - done, callback=report, reset_num_timesteps=done == 0)
        store.save(model, folder, config)
    finally:
        envs.close()
    return folder


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status is 2 where nothing could be trained, and the message says why."""
    parser = argparse.ArgumentParser(prog="python -m agents.sb3.train", description=__doc__)
    parser.add_argument("--algo", choices=sorted(_ALGORITHMS), default="ppo")
    parser.add_argument("--env", default="ECGDrug-v0", help="environment id")
    parser.add_argument("--world", default="ecg-wm-small", help="oracle, a shipped world's name, or a folder")
    parser.add_argument("--steps", type=whole(1), default=500_000, help="patient-steps in all")
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    parser.add_argument("--num-envs", type=whole(1, 1 << 20), help="patients at once (default: the preset's)")
    parser.add_argument("--cost-weight", type=number(0, 1e6), help="what one unit of safety cost is worth in return")
    threads = "torch threads; networks this small gain from one only"
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1, help=threads)
    parser.add_argument("--fresh", action="store_true", help="start anew even if --out holds a policy")
    parser.add_argument("--out", type=folder, required=True, help="folder for the policy")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    preset = preset_for(args.algo, args.env)
    if args.num_envs is not None:
        preset = preset.but(num_envs=args.num_envs)
    if args.cost_weight is not None:
        preset = preset.but(cost_weight=args.cost_weight)
    try:
        train(args.out, args.steps, args.algo, args.world, args.env, preset, seed=args.seed, resume=not args.fresh)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"policy in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
