"""ClinicalEnv: one patient, numpy at the door. A batch of one of what `ClinicalVectorEnv` runs by the thousand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from clinenv.assemble import RENDER_FPS, RENDER_MODES, assemble, registered_limit, split_options, warn_short_limit
from clinenv.episodes import checked_seed
from clinenv.rendering.trend import Trend
from clinenv.simulator import Simulator
from clinenv.task import Task
from clinenv.vector_info import row_of
from world_models import keys
from world_models.protocol import Chart, WorldModel

__all__ = ["ClinicalEnv"]


class ClinicalEnv(gymnasium.Env):
    """A Gymnasium environment over any world and task.

    Args:
        task: what is wanted.
        world: a name of `world_models.catalog`, a folder with weights, or a world.
        patients: "generated", a folder of WFDB records, or an object with `factors(key) -> {name: tensor}`.
        cohort: which patients the world draws, for worlds that know cohorts; None: its default.
        observation: "chart", "ecg" (chart and 12-lead waveform), "latent" (chart and the learned latent), or one that
            the task brings.
        noise: "none", "clinic" or "ward": how carefully the intervals are read.
        missingness: "none", "some" or "much": how often a record such as the ECG is not made.
        hours: length of an episode; None: the task's.
        device: of a world that is loaded by name; None: the CPU.
        action_unit: of a continuous action: "scaled" to [-1, 1] (0 and below order nothing), "mg" or "units" (both:
            the amounts themselves).
        render_mode: None, "rgb_array" or "human".
        hours_per_step: for worlds that know several; None: the world's own.
        uncertainty: False leaves `spread_*` out of info; in a learned ward that is half the time of a step.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}

    def __init__(
        self,
        task: Task,
        world: str | WorldModel,
        patients: Any = "generated",
        cohort: str | None = None,
        observation: str = "chart",
        noise: str = "none",
        missingness: str = "none",
        hours: float | None = None,
        device: str | None = None,
        action_unit: str = "scaled",
        render_mode: str | None = None,
        hours_per_step: float | None = None,
        uncertainty: bool = True,
    ) -> None:
        self._episodes = assemble(
            task, 1, world, patients, cohort, observation, noise, missingness, hours, None, device, action_unit,
            render_mode, hours_per_step, uncertainty,
        )  # fmt: skip
        self._limit_checked = False
        self.render_mode = render_mode
        self.observation_space = self._episodes.door.observation_space
        self.action_space = self._episodes.door.action_space
        self._trend = Trend(self._episodes) if render_mode else None
        self._over = True
        self._closed = False

    @property
    def task(self) -> Task:
        return self._episodes.simulator.task

    @property
    def world(self) -> WorldModel:
        return self._episodes.simulator.world

    @property
    def simulator(self) -> Simulator:
        """For planners: it imagines, but never with the luck this patient will meet."""
        return self._episodes.simulator

    @property
    def state(self) -> Any:
        """The world's state of this patient (a batch of one): for planners and judges."""
        return self._episodes.running.state

    @property
    def chart(self) -> Chart:
        """The true chart (a batch of one), without measurement noise. Read only."""
        return dict(self._episodes.running.chart)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray | dict[str, np.ndarray], dict[str, Any]]:
        """A new patient.

        Args:
            seed: a whole number from 0 to 2^64 - 1 that starts the sequence of patients anew; without it, the next
                patient of the sequence comes.
            options: patient factors to fix, flat or under "factors": {"age_years": 70, "sex_female": 1}.

        Raises:
            ValueError: a seed that is none, options that are no mapping, an unknown factor, or one out of range; nothing
                was changed then.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        self._refuse_closed()
        factors = self._episodes.check_factors(split_options(options), 1)
        seed = None if seed is None else checked_seed(seed, 1)
        base = None if seed is None else keys.from_seed(seed, 1, self._episodes.device)
        super().reset(seed=seed)
        if base is None and self._episodes.now is None:
            base = keys.from_seed(int(self.np_random.integers(2**62)), 1, self._episodes.device)
        observation, _ = self._episodes.begin(None, base, factors)
        self._over = False
        self._check_limits()
        if self._trend is not None:
            self._trend.start()
            if self.render_mode == "human":
                self._trend.show()
        return self._one(observation), _plain({**self._episodes.facts(), **self._episodes.unjudged()})

    def step(self, action: Any) -> tuple[np.ndarray | dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Give the orders of `action` and let `world.hours_per_step` pass.

        Raises:
            ValueError: an action outside the action space.
            gymnasium.error.ResetNeeded: the episode is over.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        self._refuse_closed()
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over, or none has begun: call reset() first")
        observation, out, truncated = self._episodes.step(action[None] if isinstance(action, Tensor) else [action])
        terminated, truncated = bool(out.terminated[0]), bool(truncated[0])
        self._over = terminated or truncated
        info = _plain({**self._episodes.facts(), **self._episodes.verdict(out)})
        if self._trend is not None:
            self._trend.add()
            if self.render_mode == "human":
                self._trend.show()
        return self._one(observation), float(out.reward[0]), terminated, truncated, info

    def describe(self, observation: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What an observation says, in units: {"qtcf_ms": 431.0, ...}."""
        return self._episodes.door.describe(observation)

    def refusals(self) -> list[tuple[str, str]]:
        """The orders of the last step that were not carried out: (order, why). Their number is in info."""
        return self._episodes.refusals(0)

    def snapshot(self) -> bytes:
        """State and luck, to be kept, sent or branched: from it the same orders give the same future."""
        return self._episodes.snapshot()

    def restore(self, snapshot: bytes, luck: int | None = None) -> np.ndarray | dict[str, np.ndarray]:
        """Go back to a snapshot, with the same luck or (a number) another; returns the observation there.

        Raises:
            ValueError: not a snapshot of one patient in the same world and task.
        """
        self._refuse_closed()
        observation = self._episodes.restore(snapshot, luck)
        now = self._episodes.now
        over = (now.steps >= self._episodes.horizon_steps) | self.task.terminated(now.chart)
        self._over = bool(over[0])
        if self._trend is not None:
            self._trend.start()
        return self._one(observation)

    def render(self) -> np.ndarray | None:
        """The patient's ECG on paper with the trend below, or a ward's chart: uint8 [H, W, 3]; None in "human" mode."""
        if self._trend is None:
            gymnasium.logger.warn('render() needs a render_mode: make the environment with render_mode="rgb_array"')
            return None
        if self.render_mode == "human":
            return self._trend.show()
        return self._trend.frame(0)

    def close(self) -> None:
        self._closed = True
        if self._trend is not None:
            self._trend.close()

    def _one(self, observation: Any) -> Any:
        """The observation of the one patient, as it leaves."""
        return row_of(self._episodes.door.release(observation), 0)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise gymnasium.error.ClosedEnvironmentError("this environment was closed; make a new one")

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
