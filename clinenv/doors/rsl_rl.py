"""rsl_rl: a batch of patients as its `VecEnv`, for the ids whose actions are amounts."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from clinenv.doors.making import boxed, cost_of_step, missing, patients

try:
    from rsl_rl.env import VecEnv
    from tensordict import TensorDict
except ImportError as error:
    raise missing(error, "rsl_rl", 'pip install "clinenv[rsl]"') from None

__all__ = ["RslVecEnv"]


class RslVecEnv(VecEnv):
    """N patients as rsl_rl's runners take them: tensors on the device, rows that end begin anew in the same step.

    Observations are one group, "policy" [N, n]. `extras` of a step has "time_outs" bool [N] (cut off by the clock and
    not ended by the task; rsl_rl adds the value of what would have followed), "cost" float32 [N], and, where rows
    ended, "final_observations", whose rows count where `dones` holds, and "log" with the mean summed cost of the
    episodes that ended. The Gaussian policies of rsl_rl know no bounds: an action outside the action space is clipped
    to it.

    Args:
        env_id: `ECGDrugContinuous-v0`, `EHRWardDose-v0`, or an id of one's own with amounts as actions.
        num_envs: N.
        seed: row i meets the patients of a single environment that was reset with seed + i.
        arguments: of the environment.

    Raises:
        ValueError: the actions are choices, the observation is no Box, or an argument that is none.
        ImportError: rsl_rl is not installed.
    """

    def __init__(self, env_id: str, num_envs: int, seed: int = 0, **arguments: Any) -> None:
        settings = {"uncertainty": False, **arguments}  # of which rsl_rl is told nothing
        self._patients = patients(env_id, num_envs, AutoresetMode.SAME_STEP, tensors=True, **settings)
        space = boxed("rsl_rl", "actions", self._patients.single_action_space)
        boxed("rsl_rl", "observations", self._patients.single_observation_space)
        self.num_envs = num_envs
        self.num_actions = int(space.shape[0])
        self.cfg: dict[str, Any] = {"env_id": env_id, "num_envs": num_envs, "seed": seed}
        self.device = self._patients.episodes.device
        self.max_episode_length = self._patients.episodes.horizon_steps
        self._low, self._high = (torch.as_tensor(x, device=self.device) for x in (space.low, space.high))
        self._costs = torch.zeros(num_envs, device=self.device)
        with torch.inference_mode(False):
            self._seen, _ = self._patients.reset(seed=seed)

    @property
    def episode_length_buf(self) -> Tensor:
        """int64 [N]: steps since each row began."""
        return self._patients.episodes.running.steps

    @episode_length_buf.setter
    def episode_length_buf(self, steps: Tensor) -> None:
        """Count from other numbers, as rsl_rl does so that not all rows end at one step: they are cut off sooner."""
        running = self._patients.episodes.running
        self._patients.episodes.now = running._replace(steps=steps.to(running.steps).clone())

    def get_observations(self) -> TensorDict:
        """What is seen now."""
        return self._group(self._seen)

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        """One step in every row.

        Args:
            actions: float32 [N, D].

        Returns:
            Observations, rewards float32 [N], dones bool [N], extras.
        """
        # What a world keeps for later must not be tensors of inference mode, which gradients refuse.
        with torch.inference_mode(False), torch.no_grad():
            given = torch.minimum(torch.maximum(actions.clone(), self._low), self._high)
            self._seen, rewards, terminated, truncated, info = self._patients.step(given)
            dones = terminated | truncated
            cost = cost_of_step(info)
            extras: dict[str, Any] = {"time_outs": truncated & ~terminated}
            if "final_obs" in info:
                extras["final_observations"] = self._group(info["final_obs"])
            self._costs = self._costs + cost
            if bool(dones.any()):
                extras["log"] = {"/episode_cost": self._costs[dones].mean()}
                self._costs = torch.where(dones, 0.0, self._costs)
            extras["cost"] = cost
        return self._group(self._seen), rewards, dones, extras

    def close(self) -> None:
        """No step is possible after it."""
        self._patients.close()

    def _group(self, observations: Tensor) -> TensorDict:
        return TensorDict({"policy": observations}, batch_size=[self.num_envs], device=self.device)
