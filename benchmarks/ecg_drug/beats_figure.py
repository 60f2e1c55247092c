"""Pictures of real patients' beats: recorded, as the decoder has them, as they are shown, and under dofetilide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from world_models.data.ecg.real_beats import R_SAMPLE
from world_models.ecg.lead_names import INDEPENDENT_LEADS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

PATIENTS = 8  # spread evenly over the list
LEADS = ("II", "V1", "V2", "V5")
COLOURS = {"recorded": "black", "decoder": "tab:orange", "shown": "tab:green", "dofetilide": "tab:red"}


def draw(beats: Mapping[str, Tensor]) -> Figure:
    """A page of beats [N, 8, 800] mV, 500 Hz, by name."""
    from matplotlib.figure import Figure

    count = len(next(iter(beats.values())))
    rows = np.linspace(0, count - 1, min(PATIENTS, count)).astype(int)
    page = Figure(figsize=(4 * len(LEADS), 2.2 * len(rows)), layout="constrained")
    axes = page.subplots(len(rows), len(LEADS), sharex=True, squeeze=False)
    ms = (np.arange(next(iter(beats.values())).shape[-1]) - R_SAMPLE) * 2.0
    for i, row in enumerate(rows):
        for j, lead in enumerate(LEADS):
            for name, beat in beats.items():
                wave = beat[row, INDEPENDENT_LEADS.index(lead)].numpy()
                axes[i, j].plot(ms, wave, color=COLOURS.get(name), lw=1.0, alpha=0.85, label=name)
            axes[i, j].set_xlim(-350, 700)
            axes[i, j].set_title(f"patient {row}, {lead}", fontsize=7)
            axes[i, j].tick_params(labelsize=6)
    axes[0, 0].legend(fontsize=6)
    axes[-1, 0].set_xlabel("ms from R", fontsize=7)
    return page
