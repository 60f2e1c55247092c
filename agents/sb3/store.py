"""SB3 models on disk: safetensors and JSON, no pickle, so that loading one runs nobody's code.

What lies where is said in `agents.run_folder`. A checkpoint holds all that decides the next step: parameters, the
optimiser's moments, where the patients and the recurrent memory stand, and the replay buffer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from agents import run_folder
from agents.sb3.algorithms import built, checked_algorithm
from agents.sb3.vec_env import SB3VecEnv
from world_models.sealed import Opened
from world_models.tensor_file import CheckpointError

__all__ = ["filled", "load_policy", "restore", "save"]

_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls")  # of the models that have them
_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def save(model: BaseAlgorithm, vec: SB3VecEnv, folder: Path, told: dict[str, Any]) -> None:
    """Write the checkpoint, then the policy alone; a save that is stopped leaves what was there before."""
    running = _running(model, vec)
    tensors = {f"policy.{name}": value for name, value in model.policy.state_dict().items()}
    for index, slots in model.policy.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slots.items()}
    counters = {name: int(getattr(model, name)) for name in _COUNTERS if hasattr(model, name)}
    counters["snapshot_bytes"] = len(running["snapshot"])
    counters["buffer_rows"] = len(running.get("buffer.rewards", ()))
    told = {**told, "steps_done": int(model.num_timesteps), "multiplier": vec.cost_weight}
    more = {"counters": counters, "exploration_rate": getattr(model, "exploration_rate", 0.0)}
    run_folder.save_checkpoint(folder, {**told, **more}, {**tensors, **running})
    run_folder.save_policy(folder, told, model.policy.state_dict(), model.observation_space, model.action_space)


def restore(model: BaseAlgorithm, vec: SB3VecEnv, found: Opened) -> int:
    """Put a checkpoint into a model of the same preset and its patients; returns the steps done.

    Raises:
        CheckpointError: it is damaged, or another model's; the model is as it was.
        SnapshotError (a ValueError): its patients are of another world, task or setting.
    """
    (name,) = run_folder.CHECKPOINT.tensors
    counters = found.config.get("counters")
    counted = [n for n in _COUNTERS if hasattr(model, n)]
    needed = [*counted, "snapshot_bytes", "buffer_rows"]
    if not isinstance(counters, dict) or not all(type(counters.get(n)) is int and counters[n] >= 0 for n in needed):
        raise CheckpointError(f"{found.folder} has counters={counters!r}, not whole numbers; train it again")
    policy = {f"policy.{n}": value for n, value in model.policy.state_dict().items()}
    optimizer = model.policy.optimizer
    running = _running(model, vec, counters)
    tensors = found.tensors(name, {**policy, **running}, _slots(optimizer))
    observation = vec.restore(tensors)
    vec.cost_weight = float(found.config["multiplier"])
    state: dict[int, dict[str, Any]] = {}
    for address, value in tensors.items():
        kind, _, rest = address.partition(".")
        if kind == "optimizer":
            index, _, slot = rest.partition(".")
            state.setdefault(int(index), {})[slot] = value
    model.policy.load_state_dict({n.removeprefix("policy."): tensors[n] for n in policy})
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for counter in counted:
        setattr(model, counter, counters[counter])
    if hasattr(model, "exploration_rate"):
        model.exploration_rate = float(found.config["exploration_rate"])
    model._last_obs = observation  # type: ignore[assignment]
    _resume(model, tensors)
    return model.num_timesteps


def _slots(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser may hold of each parameter: Adam, or the RMSprop that A2C takes."""
    names = ("exp_avg", "exp_avg_sq") if isinstance(optimizer, torch.optim.Adam) else ("square_avg",)
    slots: dict[str, Tensor] = {}
    for i, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        slots |= {f"optimizer.{i}.{name}": parameter for name in names}
        slots[f"optimizer.{i}.step"] = torch.zeros(())
    return slots


