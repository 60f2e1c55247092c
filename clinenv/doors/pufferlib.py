"""PufferLib: a batch of patients as one native `PufferEnv`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from clinenv.doors.making import boxed, cost_of_step, missing, patients, refuse_multibinary

try:
    import pufferlib
except ImportError as error:
    command = 'pip install "clinenv[puffer]" && pip install --no-deps pufferlib-core'
    raise missing(error, "PufferLib", command) from None

__all__ = ["PufferVectorEnv"]


class PufferVectorEnv(pufferlib.PufferEnv):
    """N patients that PufferLib steps as one environment of N agents, each by itself.

    As in PufferLib's own environments a row that ends begins anew in the same step: its observation is the next
    patient's, its reward and its flags are of the step that ended. The last observation, for which PufferLib has no
    place, is a row of `final_observations`. `infos` has one entry for every episode that ended: its return, length and
    cost.

    Args:
        env_id: as for `gymnasium.make_vec`.
        num_envs: N.
        time_limit_ends: True sets `terminals` where an episode is cut off by the clock, too. PuffeRL, PufferLib's
            trainer, reads `terminals` alone, and takes what was cut off to go on in the next patient. (It also clips
            rewards to [-1, 1].)
        buf: PufferLib's shared buffers.
        seed: row i meets the patients of a single environment that was reset with seed * N + i: PufferLib gives
            consecutive seeds to the environments of one vectorisation, and no patient should be met in two.
        arguments: of the environment.

    Raises:
        ValueError: MultiBinary actions, an observation that is no Box, or an argument that is none.
        ImportError: PufferLib is not installed.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int = 1,
        time_limit_ends: bool = False,
        buf: Any = None,
        seed: int = 0,
        **arguments: Any,
    ) -> None:
        settings = {"uncertainty": False, **arguments}
        self._patients = patients(env_id, num_envs, AutoresetMode.SAME_STEP, tensors=True, **settings)
        self.single_observation_space = boxed("PufferLib", "observations", self._patients.single_observation_space)
        self.single_action_space = self._patients.single_action_space
        refuse_multibinary("PufferLib", self.single_action_space)
        self.num_agents = num_envs
        self.time_limit_ends = time_limit_ends
        self.render_mode = self._patients.render_mode
        super().__init__(buf)
        self.final_observations = np.zeros_like(self.observations)
        self._seed: int | None = seed
        self._sums = torch.zeros(3, num_envs, dtype=torch.float64)  # return, cost, length

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list[dict[str, float]]]:
        """New patients in all rows: those of the seed (at first, of the one given at the start), or the next ones."""
        seed, self._seed = (self._seed if seed is None else seed), None
        observation, _ = self._patients.reset(seed=None if seed is None else int(seed) * self.num_agents)
        self.observations[:] = observation.cpu().numpy()
        self.rewards[:], self.terminals[:], self.truncations[:], self.masks[:] = 0.0, False, False, True
        self._sums.zero_()
        return self.observations, []

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, float]]]:
        """One step in every row, into PufferLib's buffers.

        Args:
            actions: [N] or [N, D], as `single_action_space` says.
        """
        given = np.asarray(actions)
        if isinstance(self.single_action_space, gymnasium.spaces.MultiDiscrete):
            given = given.astype(np.int64)
        observation, reward, terminated, truncated, info = self._patients.step(given)
        ended = terminated | truncated
        cost = cost_of_step(info)
        if "final_obs" in info:
            rows = ended.cpu().numpy()
            self.final_observations[rows] = info["final_obs"][ended].cpu().numpy()
        self.observations[:] = observation.cpu().numpy()
        self.rewards[:] = reward.cpu().numpy()
        self.terminals[:] = (ended if self.time_limit_ends else terminated).cpu().numpy()
        self.truncations[:] = truncated.cpu().numpy()
        return self.observations, self.rewards, self.terminals, self.truncations, self._finished(reward, cost, ended)

    def _finished(self, reward: torch.Tensor, cost: torch.Tensor, ended: torch.Tensor) -> list[dict[str, float]]:
        """What is told of the episodes that ended in this step."""
        self._sums += torch.stack([reward, cost, torch.ones_like(cost)]).cpu().to(torch.float64)
        rows = ended.cpu().nonzero().flatten()
        told = self._sums[:, rows].T.tolist()
        self._sums[:, rows] = 0.0
        return [{"episode_return": a, "episode_cost": b, "episode_length": c} for a, b, c in told]

    def render(self) -> Any:
        """The picture of the first row, where the environment was made with a `render_mode`."""
        frames = self._patients.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """No step or reset is possible after it."""
        self._patients.close()
