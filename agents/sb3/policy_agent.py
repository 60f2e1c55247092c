"""A trained SB3 policy as an Agent. The chart goes through the environment's own encoder: no second layout."""

from __future__ import annotations

from pathlib import Path

import torch
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from agents.sb3.store import load_policy
from clinenv.door import Door
from clinenv.simulator import Simulator
from world_models.protocol import Chart

__all__ = ["PolicyAgent"]


class PolicyAgent:
    """Decides as the policy's mode (no exploration).

    Args:
        policy: a folder written by `agents.sb3.train`, or an SB3 policy trained on the "chart" observation.
        simulator: where it will be judged; its world and task define the observation's layout.
        name: for tables.

    Raises:
        FileNotFoundError: the folder holds no policy.
        ValueError: the policy was trained on another layout of the observation.
    """

    def __init__(self, policy: str | Path | BasePolicy, simulator: Simulator, name: str = "PPO") -> None:
        self.name = name
        self._interface = Door(simulator.world, simulator.task)
        names = list(self._interface.layout.names)
        if not isinstance(policy, BasePolicy):
            policy, config = load_policy(Path(policy), simulator.device)
            if config["observation_names"] != names:
                raise ValueError(
                    f"the policy reads {config['observation_names']}, this task shows {names}; train one for this task"
                )
        self._policy = policy
        self._policy.set_training_mode(False)
        if tuple(policy.observation_space.shape or ()) != (len(names),):
            raise ValueError(f"the policy reads {policy.observation_space.shape}, the chart has {len(names)} entries")

    def reset(self, mask: Tensor | None = None) -> None:
        """The policy remembers nothing."""

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """int64 [B] rows of the menu, or float [B, A] mg for a continuous policy."""
        some = next(iter(chart.values()))
        nobody = torch.zeros(some.shape[0], dtype=torch.int64, device=some.device)
        observation, _ = self._interface.observe(chart, nobody, nobody, None)
        choice = self._policy._predict(observation.to(self._policy.device), deterministic=True)
        if choice.is_floating_point():
            return self._interface.orders(choice.clamp(-1.0, 1.0), some.shape[0])
        return choice.to(some.device)
