"""Charts of a simulation's report as inline SVG: an interval's course with its band, and median beats over each other.

Colours are those of `svg_colours`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from clinenv.rendering.ecg_paper import MM_PER_MV, MM_PER_SECOND
from clinenv.rendering.labels import LIMITS, hour_ticks, label_and_unit, least_span, nice_ticks
from clinenv.rendering.svg_colours import (
    AFTER,
    BEFORE,
    DOSE,
    GRID_BOLD,
    INK,
    MUTED,
    PAPER,
    RECORDED,
    RULE,
    SERIES,
    WARNING,
)

__all__ = ["IntervalCourse", "beats_svg", "course_svg"]

_TEXT = 'font-family="system-ui,sans-serif" font-size="11"'

# A course's chart, in px.
_WIDTH, _HEIGHT = 330.0, 190.0
_LEFT, _RIGHT, _TOP, _FOOT = 36.0, 322.0, 12.0, 152.0
_HALF_SPAN = 0.56  # of the values' range: half of it, and a margin
_ABOVE_LIMIT = 0.1  # of half the axis, kept free above the limit's line

# Median beats, in px and mV.
_PX_PER_MM = 9.0  # of paper: a few leads of a second fill the page
_BEATS_GAP, _BEATS_TOP, _BEATS_FOOT = 16.0, 26.0, 26.0
_HIGHEST_MV, _STEP_MV, _MARGIN_MV = 3.0, 0.5, 0.25  # at most this far from the baseline; grid; below and above
_STEP_S = 0.2  # of the grid
_LEGEND_LINE, _LEGEND_GAP, _LETTER = 24, 52, 6.3


class IntervalCourse(NamedTuple):
    """One interval over the hours, as the samples spread: arrays [N]; NaN is a gap."""

    hours: np.ndarray
    median: np.ndarray
    low: np.ndarray  # 5 % quantile
    high: np.ndarray  # 95 % quantile
    measured: float = float("nan")  # what was read off the recorded ECG at hour 0, before any dose


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _value_axis(name: str, course: IntervalCourse) -> tuple[float, float]:
    """(low, high) of the value axis: all that is known and a margin; a limit that is near is within it."""
    known = np.concatenate([course.low, course.high, course.median, [course.measured]])
    known = known[np.isfinite(known)]
    if known.size == 0:
        known = np.zeros(1)
    middle, half = (known.min() + known.max()) / 2, max(known.max() - known.min(), least_span(name)) * _HALF_SPAN
    low, high = middle - half, middle + half
    limit = LIMITS.get(name)
    if limit is not None and high < limit < high + half:
        high = limit + _ABOVE_LIMIT * half
    return low, high


def course_svg(name: str, course: IntervalCourse, doses: Sequence[float]) -> str:
    """One chart: median line, 5 to 95 % band, the measured baseline as a ring, dose marks, the limit if it is near.

    Args:
        name: the chart's name of the interval, `qtcf_ms`.
        doses: hours at which a dose was given.
    """
    title, unit = label_and_unit(name)
    low, high = _value_axis(name, course)
    end = max(float(np.max(course.hours)), 1.0)

    def x_of(hours: np.ndarray | float) -> np.ndarray:
        return _LEFT + (_RIGHT - _LEFT) * np.asarray(hours, dtype=float) / end

    def y_of(values: np.ndarray | float) -> np.ndarray:
        return _FOOT - (_FOOT - _TOP) * (np.asarray(values, dtype=float) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" {_TEXT} '
        f'aria-label="{escape(title)} over {end:g} hours">'
    ]
    for tick in nice_ticks(low, high, 5):
        y = float(y_of(tick))
        parts.append(f'<path d="M{_LEFT:g} {y:.1f}H{_RIGHT:g}" stroke="{RULE}"/>')
        parts.append(f'<text x="{_LEFT - 6:g}" y="{y + 4:.1f}" fill="{MUTED}" text-anchor="end">{tick:g}</text>')
    for tick in hour_ticks(end, 6):
        tick_x = float(x_of(tick))
        parts.append(f'<path d="M{tick_x:.1f} {_FOOT:g}v4" stroke="{MUTED}"/>')
        parts.append(f'<text x="{tick_x:.1f}" y="{_FOOT + 16:g}" fill="{MUTED}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path d="M{_LEFT:g} {_FOOT:g}H{_RIGHT:g}" stroke="{MUTED}"/>')
    parts.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{_HEIGHT - 6:g}" fill="{MUTED}" text-anchor="middle">'
        "hours since the ECG</text>"
    )
    limit = LIMITS.get(name)
    if limit is not None and low < limit < high:
        y = float(y_of(limit))
        parts.append(f'<path d="M{_LEFT:g} {y:.1f}H{_RIGHT:g}" stroke="{WARNING}" stroke-dasharray="5 4"/>')
        parts.append(f'<text x="{_RIGHT:g}" y="{y - 4:.1f}" fill="{WARNING}" text-anchor="end">{limit:g} {unit}</text>')
    for hour in doses:
        parts.append(
            f'<path d="M{float(x_of(hour)):.1f} {_FOOT - 9:g}l-5 9h10z" fill="{DOSE}">'
            f"<title>dose at {hour:g} h</title></path>"
        )
    good = np.isfinite(course.median) & np.isfinite(course.low) & np.isfinite(course.high)
    x, median_y = x_of(course.hours[good]), y_of(course.median[good])
    if good.any():
        rim_x = np.concatenate([x, x[::-1]])
        rim_y = np.concatenate([y_of(course.low[good]), y_of(course.high[good])[::-1]])
        parts.append(f'<polygon points="{_points(rim_x, rim_y)}" fill="{SERIES}" fill-opacity=".18"/>')
        parts.append(
            f'<polyline points="{_points(x, median_y)}" fill="none" stroke="{SERIES}" stroke-width="2" '
            'stroke-linejoin="round"/>'
        )
    for i, cx, cy in zip(np.flatnonzero(good), x, median_y, strict=True):
        words = (
            f"{course.hours[i]:g} h: {course.median[i]:.0f} {unit} "
            f"(90 % band {course.low[i]:.0f} to {course.high[i]:.0f})"
        )
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="2.4" fill="{SERIES}"><title>{words}</title></circle>')
    if np.isfinite(course.measured):
        parts.append(
            f'<circle cx="{_LEFT:g}" cy="{float(y_of(course.measured)):.1f}" r="4.5" fill="none" '
            f'stroke="{RECORDED}" stroke-width="2"><title>measured on the recorded ECG: '
            f"{course.measured:.0f} {unit}</title></circle>"
        )
    return "".join(parts) + "</svg>"


def _level_axis(beats: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """(low, high) in mV: whole steps of the grid and a margin, over all beats of all leads."""
    every = np.concatenate([np.ravel(b) for b in beats.values()])
    every = every[np.isfinite(every)] if np.isfinite(every).any() else np.zeros(1)
    steps = 1 / _STEP_MV
    low = np.floor(max(every.min(), -_HIGHEST_MV) * steps) / steps - _MARGIN_MV
    high = np.ceil(min(every.max(), _HIGHEST_MV) * steps) / steps + _MARGIN_MV
    return float(low), float(high)


def beats_svg(beats: Mapping[str, np.ndarray], leads: Sequence[str], sampling_rate_hz: float, before_s: float) -> str:
    """Median beats laid over each other on R, a small ECG paper for each lead, and a legend.

    Args:
        beats: words for the legend -> [len(leads), W] in mV, at most three. Painted in this order, so that the last
            lies on top; the first of three is dashed (recorded, model before, model after).
        leads: names of the leads.
        sampling_rate_hz: of the beats.
        before_s: where R stands, seconds after the window's begin.
    """
    samples = next(iter(beats.values())).shape[-1]
    seconds = samples / sampling_rate_hz
    px_per_s, px_per_mv = MM_PER_SECOND * _PX_PER_MM, MM_PER_MV * _PX_PER_MM
    low, high = _level_axis(beats)
    wide, tall, top = seconds * px_per_s, (high - low) * px_per_mv, _BEATS_TOP
    width, height = len(leads) * wide + (len(leads) - 1) * _BEATS_GAP, top + tall + _BEATS_FOOT
    colours = [RECORDED, BEFORE, AFTER][-len(beats) :]
    dashes = ["6 4", "", ""][-len(beats) :]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {height:.0f}" {_TEXT} '
        'aria-label="median beats laid over each other">'
    ]
    for i, lead in enumerate(leads):
        left = i * (wide + _BEATS_GAP)
        columns = (left + k * _STEP_S * px_per_s for k in range(int(seconds / _STEP_S) + 1))
        levels = np.arange(np.ceil(low / _STEP_MV) * _STEP_MV, high, _STEP_MV)
        lines = "".join(f"M{x:.1f} {top:g}v{tall:.1f}" for x in columns)
        lines += "".join(f"M{left:.1f} {y:.1f}h{wide:.1f}" for y in top + (high - levels) * px_per_mv)
        parts.append(
            f'<rect x="{left:.1f}" y="{top:g}" width="{wide:.1f}" height="{tall:.1f}" fill="{PAPER}" '
            f'stroke="{GRID_BOLD}"/><path d="{lines}" stroke="{GRID_BOLD}" stroke-width=".5" fill="none"/>'
        )
        parts.append(f'<text x="{left + 6:.1f}" y="{top + 15:g}" fill="{INK}" font-weight="600">{lead}</text>')
        x = left + np.arange(samples) / sampling_rate_hz * MM_PER_SECOND * _PX_PER_MM
        for beat, colour, dash in zip(beats.values(), colours, dashes, strict=True):
            y = top + (high - np.clip(np.nan_to_num(beat[i]), low, high)) * px_per_mv
            parts.append(
                f'<polyline points="{_points(x, y)}" fill="none" stroke="{colour}" stroke-width="1.8" '
                f'stroke-dasharray="{dash}" stroke-linejoin="round"/>'
            )
    at = 0.0
    for words, colour, dash in zip(beats, colours, dashes, strict=True):
        parts.append(
            f'<path d="M{at:g} 10h{_LEGEND_LINE}" stroke="{colour}" stroke-width="2.4" stroke-dasharray="{dash}"/>'
        )
        parts.append(f'<text x="{at + _LEGEND_LINE + 6:g}" y="14" fill="{INK}">{escape(words)}</text>')
        at += _LEGEND_GAP + _LETTER * len(words)
    parts.append(
        f'<text x="0" y="{height - 6:.0f}" fill="{MUTED}">one square: 0.2 s and 0.5 mV; beats laid on R, '
        f"{before_s:g} s from the left; level set just before the QRS</text></svg>"
    )
    return "".join(parts)
