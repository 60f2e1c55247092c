"""A short 12-lead ECG on paper: three rows of four leads, all of the same seconds. 25 mm/s, 10 mm/mV, as inline SVG.

`ecg_paper` is the sheet of a ten-second recording, whose columns follow each other in time. A stored crop is too short
for that, so every lead shows the whole crop.
"""

from __future__ import annotations

import numpy as np

from clinenv.rendering import svg_colours as svg
from clinenv.rendering.ecg_paper import (
    EDGE,
    MM_PER_MV,
    MM_PER_SECOND,
    NAME_RIGHT,
    NAME_UP,
    SCALES,
    Trace,
    checked_ecg,
    close_sheet,
    open_sheet,
)
from clinenv.rendering.traces import unbroken
from world_models.ecg.lead_names import LEADS

__all__ = ["svg_strip"]

# The layout, in mm.
TOP, ROW, BOTTOM = 22.0, 25.0, 18.0  # to the first baseline, from one to the next, below the last
LEFT = 5.0  # margin at the sides
SQUARE = 5.0  # of the bold grid
COLUMNS, ROWS = 4, 3


def svg_strip(ecg_mv: np.ndarray, sampling_rate_hz: float, title: str = "", prefix: str = "strip") -> str:
    """The ECG [12, T] as an SVG; printed at 100 %, a millimetre is a millimetre.

    Colours are those of `svg_colours`. `prefix` keeps the ids of two sheets on one page apart. Samples that are not
    finite leave a gap.

    Raises:
        ValueError: see `ecg_paper.checked_ecg`.
    """
    ecg = checked_ecg(ecg_mv, sampling_rate_hz)
    seconds = ecg.shape[1] / sampling_rate_hz
    wide = seconds * MM_PER_SECOND
    width = SQUARE * np.ceil((2 * LEFT + COLUMNS * wide) / SQUARE)  # so that the bold lines meet the border
    height = SQUARE * np.ceil((TOP + (ROWS - 1) * ROW + BOTTOM) / SQUARE)
    parts = [open_sheet(width, height, title, prefix)]
    traces: list[Trace] = []
    names = []
    for lead, name in enumerate(LEADS):
        left, base = LEFT + lead // ROWS * wide, TOP + lead % ROWS * ROW
        x = left + MM_PER_SECOND * np.arange(ecg.shape[1]) / sampling_rate_hz
        y = np.clip(base - MM_PER_MV * ecg[lead], EDGE, height - EDGE)
        traces += [(x[piece], y[piece]) for piece in unbroken(np.isfinite(y))]
        # over the traces, with a rim of paper: a tall R wave of the row below must not hide the name
        names.append(
            f'<text x="{left + NAME_RIGHT:g}" y="{base - NAME_UP:g}" fill="{svg.INK}" font-weight="600" '
            f'paint-order="stroke" stroke="{svg.PAPER}" stroke-width="1.2" stroke-linejoin="round">{name}</text>'
        )
        if lead >= ROWS:
            parts.append(
                f'<path d="M{left:g} {base - NAME_UP - 1:g}v4" stroke="{svg.INK}" stroke-width=".2" opacity=".6"/>'
            )
    small_print = f"{SCALES} &#160; all leads: the same {seconds:g} s"
    parts.append(close_sheet(width, height, traces, title, small_print, over="".join(names)))
    return "".join(parts)
