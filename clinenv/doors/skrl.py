"""skrl: a vector environment that `wrap_env` recognises, and its agents told the last observation of every episode."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from clinenv.doors.making import patients, refuse_multibinary

__all__ = ["SkrlVectorEnv", "tell_last_observations"]

A = TypeVar("A")


class SkrlVectorEnv(VectorEnv[Any, Any, Any]):
    """N patients whose rows begin anew in the step in which they end, as skrl's trainers suppose.

    `skrl.envs.wrappers.torch.wrap_env` looks at the direct bases of a class, which is why this one has Gymnasium's.

    Args:
        env_id: as for `gymnasium.make_vec`.
        num_envs: N; row i with seed s meets the patients of a single environment that was reset with seed s + i.
        arguments: of the environment.

    Raises:
        ValueError: MultiBinary actions, or an argument that is none.
    """

    def __init__(self, env_id: str, num_envs: int = 1, **arguments: Any) -> None:
        self._patients = patients(env_id, num_envs, AutoresetMode.SAME_STEP, **{"uncertainty": False, **arguments})
        refuse_multibinary("skrl", self._patients.single_action_space)
        self.num_envs = num_envs
        self.metadata = self._patients.metadata
        self.render_mode = self._patients.render_mode
        self.single_observation_space = self._patients.single_observation_space
        self.single_action_space = self._patients.single_action_space
        self.observation_space = self._patients.observation_space
        self.action_space = self._patients.action_space

    @property
    def device(self) -> torch.device:
        """Where the patients are: skrl puts its agents there."""
        return self._patients.episodes.device

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As `ClinicalVectorEnv.reset`."""
        return self._patients.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As `ClinicalVectorEnv.step`."""
        return self._patients.step(actions)

    def render(self) -> Any:
        """As `ClinicalVectorEnv.render`."""
        return self._patients.render()

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a method of the batch, by its name: skrl asks so for "render"."""
        return getattr(self, name)(*args, **kwargs)

    def action_masks(self) -> np.ndarray:
        """bool [N, choices]: see `ClinicalEnv.action_masks`."""
        return self._patients.action_masks()

    def close_extras(self, **kwargs: Any) -> None:
        """Close the patients' environment."""
        self._patients.close()


def tell_last_observations(agent: A) -> A:
    """The same skrl agent, whose transitions end in the last observation of an episode.

    skrl's trainers go on with what a step returns, which for a row that ended is the next patient's first observation,
    and record that as `next_observations` too: an agent that adds the value of what a time limit cut off, or learns
    from a replay buffer, would take it from another patient. This puts the last observation of the same patient there,
    from the infos of the step.
    """
    record = agent.record_transition  # type: ignore[attr-defined]

    def record_transition(*, next_observations: Tensor, infos: Any, **transition: Any) -> None:
        if "final_obs" in infos:
            rows = torch.as_tensor(infos["_final_obs"], device=next_observations.device)
            last = np.stack([_flat(seen) for seen in infos["final_obs"][infos["_final_obs"]]])
            next_observations = next_observations.clone()
            next_observations[rows] = torch.as_tensor(last, device=rows.device).to(next_observations)
        record(next_observations=next_observations, infos=infos, **transition)

    agent.record_transition = record_transition  # type: ignore[attr-defined]
    return agent


def _flat(seen: Any) -> np.ndarray:
    """An observation as skrl flattens it: the entries of a Dict by their names, in order."""
    if isinstance(seen, dict):
        return np.concatenate([_flat(seen[name]) for name in sorted(seen)])
    return np.asarray(seen, np.float32).reshape(-1)
