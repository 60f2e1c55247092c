"""ClinicalVectorEnv as a Stable-Baselines3 VecEnv: one batch, no processes, numpy on the outside.

SB3 wants same-step autoreset with the last observation of an episode under `terminal_observation`, the reason of its
end under `TimeLimit.truncated`, and takes no gymnasium VectorEnv.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from agents.run_folder import as_bytes, as_tensor
from clinenv.doors.making import clinical

__all__ = ["SB3VecEnv", "clinical"]


def _array(value: Any) -> Any:
    """Tensors (on any device) as numpy; dicts of them too."""
    if isinstance(value, dict):
        return {k: _array(v) for k, v in value.items()}
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


class SB3VecEnv(VecEnv):
    """A batch of patients as SB3's algorithms take it.

    Args:
        env: a gymnasium VectorEnv made with autoreset_mode=AutoresetMode.SAME_STEP whose info has `cost` [N] (all of
            ours do).
        cost_weight: the reward SB3 sees is reward - cost_weight * cost (a fixed Lagrange multiplier).
        bootstrap_truncated: True reports the time limit as a truncation, so SB3 adds the value of what would have
            followed; False as the end, right when the 48 hours are all that counts and the chart shows the hour.

    Raises:
        ValueError: another autoreset mode, or a negative cost_weight.
    """

    def __init__(self, env: VectorEnv, cost_weight: float = 0.0, bootstrap_truncated: bool = True) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"SB3 needs same-step autoreset and this environment has {mode}; make it with "
                "autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP"
            )
        if not 0 <= cost_weight < float("inf"):
            raise ValueError(f"cost_weight must be 0 or more, got {cost_weight}")
        self.env = env
        self.cost_weight = cost_weight
        self.bootstrap_truncated = bootstrap_truncated
        self._actions: Any = None
        self._started = time.time()
        # of the running courses: return as the task gives it, without the cost; cost; steps
        self._return, self._cost, self._length = np.zeros((3, env.num_envs))
        self._finished = np.zeros(4)  # sums of the same over the courses that ended since `finished` was asked; courses
        self._of_rows: dict[str, dict[int, Any]] = {}  # attributes set for single rows, by name and row
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Observations [N, ...]. The seeds of `seed()` are used once, as SB3 expects."""
        seeds, options = self._seeds, self._options
        if len({repr(o) for o in options}) > 1:
            raise ValueError(
                f"all rows of a batch share their reset options, got {options}; pass one dict to set_options"
            )
        known = [int(s) for s in seeds if s is not None]
        seed: Any = known if len(known) == len(seeds) else None  # gymnasium takes lists, and types one number alone
        # Consecutive seeds are what one number means to the batch.
        if seed is not None and known == list(range(known[0], known[0] + len(known))):
            seed = known[0]
        obs, _ = self.env.reset(seed=seed, options=options[0] or None)
        self._reset_seeds()
        self._reset_options()
        self._return[:], self._cost[:], self._length[:] = 0.0, 0.0, 0
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return _array(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions [N, ...] for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations [N, ...], rewards less the weighed cost float32 [N], ends bool [N], and an info a row.

        A row that ended shows its next patient; its info has `terminal_observation`, `TimeLimit.truncated` and
        `episode`: return (without the cost), length, seconds since the start, and summed cost.
        """
        obs, reward, terminated, truncated, info = self.env.step(self._actions)
        reward, terminated, truncated = _array(reward), _array(terminated), _array(truncated)
        done = np.logical_or(terminated, truncated)
        cost = self._costs(info, done)
        self._return += reward
        self._cost += cost
        self._length += 1
        infos: list[dict[str, Any]] = [{"cost": float(c)} for c in cost]
        if done.any():
            sums = np.stack([self._return, self._cost, self._length, np.ones(self.num_envs)])
            self._finished += sums[:, done].sum(1)
            last = info["final_obs"]
            for i in np.flatnonzero(done):
                infos[i]["terminal_observation"] = _array(last[i])
                infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i] and self.bootstrap_truncated)
                infos[i]["episode"] = {
                    "r": float(self._return[i]),
                    "l": int(self._length[i]),
                    "t": round(time.time() - self._started, 6),
                    "cost": float(self._cost[i]),
                }
            self._return[done], self._cost[done], self._length[done] = 0.0, 0.0, 0
        return _array(obs), (reward - self.cost_weight * cost).astype(np.float32), done, infos

    def _costs(self, info: dict[str, Any], done: np.ndarray) -> np.ndarray:
        """The cost of this step [N]; a row that just ended has it in final_info, its info being the next patient's."""
        cost = np.array(_array(info["cost"]), dtype=np.float64) if "cost" in info else np.zeros(self.num_envs)
        if done.any() and "cost" in info.get("final_info", {}):
            cost[done] = _array(info["final_info"]["cost"])[done]
        return cost

    def finished(self) -> dict[str, float]:
        """Mean return, cost and length of the courses that ended since this was asked last; empty if none did."""
        *sums, courses = self._finished
        self._finished = np.zeros(4)
        names = ("return", "cost", "length")
        return {n: float(s / courses) for n, s in zip(names, sums, strict=True)} if courses else {}

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Where all patients stand, for `restore`: bytes uint8, sums of their courses float64 [3, N], and of those that
        ended [4]."""
        sums = torch.as_tensor(np.stack([self._return, self._cost, self._length]))
        ended = torch.as_tensor(self._finished)
        return {"snapshot": as_tensor(clinical(self.env).snapshot()), "sums": sums, "ended": ended}

    def snapshot_like(self, length: int) -> dict[str, torch.Tensor]:
        """Tensors of the types and shapes of a snapshot of so many bytes, on the meta device."""
        sums, ended = (torch.empty(*n, dtype=torch.float64, device="meta") for n in ((3, self.num_envs), (4,)))
        return {"snapshot": torch.empty(length, dtype=torch.uint8, device="meta"), "sums": sums, "ended": ended}

    def restore(self, snapshot: dict[str, torch.Tensor]) -> VecEnvObs:
        """Go on where `snapshot` was taken; returns the observations there.

        Raises:
            SnapshotError (a ValueError): another world, task, settings or number of rows; nothing is changed then.
        """
        observation = clinical(self.env).restore(as_bytes(snapshot["snapshot"]))
        self._return, self._cost, self._length = snapshot["sums"].numpy().copy()
        self._finished = snapshot["ended"].numpy().copy()
        return _array(observation)

    def close(self) -> None:
        """Close the environment beneath."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of each row: its own where `set_attr` gave it one, else the batch's."""
        own = self._of_rows.get(attr_name, {})
        return [own[i] if i in own else getattr(self.env, attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set on the whole batch when `indices` is None; otherwise kept for those rows (read back by get_attr)."""
        rows = list(self._get_indices(indices))
        if len(rows) == self.num_envs:
            self._of_rows.pop(attr_name, None)
            setattr(self.env, attr_name, value)
        else:
            self._of_rows.setdefault(attr_name, {}).update({i: value for i in rows})

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """The batch is one environment: the method runs once and each row asked for gets its result.

        `action_masks` (sb3-contrib asks for it by name) gives each row its own.
        """
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        each = method_name == "action_masks"
        return [result[row] if each else result for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """No row has a wrapper of its own (episode statistics are kept here)."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture uint8 [H, W, 3] a row, or None where the environment renders nothing."""
        frames = self.env.render()
        return [None] * self.num_envs if frames is None else [np.asarray(frame) for frame in frames]
