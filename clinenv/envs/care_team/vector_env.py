"""CareTeamVectorEnv: N ward patients with a team each, as one batch of tensors, one dict a member of the team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import Space
from gymnasium.vector import AutoresetMode

from clinenv.arguments import check_limit
from clinenv.assemble import WorldLike
from clinenv.envs.care_team.charts import RESULTS
from clinenv.envs.care_team.episodes import CareTeamEpisodes, split
from clinenv.envs.care_team.rights import ROLES
from clinenv.envs.care_team.settle import Settled
from clinenv.envs.care_team.task import OBSERVATION, WHOLE, CareTeamTask, TeamView
from clinenv.envs.ehr_ward.orders import DOSES
from clinenv.registration import WARD_WORLD
from clinenv.settings import RENDER_FPS, RENDER_MODES
from clinenv.vector_env import ClinicalVectorEnv

__all__ = ["CareTeamDoseVectorEnv", "CareTeamVectorEnv"]

PerAgent = dict[str, Any]


class _Ward(ClinicalVectorEnv):
    """The patients, who are given the team's actions together."""

    _kind = CareTeamEpisodes


class CareTeamVectorEnv:
    """`CareTeam-v0` for thousands of patients at once: see `team_env.CareTeamEnv`, its batch of one.

    `reset` and `step` answer as a parallel environment's do, one dict a role, with a first dimension of patients in
    every value; infos hold Gymnasium's masks `_name` beside the names. A row that ends begins anew as in
    `clinenv.vector_env.ClinicalVectorEnv`; with SAME_STEP autoreset `final_obs` and `final_info` stand in each role's
    info. All roles end together.

    Args:
        num_envs: N.
        task: a `CareTeamTask`.
        world: as for `CareTeamEnv`.
        autoreset_mode, tensors: as for `ClinicalVectorEnv`.
        max_cycles: steps after which a stay is cut short, where the task's 14 days are not reached before.
        arguments: see `clinenv.settings.Settings`; of observations there is the chart alone.

    Attributes:
        possible_agents: the roles.
        ward: the vector environment that runs the patients: its `simulator`, `chart` and `state` are for planners and
            judges. Step this one, not it.

    Raises:
        ValueError, TypeError: an argument that is none; the message names the choices.
    """

    metadata: dict[str, Any] = {"name": "care_team_v0", "render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}

    def __init__(
        self,
        num_envs: int = 1,
        task: CareTeamTask | None = None,
        world: WorldLike = WARD_WORLD,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        tensors: bool = False,
        max_cycles: int | None = None,
        **arguments: Any,
    ) -> None:
        task = CareTeamTask() if task is None else task
        if not isinstance(task, CareTeamTask):
            raise ValueError(f"task={task!r} is no CareTeamTask; give one, which takes the ward task's arguments")
        seen = arguments.pop("observation", "chart")
        if seen != "chart":
            raise ValueError(f"observation={seen!r}: each member of the team sees his own chart; leave it out")
        check_limit(max_cycles, "max_cycles")
        arguments |= {"observation": OBSERVATION, "max_episode_steps": max_cycles}
        self.ward = _Ward(task, num_envs, world, autoreset_mode, tensors, **arguments)
        self.num_envs = self.ward.num_envs
        self.autoreset_mode = self.ward.autoreset_mode
        self.render_mode = self.ward.render_mode
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.possible_agents = list(ROLES)
        self.agents = list(ROLES)
        self.state_space: Space[Any] = self._view.spaces[WHOLE]
        self._observation_spaces = {role: self._view.spaces[role] for role in ROLES}
        self._action_spaces = {role: self.episodes.codecs[role].space for role in ROLES}
        self._whole: Any = None

    @property
    def episodes(self) -> CareTeamEpisodes:
        """The running episodes: for what works on tensors. Step the environment, not them."""
        episodes = self.ward.episodes
        assert isinstance(episodes, CareTeamEpisodes)
        return episodes

    @property
    def _view(self) -> TeamView:
        view = self.episodes.interface.view
        assert isinstance(view, TeamView)
        return view

    def observation_space(self, agent: str) -> Space[Any]:
        """Of one patient. Raises KeyError: no such agent."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        """Of one patient. Raises KeyError: no such agent."""
        return self._action_spaces[agent]

    def labels(self, agent: str) -> list[str]:
        """What each entry of an action says: an order's name, "hold ORDER" or "adjust ORDER". Raises KeyError."""
        return list(self.episodes.codecs[agent].labels)

    def describe(self, agent: str, observation: Any) -> dict[str, Any]:
        """What an agent's observation, or a batch of them, says in units. Raises KeyError, ValueError."""
        return self._view.layouts[agent].describe(observation)

    def reset(
        self, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[PerAgent, PerAgent]:
        """New patients in all rows, or in those of `options["reset_mask"]`: see `ClinicalVectorEnv.reset`.

        Returns:
            Observations and infos, role -> [N, ...].
        """
        shown, info = self.ward.reset(seed=seed, options=options)
        return self._parted(shown), self._infos(info)

    def step(self, actions: Mapping[str, Any]) -> tuple[PerAgent, PerAgent, PerAgent, PerAgent, PerAgent]:
        """All act in every row.

        Args:
            actions: role -> [N, entries], numpy or torch.

        Returns:
            Observations, rewards, terminations, truncations and infos, role -> [N, ...]; the team's reward and ends
            are everybody's.

        Raises:
            ValueError: not a mapping of exactly the roles, or an action outside its space.
            gymnasium.error.ResetNeeded, gymnasium.error.ClosedEnvironmentError: as `ClinicalVectorEnv.step`.
        """
        shown, *shared, info = self.ward.step(actions)
        rewards, terminations, truncations = ({role: _copy(x) for role in ROLES} for x in shared)
        return self._parted(shown), rewards, terminations, truncations, self._infos(info)

    def decide(self, actions: Mapping[str, Any]) -> Settled:
        """What these actions would come to now, nothing being done: see `rights`. Errors as of `step`."""
        return self.episodes.decide(actions)

    def disputes(self, row: int = 0) -> list[tuple[str, str, str]]:
        """The orders of a row's last step that were not carried out as they were given: (role, order, why)."""
        return self.episodes.disputes(row)

    def state(self) -> Any:
        """float32 [N, n]: everybody's columns, for critics of all and for planners.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self._whole is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() first")
        return _copy(self._whole)

    def snapshot(self) -> bytes:
        """State and random keys of all rows: see `clinenv.patient_env.PatientEnv.snapshot`."""
        return self.ward.snapshot()

    def restore(self, snapshot: bytes, seed: int | None = None) -> PerAgent:
        """Go back to a snapshot; returns the observations there. Arguments and errors: `ClinicalVectorEnv.restore`."""
        return self._parted(self.ward.restore(snapshot, seed))

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The ward's picture of each row, uint8 [H, W, 3]; in "human" mode a window with row 0, and None."""
        return self.ward.render()

    def close(self) -> None:
        """No step or reset is possible after it."""
        self.ward.close()

    def _parted(self, shown: Any) -> PerAgent:
        self._whole = shown[WHOLE]
        return {role: shown[role] for role in ROLES}

    def _infos(self, info: dict[str, Any]) -> PerAgent:
        last: dict[str, Any] = {name: info.pop(name) for name in ("final_info", "final_obs") if name in info}
        return {role: self._info(role, info, last) for role in ROLES}

    def _info(self, role: str, info: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
        mine = {name: _copy(value) for name, value in split(info, role, RESULTS[role]).items()}
        if last:
            final = split(last["final_info"], role, RESULTS[role])
            mine["final_info"] = {name: _copy(value) for name, value in final.items()}
            mine["final_obs"] = _one(last["final_obs"], role)
        return mine


class CareTeamDoseVectorEnv(CareTeamVectorEnv):
    """`CareTeamDose-v0` for thousands of patients at once."""

    metadata = {**CareTeamVectorEnv.metadata, "name": "care_team_dose_v0"}

    def __init__(self, num_envs: int = 1, task: CareTeamTask | None = None, **arguments: Any) -> None:
        super().__init__(num_envs, CareTeamTask(actions=DOSES) if task is None else task, **arguments)


def _copy(value: Any) -> Any:
    """The agents share nothing either."""
    return value.clone() if isinstance(value, torch.Tensor) else value.copy()


def _one(observations: Any, role: str) -> Any:
    """A role's part of the last observations: tensors [N, n], or an object array [N] with None where nobody ended."""
    if isinstance(observations, Mapping):
        return _copy(observations[role])
    rows = np.full(len(observations), None, dtype=object)
    for i, row in enumerate(observations):
        rows[i] = None if row is None else row[role]
    return rows
