"""A trained policy as an Agent, whoever trained it; it sees the chart through the environment's own encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from agents import run_folder
from clinenv.interface import Interface
from clinenv.settings import Settings
from clinenv.simulator import Simulator
from clinenv.task import Levels, Menu
from world_models.protocol import Chart

__all__ = ["Decider", "PolicyAgent"]


class Decider(Protocol):
    """A policy without exploration: from what is seen of B patients to their actions. It may remember."""

    inputs: int  # numbers that it sees of a patient
    masked: bool  # whether it wants to know what may be chosen

    def decide(self, seen: Tensor, mask: Tensor | None) -> Tensor:
        """The actions [B] or [B, D] of seen float32 [B, inputs] and a mask bool [B, choices] as
        `clinenv.codec.Codec.choices` has it."""

    def reset(self, rows: Tensor | None) -> None:
        """Forget all patients (None), or those of bool [B]."""

    def narrow(self, rows: Tensor) -> None:
        """Go on with the patients int64 [K] alone."""


class PolicyAgent:
    """Decides as the policy's mode (no exploration).

    Args:
        policy: a folder that `clinenv train` wrote; an SB3 or sb3-contrib policy trained on the "chart" observation; or
            a `Decider`.
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
            decider, told = _loaded(Path(policy), simulator.device)
        else:
            decider = policy if hasattr(policy, "decide") else _of_sb3(policy)
        self.name = name or str(told.get("algo", "policy"))
        unit = str(told.get("env_kwargs", {}).get("action_unit", "scaled"))
        self._interface = Interface(simulator.world, simulator.task, Settings(action_unit=unit))
        self._task = simulator.task
        self._decider = decider
        names = list(self._interface.layout.names)
        if told and told.get("observation_names") != names:
            raise ValueError(
                f"the policy reads {told.get('observation_names')}, this task shows {names}; train one for this task"
            )
        if decider.inputs != len(names):
            raise ValueError(f"the policy reads {decider.inputs} numbers, the chart has {len(names)} entries")

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget what was seen of all patients, or of those of bool [B]."""
        self._decider.reset(mask)

    def narrow(self, rows: Tensor) -> None:
        """Go on with the patients int64 [K] alone."""
        self._decider.narrow(rows)

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """int64 [B] rows of the menu, int64 [B, D] levels, or float32 [B, A] orders in their units."""
        some = next(iter(chart.values()))
        nobody = torch.zeros(some.shape[0], dtype=torch.int64, device=some.device)
        observation, _ = self._interface.observe(chart, nobody, nobody, None)
        masked = self._decider.masked
        mask = self._interface.codec.choices(self._task.admissible(chart)) if masked else None
        action = self._decider.decide(observation, mask).to(some.device)
        chosen = isinstance(self._task.actions, Menu | Levels)
        return action if chosen else self._interface.codec(action, some.shape[0])


def _loaded(folder: Path, device: torch.device) -> tuple[Decider, dict[str, Any]]:
    """The policy of a folder, and what is told of it."""
    library = run_folder.read_config(folder).get("library")
    if library == "clinenv":
        from agents import ppo_policy

        return ppo_policy.load(folder, device)
    from agents.sb3 import deciders

    return deciders.load(folder, device)


def _of_sb3(policy: Any) -> Decider:
    from agents.sb3 import deciders

    return deciders.decider_of(policy)
