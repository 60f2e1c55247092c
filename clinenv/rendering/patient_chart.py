"""A patient's chart on the ward: results over the hours with their reference bands, and orders on a time line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, hour_ticks, nice_ticks
from clinenv.rendering.pixels import OVERSAMPLE, font

__all__ = ["Course", "Lane", "chart_image", "results"]

WIDTH, COLUMNS, PANEL = 1060, 5, 150
LANES, LANE = 12, 19  # time lines at most, and their height
_HEAD, _LEFT, _FOOT = 62, 190, 30
_BACK, _INK, _FAINT, _GRID = (255, 255, 255), (20, 20, 28), (105, 105, 115), (226, 226, 232)
_LINE, _NORMAL, _OUT, _GIVEN, _TEST = (28, 84, 158), (226, 240, 228), (176, 28, 46), (176, 120, 20), (96, 120, 150)


class Course(NamedTuple):
    """The results of one measure: arrays [N] by the hour they were drawn."""

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
    title: str, subtitle: str, courses: Sequence[Course], lanes: Sequence[Lane], now: float, end: float
) -> Image.Image:
    """The chart as a picture 1060 pixels wide; its height follows the number of courses alone, so that frames of a film
    are of one size.

    Args:
        title, subtitle: two lines at the top.
        courses: a panel each, five in a row; a course without results is an empty panel that says so.
        lanes: the first LANES are drawn, how many more there are is said.
        now: hour of the chart, a line on the time line.
        end: hour at which the axes end.
    """
    rows = -(-len(courses) // COLUMNS)
    shown = list(lanes[:LANES])
    top = _HEAD + rows * PANEL + 26
    height = top + LANES * LANE + 24 + _FOOT
    fine = Image.new("RGB", (WIDTH * OVERSAMPLE, height * OVERSAMPLE), _BACK)
    pen = ImageDraw.Draw(fine)
    end = max(end, now, 1.0)
    words: list[tuple[float, float, str, tuple[int, int, int], int, str]] = []
    step = WIDTH / COLUMNS
    for i, course in enumerate(courses):
        column, row = i % COLUMNS, i // COLUMNS
        box = (column * step + 40, _HEAD + row * PANEL + 34, (column + 1) * step - 12, _HEAD + (row + 1) * PANEL - 22)
        words += _panel(pen, box, course, end)
    words += _time_line(pen, (_LEFT, top, WIDTH - 12, top + LANES * LANE), shown, now, end)
    image = fine.reduce(OVERSAMPLE)
    text = ImageDraw.Draw(image)
    for x, y, what, colour, size, anchor in words:
        text.text((x, y), what, fill=colour, font=font(size), anchor=anchor)
    text.text((12, 10), title, fill=_INK, font=font(16))
    text.text((12, 35), subtitle, fill=_FAINT, font=font(12))
    if len(lanes) > LANES:
        text.text((12, height - 20), f"and {len(lanes) - LANES} more orders", fill=_FAINT, font=font(11))
    text.text((WIDTH - 12, height - 20), NOT_FOR_CLINICAL_USE, fill=_OUT, font=font(12), anchor="ra")
    return image


def _panel(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], course: Course, end: float) -> list:
    """Draw one course on the fine canvas; gives back its words for the canvas of true size."""
    left, top, right, bottom = box
    low, high = course.normal
    known = course.values[np.isfinite(course.values)]
    bottom_value, top_value = min([low, *known]), max([high, *known])
    margin = 0.12 * max(top_value - bottom_value, 1e-3)
    bottom_value, top_value = bottom_value - margin, top_value + margin
    scale = OVERSAMPLE

    def at(hour: float, value: float) -> tuple[float, float]:
        x = left + (right - left) * min(max(hour, 0.0), end) / end
        y = bottom - (bottom - top) * (value - bottom_value) / (top_value - bottom_value)
        return x * scale, y * scale

    words = [(left - 28, top - 26, course.title, _INK, 12, "la")]
    band = [at(0.0, high), at(end, low)]
    pen.rectangle([band[0], band[1]], fill=_NORMAL)
    for tick in nice_ticks(bottom_value, top_value, 3):
        x, y = at(0.0, tick)
        pen.line([(left * scale, y), (right * scale, y)], fill=_GRID, width=scale)
        words.append((left - 4, y / scale, f"{tick:g}", _FAINT, 10, "rm"))
    for tick in hour_ticks(end, 4):
        x = at(tick, bottom_value)[0]
        pen.line([(x, bottom * scale), (x, (bottom + 3) * scale)], fill=_FAINT, width=scale)
        words.append((x / scale, bottom + 5, f"{tick:g}", _FAINT, 10, "ma"))
    pen.line([(left * scale, bottom * scale), (right * scale, bottom * scale)], fill=_FAINT, width=scale)
    if not len(course.values):
        words.append((right, top - 26, "never measured", _FAINT, 11, "ra"))
        return words
    points = [at(hour, value) for hour, value in zip(course.hours, course.values, strict=True)]
    if len(points) > 1:
        pen.line(points, fill=_LINE, width=int(1.5 * scale), joint="curve")
    radius = 2.2 * scale
    for (x, y), value in zip(points, course.values, strict=True):
        colour = _LINE if low <= value <= high else _OUT
        pen.ellipse([(x - radius, y - radius), (x + radius, y + radius)], fill=colour)
    last = float(course.values[-1])
    colour = _LINE if low <= last <= high else _OUT
    number = f"{last:.0f}" if abs(last) >= 100 else f"{last:.3g}"
    words.append((right, top - 28, f"{number} {course.unit}".strip(), colour, 13, "ra"))
    return words


def _time_line(
    pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], lanes: Sequence[Lane], now: float, end: float
) -> list:
    """Bars of what was given, ticks of what was asked, crosses of what was refused."""
    left, top, right, bottom = box
    scale = OVERSAMPLE

    def x_of(hour: float) -> float:
        return left + (right - left) * min(max(hour, 0.0), end) / end

    words = [(12, top - 20, "Orders", _INK, 13, "la")]
    if not lanes:
        words.append((left, top + 4, "none yet", _FAINT, 11, "la"))
    for tick in hour_ticks(end, 12):
        x = x_of(tick)
        pen.line([(x * scale, top * scale), (x * scale, (bottom + 3) * scale)], fill=_GRID, width=scale)
        words.append((x, bottom + 6, f"{tick:g} h", _FAINT, 10, "ma"))
    for i, lane in enumerate(lanes):
        y = top + i * LANE
        words.append((left - 8, y + LANE / 2, lane.title, _INK, 11, "rm"))
        pen.line([(left * scale, (y + LANE) * scale), (right * scale, (y + LANE) * scale)], fill=_GRID, width=1)
        for start, stop, share in lane.spans:
            tall = (LANE - 6) * (0.35 + 0.65 * min(max(share, 0.0), 1.0))
            foot = y + LANE - 3
            bar = [x_of(start) * scale, (foot - tall) * scale, max(x_of(stop), x_of(start) + 2) * scale, foot * scale]
            pen.rectangle(bar, fill=_TEST if lane.test else _GIVEN)
        for hour in lane.refused:
            x, middle, arm = x_of(hour) + 4, y + LANE / 2, 3.5
            for sign in (1, -1):
                cross = [(x - arm, middle - sign * arm), (x + arm, middle + sign * arm)]
                pen.line([(a * scale, b * scale) for a, b in cross], fill=_OUT, width=int(1.6 * scale))
    pen.line([(x_of(now) * scale, top * scale), (x_of(now) * scale, bottom * scale)], fill=_LINE, width=scale)
    return words


def results(
    moments: Sequence[Mapping[str, np.ndarray]], row: int, name: str, place: int
) -> tuple[np.ndarray, np.ndarray]:
    """(hours drawn, values) of a measure's results over the moments of a row, each once."""
    found: dict[float, float] = {}
    for moment in moments:
        if moment["inquiry_seen"][row, place] > 0.5:
            drawn = round(float(moment["hours"][row] - moment["inquiry_age_hours"][row, place]), 2)
            found[drawn] = float(moment[name][row])
    order = sorted(found)
    return np.array(order), np.array([found[hour] for hour in order])
