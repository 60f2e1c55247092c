"""What a picture needs to remember of an episode, and the call to the painter."""

from __future__ import annotations

import logging

import numpy as np
import torch

from clinenv.episodes import Episodes
from clinenv.rendering.ecg_paper import ecg_frame
from clinenv.rendering.viewer import Viewer
from clinenv.rendering.ward_chart import ward_frame
from world_models import tree
from world_models.protocol import History

__all__ = ["Trend"]

SAMPLING_RATE_HZ = 500.0  # of the ECGs of every world whose task paints nothing itself
_WARD_ALSO = ("inquiry_age_hours", "inquiry_seen", "alive", "discharged")
_log = logging.getLogger(__name__)


class Trend:
    """The measures of `task.trend` and the orders since the reset, for each running patient.

    A task that paints its own pictures (`Task.paint`) is asked for them; a world with an ECG is shown as one on
    paper, a ward as the patient's chart.

    Raises:
        ValueError: the world and the task offer none of these.
    """

    def __init__(self, episodes: Episodes) -> None:
        world = episodes.simulator.world
        measured = {quantity.name for quantity in world.measures}
        self._paint = getattr(episodes.simulator.task, "paint", None)
        self._also: tuple[str, ...] = ()
        if self._paint is not None:
            recalled = episodes.simulator.task.recalled
            self._also = tuple(q.name for q in world.measures if q.on_request and q.name in recalled)
        self._ward = "ecg_mv" not in measured and "inquiry_seen" in measured
        if self._paint is None and not self._ward and "ecg_mv" not in measured:
            raise ValueError(f"world {world.name!r} has no ecg_mv, so there is nothing to render; use render_mode=None")
        self._names = ("hours", *episodes.simulator.task.trend, *(_WARD_ALSO if self._ward else ()))
        if self._paint is not None:
            self._names = tuple(name for name in recalled if name in measured)
        self._episodes = episodes
        self._past: list[dict[str, np.ndarray]] = []
        self._since = np.zeros(episodes.count, dtype=int)  # entry of `_past` where the row's own episode began
        self._viewer: Viewer | None = None
        self._blind = False  # no window can be opened here, and the log has said so

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
            raise ValueError("there is no patient to render yet; call reset() first")
        if self._paint is not None:
            return self._paint(self._episodes, self._past[self._since[row] :], row)
        if self._ward:
            return ward_frame(self._episodes, self._past[self._since[row] :], row)
        return self._ecg_frame(row)

    def _ecg_frame(self, row: int) -> np.ndarray:
        episodes = self._episodes
        world, task = episodes.simulator.world, episodes.simulator.task
        chart = world.observe(tree.take(episodes.running.state, slice(row, row + 1)), ("ecg_mv",))
        past = self._past[self._since[row] :]
        hours = np.array([moment["hours"][row] for moment in past])
        trend = {name: (hours, np.array([moment[name][row] for moment in past])) for name in task.trend}
        doses = [
            (float(before["hours"][row]), f"{order.name.removesuffix('_mg')} {amount:g} {order.unit}")
            for before, after in zip(past, past[1:], strict=False)
            for order, amount in zip(world.orders, after["orders"][row], strict=False)
            if amount > 0
        ]
        title = f"{task.name} in {world.name}, {hours[-1]:g} h after admission. Simulated; not for clinical use."
        total = episodes.horizon_steps * float(world.hours_per_step)
        ecg = chart["ecg_mv"][0].cpu().numpy()
        return ecg_frame(ecg, SAMPLING_RATE_HZ, trend, title, hours_total=total, doses=doses)

    def show(self) -> None:
        """Row 0 in a window; without a display the frame is made all the same, and a warning is logged once."""
        frame = self.frame(0)
        if self._viewer is None and not self._blind:
            try:
                self._viewer = Viewer(self._episodes.simulator.task.name)
            except RuntimeError as error:
                self._blind = True
                _log.warning("nothing is shown: %s", error)
        if self._viewer is not None:
            self._viewer.show(frame)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None
