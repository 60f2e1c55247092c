"""A short 12-lead ECG on paper: three rows of four leads, all of the same seconds. 25 mm/s, 10 mm/mV, as inline SVG.

`ecg_paper` is the sheet of a ten-second recording, whose columns follow each other in time; of a stored crop there is no
next column, so every lead shows the whole crop.
"""

from __future__ import annotations

from html import escape

import numpy as np

from clinenv.rendering.ecg_paper import LEADS, MM_PER_MV, MM_PER_SECOND
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

__all__ = ["svg_strip"]

TOP, ROW, LEFT = 22.0, 25.0, 5.0  # mm: first baseline, from one baseline to the next, margin
COLUMNS, ROWS = 4, 3


def svg_strip(ecg_mv: np.ndarray, sampling_rate_hz: float, title: str = "", prefix: str = "strip") -> str:
    """The ECG [12, T] as an SVG; printed at 100 %, a millimetre is a millimetre.

    Colours are CSS variables (--paper, --grid, --grid-bold, --ink, --warn). `prefix` keeps the ids of two sheets apart.
    Samples that are not finite leave a gap.

    Raises:
        ValueError: not [12, T] with two samples or more, or a rate that is not positive.
    """
    ecg = np.asarray(ecg_mv, dtype=np.float64)
    if ecg.ndim != 2 or ecg.shape[0] != len(LEADS) or ecg.shape[1] < 2:
        raise ValueError(f"an ECG on paper is [12, T] in mV, T >= 2, in the order {', '.join(LEADS)}; got {ecg.shape}")
    if not sampling_rate_hz > 0:
        raise ValueError(f"sampling_rate_hz={sampling_rate_hz} must be above 0")
    seconds = ecg.shape[1] / sampling_rate_hz
    wide = seconds * MM_PER_SECOND
    width = 5 * np.ceil((2 * LEFT + COLUMNS * wide) / 5)  # so that the bold lines meet the border
    height = 5 * np.ceil((TOP + (ROWS - 1) * ROW + 18) / 5)
    ink = "var(--ink,#14141c)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="paper" role="img" aria-label="{escape(title or "ECG")}" '
        f'viewBox="0 0 {width:g} {height:g}" width="{width:g}mm" height="{height:g}mm" '
        'font-family="system-ui,sans-serif" font-size="3.3">'
        f'<defs><pattern id="{prefix}-fine" width="1" height="1" patternUnits="userSpaceOnUse">'
        '<path d="M1 0H0V1" fill="none" stroke="var(--grid,#fae1db)" stroke-width=".12"/></pattern>'
        f'<pattern id="{prefix}-bold" width="5" height="5" patternUnits="userSpaceOnUse">'
        f'<rect width="5" height="5" fill="url(#{prefix}-fine)"/>'
        '<path d="M5 0H0V5" fill="none" stroke="var(--grid-bold,#eeb4ac)" stroke-width=".24"/></pattern></defs>'
        f'<rect width="{width:g}" height="{height:g}" fill="var(--paper,#fffaf7)"/>'
        f'<rect width="{width:g}" height="{height:g}" fill="url(#{prefix}-bold)"/>'
    ]
    traces, names = [], []
    for lead, name in enumerate(LEADS):
        left, base = LEFT + lead // ROWS * wide, TOP + lead % ROWS * ROW
        traces.append(_trace(ecg[lead], sampling_rate_hz, left, base, height))
        # over the traces, with a rim of paper: a tall R wave of the row below must not hide the name
        names.append(
            f'<text x="{left + 1.2:g}" y="{base - 8.3:g}" fill="{ink}" font-weight="600" paint-order="stroke" '
            f'stroke="var(--paper,#fffaf7)" stroke-width="1.2" stroke-linejoin="round">{name}</text>'
        )
        if lead >= ROWS:
            parts.append(f'<path d="M{left:g} {base - 9.3:g}v4" stroke="{ink}" stroke-width=".2" opacity=".6"/>')
    parts.append(
        f'<path transform="scale(.01)" d="{"".join(traces)}" fill="none" stroke="{ink}" stroke-width="28" '
        f'stroke-linejoin="round"/>{"".join(names)}'
        f'<text x="2.5" y="5.2" fill="{ink}" font-size="3.8" font-weight="600">{escape(title)}</text>'
        f'<text x="2.5" y="{height - 1.6:g}" fill="{ink}" font-size="3">25 mm/s &#160; 10 mm/mV &#160; all leads: the '
        f'same {seconds:g} s</text><text x="{width - 2.5:g}" y="{height - 1.6:g}" fill="var(--warn,#b01c2e)" '
        f'font-size="3" text-anchor="end">{NOT_FOR_CLINICAL_USE}</text></svg>'
    )
    return "".join(parts)


def _trace(signal: np.ndarray, hz: float, left: float, base: float, height: float) -> str:
    """Path data of one lead about its own median, hundredths of a millimetre, relative steps."""
    good = np.isfinite(signal)
    if not good.any():
        return ""
    x = left + MM_PER_SECOND * np.arange(len(signal)) / hz
    y = np.clip(base - MM_PER_MV * (signal - np.median(signal[good])), 0.5, height - 0.5)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], good.astype(np.int8), [0]))))
    out = []
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        at = np.rint(np.stack([x[a:b], y[a:b]], axis=1) * 100).astype(int)
        out.append(f"M{at[0, 0]} {at[0, 1]}l" + " ".join(f"{dx} {dy}" for dx, dy in np.diff(at, axis=0)))
    return "".join(out).replace(" -", "-")
