"""ClinicalEnv: one patient, numpy in and out. A batch of one of what `ClinicalVectorEnv` runs by the thousand."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from clinenv.alone import Alone, Stepped
from clinenv.arguments import checked_seed
from clinenv.assemble import WorldLike, assemble, registered_limit, warn_short_limit
from clinenv.patient_env import PatientEnv
from clinenv.rendering.trend import Trend
from clinenv.settings import RENDER_FPS, RENDER_MODES, Settings
from clinenv.task import Task
from clinenv.vector_info import row_of
from world_models import keys

__all__ = ["ClinicalEnv"]


class ClinicalEnv(PatientEnv, gymnasium.Env[Any, Any]):
    """A Gymnasium environment over any world and task.

    Args:
        task: what is wanted.
        world: a name of `world_models.catalog`, a folder with weights, or a world.
        arguments: see `clinenv.settings.Settings`.

    Raises:
        ValueError, TypeError: an argument that is none; the message names the choices.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}

    def __init__(self, task: Task, world: WorldLike, **arguments: Any) -> None:
        settings = Settings.of(arguments, ("world", "task"))
        self._episodes = assemble(task, 1, world, settings)
        self._limit_checked = False
        self.render_mode = settings.render_mode
        self.observation_space = self._episodes.interface.view.space
        self.action_space = self._episodes.interface.codec.space
        self._trend = Trend(self._episodes) if settings.render_mode else None
        self._alone = Alone(self._episodes) if settings.compile and Alone.can(self._episodes) else None
        self._over = True
        self._closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray | dict[str, np.ndarray], dict[str, Any]]:
        """A new patient.

        Args:
            seed: a whole number from 0 to 2^64 - 1 that starts the sequence of patients anew; without it, the next
                patient of the sequence comes.
            options: patient factors to fix, flat or under "factors": {"age_years": 70, "sex_female": 1}.

        Raises:
            ValueError: a seed that is none, options that are no mapping, an unknown factor, or one out of range;
                nothing has changed then.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        self._refuse(self._closed)
        factors, start = self._episodes.options(options, 1)
        seed = None if seed is None else checked_seed(seed, 1)
        base = None if seed is None else keys.from_seed(seed, 1, self._episodes.device)
        super().reset(seed=seed)
        if base is None and self._episodes.now is None:
            base = keys.from_seed(int(self.np_random.integers(2**62)), 1, self._episodes.device)
        begun = None
        if self._alone is not None and base is None and not factors and start is None:
            begun = self._alone.next_patient()
        if begun is None:
            observation, _ = self._episodes.begin(None, base, factors, start)
            begun = self._one(observation), _plain({**self._episodes.facts(), **self._episodes.unjudged()})
        self._over = False
        self._check_limits()
        if self._trend is not None:
            self._trend.start()
            if self.render_mode == "human":
                self._trend.show()
        return begun

    def step(self, action: Any) -> tuple[np.ndarray | dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Give the orders of `action` and let `world.hours_per_step` pass.

        Raises:
            ValueError: an action outside the action space.
            gymnasium.error.ResetNeeded: the episode is over.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        self._refuse(self._closed)
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over, or none has begun: call reset() first")
        stepped = None if self._alone is None else self._alone.step(action)
        if stepped is None:
            self._alone = None  # there is no compiler
            stepped = self._stepped(action)
        self._over = stepped[2] or stepped[3]
        if self._trend is not None:
            self._trend.add()
            if self.render_mode == "human":
                self._trend.show()
        return stepped

    def _stepped(self, action: Any) -> Stepped:
        """`step` by the calls of Python."""
        observation, out, truncated = self._episodes.step(action[None] if isinstance(action, Tensor) else [action])
        info = _plain({**self._episodes.facts(), **self._episodes.verdict(out)})
        return self._one(observation), float(out.reward[0]), bool(out.terminated[0]), bool(truncated[0]), info

    def refusals(self) -> list[tuple[str, str]]:
        """The orders of the last step that were not carried out: (order, why). Their number is in info."""
        return self._episodes.refusals(0)

    def action_masks(self) -> np.ndarray:
        """bool [choices]: which choices can be had, as sb3-contrib's MaskablePPO asks for them.

        Raises:
            ValueError: the actions are amounts.
        """
        return self._episodes.action_masks()[0]

    def restore(self, snapshot: bytes, seed: int | None = None) -> np.ndarray | dict[str, np.ndarray]:
        """Go back to a snapshot; returns the observation there.

        Gymnasium's TimeLimit around the environment goes on counting: step the unwrapped environment from here.

        Args:
            snapshot: of one patient in the same world and task.
            seed: None: the same orders give the same future; a number gives another future from here on.

        Raises:
            ValueError: not such a snapshot, or a seed that is none.
        """
        self._refuse(self._closed)
        observation = self._episodes.restore(snapshot, seed)
        self._over = bool(self._episodes.over()[0])
        if self._trend is not None:
            self._trend.start()
        return self._one(observation)

    def render(self) -> np.ndarray | None:
        """The task's picture of the patient, uint8 [H, W, 3]; None in "human" mode, where it is shown in a window."""
        frames = self._frames(range(1))
        return None if frames is None else frames[0]

    def close(self) -> None:
        """No step or reset is possible after it."""
        self._closed = True
        if self._trend is not None:
            self._trend.close()

    def _one(self, observation: Any) -> Any:
        """The observation of the one patient, as it is handed out."""
        return row_of(self._episodes.interface.view.release(observation), 0)

    def _check_limits(self) -> None:
        """Warn once that the registry's time limit cuts a longer stay: what `make` was told is not visible in here."""
        limit, steps = registered_limit(self.spec), self._episodes.horizon_steps
        if not self._limit_checked and limit is not None and limit < steps:
            warn_short_limit(steps * self.world.hours_per_step, steps, limit)
        self._limit_checked = True


def _plain(facts: dict[str, Tensor]) -> dict[str, Any]:
    """Row 0 as Python numbers, in one transfer, and arrays: nothing in it is shared with the world or a later call."""
    single = {name: value for name, value in facts.items() if value.ndim == 1}
    numbers = torch.stack([value[0].to(torch.float32) for value in single.values()]).tolist()
    plain = {
        name: bool(number) if value.dtype == torch.bool else number
        for (name, value), number in zip(single.items(), numbers, strict=True)
    }
    return plain | {name: value[0].cpu().numpy().copy() for name, value in facts.items() if value.ndim > 1}
