"""What a picture needs to remember of an episode, and the call to the painter."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from clinenv.episodes import Episodes
from world_models.protocol import History

if TYPE_CHECKING:
    from clinenv.rendering.viewer import Viewer

__all__ = ["Trend"]

_log = logging.getLogger(__name__)


class Trend:
    """What the task recalls of every moment (`Task.recalled`), and the orders, since each running patient's reset.

    Raises:
        ValueError: the task paints no pictures of this world.
    """

    def __init__(self, episodes: Episodes) -> None:
        world = episodes.simulator.world
        measured = {quantity.name: quantity for quantity in world.measures}
        self._names = tuple(name for name in episodes.simulator.task.recalled(world) if name in measured)
        self._also = tuple(name for name in self._names if measured[name].on_request)
        self._episodes = episodes
        self._past: list[dict[str, np.ndarray]] = []
        self._since = np.zeros(episodes.count, dtype=int)  # entry of `_past` where the row's own episode began
        self._viewer: Viewer | None = None
        self._blind = False

    def start(self) -> None:
        """All rows begin anew."""
        self._past = [self._read()]
        self._since[:] = 0

    def precede(self, history: History) -> None:
        """Put the visits of a record in front of the first moment, which is its last visit: for a single patient."""
        orders = history.actions.cpu().numpy()
        earlier = []
        for visit in range(orders.shape[1] - 1):
            moment = {name: history.charts[name][:, visit].cpu().numpy() for name in self._names}
            earlier.append(moment | {"orders": orders[:, visit - 1] if visit else np.zeros((len(orders), 0))})
        if earlier:
            self._past[0]["orders"] = orders[:, -2]
        self._past = [*earlier, *self._past]

    def add(self, begun: np.ndarray | None = None) -> None:
        """One more moment; rows where `begun` holds are at the start of an episode."""
        self._past.append(self._read())
        if begun is not None:
            self._since[begun] = len(self._past) - 1
        oldest = int(self._since.min())
        self._past, self._since = self._past[oldest:], self._since - oldest

    @torch.no_grad()
    def _read(self) -> dict[str, np.ndarray]:
        episodes = self._episodes
        now = episodes.running
        chart = now.chart
        if self._also and not set(self._also) <= set(chart):
            chart = {**chart, **episodes.simulator.world.observe(now.state, self._also)}
        moment = {n: chart[n].cpu().numpy().copy() for n in self._names}
        given = episodes.given
        moment["orders"] = np.zeros((episodes.count, 0)) if given is None else given.cpu().numpy().copy()
        if given is not None and episodes.wanted is not None:
            moment["refused"] = ((episodes.wanted[1] > 0) & (given <= 0)).cpu().numpy()
        return moment

    @torch.no_grad()
    def frame(self, row: int) -> np.ndarray:
        """uint8 [H, W, 3] of one patient.

        Raises:
            ValueError: nothing has begun yet.
        """
        if not self._past:
            raise ValueError("there is no patient to show yet; call reset() first")
        return self._episodes.simulator.task.paint(self._episodes, self._past[self._since[row] :], row)

    def show(self) -> None:
        """Row 0 in a window; without a display the frame is made all the same, and a warning is logged once."""
        frame = self.frame(0)
        if self._viewer is None and not self._blind:
            from clinenv.rendering.viewer import Viewer

            try:
                self._viewer = Viewer(self._episodes.simulator.task.name)
            except RuntimeError as error:
                self._blind = True
                _log.warning("nothing is shown: %s", error)
        if self._viewer is not None:
            self._viewer.show(frame)

    def close(self) -> None:
        """Close the window, if one is open."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None
