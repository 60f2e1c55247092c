"""One patient of the drug worlds as a picture: the ECG on paper, the intervals' trend and the doses below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clinenv.episodes import Episodes
from clinenv.rendering.ecg_paper import ecg_frame
from world_models import tree

__all__ = ["drug_frame"]

SAMPLING_RATE_HZ = 500.0


@torch.no_grad()
def drug_frame(episodes: Episodes, moments: Sequence[Mapping[str, np.ndarray]], row: int) -> np.ndarray:
    """uint8 [H, W, 3] of one row; the arguments are those of `Task.paint`."""
    world, task = episodes.simulator.world, episodes.simulator.task
    chart = world.observe(tree.take(episodes.running.state, slice(row, row + 1)), ("ecg_mv",))
    hours = np.array([moment["hours"][row] for moment in moments])
    trend = {name: (hours, np.array([moment[name][row] for moment in moments])) for name in task.trend}
    doses = [
        (float(before["hours"][row]), f"{order.name.removesuffix('_mg')} {amount:g} {order.unit}")
        for before, after in zip(moments, moments[1:], strict=False)
        for order, amount in zip(world.orders, after["orders"][row], strict=False)
        if amount > 0
    ]
    title = f"{task.name} in {world.name}, {hours[-1]:g} h after admission. Simulated; not for clinical use."
    total = episodes.horizon_steps * float(world.hours_per_step)
    ecg = chart["ecg_mv"][0].cpu().numpy()
    return ecg_frame(ecg, SAMPLING_RATE_HZ, trend, title, hours_total=total, doses=doses)
