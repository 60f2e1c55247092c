"""The course of a patient's intervals over hours, as small panels of pixels side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from clinenv.rendering.labels import LIMITS, hour_ticks, least_span, nice_ticks, reading
from clinenv.rendering.pixels import OVERSAMPLE, font

__all__ = ["PANELS", "trend_image"]

PANELS = 6
SHOWN_DOSES = 5
_BACK, _INK, _FAINT, _GRID = (255, 255, 255), (20, 20, 28), (105, 105, 115), (226, 226, 232)
_LINE, _BAND, _LIMIT, _DOSE = (28, 84, 158), (205, 222, 243), (176, 28, 46), (176, 120, 20)


def _span(name: str, arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """The value axis: everything that is finite, a margin, and never less than the name's least span."""
    values = np.concatenate([np.ravel(a) for a in arrays])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    middle, half = (low + high) / 2, max(high - low, least_span(name)) * 0.58
    return middle - half, middle + half


def trend_image(
    trend: Mapping[str, Sequence],
    width: int,
    height: int,
    hours_total: float | None = None,
    doses: Sequence[tuple[float, str]] = (),
) -> Image.Image:
    """The first six of `trend` as panels in a row, width x height pixels.

    Args:
        trend: chart name -> (hours [N], values [N]) or (hours, values, low, high); NaN is a gap.
        hours_total: where the hour axis ends; without it, at the last hour there is.
        doses: (hour, words), drawn as marks at the foot of each panel; the last few are written out below.

    Raises:
        ValueError: an entry whose arrays differ in length.
    """
    series = {name: [np.asarray(a, dtype=np.float64).ravel() for a in entry] for name, entry in trend.items()}
    for name, arrays in series.items():
        if len(arrays) not in (2, 4) or len({a.size for a in arrays}) != 1:
            raise ValueError(f"trend {name!r} is (hours, values) or (hours, values, low, high) of one length")
    series = dict(list(series.items())[:PANELS])
    last = max((float(a[0].max()) for a in series.values() if a[0].size), default=0.0)
    end = max(hours_total or 0.0, last, 1.0)

    fine = Image.new("RGB", (width * OVERSAMPLE, height * OVERSAMPLE), _BACK)
    pen = ImageDraw.Draw(fine)
    words: list[tuple[float, float, str, tuple[int, int, int], int, str]] = []
    step = width / max(len(series), 1)
    for i, (name, arrays) in enumerate(series.items()):
        box = (i * step + 38, 46, (i + 1) * step - 12, height - 50)
        words += _panel(pen, box, name, arrays, end, doses)
    image = fine.reduce(OVERSAMPLE)
    text = ImageDraw.Draw(image)
    for x, y, what, colour, size, anchor in words:
        text.text((x, y), what, fill=colour, font=font(size), anchor=anchor)
    given = [f"{hour:g} h {what}" for hour, what in doses if what]
    if given:
        shown = ("... " if len(given) > SHOWN_DOSES else "") + ";  ".join(given[-SHOWN_DOSES:])
        text.polygon([(10, height - 7), (20, height - 7), (15, height - 16)], fill=_DOSE)
        text.text((26, height - 18), f"given: {shown}", fill=_FAINT, font=font(11))
    if not series:
        text.text((width / 2, height / 2), "no trend yet", fill=_FAINT, font=font(13), anchor="mm")
    return image


def _panel(
    pen: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    name: str,
    arrays: list[np.ndarray],
    end: float,
    doses: Sequence[tuple[float, str]],
) -> list:
    """Draw one panel on the fine canvas; gives back its words for the canvas of true size."""
    left, top, right, bottom = box
    low, high = _span(name, arrays[1:])
    scale = OVERSAMPLE

    def at(hours: np.ndarray | float, values: np.ndarray | float) -> np.ndarray:
        x = left + (right - left) * np.asarray(hours, dtype=np.float64) / end
        y = bottom - (bottom - top) * (np.asarray(values, dtype=np.float64) - low) / (high - low)
        return np.stack(np.broadcast_arrays(x, np.clip(y, top, bottom)), axis=-1) * scale

    title, unit = reading(name)
    finite = np.flatnonzero(np.isfinite(arrays[1]))
    last = float(arrays[1][finite[-1]]) if finite.size else None
    value = "-" if last is None else f"{last:.0f}" if unit in ("ms", "bpm") else f"{last:.2g}"
    words = [
        (left - 30, 12, title, _INK, 12, "la"),
        (right, 26 if len(title) > 12 else 10, f"{value} {unit}".strip(), _LINE, 14, "ra"),
        ((left + right) / 2, bottom + 18, "hours", _FAINT, 10, "ma"),
    ]
    for tick in nice_ticks(low, high, 4):
        y = float(at(0.0, tick)[1])
        pen.line([(left * scale, y), (right * scale, y)], fill=_GRID, width=scale)
        words.append((left - 4, y / scale, f"{tick:g}", _FAINT, 10, "rm"))
    for tick in hour_ticks(end, 4):
        x = float(at(tick, low)[0])
        pen.line([(x, bottom * scale), (x, (bottom + 3) * scale)], fill=_FAINT, width=scale)
        words.append((x / scale, bottom + 5, f"{tick:g}", _FAINT, 10, "ma"))
    if name in LIMITS and low < LIMITS[name] < high:
        y = float(at(0.0, LIMITS[name])[1])
        for x in np.arange(left, right, 8):
            pen.line([(x * scale, y), ((x + 4) * scale, y)], fill=_LIMIT, width=scale)
    for hour, _ in doses:
        if 0 <= hour <= end:
            x, y = at(hour, low)
            size = 4 * scale
            pen.polygon([(x, y - 2 * size), (x - size, y), (x + size, y)], fill=_DOSE)
    pen.line([(left * scale, bottom * scale), (right * scale, bottom * scale)], fill=_FAINT, width=scale)

    good = np.all([np.isfinite(a) for a in arrays], axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], good.astype(np.int8), [0]))))
    pieces = [[array[a:b] for array in arrays] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    for piece in pieces:
        if len(piece) == 4 and piece[0].size > 1:
            rim = np.concatenate([at(piece[0], piece[2]), at(piece[0], piece[3])[::-1]])
            pen.polygon([tuple(p) for p in rim], fill=_BAND)
    for piece in pieces:
        line = [tuple(p) for p in at(piece[0], piece[1])]
        pen.line(line, fill=_LINE, width=2 * scale, joint="curve")
        (x, y), radius = line[-1], 2.5 * scale
        pen.ellipse([(x - radius, y - radius), (x + radius, y + radius)], fill=_LINE)
    return words
