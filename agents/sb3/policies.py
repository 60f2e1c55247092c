"""SB3's policies as `agents.protocol.Policy`s: without exploration, with masks where they want them, and with the
memory of recurrent ones a row, which a new patient begins anew."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from agents.protocol import Policy
from agents.sb3 import store

__all__ = ["policy_of", "load"]


class _Plain:
    """A policy that looks at what is seen now."""

    masked = False

    def __init__(self, policy: Any) -> None:
        policy.set_training_mode(False)
        self.policy = policy
        self.inputs = int(math.prod(policy.observation_space.shape or ()))

    def reset(self, rows: Tensor | None) -> None:
        """It remembers nothing."""

    def narrow(self, rows: Tensor) -> None:
        """All patients are alike to it."""

    def decide(self, seen: Tensor, mask: Tensor | None) -> Tensor:
        """See `Policy`."""
        return self._released(self.policy._predict(seen.to(self.policy.device), deterministic=True))

    def _released(self, action: Tensor) -> Tensor:
        """The action within its space."""
        space = self.policy.action_space
        if not isinstance(space, spaces.Box):
            return action
        low, high = (torch.as_tensor(x, device=action.device) for x in (space.low, space.high))
        return action.clamp(low, high)


class _Masked(_Plain):
    """A policy that is told what may be chosen."""

    masked = True

    def decide(self, seen: Tensor, mask: Tensor | None) -> Tensor:
        """See `Policy`."""
        assert mask is not None
        seen = seen.to(self.policy.device)
        return self.policy._predict(seen, deterministic=True, action_masks=mask.cpu().numpy())


class _Recurrent(_Plain):
    """A policy with an LSTM."""

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self._states: tuple[Tensor, Tensor] | None = None  # [layers, B, cells] each
        self._fresh: Tensor | None = None  # bool [B]: begin anew; None: nobody

    def reset(self, rows: Tensor | None) -> None:
        """Forget all patients (None), or those of bool [B]."""
        if rows is None or self._states is None:
            self._states = self._fresh = None
        else:
            self._fresh = rows if self._fresh is None else self._fresh | rows

    def narrow(self, rows: Tensor) -> None:
        """Go on with the patients int64 [K] alone."""
        if self._states is not None:
            hidden, cell = (part[:, rows.to(part.device)] for part in self._states)
            self._states = hidden, cell
        self._fresh = None if self._fresh is None else self._fresh[rows]

    def decide(self, seen: Tensor, mask: Tensor | None) -> Tensor:
        """See `Policy`."""
        seen = seen.to(self.policy.device)
        if self._states is None:
            lstm = self.policy.lstm_actor
            zeros = torch.zeros(lstm.num_layers, len(seen), lstm.hidden_size, device=seen.device)
            self._states = zeros, zeros
        fresh = torch.zeros(len(seen), device=seen.device) if self._fresh is None else self._fresh.to(seen)
        action, self._states = self.policy._predict(seen, self._states, fresh, deterministic=True)
        self._fresh = None
        return self._released(action)


def policy_of(policy: Any) -> Policy:
    """A policy of Stable-Baselines3 or sb3-contrib as one of ours.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(policy, BasePolicy):
        raise ValueError(f"a {type(policy).__name__} is no policy; give a folder, or a policy of SB3 or sb3-contrib")
    if hasattr(policy, "lstm_actor"):
        return _Recurrent(policy)
    return _Masked(policy) if type(policy).__name__.startswith("Maskable") else _Plain(policy)


def load(folder: Path, device: torch.device | str = "cpu") -> tuple[Policy, dict[str, Any]]:
    """The policy of a folder, and what is told of it; raises as `store.load_policy`."""
    policy, told = store.load_policy(folder, device)
    return policy_of(policy), told
