"""observation="ecg" and "latent": the chart with the ECG's waveform, or with a learned latent of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from clinenv.layout import age_label, chart_layout
from clinenv.registration import WEIGHTS_SHA256
from clinenv.task import Column, Task
from clinenv.view import ChartView, Kept
from world_models.protocol import Chart, WorldModel
from world_models.quantity import Quantity, by_name

__all__ = ["ECG_VIEWS", "LatentView", "WaveformView"]

SHIPPED = "ecg-wm-small"  # whose encoder reads the ECGs of worlds without a latent
_READABLE = (12, 5000)  # leads and samples that it reads: ten seconds at 500 Hz


class _ECGView(ChartView):
    """What both share: whether the ECG was made at this step."""

    def __init__(self, world: WorldModel, task: Task) -> None:
        super().__init__(world, task)
        holder = next((record.name for record in task.records if "ecg_mv" in record.waveforms), None)
        self._age = None if holder is None else self.layout.names.index(age_label(holder))

    def _made(self, row: Tensor) -> Tensor | None:
        """bool [B, 1]: the ECG was made now; None: it always is."""
        return None if self._age is None else (row[:, self._age] == 0).unsqueeze(-1)


class WaveformView(_ECGView):
    """`Dict(chart=Box(n,), ecg=Box(12 * T,))`: the waveform in mV, zero where no ECG was made.

    It is one flat row of samples, since Stable-Baselines3 takes flat rows or images and no matrix.
    """

    also = ("ecg_mv",)

    def __init__(self, world: WorldModel, task: Task) -> None:
        super().__init__(world, task)
        ecg = _asked(world, "ecg_mv")
        samples = spaces.Box(ecg.low, ecg.high, (int(np.prod(ecg.shape)),), np.float32)
        self.space = spaces.Dict({"chart": self.layout.box(), "ecg": samples})

    def show(self, scaled: Tensor, kept: Kept, chart: Chart) -> Any:
        """The scaled row float32 [B, n] and the samples float32 [B, 12 * T] in mV."""
        ecg = chart["ecg_mv"].flatten(1).clone()  # never the world's own memory: a caller may write into it
        made = self._made(kept.row)
        return {"chart": scaled, "ecg": ecg if made is None else torch.where(made, ecg, 0.0)}


class LatentView(_ECGView):
    """`Box(n + Z,)`: the chart's row and the learned latent; where no ECG was made, the last one's.

    A world without a latent of its own, such as the oracle, is read by the encoder of the shipped model: a policy on
    latents can then be judged in the oracle.
    """

    def __init__(self, world: WorldModel, task: Task) -> None:
        super().__init__(world, task)
        measured = {quantity.name: quantity for quantity in world.measures}
        if "latent" in measured:
            self.also, quantity = ("latent",), measured["latent"]
            self._encode: Callable[[Chart], Tensor] = _own_latent
        else:
            self.also, ecg = ("ecg_mv",), _asked(world, "ecg_mv")
            if ecg.shape != _READABLE:
                raise ValueError(
                    f"world {world.name!r} has no latent, and {SHIPPED}'s encoder reads ten seconds at 500 Hz, not "
                    f"ECGs of shape {ecg.shape}; use observation='ecg' or 'chart'"
                )
            self._encode, quantity = _shipped_encoder(str(world.device))
        self.width = int(np.prod(quantity.shape))
        self._low, self._high = float(quantity.low), float(quantity.high)
        self._whole = chart_layout(self.columns, task.records, world, [(Column("latent", 0.0, 1.0), quantity)])
        self.space = self._whole.box()

    def keep(self, row: Tensor, chart: Chart, last: Kept | None, given: Tensor | None) -> Tensor:
        """The latent of the last ECG that was made, float32 [B, Z]."""
        latent = self._encode(chart).flatten(1).to(torch.float32).clamp(self._low, self._high)
        made = self._made(row)
        return latent if made is None or last is None else torch.where(made, latent, last.more)

    def show(self, scaled: Tensor, kept: Kept, chart: Chart) -> Tensor:
        """float32 [B, n + Z]."""
        return torch.cat([scaled, kept.more], -1)

    def describe(self, observation: Any) -> dict[str, Any]:
        """See `Layout.describe`; the latent's entries are `latent[i]`."""
        return self._whole.describe(observation)


ECG_VIEWS: Mapping[str, Callable[[WorldModel, Task], ChartView]] = {"ecg": WaveformView, "latent": LatentView}


def _own_latent(chart: Chart) -> Tensor:
    return chart["latent"]


@lru_cache(maxsize=2)
def _shipped_encoder(device: str) -> tuple[Callable[[Chart], Tensor], Quantity]:
    """The learned latent of any world's ECG, and its bounds."""
    from world_models import catalog
    from world_models.ecg_wm.encode import latent_of
    from world_models.ecg_wm.model import ECGWorldModel

    learned = catalog.load(SHIPPED, device, sha256=WEIGHTS_SHA256.get(SHIPPED))
    assert isinstance(learned, ECGWorldModel)
    latent = by_name(learned.measures, "latent")

    def encode(chart: Chart) -> Tensor:
        return latent_of(chart["ecg_mv"], chart, learned.vae)

    return encode, latent


def _asked(world: WorldModel, name: str) -> Quantity:
    """The measure of that name. Raises ValueError if the world has none."""
    for quantity in world.measures:
        if quantity.name == name:
            return quantity
    raise ValueError(
        f"world {world.name!r} draws no {name}; it measures {', '.join(q.name for q in world.measures)}. Choose "
        "observation='chart', or a world of this task that draws it"
    )
