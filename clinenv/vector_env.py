"""ClinicalVectorEnv: N patients as one batch of tensors, numpy in and out, autoreset written once.

Its results, infos and their masks included, are those of Gymnasium's SyncVectorEnv over N single environments
(`clinenv.testing.check_vector_env` proves it), at the price of one batched step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from clinenv.arguments import check_flag, check_options, horizon_in_steps, row_keys
from clinenv.assemble import WorldLike, assemble, registered_limit, warn_short_limit
from clinenv.crowd import Crowd, Moment
from clinenv.episodes import Episodes
from clinenv.patient_env import PatientEnv
from clinenv.rendering.trend import Trend
from clinenv.settings import RENDER_FPS, RENDER_MODES, Settings
from clinenv.task import Task
from clinenv.vector_info import Stacked, as_info, object_rows, stacked

__all__ = ["ClinicalVectorEnv"]


class _Last(NamedTuple):
    """The last moment of rows that ended and began anew in the same step."""

    observation: Any  # of all rows
    told: Stacked  # facts of all rows
    ended: Tensor  # bool [N]


class ClinicalVectorEnv(PatientEnv, VectorEnv[Any, Any, Any]):
    """A Gymnasium vector environment over any world and task; `reset` and `step` follow Gymnasium 1.4.

    Args:
        task, world: as for `ClinicalEnv`.
        num_envs: N.
        autoreset_mode: what happens when row i ends. NEXT_STEP (default, as in Gymnasium's own vector environments:
            what takes no notice of the mode, such as RLlib, means this one): it begins anew at the next step, whose
            action it ignores; SAME_STEP: at once, its last observation and info stand in `infos["final_obs"]` and
            `infos["final_info"]`; DISABLED: when `reset(options={"reset_mask": ...})` says so.
        tensors: give torch tensors on the device instead of numpy arrays (`final_obs` is then one tensor [N, ...]
            whose rows count where `_final_obs` holds).
        arguments: see `clinenv.settings.Settings`.

    Raises:
        ValueError, TypeError: an argument that is none; the message names the choices.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}
    _kind: type[Episodes] = Episodes  # what runs the patients

    def __init__(
        self,
        task: Task,
        num_envs: int = 1,
        world: WorldLike = "ecg-wm-small",
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        tensors: bool = False,
        **arguments: Any,
    ) -> None:
        settings = Settings.of(arguments, ("num_envs", "world", "task", "autoreset_mode", "tensors"))
        self._episodes = assemble(task, num_envs, world, settings, self._kind)
        interface, num_envs = self._episodes.interface, self._episodes.count
        check_flag("tensors", tensors)
        if tensors and isinstance(interface.view.space, gymnasium.spaces.Text):
            raise ValueError(
                f"observation={settings.observation!r} gives strings, which are no tensors; leave tensors=False"
            )
        self.num_envs = num_envs
        self.autoreset_mode = _autoreset(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = settings.render_mode
        self.tensors = tensors
        self.single_observation_space = interface.view.space
        self.single_action_space = interface.codec.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._trend = Trend(self._episodes) if settings.render_mode else None
        self._crowd = Crowd(self._episodes) if settings.compile and Crowd.can(self._episodes) else None
        self._ended = torch.zeros(num_envs, dtype=torch.bool, device=self._episodes.device)
        self._unchecked_limit = None if settings.hours is not None else settings.max_episode_steps

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
        self._refuse(self.closed)
        episodes = self._episodes
        mask = _reset_mask(options, self.num_envs)
        chosen = np.flatnonzero(mask)
        factors, start = episodes.options(options, self.num_envs)
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
        self._begin(chosen, given, factors, start)
        rows = torch.as_tensor(chosen, device=episodes.device)
        self._ended = self._ended.index_fill(0, rows, False)
        if self._trend is not None:
            self._trend.start() if mask.all() else self._trend.add(mask)
        self._check_limits()
        said = {**episodes.facts(), **episodes.unjudged()}
        fresh = None if mask.all() else torch.as_tensor(mask, device=episodes.device)
        info = as_info(stacked(said), said, self.tensors, fresh)
        return self._out(episodes.observation()), info

    def _begin(
        self,
        chosen: np.ndarray,
        given: tuple[Tensor, np.ndarray] | None,
        factors: Mapping[str, Tensor],
        start: Any,
    ) -> None:
        """Start the chosen rows: those with a seed from it, the others with the next episode of theirs."""
        seeded = np.zeros(self.num_envs, bool) if given is None else given[1]
        for group, base in ((chosen[seeded[chosen]], given), (chosen[~seeded[chosen]], None)):
            if len(group):
                rows = torch.as_tensor(group, device=self._episodes.device)
                place = torch.as_tensor(np.searchsorted(chosen, group), device=rows.device)
                fixed = {name: value[place] for name, value in factors.items()}
                whole = len(group) == self.num_envs
                if base is not None or fixed or start is not None:
                    self._episodes.begin(None if whole else rows, None if base is None else base[0][rows], fixed, start)
                else:
                    self._episodes.renew(torch.zeros_like(self._ended).index_fill(0, rows, True))

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
        self._refuse(self.closed)
        episodes, mode = self._episodes, self.autoreset_mode
        if not episodes.begun:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() first")
        some_wait = mode != AutoresetMode.SAME_STEP and bool(self._ended.any())
        waiting = self._ended if some_wait else None
        if waiting is not None and mode == AutoresetMode.DISABLED:
            which = waiting.nonzero().flatten().tolist()
            raise gymnasium.error.ResetNeeded(
                f"environments {which[:8]} have ended and autoreset is disabled; first "
                "reset(options={'reset_mask': mask})"
            )
        if waiting is not None:
            actions = _unasked(actions, waiting)
        observation, told, names, reward, terminated, truncated = self._stepped(actions)
        last: _Last | None = None
        begun = waiting
        if begun is not None:  # NEXT_STEP: what was stepped in these rows is thrown away
            reward = torch.where(begun, 0.0, reward)
            terminated, truncated = terminated & ~begun, truncated & ~begun
        ended = terminated | truncated
        if mode == AutoresetMode.SAME_STEP and bool(ended.any()):
            begun = ended
            last = _Last(observation, told, ended)
        if begun is not None:
            whose = episodes if self._crowd is None else self._crowd
            observation, told = whose.renew(begun, observation, told)
        self._ended = ended
        if self._trend is not None:
            self._trend.add(None if begun is None else begun.cpu().numpy())
            if self.render_mode == "human":
                self._trend.show()
        info = self._step_info(told, names, last)
        if self.tensors:
            return self._out(observation), reward.clone(), terminated.clone(), truncated.clone(), info
        flags = torch.stack([terminated, truncated]).cpu().numpy()
        return self._out(observation), reward.cpu().numpy().astype(np.float64), flags[0], flags[1].copy(), info

    def _stepped(self, actions: Any) -> Moment:
        episodes = self._episodes
        moment = None if self._crowd is None else self._crowd.step(actions)
        if moment is not None:
            return moment
        self._crowd = None  # there is no compiler
        observation, out, truncated = episodes.step(actions)
        said = {**episodes.facts(), **episodes.verdict(out)}
        return Moment(observation, stacked(said), tuple(said), out.reward, out.terminated, truncated)

    def _step_info(self, told: Stacked, names: Sequence[str], last: _Last | None) -> dict[str, Any]:
        """Facts of all rows, by `names` in their order, the `last` moment of those that ended."""
        info = as_info(told, names, self.tensors)
        if last is not None:
            info["final_info"] = as_info(last.told, names, self.tensors, last.ended)
            shown, ended = last.observation, last.ended
            if self.tensors:
                info |= {"final_obs": shown, "_final_obs": ended.clone(), "_final_info": ended.clone()}
            else:
                rows = ended.cpu().numpy()
                info |= {
                    "final_obs": object_rows(shown, rows, self._out),
                    "_final_obs": rows,
                    "_final_info": rows.copy(),
                }
        return info

    def _out(self, observation: Any) -> Any:
        """The observation as it leaves: fresh memory, numpy unless `tensors`."""
        if self.tensors:
            return observation
        return self._episodes.interface.view.release(observation)

    def action_masks(self) -> np.ndarray:
        """bool [N, choices]: see `ClinicalEnv.action_masks`."""
        return self._episodes.action_masks()

    def refusals(self, row: int) -> list[tuple[str, str]]:
        """The orders of the last step of a row that were not carried out: (order, why)."""
        return self._episodes.refusals(row)

    def restore(self, snapshot: bytes, seed: int | None = None) -> Any:
        """Go back to a snapshot; that of a single environment fills every row. Returns the observation there.

        Args:
            seed: None: equal actions give equal futures in all rows; a number gives each row a future of its own.

        Raises:
            ValueError: not a snapshot of as many patients (or one) in the same world and task, or a seed that is none.
        """
        self._refuse(self.closed)
        observation = self._episodes.restore(snapshot, seed)
        self._ended = self._episodes.over()
        if self._trend is not None:
            self._trend.start()
        return self._out(observation)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One uint8 [H, W, 3] a row; in "human" mode a window with row 0, and None."""
        return self._frames(range(self.num_envs))

    def _check_limits(self) -> None:
        """Warn once that the id's own time limit cuts a stay short: the world makes shorter steps than it counts on."""
        limit, self._unchecked_limit = self._unchecked_limit, None
        if limit is not None and limit == registered_limit(self.spec):
            steps = horizon_in_steps(self.task.horizon_hours, self.world.hours_per_step)
            if limit < steps:
                warn_short_limit(self.task.horizon_hours, steps, limit)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window, if one is open."""
        if self._trend is not None:
            self._trend.close()


def _autoreset(mode: Any) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(repr(m.value) for m in AutoresetMode)
        raise ValueError(f"autoreset_mode={mode!r} is unknown; choose one of {known}, or an AutoresetMode") from None


def _unasked(actions: Any, waiting: Tensor) -> Any:
    """The actions with 0, which every space has, where rows wait for a new patient: there any is ignored, one that is
    none included."""
    if isinstance(actions, Mapping):  # of several who act together
        return {who: _unasked(part, waiting) for who, part in actions.items()}
    given: Any = actions.clone() if isinstance(actions, Tensor) else np.array(actions)
    if given.shape[:1] == tuple(waiting.shape):  # else it is refused for its shape
        given[waiting.to(given.device) if isinstance(given, Tensor) else waiting.cpu().numpy()] = 0
    return given


def _reset_mask(options: Mapping[str, Any] | None, count: int) -> np.ndarray:
    """bool [N]: the rows to reset."""
    given = check_options(options)
    if "reset_mask" not in given:
        return np.ones(count, dtype=bool)
    mask = given["reset_mask"]
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"options['reset_mask'] must be a numpy array of bool, got {kind}; give np.array([True, ...])")
    if mask.shape != (count,):
        raise ValueError(f"options['reset_mask'] must have the shape ({count},), got {mask.shape}")
    if not mask.any():
        raise ValueError("options['reset_mask'] selects no environment; at least one must be True")
    return mask
