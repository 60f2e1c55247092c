"""A policy learned from a log, as an agent: networks in safetensors, how to build them in JSON, and nothing unpickled.

policy.safetensors     weights and biases of each network's layers, and the book of choices where the coding has one
policy.json            algorithm, networks, coding, the layout of the observation, what it was learned from, the seal

python -m agents.offline.policy FOLDER    seals a folder that was changed on purpose

Kinds of decision: "best" takes the action of the highest mean Q over the critics (CQL); "constrained" the same among
actions that the imitator finds at least `flexibility` times as likely as its likeliest (discrete BCQ, Fujimoto 2019,
arXiv 1910.01708); "likeliest" the imitator's likeliest (behaviour cloning); "mean" the actor's squashed mean (IQL,
continuous behaviour cloning).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from agents.observer import Observer
from agents.offline.choices import Choices
from agents.offline.coding import KINDS, Coding
from clinenv.interface import Interface
from clinenv.simulator import Simulator
from world_models.checkpoint import CheckpointError
from world_models.config_json import ConfigError, check_sizes, from_json
from world_models.protocol import Chart
from world_models.sealed import Form, command_line

__all__ = ["FORM", "Learned", "OfflinePolicy", "Recipe", "load", "load_networks", "save_policy"]

POLICY = "policy.safetensors"
FORM = Form("policy.json", (POLICY,), "python -m agents.offline.policy")
DECISIONS = ("best", "constrained", "likeliest", "mean")
_BOOK = "book"


@dataclass(frozen=True)
class Recipe:
    """How a policy is built, and what it was learned from.

    Raises:
        ValueError: an unknown kind of decision or coding, or sizes out of range.
    """

    algo: str
    decision: str  # of DECISIONS
    coding: str  # of `coding.KINDS`
    action_kind: str
    actions: int  # a list's length, or a vector's
    entries: int  # of a choice
    hidden: tuple[int, ...]  # widths
    observation_names: tuple[str, ...]
    updates: int
    seed: int
    learned_from: Mapping[str, Any]  # the log's own words
    flexibility: float = 0.0  # of "constrained"
    critics: int = 1
    library: str = "d3rlpy"  # that learned it; `agents.policy_agent` tells folders apart by it

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS or self.coding not in KINDS:
            raise ValueError(
                f"decision {self.decision!r} and coding {self.coding!r} must be of {DECISIONS} and {KINDS}"
            )
        check_sizes(self, 1, actions=1 << 16, entries=1 << 12, critics=64)
        if not self.hidden or not all(1 <= width <= 1 << 13 for width in self.hidden):
            raise ValueError(f"hidden={self.hidden} must be widths from 1 to {1 << 13}")

    def networks(self) -> tuple[str, ...]:
        """Names of the networks."""
        critics = self.critics if self.decision in ("best", "constrained") else 0
        imitator = ("imitator",) if self.decision in ("constrained", "likeliest") else ()
        return (*(f"critic_{i}" for i in range(critics)), *imitator, *(("actor",) if self.decision == "mean" else ()))

    def build(self) -> nn.ModuleDict:
        """The networks on torch's meta device."""
        sizes = (len(self.observation_names), *self.hidden, self.actions)

        def one() -> nn.Sequential:
            layers: list[nn.Module] = []
            for a, b in zip(sizes, sizes[1:], strict=False):
                layers += [nn.Linear(a, b), nn.ReLU()]
            return nn.Sequential(*layers[:-1])

        with torch.device("meta"):
            return nn.ModuleDict({name: one() for name in self.networks()})