def load_policy(folder: Path, device: torch.device | str = "cpu") -> tuple[BasePolicy, dict[str, Any]]:
    """The policy of a folder in evaluation mode, and what is told of it.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: a file is damaged or altered, or the JSON describes no policy.
        ValueError: it needs sb3-contrib, which is not installed.
    """
    folder = Path(folder)
    run_folder.read_config(folder)
    with run_folder.POLICY.opened(folder) as found:
        told = found.config
        policy = filled(
            found,
            lambda: (
                checked_algorithm(told["algo"]).load_policy(),
                run_folder.space_from_json(told["observation"]),
                run_folder.space_from_json(told["action"]),
                told["preset"]["net_arch"],
                told["preset"].get("policy", {}),
            ),
        )
    return policy.to(device), told


def filled(
    found: Opened,
    described: Callable[[], tuple[type[BasePolicy], spaces.Space, spaces.Space, Sequence[int], dict[str, int]]],
) -> BasePolicy:
    """The policy of an open folder, in evaluation mode.

    Args:
        described: gives its class, observation space, action space, widths of layers and further sizes; what it raises
            is the JSON's fault.

    Raises:
        CheckpointError: the JSON describes no policy, or one that the file's tensors are not of.
    """
    try:
        kind, observation, action, widths, sizes = described()
        size = found.files[run_folder.TENSORS].seek(0, os.SEEK_END)
        policy = built(kind, observation, action, widths, size, sizes)
    except Exception as error:  # whatever SB3 and Gymnasium say of a description that is none
        where = found.folder / run_folder.POLICY.json
        raise CheckpointError(f"{where} describes no policy ({error!r}); train it again") from error
    policy.load_state_dict(found.tensors(run_folder.TENSORS, policy.state_dict()))
    policy.set_training_mode(False)
    return policy


def _running(model: BaseAlgorithm, vec: SB3VecEnv, counters: dict[str, int] | None = None) -> dict[str, Tensor]:
    """Where patients, recurrent memory and replay buffer stand; of a model that was just made, with the counters of a
    checkpoint: tensors of the shapes that the checkpoint's are of."""
    found = vec.snapshot() if counters is None else vec.snapshot_like(counters["snapshot_bytes"])
    if not isinstance(model, OffPolicyAlgorithm):
        starts = model._last_episode_starts
        found["starts"] = torch.as_tensor(np.ones(vec.num_envs, bool) if starts is None else np.asarray(starts, bool))
    for i, part in enumerate(_memory(model)):
        found[f"memory.{i}"] = part
    buffer = model.replay_buffer if isinstance(model, OffPolicyAlgorithm) else None
    if buffer is not None:
        rows = buffer.buffer_size if buffer.full else buffer.pos
        rows = rows if counters is None else min(counters["buffer_rows"], buffer.buffer_size)
        found |= {f"buffer.{name}": torch.as_tensor(getattr(buffer, name)[:rows]) for name in _BUFFER}
        found["buffer.place"] = torch.tensor([buffer.pos, int(buffer.full)])
    return found


def _resume(model: BaseAlgorithm, running: dict[str, Tensor]) -> None:
    """The counterpart of `_running`, but for the patients."""
    if "starts" in running:
        model._last_episode_starts = running["starts"].numpy()
    for i, part in enumerate(_memory(model)):
        part.copy_(running[f"memory.{i}"])
    if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
        buffer = model.replay_buffer
        for name in _BUFFER:
            kept = running[f"buffer.{name}"].numpy()
            getattr(buffer, name)[: len(kept)] = kept
        place, full = running["buffer.place"].tolist()
        buffer.pos, buffer.full = place, bool(full)


def _memory(model: BaseAlgorithm) -> list[Tensor]:
    """Hidden and cell states of actor and critic; empty where the policy has none."""
    memory = getattr(model, "_last_lstm_states", None)
    return [] if memory is None else [*memory.pi, *memory.vf]
