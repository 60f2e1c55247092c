"""Training by name: one table of algorithms, one way to choose among seeds; `clinenv train` is the command line.

`python -m agents.train ppo ECGDrug-v0 --out DIR` is the same command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from agents import ppo, ppo_config, run_folder
from agents.policy_agent import PolicyAgent
from agents.rollout import judge
from clinenv.commands.errors import UsageError
from world_models import keys
from world_models.protocol import WorldModel

__all__ = ["TRAINERS", "run", "train", "validate"]

_CHANGES = ("num_envs", "cost_weight", "cost_limit", "compile")
VALIDATION_SEED, VALIDATION_PATIENTS = 30_000_000, 2000  # folded by "validation": patients of no training and no judge


def _ppo(out: Path, steps: int, env_id: str, changes: dict[str, Any], **arguments: Any) -> Path:
    """Torch-native."""
    config = replace(ppo_config.preset_for(env_id), **changes)
    return ppo.train(out, steps, env_id, config=config, **arguments)


def _sb3(algo: str) -> Callable[..., Path]:
    """One of Stable-Baselines3 or sb3-contrib, which are imported when they train."""

    def trainer(out: Path, steps: int, env_id: str, changes: dict[str, Any], **arguments: Any) -> Path:
        from agents.sb3 import train
        from agents.sb3.presets import preset_for

        if changes.pop("compile", False):
            raise ValueError(
                f"compile: Stable-Baselines3's {algo} does not compile; take clinenv's own, ppo, or leave it out"
            )
        if arguments.pop("device", None) not in (None, "cpu"):
            raise ValueError("device: Stable-Baselines3 takes its patients as numpy arrays; take ppo, or leave it out")
        return train.train(out, steps, algo, env_id=env_id, preset=preset_for(algo, env_id).but(**changes), **arguments)

    return trainer


# name -> function(out, steps, env_id, changes of the preset, **what all trainers take)
TRAINERS: dict[str, Callable[..., Path]] = {
    "ppo": _ppo,
    "sb3-ppo": _sb3("ppo"),
    **{algo: _sb3(algo) for algo in ("a2c", "dqn", "qrdqn", "trpo", "maskable-ppo", "recurrent-ppo")},
}


def train(
    out: str | Path,
    steps: int,
    algo: str = "ppo",
    env_id: str = "ECGDrug-v0",
    world: str | Path | WorldModel | None = None,
    seed: int = 0,
    seeds: int = 1,
    **more: Any,
) -> Path:
    """Train by an algorithm's name with the preset of the id; returns the folder of the policy.

    Args:
        seeds: above 1: as many runs from `seed` on, each in a folder of its own in `out`, and in `out` itself the
            policy that earned most (less what its cost weighs) on validation patients in the world of its training.
        more: `num_envs`, `cost_weight`, `cost_limit`, `compile` change the preset; all else goes to the trainer (see
            `ppo.train` and `sb3.train.train`).

    Raises:
        ValueError: an unknown algorithm, or what the trainer says of its arguments.
    """
    if algo not in TRAINERS:
        raise ValueError(f"algo {algo!r} is unknown; choose one of {', '.join(TRAINERS)}")
    changes = {name: more.pop(name) for name in _CHANGES if more.get(name) is not None}
    if seeds == 1:
        return TRAINERS[algo](Path(out), steps, env_id, changes, world=world, seed=seed, **more)
    folders = [
        TRAINERS[algo](Path(out) / f"seed-{s}", steps, env_id, changes, world=world, seed=s, **more)
        for s in range(seed, seed + seeds)
    ]
    return _choose(Path(out), folders, env_id, world)


def validate(folder: Path, env_id: str, world: str | Path | WorldModel | None, patients: int) -> dict[str, float]:
    """Mean return and cost of a policy on validation patients of a world; they decide between policies, so no other
    claim may rest on them.

    Raises:
        ValueError: the patients of the id begin with a record, so none can be drawn by key.
    """
    told = run_folder.read_config(folder)
    envs = run_folder.make_patients(env_id, 1, world, **told.get("env_kwargs", {}))
    try:
        episodes = envs.unwrapped.episodes  # type: ignore[attr-defined]
        if episodes.patients is not None:
            raise ValueError(f"{env_id} takes its patients from records; train one seed, or judge them yourself")
        key = keys.fold(keys.from_seed(VALIDATION_SEED, patients, episodes.device), "validation")
        found = judge(PolicyAgent(folder, episodes.simulator), episodes.simulator, key, episodes.horizon_steps)
    finally:
        envs.close()
    return {"return": float(found.returns.mean()), "cost": float(found.costs.mean())}


def _choose(out: Path, folders: Sequence[Path], env_id: str, world: str | Path | WorldModel | None) -> Path:
    """Copy the best policy of several runs to `out`, with what each scored."""
    scores = {folder.name: validate(folder, env_id, world, VALIDATION_PATIENTS) for folder in folders}
    preset = run_folder.read_config(folders[0])["preset"]
    limit, weight = preset.get("cost_limit"), preset["cost_weight"]

    def worth(name: str) -> tuple[bool, float]:
        score = scores[name]
        if limit is not None:  # who keeps the limit comes first
            return score["cost"] <= limit, score["return"]
        return True, score["return"] - weight * score["cost"]

    best = max(scores, key=worth)
    with run_folder.POLICY.opened(out / best) as found:
        content = found.files[run_folder.TENSORS]
        content.seek(0)
        told = {**found.config, "chosen": best, "validation": scores, "validation_patients": VALIDATION_PATIENTS}
        run_folder.POLICY.write(out, told, [content.read()])
    return out


def run(given: argparse.Namespace) -> int:
    """What `clinenv train` does; see `clinenv.commands.train`."""
    torch.set_num_threads(given.threads)
    more = {name: getattr(given, name) for name in ("num_envs", "cost_weight", "cost_limit", "device")}
    more |= {"compile": True} if given.compile else {}
    more = {name: value for name, value in more.items() if value is not None}
    try:
        folder = train(
            given.out,
            given.steps,
            given.algo,
            given.env,
            given.world,
            given.seed,
            given.seeds,
            resume=not given.fresh,
            tensorboard=given.tensorboard,
            **more,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    told = run_folder.read_config(folder)
    for name, score in told.get("validation", {}).items():
        print(f"{name}: return {score['return']:.3f}, cost {score['cost']:.3f} on validation patients")
    print(f"policy in {folder}" + (f" ({told['chosen']})" if "chosen" in told else ""))
    return 0


if __name__ == "__main__":
    from clinenv.commands.main import main

    sys.exit(main(["train", *sys.argv[1:]]))
