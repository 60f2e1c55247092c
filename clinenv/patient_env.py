"""What the single and the vector environment have in common: they show the same running episodes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from clinenv.episodes import Episodes
from clinenv.rendering.trend import Trend
from clinenv.simulator import Simulator
from clinenv.task import Task
from world_models.protocol import Chart, WorldModel

__all__ = ["PatientEnv"]


class PatientEnv:
    """Read access to the episodes of an environment."""

    _episodes: Episodes
    _trend: Trend | None = None  # Gymnasium 1.1 closes what was refused in __init__, too

    @property
    def task(self) -> Task:
        """What is wanted."""
        return self._episodes.simulator.task

    @property
    def world(self) -> WorldModel:
        """The patients' world."""
        return self._episodes.simulator.world

    @property
    def simulator(self) -> Simulator:
        """For planners: it imagines, but never with the random keys of the patients who are here."""
        return self._episodes.simulator

    @property
    def episodes(self) -> Episodes:
        """The running episodes: for what works on tensors. Step the environment, not them."""
        return self._episodes

    @property
    def state(self) -> Any:
        """The world's state of all rows (one in the single environment): for planners and judges."""
        return self._episodes.running.state

    @property
    def chart(self) -> Chart:
        """The true chart of all rows, without measurement noise. Read only."""
        return dict(self._episodes.running.chart)

    def describe(self, observation: Any) -> dict[str, Any]:
        """What an observation, or a batch of them, says in units: {"qtcf_ms": 431.0, ...}.

        Raises:
            ValueError: it holds no row of the chart.
        """
        return self._episodes.interface.view.describe(observation)

    def snapshot(self) -> bytes:
        """State and random keys of all rows, to be kept, sent or branched: the same orders give the same future."""
        return self._episodes.snapshot()

    def _frames(self, rows: range) -> tuple[np.ndarray, ...] | None:
        """The pictures of some rows; None where there are none: in "human" mode row 0 is shown in a window."""
        if self._trend is None:
            gymnasium.logger.warn('render() needs a render_mode: make the environment with render_mode="rgb_array"')
            return None
        if self._episodes.settings.render_mode == "human":
            self._trend.show()
            return None
        return tuple(self._trend.frame(row) for row in rows)

    def _refuse(self, closed: bool) -> None:
        if closed:
            raise gymnasium.error.ClosedEnvironmentError("this environment was closed; make a new one")
