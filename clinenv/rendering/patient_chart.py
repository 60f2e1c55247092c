"""A patient's chart on the ward: results over the hours with their reference bands, and orders on a time line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, hour_ticks, nice_ticks
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

__all__ = ["Lane", "ResultSeries", "chart_image", "results"]

# The layout, in px.
WIDTH, COLUMNS, PANEL = 1060, 5, 150  # of the picture; panels in a row, and their height
LANES, LANE = 12, 19  # time lines at most, and their height
_HEAD, _LEFT, _FOOT, _RIGHT = 62, 190, 30, 12
_ABOVE_LANES, _BELOW_LANES = 26, 24
_PANEL_LEFT, _PANEL_TOP, _PANEL_FOOT = 40, 34, 22  # from a panel's place to its axes
_DOT, _CROSS, _SHORTEST_BAR = 2.2, 3.5, 2

_MARGIN = 0.12  # of a panel's value range
_THINNEST_BAR = 0.35  # of a lane: the smallest amount, so that it is seen
_NORMAL, _TEST = (226, 240, 228), (96, 120, 150)


class ResultSeries(NamedTuple):
    """The results of one measure: arrays [N], by the hour its specimen was collected."""

    title: str
    unit: str
    hours: np.ndarray
    values: np.ndarray
    normal: tuple[float, float]  # reference range


class Lane(NamedTuple):
    """One row of the time line."""

    title: str
    spans: Sequence[tuple[float, float, float]]  # from hour, to hour, share of the largest amount
    refused: Sequence[float] = ()  # hours at which it was ordered and not carried out
    test: bool = False


def chart_image(
    title: str, subtitle: str, series: Sequence[ResultSeries], lanes: Sequence[Lane], now: float, end: float
) -> Image.Image:
    """The chart as a picture 1060 pixels wide, whose height depends on the number of series alone: the frames of a film
    have one size.

    Args:
        title, subtitle: two lines at the top.
        series: a panel each, five in a row; one without results is an empty panel that says so.
        lanes: the first LANES are shown, and how many more there are is written below.
        now: hour of the chart, a line on the time line.
        end: hour at which the axes end.
    """
    rows = -(-len(series) // COLUMNS)
    top = _HEAD + rows * PANEL + _ABOVE_LANES
    height = top + LANES * LANE + _BELOW_LANES + _FOOT
    fine = Image.new("RGB", (WIDTH * OVERSAMPLE, height * OVERSAMPLE), BACKGROUND)
    pen = ImageDraw.Draw(fine)
    end = max(end, now, 1.0)
    words: list[Word] = []
    step = WIDTH / COLUMNS
    for i, one in enumerate(series):
        x, y = i % COLUMNS * step, _HEAD + i // COLUMNS * PANEL
        box = (x + _PANEL_LEFT, y + _PANEL_TOP, x + step - _RIGHT, y + PANEL - _PANEL_FOOT)
        words += _panel(pen, box, one, end)
    words += _time_line(pen, (_LEFT, top, WIDTH - _RIGHT, top + LANES * LANE), lanes[:LANES], now, end)
    image = fine.reduce(OVERSAMPLE)
    text = write_words(image, words)
    text.text((12, 10), title, fill=INK, font=font(16))
    text.text((12, 35), subtitle, fill=FAINT, font=font(12))
    if len(lanes) > LANES:
        text.text((12, height - 20), f"and {len(lanes) - LANES} more orders", fill=FAINT, font=font(11))
    text.text((WIDTH - 12, height - 20), NOT_FOR_CLINICAL_USE, fill=WARNING, font=font(12), anchor="ra")
    return image


def _panel(pen: ImageDraw.ImageDraw, box: Box, series: ResultSeries, end: float) -> list[Word]:
    """Paint one series on the fine canvas; gives back its words for the canvas of true size."""
    left, top, right, bottom = box
    low, high = series.normal
    known = series.values[np.isfinite(series.values)]
    bottom_value, top_value = min([low, *known]), max([high, *known])
    margin = _MARGIN * max(top_value - bottom_value, 1e-3)
    bottom_value, top_value = bottom_value - margin, top_value + margin
    scale = OVERSAMPLE

    def at(hour: float, value: float) -> tuple[float, float]:
        x = left + (right - left) * min(max(hour, 0.0), end) / end
        y = bottom - (bottom - top) * (value - bottom_value) / (top_value - bottom_value)
        return x * scale, y * scale

    words = [Word(left - 28, top - 26, series.title, INK, 12, "la")]
    band = [at(0.0, high), at(end, low)]
    pen.rectangle([band[0], band[1]], fill=_NORMAL)
    for tick in nice_ticks(bottom_value, top_value, 3):
        x, y = at(0.0, tick)
        pen.line([(left * scale, y), (right * scale, y)], fill=GRID, width=scale)
        words.append(Word(left - 4, y / scale, f"{tick:g}", FAINT, 10, "rm"))
    for tick in hour_ticks(end, 4):
        x = at(tick, bottom_value)[0]
        pen.line([(x, bottom * scale), (x, (bottom + 3) * scale)], fill=FAINT, width=scale)
        words.append(Word(x / scale, bottom + 5, f"{tick:g}", FAINT, 10, "ma"))
    pen.line([(left * scale, bottom * scale), (right * scale, bottom * scale)], fill=FAINT, width=scale)
    if not len(series.values):
        words.append(Word(right, top - 26, "never measured", FAINT, 11, "ra"))
        return words
    points = [at(hour, value) for hour, value in zip(series.hours, series.values, strict=True)]
    if len(points) > 1:
        pen.line(points, fill=BLUE, width=int(1.5 * scale), joint="curve")
    radius = _DOT * scale
    for (x, y), value in zip(points, series.values, strict=True):
        colour = BLUE if low <= value <= high else WARNING
        pen.ellipse([(x - radius, y - radius), (x + radius, y + radius)], fill=colour)
    last = float(series.values[-1])
    colour = BLUE if low <= last <= high else WARNING
    number = f"{last:.0f}" if abs(last) >= 100 else f"{last:.3g}"
    words.append(Word(right, top - 28, f"{number} {series.unit}".strip(), colour, 13, "ra"))
    return words


def _time_line(pen: ImageDraw.ImageDraw, box: Box, lanes: Sequence[Lane], now: float, end: float) -> list[Word]:
    """Bars of what was given, ticks of what was asked, crosses of what was refused."""
    left, top, right, bottom = box
    scale = OVERSAMPLE

    def x_of(hour: float) -> float:
        return left + (right - left) * min(max(hour, 0.0), end) / end

    words = [Word(12, top - 20, "Orders", INK, 13, "la")]
    if not lanes:
        words.append(Word(left, top + 4, "none yet", FAINT, 11, "la"))
    for tick in hour_ticks(end, 12):
        x = x_of(tick)
        pen.line([(x * scale, top * scale), (x * scale, (bottom + 3) * scale)], fill=GRID, width=scale)
        words.append(Word(x, bottom + 6, f"{tick:g} h", FAINT, 10, "ma"))
    for i, lane in enumerate(lanes):
        y = top + i * LANE
        words.append(Word(left - 8, y + LANE / 2, lane.title, INK, 11, "rm"))
        pen.line([(left * scale, (y + LANE) * scale), (right * scale, (y + LANE) * scale)], fill=GRID, width=1)
        for start, stop, share in lane.spans:
            tall = (LANE - 6) * (_THINNEST_BAR + (1 - _THINNEST_BAR) * min(max(share, 0.0), 1.0))
            foot = y + LANE - 3
            right_end = max(x_of(stop), x_of(start) + _SHORTEST_BAR)
            bar = [x_of(start) * scale, (foot - tall) * scale, right_end * scale, foot * scale]
            pen.rectangle(bar, fill=_TEST if lane.test else DOSE)
        for hour in lane.refused:
            x, middle, arm = x_of(hour) + 4, y + LANE / 2, _CROSS
            for sign in (1, -1):
                cross = [(x - arm, middle - sign * arm), (x + arm, middle + sign * arm)]
                pen.line([(a * scale, b * scale) for a, b in cross], fill=WARNING, width=int(1.6 * scale))
    pen.line([(x_of(now) * scale, top * scale), (x_of(now) * scale, bottom * scale)], fill=BLUE, width=scale)
    return words


def results(
    moments: Sequence[Mapping[str, np.ndarray]], row: int, name: str, place: int
) -> tuple[np.ndarray, np.ndarray]:
    """(hours [N], values [N]) of a measure's results over the moments of a row, each once, by the hour of collection.

    Args:
        moments: what a picture remembers of an episode, oldest first: name -> [B, ...].
        row: of the patient.
        name: of the measure.
        place: the measure's column among the inquiries.
    """
    found: dict[float, float] = {}
    for moment in moments:
        if moment["inquiry_seen"][row, place] > 0.5:
            collected = round(float(moment["hours"][row] - moment["inquiry_age_hours"][row, place]), 2)
            found[collected] = float(moment[name][row])
    hours = sorted(found)
    return np.array(hours), np.array([found[hour] for hour in hours])
