"""A learned value at the horizon: what a policy still earns from a chart on, told by a small network.

A plan that ends before the episode does is judged by what follows, too. `value_training` fits the network on imagined
courses of a policy in the learned world; here it is loaded, and laid under a task as a potential (`WithValue`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.planning.imagination import Value
from agents.planning.task_around import TaskAround
from clinenv.interface import Interface
from clinenv.simulator import Simulator
from clinenv.task import Task
from world_models import checkpoint
from world_models.config_json import from_json
from world_models.nn.mlp import mlp
from world_models.protocol import Chart

__all__ = ["KIND", "LearnedValue", "ValueConfig", "ValueNetwork", "WithValue"]

KIND = "value-network"


@dataclass(frozen=True)
class ValueConfig:
    """What the network is, and what it was fitted on."""

    task: str  # name
    world: str  # name of the learned world whose courses it was fitted on
    policy: str  # whose courses they were
    observation_names: tuple[str, ...]  # entries of the chart's observation, which it reads
    horizon_steps: int  # of an episode: what it foretells ends there
    width: int = 64  # of each hidden layer
    depth: int = 2  # hidden layers


class ValueNetwork(nn.Module):
    """From the chart as a policy sees it, float32 [B, n] in the observation's scale, to the return to go [B]."""

    centre: Tensor  # [] of the returns
    spread: Tensor  # []

    def __init__(self, config: ValueConfig) -> None:
        super().__init__()
        self.config = config
        self.network = mlp((len(config.observation_names), *(config.width,) * config.depth, 1))
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, observation: Tensor) -> Tensor:
        """[B] undiscounted return to go."""
        return self.network(observation).squeeze(-1) * self.spread + self.centre

    def save(self, folder: str | Path, card: str) -> str:
        """Write config, weights and card into a sealed folder; returns the seal."""
        config = {"kind": KIND, **dataclasses.asdict(self.config)}
        return checkpoint.save_checkpoint(folder, self.state_dict(), config, card)


class LearnedValue:
    """A value network as a function of charts.

    Args:
        network: a folder written by `value_training`, or a network.
        simulator: where it is used; its world and task define the observation's layout.

    Raises:
        FileNotFoundError, CheckpointError: see `checkpoint.load_module`.
        ValueError: the network was fitted for another layout of the observation.
    """

    def __init__(self, network: str | Path | ValueNetwork, simulator: Simulator) -> None:
        if not isinstance(network, ValueNetwork):
            network = checkpoint.load_module(Path(network), KIND, _build, simulator.device)
        self._interface = Interface(simulator.world, simulator.task)
        names = self._interface.layout.names
        if tuple(names) != network.config.observation_names:
            raise ValueError(
                f"the value network reads {len(network.config.observation_names)} entries of task "
                f"{network.config.task!r}, this one shows {len(names)} of {simulator.task.name!r}; train one for it"
            )
        self.network = network.eval()

    def observe(self, chart: Chart) -> Tensor:
        """float32 [B, n]: what the network reads of a chart."""
        some = self._interface.task.clock(chart)
        nobody = torch.zeros(some.shape[0], dtype=torch.int64, device=some.device)
        return self._interface.observe(chart, nobody, nobody, None)[0]

    def __call__(self, chart: Chart) -> Tensor:
        """[B]: see `Value`."""
        return self.network(self.observe(chart))


def _build(plain: dict[str, Any]) -> ValueNetwork:
    return ValueNetwork(from_json(ValueConfig, plain, "the config"))


class WithValue(TaskAround):
    """A task whose rewards, added up over a plan, are the plan's return and the value of the chart at its end, less the
    value of the chart it began with.

    Shaping by a potential (Ng 1999, ICML): discount * value(after) - value(before), where the value of an end is 0.
    Which plan is best is not changed by the last of the three, as all of a patient's plans begin on one chart.
    """

    def __init__(self, task: Task, value: Value, discount: float = 1.0) -> None:
        super().__init__(task)
        self._value, self._discount = value, discount

    def _potential(self, chart: Chart) -> Tensor:
        return torch.where(self.terminated(chart), 0.0, self._value(chart))

    def reward(self, before: Chart, action: Tensor, after: Chart) -> dict[str, Tensor]:
        """The task's terms, and `potential`."""
        shaped = self._discount * self._potential(after) - self._potential(before)
        return {**super().reward(before, action, after), "potential": shaped}
