"""A trained SB3 policy on disk: safetensors and JSON, no pickle, so that loading one runs nobody's code.

policy.safetensors     the policy's parameters
optimizer.safetensors  the optimiser's moments, to go on training
policy.json            the algorithm, its preset, the layout of the observation, how far training got, and the seal
                       over all three (`world_models.sealed`)

python -m agents.sb3.store FOLDER    seals a folder of an earlier version, or one that was changed on purpose
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import save as save_tensors
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor

from world_models.checkpoint import CheckpointError
from world_models.sealed import Form, Opened, command_line

__all__ = ["FORM", "OPTIMIZER", "POLICIES", "POLICY"]
__all__ += ["filled", "load_policy", "plain", "read_config", "restore", "save"]

POLICIES: dict[str, type[BasePolicy]] = {"ppo": ActorCriticPolicy, "dqn": DQNPolicy}
POLICY, OPTIMIZER = "policy.safetensors", "optimizer.safetensors"
FORM = Form("policy.json", (POLICY, OPTIMIZER), "python -m agents.sb3.store")


def save(model: BaseAlgorithm, folder: Path, config: dict[str, Any]) -> None:
    """Write policy, optimiser and config; a save that is stopped leaves the policy that was there before."""
    moments: dict[str, Tensor] = {}
    for index, slots in model.policy.optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            moments[f"{index}.{name}"] = torch.as_tensor(value)
    config = {
        **config,
        "steps_done": int(model.num_timesteps),
        "updates_done": int(model._n_updates),
        "observation": _box_to_json(model.observation_space),
        "action": _action_to_json(model.action_space),
    }
    FORM.write(folder, config, [save_tensors(plain(tensors)) for tensors in (model.policy.state_dict(), moments)])


def restore(model: BaseAlgorithm, folder: Path) -> int:
    """Put the parameters, moments and counters of `folder` into a model of the same preset; returns the steps done.

    Raises:
        FileNotFoundError: the folder holds no trained policy.
        CheckpointError: a file is damaged or altered, or of another policy; the model is as it was.
    """
    optimizer = model.policy.optimizer
    whole = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots = {f"{i}.{slot}": p for i, p in enumerate(parameters) for slot in ("exp_avg", "exp_avg_sq")}
    slots |= {f"{i}.step": torch.zeros(()) for i in range(len(parameters))}
    with FORM.opened(folder) as found:
        done, updates = (_count(found.config, name, folder) for name in ("steps_done", "updates_done"))
        policy = found.tensors(POLICY, model.policy.state_dict())
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in found.tensors(OPTIMIZER, {}, slots).items():
            index, _, slot = name.partition(".")
            state.setdefault(int(index), {})[slot] = value
    model.policy.load_state_dict(policy)
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    model.num_timesteps, model._n_updates = done, updates
    return done


def read_config(folder: Path) -> dict[str, Any]:
    """policy.json.

    Raises:
        FileNotFoundError: the folder holds no trained policy.
        CheckpointError: it is no JSON object.
    """
    folder = Path(folder)
    if not (folder / FORM.json).exists():
        raise FileNotFoundError(
            f"{folder / FORM.json} is not there; train a policy first: python -m agents.sb3.train --out {folder}"
        )
    return FORM.read_json(folder)


def load_policy(folder: Path, device: torch.device | str = "cpu") -> tuple[BasePolicy, dict[str, Any]]:
    """The policy in evaluation mode, and its config.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: a file is damaged or altered, or the config describes no policy.
    """
    folder = Path(folder)
    read_config(folder)
    with FORM.opened(folder) as found:
        config = found.config
        policy = filled(
            found,
            lambda: (
                POLICIES[config["algo"]],
                _box_from_json(config["observation"]),
                _action_from_json(config["action"]),
                config["preset"]["net_arch"],
            ),
        )
    policy.set_training_mode(False)
    return policy.to(device), config


def filled(
    found: Opened, described: Callable[[], tuple[type[BasePolicy], spaces.Space, spaces.Space, Sequence[int]]]
) -> BasePolicy:
    """The policy of an open folder.

    Args:
        described: gives its class, observation space, action space and widths of layers; what it raises is the config's
            fault.

    Raises:
        CheckpointError: the config describes no policy, or one that the file's tensors are not of.
    """
    try:
        policy = _build(*described(), found.files[POLICY].seek(0, os.SEEK_END))
    except Exception as error:  # whatever SB3 and Gymnasium say of a description that is none
        raise CheckpointError(f"{found.folder / FORM.json} describes no policy ({error!r}); train it again") from error
    policy.load_state_dict(found.tensors(POLICY, policy.state_dict()))
    return policy


def _build(
    kind: type[BasePolicy], observation: spaces.Space, action: spaces.Space, widths: Sequence[int], size: int
) -> BasePolicy:
    """An untrained policy whose weights fit in a file of `size` bytes.

    SB3 builds on no meta device: the layers' sizes are summed up before memory is taken.
    """
    layers = [spaces.flatdim(observation), *widths, spaces.flatdim(action)]
    if not all(type(width) is int and width >= 1 for width in layers):
        raise ValueError(f"its layers are {layers}, not whole numbers of at least 1")
    needed = 4 * sum(a * b for a, b in itertools.pairwise(layers))
    if needed > size:
        raise ValueError(f"its layers {layers} need {needed} bytes or more, and {POLICY} has {size}")
    # SB3 initialises what it builds from torch's global generator: put that back as it was.
    with torch.random.fork_rng(devices=[]):
        return kind(observation, action, lambda _: 0.0, net_arch=list(widths))


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as a file takes them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _count(config: Mapping[str, Any], name: str, folder: Path) -> int:
    value = config.get(name)
    if type(value) is not int or value < 0:
        raise CheckpointError(
            f"{folder / FORM.json} has {name}={value!r}, not a whole number of at least 0; train it again"
        )
    return value


def _action_to_json(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"choices": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"levels": [int(n) for n in space.nvec]}
    if isinstance(space, spaces.MultiBinary):
        return {"switches": int(np.prod(space.n))}
    return _box_to_json(space)


def _action_from_json(action: dict[str, Any]) -> spaces.Space:
    if "choices" in action:
        return spaces.Discrete(action["choices"])
    if "levels" in action:
        return spaces.MultiDiscrete(action["levels"])
    return spaces.MultiBinary(action["switches"]) if "switches" in action else _box_from_json(action)


def _box_to_json(box: spaces.Space) -> dict[str, Any]:
    if not isinstance(box, spaces.Box):
        raise ValueError(f"a policy is kept for spaces of numbers, and this one's is {box}")
    return {"low": np.asarray(box.low).tolist(), "high": np.asarray(box.high).tolist()}


def _box_from_json(box: dict[str, Any]) -> spaces.Box:
    return spaces.Box(np.array(box["low"], np.float32), np.array(box["high"], np.float32), dtype=np.float32)


if __name__ == "__main__":
    sys.exit(command_line(FORM, "a policy's folder")(None))
