"""What a builder of agents is handed, and what it gives back: the contract of the registry and of submissions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from agents.protocol import Agent
from clinenv.simulator import Simulator
from world_models.protocol import HasWeights, WorldModel

__all__ = ["Built", "Making", "seal_of"]


def seal_of(world: WorldModel) -> str | None:
    """The seal of a world's weights; None where it has none (an oracle), through worlds that wrap one."""
    inner: object = getattr(world, "world", world)
    return inner.weights_sha256 if isinstance(inner, HasWeights) else None


@dataclass(frozen=True)
class Making:
    """Where, for what and from which chance an agent is made. No rival finds judged patients in it, or a way to one."""

    env_id: str
    simulator: Simulator  # of the world the agent is made in: to train, tune and plan in; it draws from its own keys
    world: str  # that world's name, or the folder of its weights
    steps: int  # of the episodes the agent will be judged in, at most
    seed: int = 0  # of all chance in the making and the deciding
    runs: Path = field(default_factory=lambda: Path("runs/agents"))  # what was trained or tuned is kept here
    quick: bool = False  # a small budget: to see that everything runs
    state_of: Callable[[], Any] | None = None  # the judged patients' true states, for references that own the oracle


class Built(NamedTuple):
    """An agent, and what its row of a table says of it."""

    agent: Agent
    settings: Mapping[str, Any] = {}  # plain JSON: everything that decides how it decides; sealed into the row
    budget: str = ""  # in words: training steps, or transitions imagined a decision; "": it took none
    weights: str | None = None  # seal of the folder of a trained policy
