"""A trained SB3 policy on disk: safetensors and JSON, no pickle, so that loading one runs nobody's code.

    policy.safetensors     the policy's parameters
    optimizer.safetensors  the optimiser's moments, to go on training
    policy.json            the algorithm, its preset, the layout of the observation, how far training got
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy

__all__ = ["POLICIES", "load_policy", "read_config", "restore", "save"]

POLICIES: dict[str, type[BasePolicy]] = {"ppo": ActorCriticPolicy, "dqn": DQNPolicy}


def save(model: BaseAlgorithm, folder: Path, config: dict[str, Any]) -> None:
    """Write policy, optimiser and config; each file is complete or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = {k: v.detach().cpu().contiguous().clone() for k, v in model.policy.state_dict().items()}
    moments: dict[str, torch.Tensor] = {}
    for index, slots in model.policy.optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            moments[f"{index}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous().clone()
    space = model.action_space
    config = {
        **config,
        "steps_done": int(model.num_timesteps),
        "updates_done": int(getattr(model, "_n_updates", 0)),
        "observation": _box_to_json(model.observation_space),
        "action": _action_to_json(space),
    }
    _replace(folder / "policy.safetensors", lambda path: save_file(policy, path))
    _replace(folder / "optimizer.safetensors", lambda path: save_file(moments, path))
    text = json.dumps(config, indent=1) + "\n"
    _replace(folder / "policy.json", lambda path: Path(path).write_text(text, encoding="utf-8"))


def restore(model: BaseAlgorithm, folder: Path) -> int:
    """Put the parameters, moments and counters of `folder` into a model of the same preset; returns the steps done."""
    config = read_config(folder)
    model.policy.load_state_dict(load_file(folder / "policy.safetensors"))
    optimizer = model.policy.optimizer
    whole = optimizer.state_dict()
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / "optimizer.safetensors").items():
        index, _, slot = name.partition(".")
        state.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    model.num_timesteps = config["steps_done"]
    model._n_updates = config["updates_done"]
    return model.num_timesteps


def read_config(folder: Path) -> dict[str, Any]:
    """policy.json.

    Raises:
        FileNotFoundError: the folder holds no trained policy.
    """
    path = Path(folder) / "policy.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; train a policy first: python -m agents.sb3.train --out {folder}")
    return json.loads(path.read_text(encoding="utf-8"))


def load_policy(folder: Path, device: torch.device | str = "cpu") -> tuple[BasePolicy, dict[str, Any]]:
    """The policy in evaluation mode, and its config."""
    config = read_config(folder)
    action = config["action"]
    action_space = _action_from_json(action)
    # SB3 initialises what it builds from torch's global generator: put that back as it was.
    with torch.random.fork_rng(devices=[]):
        policy = POLICIES[config["algo"]](
            _box_from_json(config["observation"]),
            action_space,
            lambda _: 0.0,
            net_arch=list(config["preset"]["net_arch"]),
        )
    policy.load_state_dict(load_file(Path(folder) / "policy.safetensors"))
    policy.set_training_mode(False)
    return policy.to(device), config


def _action_to_json(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"choices": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"levels": [int(n) for n in space.nvec]}
    if isinstance(space, spaces.MultiBinary):
        return {"switches": int(space.n)}
    return _box_to_json(space)


def _action_from_json(action: dict[str, Any]) -> spaces.Space:
    if "choices" in action:
        return spaces.Discrete(action["choices"])
    if "levels" in action:
        return spaces.MultiDiscrete(action["levels"])
    return spaces.MultiBinary(action["switches"]) if "switches" in action else _box_from_json(action)


def _box_to_json(box: spaces.Box) -> dict[str, Any]:
    return {"low": np.asarray(box.low).tolist(), "high": np.asarray(box.high).tolist()}


def _box_from_json(box: dict[str, Any]) -> spaces.Box:
    return spaces.Box(np.array(box["low"], np.float32), np.array(box["high"], np.float32), dtype=np.float32)


def _replace(path: Path, write: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)
