"""The folder of a trained policy, whoever trained it: what it is, what is needed to go on training, and its metrics.

policy.json, policy.safetensors    the policy, how to build it, what it was trained on and how far, under one seal
checkpoint/                        all that training needs to go on as if it had not been stopped, under its own seal
metrics.jsonl                      a line an update; tensorboard/ holds the same, where that was asked for

Nothing is unpickled. `python -m agents.run_folder FOLDER` seals a folder whose policy was changed on purpose.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from safetensors.torch import save as save_tensors
from torch import Tensor

import clinenv  # noqa: F401  (registers the ids)
from clinenv.pessimism import Pessimism
from clinenv.registration import ENVIRONMENTS
from world_models import catalog, checkpoint
from world_models.protocol import WorldModel
from world_models.sealed import Form, Opened, command_line
from world_models.tensor_file import CheckpointError

__all__ = ["CHECKPOINT", "POLICY", "TENSORS", "as_bytes", "as_tensor", "described", "forget", "lags", "make_patients"]
__all__ += ["opened_checkpoint"]
__all__ += ["plain", "read_config", "resumable", "save_checkpoint", "save_policy", "space_from_json", "space_to_json"]
__all__ += ["weights_sum", "whole_number"]

TENSORS = "policy.safetensors"
POLICY = Form("policy.json", (TENSORS,), "python -m agents.run_folder")
CHECKPOINT = Form("checkpoint.json", ("checkpoint.safetensors",), "python -m agents.run_folder")
_FOLDER = "checkpoint"
_SAME = (
    "library",
    "algo",
    "env_id",
    "world",
    "world_sha256",
    "preset",
    "seed",
    "env_kwargs",
    "env_objects",  # class names of arguments that are objects
)  # not steps: more may be asked for


def make_patients(env_id: str, num_envs: int, world: str | Path | WorldModel | None, **settings: Any) -> VectorEnv:
    """The vector environment that a policy is trained on; without a world, in that of the id.

    Raises:
        ValueError: an id that is none of clinenv's, or what the environment says of its arguments.
    """
    ids = [row["id"] for row in ENVIRONMENTS]
    if env_id not in ids:
        raise ValueError(f"environment {env_id!r} is none of clinenv's; choose one of {', '.join(ids)}")
    if world is not None:
        settings["world"] = world
    return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **settings)


def described(
    library: str,
    algo: str,
    env_id: str,
    world: str | Path | WorldModel | None,
    preset: Mapping[str, Any],
    seed: int,
    steps: int,
    env_kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """What is said of a training run in policy.json and checkpoint.json, as plain JSON.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if world is None:
        world = next((row["kwargs"]["world"] for row in ENVIRONMENTS if row["id"] == env_id), env_id)
    written: dict[str, Any] = {}
    objects = {}
    for name, value in env_kwargs.items():
        try:
            written[name] = json.loads(json.dumps(value, default=_said))
        except (TypeError, ValueError):  # what cannot be made again from what is written
            objects[name] = f"{type(value).__module__}.{type(value).__qualname__}"
    told = {
        "library": library,
        "algo": algo,
        "env_id": env_id,
        "world": str(world) if isinstance(world, str | Path) else world.name,
        "world_sha256": weights_sum(world),
        "preset": preset,
        "seed": seed,
        "steps": steps,
        "env_kwargs": written,
    }
    if objects:
        told["env_objects"] = objects
    return json.loads(json.dumps(told))


def _said(value: Any) -> Any:
    """What the environment takes in the place of an argument that JSON does not know. Raises TypeError: nothing."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Pessimism):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def weights_sum(world: str | Path | WorldModel) -> str | None:
    """SHA-256 of a learned world's weights, for a world given by its name or folder; None where there are none."""
    if not isinstance(world, str | Path):
        return None
    entry = catalog.WORLDS.get(str(world))
    if entry is not None and entry.weights is None:
        return None
    folder = catalog.weights_folder(str(world)) if entry is not None else Path(world)
    return checkpoint.sha256(folder) if folder.is_dir() else None


