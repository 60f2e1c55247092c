"""The algorithms of Stable-Baselines3 and sb3-contrib that are offered here, each imported when it is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

__all__ = ["ALGORITHMS", "SIZES", "Algorithm", "built", "checked_algorithm"]

SIZES = ("lstm_hidden_size", "n_lstm_layers", "n_quantiles")  # what a preset may say of a policy besides its widths
_MOST = 1 << 16  # of a width


@dataclass(frozen=True)
class Algorithm:
    """Where an algorithm's classes are, and what it can do."""

    address: str  # module:class of the algorithm
    policy: str  # module:class of its "MlpPolicy"
    menu_only: bool = False  # it takes Discrete actions alone
    masks: bool = False  # it is told what may be chosen
    recurrent: bool = False
    on_policy: bool = True

    @property
    def library(self) -> str:
        """The distribution it is part of."""
        return "sb3-contrib" if self.address.startswith("sb3_contrib") else "stable-baselines3"

    def load(self) -> type[BaseAlgorithm]:
        """The class. Raises ValueError: sb3-contrib is not installed."""
        return _found(self.address)

    def load_policy(self) -> type[BasePolicy]:
        """The policy's class. Raises ValueError: sb3-contrib is not installed."""
        return _found(self.policy)


_SB3, _CONTRIB = "stable_baselines3", "sb3_contrib"
_ACTOR_CRITIC = f"{_SB3}.common.policies:ActorCriticPolicy"
_MASKABLE = f"{_CONTRIB}.common.maskable.policies:MaskableActorCriticPolicy"
_RECURRENT = f"{_CONTRIB}.common.recurrent.policies:RecurrentActorCriticPolicy"

ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm(f"{_SB3}:PPO", _ACTOR_CRITIC),
    "a2c": Algorithm(f"{_SB3}:A2C", _ACTOR_CRITIC),
    "dqn": Algorithm(f"{_SB3}:DQN", f"{_SB3}.dqn.policies:DQNPolicy", menu_only=True, on_policy=False),
    "qrdqn": Algorithm(f"{_CONTRIB}:QRDQN", f"{_CONTRIB}.qrdqn.policies:QRDQNPolicy", menu_only=True, on_policy=False),
    "trpo": Algorithm(f"{_CONTRIB}:TRPO", _ACTOR_CRITIC),
    "maskable-ppo": Algorithm(f"{_CONTRIB}:MaskablePPO", _MASKABLE, masks=True),
    "recurrent-ppo": Algorithm(f"{_CONTRIB}:RecurrentPPO", _RECURRENT, recurrent=True),
}


def checked_algorithm(algo: Any) -> Algorithm:
    """The algorithm of a name.

    Raises:
        ValueError: there is none.
    """
    if algo not in ALGORITHMS:
        raise ValueError(f"algo {algo!r} is unknown; choose one of {', '.join(ALGORITHMS)}")
    return ALGORITHMS[algo]


def built(
    kind: type[BasePolicy],
    observation: spaces.Space,
    action: spaces.Space,
    widths: Sequence[int],
    size: int,
    sizes: Mapping[str, int] | None = None,
) -> BasePolicy:
    """An untrained policy whose weights fit in a file of `size` bytes.

    SB3 builds on no meta device: the layers' sizes are summed up before memory is taken.

    Raises:
        ValueError: sizes that are none, or more than the file can hold; or what SB3 says of them.
    """
    sizes = dict(sizes or {})
    layers = [spaces.flatdim(observation), *widths, spaces.flatdim(action)]
    if not all(type(n) is int and 1 <= n <= _MOST for n in (*layers, *sizes.values())):
        raise ValueError(f"its layers are {layers} and sizes {sizes}, not whole numbers of at least 1")
    unknown = sorted(set(sizes) - set(SIZES))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no size of a policy; there are {', '.join(SIZES)}")
    cells = sizes.get("lstm_hidden_size", 0)
    needed = sum(a * b for a, b in itertools.pairwise([cells or layers[0], *layers[1:]]))
    needed = 4 * (needed + 4 * cells * (layers[0] + cells) * sizes.get("n_lstm_layers", 1))
    if needed > size:
        raise ValueError(f"its layers {layers} need {needed} bytes or more, and the file has {size}")
    # SB3 initialises what it builds from torch's global generator: put that back as it was.
    with torch.random.fork_rng(devices=[]):
        make: Any = kind
        return make(observation, action, lambda _: 0.0, net_arch=list(widths), **sizes)


def _found(address: str) -> Any:
    module, _, name = address.partition(":")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise ValueError(f'{name} needs sb3-contrib ({error}): pip install "clinenv[rl]"') from None
