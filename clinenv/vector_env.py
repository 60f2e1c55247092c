"""ClinicalVectorEnv: N patients as one batch of tensors, numpy at the door, autoreset written once.

Its results, infos and their masks included, are those of Gymnasium's SyncVectorEnv over N single environments
(`clinenv.testing.check_vector_env` proves it), at the price of one batched step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from clinenv.assemble import (
    RENDER_FPS,
    RENDER_MODES,
    assemble,
    check_flag,
    check_options,
    registered_limit,
    split_options,
    warn_short_limit,
)
from clinenv.episodes import horizon_in_steps, row_keys
from clinenv.rendering.trend import Trend
from clinenv.simulator import Simulator
from clinenv.task import Task
from clinenv.vector_info import as_arrays, as_tensors, masked, object_rows
from world_models import tree
from world_models.protocol import Chart, WorldModel

__all__ = ["ClinicalVectorEnv"]


class ClinicalVectorEnv(VectorEnv):
    """A Gymnasium vector environment over any world and task; `reset` and `step` follow Gymnasium 1.4.

    Args:
        num_envs: N.
        autoreset_mode: what happens when row i ends. NEXT_STEP (default, as in Gymnasium's own vector environments: what
            takes no notice of the mode, such as RLlib, means this one): it begins anew at the next step, whose action
            it ignores; SAME_STEP: at once, its last observation and info stand in `infos["final_obs"]` and
            `infos["final_info"]`; DISABLED: when `reset(options={"reset_mask": ...})` says so.
        tensors: give torch tensors on the device instead of numpy arrays (`final_obs` is then one tensor [N, ...]
            whose rows count where `_final_obs` holds).
        max_episode_steps: the registry's time limit; with `hours`, the shorter one holds.
        task, world, patients, cohort, observation, noise, missingness, hours, device, action_unit, render_mode,
            hours_per_step, uncertainty: as for `ClinicalEnv`.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}
    _trend: Trend | None = None  # Gymnasium 1.1 closes what was refused in __init__, too

    def __init__(
        self,
        task: Task,
        num_envs: int = 1,
        world: str | WorldModel = "ecg-wm-small",
        patients: Any = "generated",
        cohort: str | None = None,
        observation: str = "chart",
        noise: str = "none",
        missingness: str = "none",
        hours: float | None = None,
        device: str | None = None,
        action_unit: str = "scaled",
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        tensors: bool = False,
        max_episode_steps: int | None = None,
        hours_per_step: float | None = None,
        uncertainty: bool = True,
    ) -> None:
        self._episodes = assemble(
            task, num_envs, world, patients, cohort, observation, noise, missingness, hours, max_episode_steps, device,
            action_unit, render_mode, hours_per_step, uncertainty,
        )  # fmt: skip
        check_flag("tensors", tensors)
        if tensors and isinstance(self._episodes.door.observation_space, gymnasium.spaces.Text):
            raise ValueError(f"observation={observation!r} gives strings, which are no tensors; leave tensors=False")
        self.num_envs = num_envs
        self.autoreset_mode = _autoreset(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.tensors = tensors
        self.single_observation_space = self._episodes.door.observation_space
        self.single_action_space = self._episodes.door.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._trend = Trend(self._episodes) if render_mode else None
        self._ended = torch.zeros(num_envs, dtype=torch.bool, device=self._episodes.device)
        self._unchecked_limit = None if hours is not None else max_episode_steps

    @property
    def task(self) -> Task:
        return self._episodes.simulator.task

    @property
    def world(self) -> WorldModel:
        return self._episodes.simulator.world

    @property
    def simulator(self) -> Simulator:
        return self._episodes.simulator

    @property
    def state(self) -> Any:
        """The world's state of all rows: for planners and judges."""
        return self._episodes.running.state

    @property
    def chart(self) -> Chart:
        """The true chart of all rows, without measurement noise. Read only."""
        return dict(self._episodes.running.chart)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """New patients in all rows, or in those of `options["reset_mask"]` (numpy bool [N]).

        Args:
            seed: s stands for rows s, s + 1, ...; or one a row; a row without one meets its next patient.
            options: "reset_mask", and patient factors as for `ClinicalEnv.reset`, one value or one a row [N].

        Raises:
            ValueError: a mask, seed or factor that does not fit; nothing was changed then.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        self._refuse_closed()
        episodes = self._episodes
        mask = _reset_mask(options, self.num_envs)
        chosen = np.flatnonzero(mask)
        factors = episodes.check_factors(split_options(options), self.num_envs)
        factors = {name: value[torch.as_tensor(chosen, device=episodes.device)] for name, value in factors.items()}
        if episodes.now is None and not mask.all():
            raise ValueError("reset all environments once before resetting some of them with 'reset_mask'")
        given = None if seed is None else row_keys(seed, self.num_envs, episodes.device)  # (keys, which are given)
        each = seed if isinstance(seed, Sequence | np.ndarray) else [seed]
        first = next((int(s) for s in each if s is not None), None)
        super().reset(seed=first)
        if episodes.now is None and (given is None or not given[1].all()):  # the first patients: entropy, as Gymnasium
            drawn, every = row_keys(int(self.np_random.integers(2**62)), self.num_envs, episodes.device)
            if given is not None:
                drawn = torch.where(torch.as_tensor(given[1], device=drawn.device), given[0], drawn)
            given = (drawn, every)
        self._begin(chosen, given, factors)
        rows = torch.as_tensor(chosen, device=episodes.device)
        self._ended = self._ended.index_fill(0, rows, False)
        if self._trend is not None:
            self._trend.start() if mask.all() else self._trend.add(mask)
        self._check_limits()
        said = {**episodes.facts(), **episodes.unjudged()}
        info = masked(said, torch.as_tensor(mask, device=episodes.device), whole=bool(mask.all()))
        return self._out(episodes.observation()), as_tensors(info) if self.tensors else as_arrays(info)

    def _begin(
        self, chosen: np.ndarray, given: tuple[Tensor, np.ndarray] | None, factors: Mapping[str, Tensor]
    ) -> None:
        """Start the chosen rows: those with a seed from it, the others with the next episode of theirs."""
        seeded = np.zeros(self.num_envs, bool) if given is None else given[1]
        for group, base in ((chosen[seeded[chosen]], given), (chosen[~seeded[chosen]], None)):
            if len(group):
                rows = torch.as_tensor(group, device=self._episodes.device)
                place = torch.as_tensor(np.searchsorted(chosen, group), device=rows.device)
                fixed = {name: value[place] for name, value in factors.items()}
                whole = len(group) == self.num_envs
                self._episodes.begin(None if whole else rows, None if base is None else base[0][rows], fixed)

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every row.

        Args:
            actions: [N] menu entries, or [N, D] switches or doses; numpy or torch.

        Raises:
            ValueError: an action outside the action space.
            gymnasium.error.ResetNeeded: no reset yet, or (DISABLED) a row has ended and was not reset.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        self._refuse_closed()
        episodes, mode = self._episodes, self.autoreset_mode
        if episodes.now is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() first")
        waiting = self._ended if mode != AutoresetMode.SAME_STEP else None
        any_waiting = waiting is not None and bool(waiting.any())
        if any_waiting and mode == AutoresetMode.DISABLED:
            rows = waiting.nonzero().flatten().tolist()
            raise gymnasium.error.ResetNeeded(
                f"environments {rows[:8]} have ended and autoreset is disabled; first "
                "reset(options={'reset_mask': mask})"
            )
        observation, out, truncated = episodes.step(actions)
        reward, terminated = out.reward, out.terminated
        facts = {**episodes.facts(), **episodes.verdict(out)}
        last: tuple[Any, dict[str, Any]] | None = None
        begun = None
        if any_waiting:  # NEXT_STEP: what was stepped in these rows is thrown away
            begun = waiting
            reward = torch.where(begun, 0.0, reward)
            terminated, truncated = terminated & ~begun, truncated & ~begun
        ended = terminated | truncated
        if mode == AutoresetMode.SAME_STEP and bool(ended.any()):
            begun = ended
            last = (observation, facts)
        if begun is not None:
            rows = begun.nonzero().flatten()
            shown, fresh = episodes.begin(rows)
            observation = tree.put(observation, rows, shown)
            unjudged = tree.take(episodes.unjudged(), rows)
            facts = tree.put(facts, rows, {**episodes.facts(fresh), **unjudged})
        self._ended = ended
        if self._trend is not None:
            self._trend.add(None if begun is None else begun.cpu().numpy())
            if self.render_mode == "human":
                self._trend.show()
        info = self._step_info(facts, begun, last)
        if self.tensors:
            return self._out(observation), reward.clone(), terminated.clone(), truncated.clone(), info
        flags = torch.stack([terminated, truncated]).cpu().numpy()
        return self._out(observation), reward.cpu().numpy().astype(np.float64), flags[0], flags[1].copy(), info

    def _step_info(
        self,
        facts: dict[str, Tensor],
        begun: Tensor | None,
        last: tuple[Any, dict[str, Tensor]] | None,
    ) -> dict[str, Any]:
        """Facts of all rows, the `last` moment of those that ended."""
        info = masked(facts, torch.ones_like(self._ended), whole=True)
        if last is not None:
            info["final_info"] = masked(last[1], begun)
            info["_final_info"] = info["_final_obs"] = begun
        info = as_tensors(info) if self.tensors else as_arrays(info)
        if last is not None:
            info["final_obs"] = last[0] if self.tensors else object_rows(last[0], info["_final_obs"], self._out)
        return info

    def _out(self, observation: Any) -> Any:
        """The observation as it leaves: fresh memory, numpy unless `tensors`."""
        if self.tensors:
            return observation
        return self._episodes.door.release(observation)

    def describe(self, observation: Any) -> dict[str, np.ndarray]:
        """What a batch of observations says, in units: {"qtcf_ms": [N], ...}."""
        return self._episodes.door.describe(observation)

    def refusals(self, row: int) -> list[tuple[str, str]]:
        """The orders of the last step of a row that were not carried out: (order, why)."""
        return self._episodes.refusals(row)

    def snapshot(self) -> bytes:
        """State and luck of all rows, to be kept, sent or branched."""
        return self._episodes.snapshot()

    def restore(self, snapshot: bytes, luck: int | None = None) -> Any:
        """Go back to a snapshot; that of a single environment fills every row. Returns the observation there.

        Args:
            luck: None keeps the luck, so equal actions give equal futures in all rows; a number gives each row its own.
        """
        self._refuse_closed()
        observation = self._episodes.restore(snapshot, luck)
        now = self._episodes.now
        self._ended = (now.steps >= self._episodes.horizon_steps) | self.task.terminated(now.chart)
        if self._trend is not None:
            self._trend.start()
        return self._out(observation)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One uint8 [H, W, 3] a row; in "human" mode a window with row 0, and None."""
        if self._trend is None:
            gymnasium.logger.warn('render() needs a render_mode: make the environment with render_mode="rgb_array"')
            return None
        if self.render_mode == "human":
            return self._trend.show()
        return tuple(self._trend.frame(row) for row in range(self.num_envs))

    def _refuse_closed(self) -> None:
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("this environment was closed; make a new one")

    def _check_limits(self) -> None:
        """Warn once that the id's own time limit cuts a stay short: the world makes shorter steps than it counts on."""
        limit, self._unchecked_limit = self._unchecked_limit, None
        if limit is not None and limit == registered_limit(self.spec):
            steps = horizon_in_steps(self.task.horizon_hours, self.world.hours_per_step)
            if limit < steps:
                warn_short_limit(self.task.horizon_hours, steps, limit)

    def close_extras(self, **kwargs: Any) -> None:
        if self._trend is not None:
            self._trend.close()


def _autoreset(mode: Any) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(repr(m.value) for m in AutoresetMode)
        raise ValueError(f"autoreset_mode={mode!r} is unknown; choose one of {known}, or an AutoresetMode") from None


def _reset_mask(options: Mapping[str, Any] | None, count: int) -> np.ndarray:
    """bool [N]: the rows to reset."""
    if "reset_mask" not in check_options(options):
        return np.ones(count, dtype=bool)
    mask = options["reset_mask"]
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"options['reset_mask'] must be a numpy array of bool, got {kind}; give np.array([True, ...])")
    if mask.shape != (count,):
        raise ValueError(f"options['reset_mask'] must have the shape ({count},), got {mask.shape}")
    if not mask.any():
        raise ValueError("options['reset_mask'] selects no environment; at least one must be True")
    return mask
