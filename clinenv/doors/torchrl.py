"""TorchRL: a native `EnvBase` over the running episodes; tensordicts that never leave the device."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from clinenv.doors.making import missing, patients

try:
    from tensordict import TensorDict, TensorDictBase
    from torchrl.data import (
        Binary,
        Bounded,
        Categorical,
        Composite,
        MultiCategorical,
        MultiOneHot,
        OneHot,
        TensorSpec,
        Unbounded,
    )
    from torchrl.envs import EnvBase
except ImportError as error:
    raise missing(error, "TorchRL", 'pip install "clinenv[torchrl]"') from None

__all__ = ["TorchRLEnv"]


class TorchRLEnv(EnvBase):
    """N patients of an id as one TorchRL environment of batch size [N].

    Beside "observation" (a Dict observation has its own keys) there are "cost" float32 [N, 1], 0 at a reset, and, where
    the task refuses orders, "action_mask" bool [N, entries]. Rows that have ended
    are begun anew by TorchRL itself: through "_reset", any of them at a time. Row i with seed s meets the patients of a
    single environment that was reset with seed s + i.

    Args:
        env_id: as for `gymnasium.make_vec`.
        num_envs: N.
        categorical_actions: choices are numbers, int64; False: one-hot, as TorchRL's older losses want them.
        arguments: of the environment; `uncertainty` need not be given, for info is not asked.

    Raises:
        ValueError: an argument that is none, or an observation of text.
        ImportError: TorchRL is not installed.
    """

    def __init__(self, env_id: str, num_envs: int = 1, *, categorical_actions: bool = True, **arguments: Any) -> None:
        arguments = {"uncertainty": False, **arguments}
        self._patients = patients(env_id, num_envs, AutoresetMode.DISABLED, tensors=True, **arguments)
        self._episodes = self._patients.episodes
        device = self._episodes.device
        super().__init__(device=device, batch_size=torch.Size([num_envs]))
        self._count = num_envs
        self._categorical = categorical_actions
        self._next_seed: int | None = None
        self._over = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._masked = self._episodes.simulator.task.refuses
        self._make_specs()

    def _make_specs(self) -> None:
        count, device = self._count, self.device
        space = self._patients.single_observation_space
        parts = space.spaces if isinstance(space, gymnasium.spaces.Dict) else {"observation": space}
        seen = {name: _box(part, count, device) for name, part in parts.items()}
        seen["cost"] = Unbounded((count, 1), device=device, dtype=torch.float32)
        if self._masked:
            everything = torch.ones(1, len(self._patients.task.orders), dtype=torch.bool, device=device)
            entries = self._episodes.interface.codec.mask(everything).shape[-1]
            seen["action_mask"] = Binary(entries, shape=(count, entries), device=device, dtype=torch.bool)
        self.observation_spec = Composite(seen, shape=self.batch_size, device=device)
        self.action_spec = _choices(self._patients.single_action_space, count, device, self._categorical)
        self.reward_spec = Unbounded((count, 1), device=device, dtype=torch.float32)
        flag = Categorical(2, shape=(count, 1), device=device, dtype=torch.bool)
        flags = {name: flag.clone() for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(flags, shape=self.batch_size, device=device)

    def _set_seed(self, seed: int | None) -> None:
        self._next_seed = seed

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDict:
        """New patients in the rows of "_reset", or in all; `options` as for `ClinicalEnv.reset`."""
        wanted = None if tensordict is None else tensordict.get("_reset", None)
        rows = None if wanted is None else wanted.reshape(self._count)
        if rows is None or bool(rows.all()) or self._episodes.now is None:
            observation, _ = self._patients.reset(seed=self._next_seed, options=kwargs.get("options"))
            self._next_seed = None
            self._over = torch.zeros_like(self._over)
        else:
            chosen = rows.nonzero().squeeze(-1)
            factors, start = self._episodes.options(kwargs.get("options"), len(chosen))
            if factors or start is not None:
                self._episodes.begin(chosen, None, factors, start)
            else:
                self._episodes.renew(rows)
            observation = self._episodes.observation()
            self._over = self._over & ~rows
        flags = {name: torch.zeros_like(self._over).unsqueeze(-1) for name in ("done", "terminated", "truncated")}
        return self._told(observation, torch.zeros(self._count, device=self.device), flags)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        """One step in every row.

        Raises:
            gymnasium.error.ResetNeeded: a row has ended and was not begun anew.
        """
        if bool(self._over.any()):
            which = self._over.nonzero().flatten().tolist()
            raise gymnasium.error.ResetNeeded(f"rows {which[:8]} have ended: reset them by '_reset' first")
        action = tensordict.get("action")
        if not self._categorical and not isinstance(self.action_spec, Binary | Bounded):
            action = self.action_spec.to_categorical(action)
        observation, out, truncated = self._episodes.step(action)
        self._over = out.terminated | truncated
        flags = {"done": self._over.clone(), "terminated": out.terminated.clone(), "truncated": truncated.clone()}
        told = self._told(observation, out.cost, {name: flag.unsqueeze(-1) for name, flag in flags.items()})
        told.set("reward", out.reward.clone().unsqueeze(-1))
        return told

    def _told(self, observation: Any, cost: Tensor, flags: dict[str, Tensor]) -> TensorDict:
        parts = observation if isinstance(observation, dict) else {"observation": observation}
        told = {**parts, "cost": cost.clone().unsqueeze(-1), **flags}
        if self._masked:
            told["action_mask"] = self._episodes.action_mask().bool()
        return TensorDict(told, batch_size=self.batch_size, device=self.device)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """No step or reset is possible after it."""
        if not self.is_closed:
            self._patients.close()
        super().close(raise_if_closed=raise_if_closed)


def _box(space: gymnasium.Space, count: int, device: torch.device) -> TensorSpec:
    """The spec of N rows of a Box.

    Raises:
        ValueError: another kind of space.
    """
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(f"a tensordict holds no {type(space).__name__}; choose another observation")
    low, high = (
        torch.as_tensor(np.asarray(x), device=device).expand(count, *space.shape) for x in (space.low, space.high)
    )
    return Bounded(low, high, shape=(count, *space.shape), device=device, dtype=low.dtype)


def _choices(space: gymnasium.Space, count: int, device: torch.device, categorical: bool) -> TensorSpec:
    """The spec of N actions."""
    if isinstance(space, gymnasium.spaces.Discrete):
        n = int(space.n)
        if categorical:
            return Categorical(n, shape=(count,), device=device, dtype=torch.int64)
        return OneHot(n, shape=(count, n), device=device, dtype=torch.bool)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        sizes = [int(n) for n in space.nvec]
        if categorical:
            return MultiCategorical(sizes, shape=(count, len(sizes)), device=device, dtype=torch.int64)
        return MultiOneHot(sizes, shape=(count, sum(sizes)), device=device, dtype=torch.bool)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return Binary(space.shape[0], shape=(count, *space.shape), device=device, dtype=torch.int8)
    return _box(space, count, device)
