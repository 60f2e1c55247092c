"""A trained policy as an Agent, whoever trained it; it sees the chart through the environment's own encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents import run_folder
from agents.observer import Observer
from agents.protocol import Policy
from clinenv.interface import Interface
from clinenv.settings import Settings
from clinenv.simulator import Simulator
from clinenv.task import Levels, Menu
from world_models.protocol import Chart

__all__ = ["PolicyAgent"]


class PolicyAgent:
    """Decides as the policy's mode (no exploration).

    Args:
        policy: a folder that `clinenv train` or `agents.offline.train` wrote; an SB3 or sb3-contrib policy trained on
            the "chart" observation; or a `Policy`.
        simulator: where it will be judged; its world and task define the observation's layout.
        name: for tables; None: the algorithm's.

    Raises:
        FileNotFoundError: the folder holds no policy.
        ValueError: the policy was trained on another layout of the observation or other actions, or is damaged or
            altered (CheckpointError).
    """

    def __init__(self, policy: Any, simulator: Simulator, name: str | None = None) -> None:
        told: dict[str, Any] = {}
        if isinstance(policy, str | Path):
            own, told = _loaded(Path(policy), simulator.device)
        else:
            own = policy if isinstance(policy, Policy) else _of_sb3(policy)
        self.name = name or str(told.get("algo", "policy"))
        settings = told.get("env_kwargs", {})
        if not isinstance(settings, dict):
            raise ValueError(f"{policy} was trained with env_kwargs={settings!r:.60}, no object; train it again")
        unit = str(settings.get("action_unit", "scaled"))
        self._interface = Interface(simulator.world, simulator.task, Settings(action_unit=unit))
        self._task = simulator.task
        self._policy, self._observed = own, Observer(self._interface)
        names = list(self._interface.layout.names)
        if told and told.get("observation_names") != names:
            raise ValueError(
                f"the policy reads {told.get('observation_names')}, this task shows {names}; train one for this task"
            )
        if own.inputs != len(names):
            raise ValueError(f"the policy reads {own.inputs} numbers, the chart has {len(names)} entries")

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget what was seen of all patients, or of those of bool [B]."""
        self._policy.reset(mask)
        self._observed.reset(mask)

    def narrow(self, rows: Tensor) -> None:
        """Go on with the patients int64 [K] alone."""
        self._policy.narrow(rows)
        self._observed.narrow(rows)

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """int64 [B] rows of the menu, int64 [B, D] levels, or float32 [B, A] orders in their units."""
        some = next(iter(chart.values()))
        observation = self._observed(chart)
        masked = self._policy.masked
        mask = self._interface.codec.choices(self._task.admissible(chart)) if masked else None
        action = self._policy.decide(observation, mask).to(some.device)
        chosen = isinstance(self._task.actions, Menu | Levels)
        return action if chosen else self._interface.codec(action, some.shape[0])


def _loaded(folder: Path, device: torch.device) -> tuple[Policy, dict[str, Any]]:
    """The policy of a folder, and what is told of it."""
    library = run_folder.read_config(folder).get("library")
    if library == "clinenv":
        from agents import ppo_policy

        return ppo_policy.load(folder, device)
    if library == "d3rlpy":
        from agents.offline import policy

        return policy.load(folder, device)
    from agents.sb3 import policies

    return policies.load(folder, device)


def _of_sb3(policy: Any) -> Policy:
    from agents.sb3 import policies

    return policies.policy_of(policy)