def resumable(folder: Path, told: Mapping[str, Any]) -> bool:
    """Whether `folder` holds a checkpoint of this very run to go on from.

    Raises:
        ValueError: it holds another run's, or a policy without a checkpoint; nothing is changed then.
        CheckpointError: the checkpoint's JSON is damaged.
    """
    place = folder / _FOLDER
    if not (place / CHECKPOINT.json).exists():
        if (folder / POLICY.json).exists():
            raise ValueError(f"{folder} holds a policy and nothing to go on from; choose another folder, or start anew")
        return False
    old = CHECKPOINT.read_json(place)
    differing = [name for name in _SAME if old.get(name) != told.get(name)]
    if differing:
        raise ValueError(
            f"{folder} holds a run with another {', '.join(differing)}; choose another folder, or start anew"
        )
    return True


def lags(folder: Path, steps_done: int) -> bool:
    """Whether the policy is not the checkpoint's, of so many steps: a run was stopped between saving the one and the
    other."""
    return not (folder / POLICY.json).exists() or POLICY.read_json(folder).get("steps_done") != steps_done


def forget(folder: Path) -> None:
    """Take the policy and the checkpoint of an earlier run out of a folder in which another begins."""
    for path in (folder / _FOLDER / CHECKPOINT.json, folder / POLICY.json):
        path.unlink(missing_ok=True)


def save_checkpoint(folder: Path, told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write what training needs to go on; a save that is stopped leaves the checkpoint that was there before."""
    CHECKPOINT.write(folder / _FOLDER, told, [save_tensors(plain(tensors))])


def opened_checkpoint(folder: Path) -> AbstractContextManager[Opened]:
    """The checkpoint of a run, its seal checked."""
    return CHECKPOINT.opened(folder / _FOLDER)


def save_policy(
    folder: Path,
    told: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    observation: spaces.Space,
    action: spaces.Space,
) -> None:
    """Write the policy alone; a save that is stopped leaves the one that was there before."""
    spaces_ = {"observation": space_to_json(observation), "action": space_to_json(action)}
    POLICY.write(folder, {**told, **spaces_}, [save_tensors(plain(tensors))])


def read_config(folder: str | Path) -> dict[str, Any]:
    """policy.json.

    Raises:
        FileNotFoundError: the folder holds no trained policy.
        CheckpointError: it is no JSON object.
    """
    folder = Path(folder)
    if not (folder / POLICY.json).exists():
        raise FileNotFoundError(
            f"{folder / POLICY.json} is not there; train a policy first: clinenv train ppo ECGDrug-v0 --out {folder}"
        )
    return POLICY.read_json(folder)


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as a file takes them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def whole_number(found: Opened, name: str) -> int:
    """A count that a sealed folder's JSON holds.

    Raises:
        CheckpointError: it holds something else.
    """
    value = found.config.get(name)
    if type(value) is not int or value < 0:
        raise CheckpointError(f"{found.folder} has {name}={value!r}, not a whole number of at least 0; train it again")
    return value


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """A space of numbers as plain JSON.

    Raises:
        ValueError: a space of something else.
    """
    if isinstance(space, spaces.Discrete):
        return {"choices": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"levels": [int(n) for n in space.nvec]}
    if isinstance(space, spaces.MultiBinary):
        return {"switches": int(np.prod(space.n))}
    if not isinstance(space, spaces.Box):
        raise ValueError(f"a policy is kept for spaces of numbers, and this one's is {space}")
    return {"low": np.asarray(space.low).tolist(), "high": np.asarray(space.high).tolist()}


def space_from_json(value: Mapping[str, Any]) -> spaces.Space:
    """The space that `space_to_json` described."""
    if "choices" in value:
        return spaces.Discrete(value["choices"])
    if "levels" in value:
        return spaces.MultiDiscrete(value["levels"])
    if "switches" in value:
        return spaces.MultiBinary(value["switches"])
    return spaces.Box(np.array(value["low"], np.float32), np.array(value["high"], np.float32), dtype=np.float32)


def as_tensor(content: bytes) -> Tensor:
    """Bytes as a tensor uint8, for a file of tensors."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def as_bytes(tensor: Tensor) -> bytes:
    """The bytes of `as_tensor`."""
    return tensor.numpy().tobytes()


if __name__ == "__main__":
    sys.exit(command_line(POLICY, "a policy's folder")(None))