def save_policy(folder: Path, recipe: Recipe, networks: nn.ModuleDict, book: Tensor | None) -> str:
    """Write a policy, whole or not at all; returns its seal."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in networks.state_dict().items()}
    if book is not None:
        tensors[_BOOK] = book.to(torch.int64).contiguous()
    return FORM.write(folder, asdict(recipe), [save_tensors(tensors)])


def load_networks(folder: Path) -> tuple[Recipe, nn.ModuleDict, Tensor | None, str]:
    """Recipe, networks, book and seal.

    Raises:
        FileNotFoundError: the folder holds no policy.
        CheckpointError: a file is damaged or altered, or the recipe describes no policy.
    """
    with FORM.opened(folder) as found:
        try:
            recipe = from_json(Recipe, found.config, str(folder / FORM.json))
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
        networks = recipe.build()
        wanted = dict(networks.state_dict())
        if recipe.coding == "book":
            wanted[_BOOK] = torch.empty(recipe.actions, recipe.entries, dtype=torch.int64, device="meta")
        tensors = found.tensors(POLICY, wanted)
        book = tensors.pop(_BOOK, None)
        networks.load_state_dict(tensors, assign=True)
        return recipe, networks.requires_grad_(False), book, found.sha256


class Learned:
    """The policy of a recipe's networks, as `agents.protocol.Policy` has it; it remembers nothing.

    Args:
        book: int64 [actions, entries] of choices, where the coding has one.
    """

    masked = False

    def __init__(self, recipe: Recipe, networks: nn.ModuleDict, book: Tensor | None) -> None:
        self.recipe, self.inputs, self._networks = recipe, len(recipe.observation_names), networks
        self._coding = Coding(recipe.coding, recipe.action_kind, recipe.actions, book)

    def reset(self, rows: Tensor | None) -> None:
        """Nothing is remembered."""

    def narrow(self, rows: Tensor) -> None:
        """All patients are alike to it."""

    def decide(self, seen: Tensor, mask: Tensor | None) -> Tensor:
        """The environment's actions, [B] of a menu, else [B, D], of observations float32 [B, inputs]."""
        choice = self.choose(seen)
        return choice.squeeze(-1) if self.recipe.action_kind == "menu" else choice

    @torch.no_grad()
    def choose(self, observation: Tensor) -> Tensor:
        """The choices [B, D] (`agents.offline.choices`)."""
        if self.recipe.decision == "mean":
            return self._coding.decode(self._networks["actor"](observation).tanh())
        return self._coding.decode(self.scores(observation).argmax(-1))

    @torch.no_grad()
    def scores(self, observation: Tensor) -> Tensor:
        """float32 [B, actions]: mean Q, or log-probability of the imitator; -inf where the imitator bars an action."""
        recipe = self.recipe
        likely = self._networks["imitator"](observation).log_softmax(-1) if "imitator" in self._networks else None
        if recipe.decision == "likeliest":
            assert likely is not None
            return likely
        critics = [self._networks[name] for name in recipe.networks() if name.startswith("critic")]
        value = torch.stack([critic(observation) for critic in critics]).mean(0)
        if likely is None:
            return value
        allowed = likely - likely.max(-1, keepdim=True).values > math.log(recipe.flexibility)
        return torch.where(allowed, value, -torch.inf)


def load(folder: Path, device: torch.device | str = "cpu") -> tuple[Learned, dict[str, Any]]:
    """The policy of a folder, and what is told of it; errors are those of `load_networks`."""
    recipe, networks, book, _ = load_networks(folder)
    told = {**asdict(recipe), "observation_names": list(recipe.observation_names)}
    return Learned(recipe, networks.to(device), book), told


class OfflinePolicy:
    """Decides without chance. A measure that is missing now reads as it was last seen, as in the observation.

    Args:
        folder: written by `agents.offline.train`.
        simulator: where it will be judged.

    Raises:
        FileNotFoundError, CheckpointError: see `load_networks`.
        ValueError: it was learned on another layout of the observation, or for another kind of action.
    """

    def __init__(self, folder: str | Path, simulator: Simulator, name: str | None = None) -> None:
        self.recipe, networks, book, self.sha256 = load_networks(Path(folder))
        self._policy = Learned(self.recipe, networks.to(simulator.device), book)
        self._interface = Interface(simulator.world, simulator.task)
        self._choices = Choices(simulator)
        names, kind = tuple(self._interface.layout.names), type(self._choices.kind).__name__.lower()
        if names != self.recipe.observation_names or kind != self.recipe.action_kind:
            raise ValueError(
                f"the policy in {folder} reads {len(self.recipe.observation_names)} entries for "
                f"{self.recipe.action_kind}, task {simulator.task.name!r} shows {len(names)} for {kind}; learn one "
                "from a log of this task"
            )
        if book is not None and bool(((book < 0) | (book >= torch.tensor(self._choices.counts))).any()):
            raise CheckpointError(f"{folder}: its book holds options that the task does not have; learn it again")
        self.name = name or self.recipe.algo
        self._observed = Observer(self._interface)

    def reset(self, mask: Tensor | None = None) -> None:
        """What was last seen is forgotten."""
        self._observed.reset(mask)

    def narrow(self, rows: Tensor) -> None:
        """Go on with these rows [K]."""
        self._observed.narrow(rows)

    @torch.no_grad()
    def act(self, chart: Chart) -> Tensor:
        """A decision as `agents.protocol.Agent.act` gives it."""
        return self._choices.decision(self._policy.choose(self._observed(chart)))

    @torch.no_grad()
    def scores(self, chart: Chart) -> Tensor:
        """float32 [B, actions] of a policy that chooses from a list: mean Q, or log-probability of the imitator; -inf
        where the imitator bars an action.

        Raises:
            ValueError: it chooses amounts, or from a book, whose numbers are no rows of a menu.
        """
        if self.recipe.coding != "menu":
            raise ValueError(
                f"{self.name} chooses by {self.recipe.coding}, so it scores no rows of a menu; use Exploring"
            )
        return self._policy.scores(self._observed(chart))


if __name__ == "__main__":
    sys.exit(command_line(FORM, "a policy's folder")(None))
