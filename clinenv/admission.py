"""The same patients in another world: what their admission chart says, as factors that the world takes."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.protocol import Chart, WorldModel

__all__ = ["admission_factors"]


def admission_factors(chart: Chart, *worlds: WorldModel) -> dict[str, Tensor]:
    """The patients of an admission chart as factors that all `worlds` take: name -> [N], within their bounds.

    A factor is read off the measure of its own name, or, for `baseline_x` and `admission_x`, off the measure x at
    admission. What no chart shows (how fast the liver clears a drug) is left to each world; so is what an ECG in
    fibrillation does not show, the sinus rate and PR, and the rate in fibrillation of one in sinus rhythm: NaN there
    (`world_models.inputs.admit`).
    """
    found = {}
    chart = _by_rhythm(chart)
    for quantity in worlds[0].factors:
        takes = [q for world in worlds for q in world.factors if q.name == quantity.name]
        short = quantity.name.removeprefix("baseline_").removeprefix("admission_")
        names = (quantity.name, short, "arrhythmia_" + short, "atrial_" + short)
        source = next((n for n in names if n in chart), None)
        if source is not None and len(takes) == len(worlds):
            found[quantity.name] = chart[source].clamp(max(q.low for q in takes), min(q.high for q in takes))
    return found


def _by_rhythm(chart: Chart) -> Chart:
    """The chart with the rate of each rhythm under a name of its own, NaN where the ECG shows the other one."""
    if "atrial_fibrillation" not in chart or "heart_rate_bpm" not in chart:
        return chart
    fibrillates, rate = chart["atrial_fibrillation"] > 0.5, chart["heart_rate_bpm"]
    sinus, fast = rate.masked_fill(fibrillates, torch.nan), rate.masked_fill(~fibrillates, torch.nan)
    return {**chart, "heart_rate_bpm": sinus, "fibrillation_rate_bpm": fast}
