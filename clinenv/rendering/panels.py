"""The course of a patient's intervals over hours, as small panels of pixels side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from clinenv.rendering.labels import LIMITS, hour_ticks, label_and_unit, least_span, nice_ticks
from clinenv.rendering.pixels import (
    BACKGROUND,
    BLUE,
    DOSE,
    FAINT,
    GRID,
    INK,
    OVERSAMPLE,
    WARNING,
    Box,
    Word,
    font,
    write_words,
)
from clinenv.rendering.traces import unbroken

__all__ = ["PANELS", "trend_image"]

PANELS = 6
SHOWN_DOSES = 5
HALF_SPAN = 0.58  # of the values' range: half of it, and a margin
WIDE_TITLE = 12  # letters; beside a longer title there is no room for the value, which moves below it

_BAND = (205, 222, 243)
_LEFT, _TOP, _RIGHT, _FOOT = 38, 46, 12, 50  # px from a panel's place to its axes
_TICK, _DOSE_MARK, _DOT = 3, 4, 2.5  # px
_DASH, _GAP = 4, 4  # px, of the limit's line


def _value_axis(name: str, arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """(low, high) of the value axis: all finite values and a margin, never less than the name's least span."""
    values = np.concatenate([np.ravel(a) for a in arrays])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    middle, half = (low + high) / 2, max(high - low, least_span(name)) * HALF_SPAN
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
        hours_total: where the hour axis ends; None: at the last hour there is.
        doses: (hour, words), marked at the foot of each panel; the last few are written out below.

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

    fine = Image.new("RGB", (width * OVERSAMPLE, height * OVERSAMPLE), BACKGROUND)
    pen = ImageDraw.Draw(fine)
    words: list[Word] = []
    step = width / max(len(series), 1)
    for i, (name, arrays) in enumerate(series.items()):
        box = (i * step + _LEFT, _TOP, (i + 1) * step - _RIGHT, height - _FOOT)
        words += _panel(pen, box, name, arrays, end, [hour for hour, _ in doses])
    image = fine.reduce(OVERSAMPLE)
    text = write_words(image, words)
    given = [f"{hour:g} h {what}" for hour, what in doses if what]
    if given:
        shown = ("... " if len(given) > SHOWN_DOSES else "") + ";  ".join(given[-SHOWN_DOSES:])
        text.polygon([(10, height - 7), (20, height - 7), (15, height - 16)], fill=DOSE)
        text.text((26, height - 18), f"given: {shown}", fill=FAINT, font=font(11))
    if not series:
        text.text((width / 2, height / 2), "no trend yet", fill=FAINT, font=font(13), anchor="mm")
    return image


def _panel(
    pen: ImageDraw.ImageDraw, box: Box, name: str, arrays: list[np.ndarray], end: float, dose_hours: Sequence[float]
) -> list[Word]:
    """Paint one panel on the fine canvas; gives back its words for the canvas of true size."""
    left, top, right, bottom = box
    low, high = _value_axis(name, arrays[1:])
    scale = OVERSAMPLE

    def at(hours: np.ndarray | float, values: np.ndarray | float) -> np.ndarray:
        x = left + (right - left) * np.asarray(hours, dtype=np.float64) / end
        y = bottom - (bottom - top) * (np.asarray(values, dtype=np.float64) - low) / (high - low)
        return np.stack(np.broadcast_arrays(x, np.clip(y, top, bottom)), axis=-1) * scale

    title, unit = label_and_unit(name)
    finite = np.flatnonzero(np.isfinite(arrays[1]))
    last = float(arrays[1][finite[-1]]) if finite.size else None
    value = "-" if last is None else f"{last:.0f}" if unit in ("ms", "bpm") or abs(last) >= 100 else f"{last:.2g}"
    words = [
        Word(left - 30, 12, title, INK, 12, "la"),
        Word(right, 26 if len(title) > WIDE_TITLE else 10, f"{value} {unit}".strip(), BLUE, 14, "ra"),
        Word((left + right) / 2, bottom + 18, "hours", FAINT, 10, "ma"),
    ]
    for tick in nice_ticks(low, high, 4):
        y = float(at(0.0, tick)[1])
        pen.line([(left * scale, y), (right * scale, y)], fill=GRID, width=scale)
        words.append(Word(left - 4, y / scale, f"{tick:g}", FAINT, 10, "rm"))
    for tick in hour_ticks(end, 4):
        x = float(at(tick, low)[0])
        pen.line([(x, bottom * scale), (x, (bottom + _TICK) * scale)], fill=FAINT, width=scale)
        words.append(Word(x / scale, bottom + 5, f"{tick:g}", FAINT, 10, "ma"))
    if name in LIMITS and low < LIMITS[name] < high:
        y = float(at(0.0, LIMITS[name])[1])
        for x in np.arange(left, right, _DASH + _GAP):
            pen.line([(x * scale, y), ((x + _DASH) * scale, y)], fill=WARNING, width=scale)
    for hour in dose_hours:
        if 0 <= hour <= end:
            x, y = at(hour, low)
            size = _DOSE_MARK * scale
            pen.polygon([(x, y - 2 * size), (x - size, y), (x + size, y)], fill=DOSE)
    pen.line([(left * scale, bottom * scale), (right * scale, bottom * scale)], fill=FAINT, width=scale)

    good = np.all([np.isfinite(a) for a in arrays], axis=0)
    pieces = [[array[piece] for array in arrays] for piece in unbroken(good)]
    for piece in pieces:
        if len(piece) == 4 and piece[0].size > 1:
            rim = np.concatenate([at(piece[0], piece[2]), at(piece[0], piece[3])[::-1]])
            pen.polygon([tuple(p) for p in rim], fill=_BAND)
    for piece in pieces:
        line = [tuple(p) for p in at(piece[0], piece[1])]
        pen.line(line, fill=BLUE, width=2 * scale, joint="curve")
        (x, y), radius = line[-1], _DOT * scale
        pen.ellipse([(x - radius, y - radius), (x + radius, y + radius)], fill=BLUE)
    return words
