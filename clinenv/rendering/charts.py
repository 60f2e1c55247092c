"""Charts of a report as inline SVG: an interval's course with its band, and median beats laid over each other.

Colours are CSS variables with a light default (--ink, --muted, --rule, --series, --before, --recorded, --warn, --dose).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from clinenv.rendering.labels import LIMITS, hour_ticks, least_span, nice_ticks, reading

__all__ = ["Course", "beats_svg", "course_svg"]

_WIDTH, _HEIGHT = 330.0, 190.0
_LEFT, _RIGHT, _TOP, _FOOT = 36.0, 322.0, 12.0, 152.0
_TEXT = 'font-family="system-ui,sans-serif" font-size="11"'
_MUTED, _RULE = "var(--muted,#5d6068)", "var(--rule,#e2e2e8)"
_SERIES, _DOSE, _WARN = "var(--series,#1c549e)", "var(--dose,#a06a00)", "var(--warn,#b01c2e)"


class Course(NamedTuple):
    """One interval over the hours, as the samples spread: arrays [N]; NaN is a gap."""

    hours: np.ndarray
    median: np.ndarray
    low: np.ndarray  # 5 % quantile
    high: np.ndarray  # 95 % quantile
    measured: float = float("nan")  # what was read off the recorded ECG at hour 0, before any dose


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def course_svg(name: str, course: Course, doses: Sequence[float]) -> str:
    """One chart: median line, 5 to 95 % band, the measured baseline as a ring, dose marks, the limit if it is near.

    Args:
        name: the chart's name of the interval, `qtcf_ms`.
        doses: hours at which a dose was given.
    """
    title, unit = reading(name)
    known = np.concatenate([course.low, course.high, course.median, [course.measured]])
    known = known[np.isfinite(known)]
    if known.size == 0:
        known = np.zeros(1)
    middle, half = (known.min() + known.max()) / 2, max(known.max() - known.min(), least_span(name)) * 0.56
    low, high = middle - half, middle + half
    limit = LIMITS.get(name)
    if limit is not None and high < limit < high + half:
        high = limit + 0.1 * half
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
        parts.append(f'<path d="M{_LEFT:g} {y:.1f}H{_RIGHT:g}" stroke="{_RULE}"/>')
        parts.append(f'<text x="{_LEFT - 6:g}" y="{y + 4:.1f}" fill="{_MUTED}" text-anchor="end">{tick:g}</text>')
    for tick in hour_ticks(end, 6):
        x = float(x_of(tick))
        parts.append(f'<path d="M{x:.1f} {_FOOT:g}v4" stroke="{_MUTED}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_FOOT + 16:g}" fill="{_MUTED}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path d="M{_LEFT:g} {_FOOT:g}H{_RIGHT:g}" stroke="{_MUTED}"/>')
    parts.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{_HEIGHT - 6:g}" fill="{_MUTED}" text-anchor="middle">'
        "hours since the ECG</text>"
    )
    if limit is not None and low < limit < high:
        y = float(y_of(limit))
        parts.append(f'<path d="M{_LEFT:g} {y:.1f}H{_RIGHT:g}" stroke="{_WARN}" stroke-dasharray="5 4"/>')
        parts.append(f'<text x="{_RIGHT:g}" y="{y - 4:.1f}" fill="{_WARN}" text-anchor="end">{limit:g} {unit}</text>')
    for hour in doses:
        x = float(x_of(hour))
        parts.append(
            f'<path d="M{x:.1f} {_FOOT - 9:g}l-5 9h10z" fill="{_DOSE}"><title>dose at {hour:g} h</title></path>'
        )
    good = np.isfinite(course.median) & np.isfinite(course.low) & np.isfinite(course.high)
    x, middle_y = x_of(course.hours[good]), y_of(course.median[good])
    if good.any():
        rim_x = np.concatenate([x, x[::-1]])
        rim_y = np.concatenate([y_of(course.low[good]), y_of(course.high[good])[::-1]])
        parts.append(f'<polygon points="{_points(rim_x, rim_y)}" fill="{_SERIES}" fill-opacity=".18"/>')
        parts.append(
            f'<polyline points="{_points(x, middle_y)}" fill="none" stroke="{_SERIES}" stroke-width="2" '
            'stroke-linejoin="round"/>'
        )
    for i, (cx, cy) in zip(np.flatnonzero(good), zip(x, middle_y, strict=True), strict=True):
        words = (
            f"{course.hours[i]:g} h: {course.median[i]:.0f} {unit} "
            f"(90 % band {course.low[i]:.0f} to {course.high[i]:.0f})"
        )
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="2.4" fill="{_SERIES}"><title>{words}</title></circle>')
    if np.isfinite(course.measured):
        parts.append(
            f'<circle cx="{_LEFT:g}" cy="{float(y_of(course.measured)):.1f}" r="4.5" fill="none" '
            f'stroke="var(--recorded,#0f7b5f)" stroke-width="2"><title>measured on the recorded ECG: '
            f"{course.measured:.0f} {unit}</title></circle>"
        )
    return "".join(parts) + "</svg>"


def beats_svg(beats: Mapping[str, np.ndarray], leads: Sequence[str], sampling_rate_hz: float, before_s: float) -> str:
    """Median beats laid over each other on R, a small ECG paper for each lead, and a legend.

    Args:
        beats: words for the legend -> [len(leads), W] in mV, at most three. Drawn in this order, so the last lies on
            top; the first of three is dashed (recorded, model before, model after).
        leads: names of the leads.
        sampling_rate_hz: of the beats.
        before_s: where R stands, seconds after the window's begin.
    """
    samples = next(iter(beats.values())).shape[-1]
    seconds = samples / sampling_rate_hz
    mm = 9.0  # px a mm of paper: a few leads of a second fill the page
    wide, gap, top = seconds * 25 * mm, 16.0, 26.0
    every = np.concatenate([np.ravel(b) for b in beats.values()])
    every = every[np.isfinite(every)] if np.isfinite(every).any() else np.zeros(1)
    low, high = np.floor(max(every.min(), -3) * 2) / 2 - 0.25, np.ceil(min(every.max(), 3) * 2) / 2 + 0.25
    tall = (high - low) * 10 * mm
    width, height = len(leads) * wide + (len(leads) - 1) * gap, top + tall + 26
    colours = ["var(--recorded,#0f7b5f)", "var(--before,#72757e)", "var(--after,#b3470b)"][-len(beats) :]
    dashes = ["6 4", "", ""][-len(beats) :]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {height:.0f}" {_TEXT} '
        'aria-label="median beats laid over each other">'
    ]
    for i, lead in enumerate(leads):
        left = i * (wide + gap)
        lines = "".join(f"M{left + k * 5 * mm:.1f} {top:g}v{tall:.1f}" for k in range(int(seconds * 5) + 1))
        levels = top + (high - np.arange(np.ceil(low * 2) / 2, high, 0.5)) * 10 * mm
        lines += "".join(f"M{left:.1f} {y:.1f}h{wide:.1f}" for y in levels)
        parts.append(
            f'<rect x="{left:.1f}" y="{top:g}" width="{wide:.1f}" height="{tall:.1f}" fill="var(--paper,#fffaf7)" '
            f'stroke="var(--grid-bold,#eeb4ac)"/><path d="{lines}" stroke="var(--grid-bold,#eeb4ac)" '
            'stroke-width=".5" fill="none"/>'
        )
        parts.append(
            f'<text x="{left + 6:.1f}" y="{top + 15:g}" fill="var(--ink,#14141c)" font-weight="600">{lead}</text>'
        )
        x = left + np.arange(samples) / sampling_rate_hz * 25 * mm
        for (_, beat), colour, dash in zip(beats.items(), colours, dashes, strict=True):
            y = top + (high - np.clip(np.nan_to_num(beat[i]), low, high)) * 10 * mm
            parts.append(
                f'<polyline points="{_points(x, y)}" fill="none" stroke="{colour}" stroke-width="1.8" '
                f'stroke-dasharray="{dash}" stroke-linejoin="round"/>'
            )
    x = 0.0
    for words, colour, dash in zip(beats, colours, dashes, strict=True):
        parts.append(f'<path d="M{x:g} 10h24" stroke="{colour}" stroke-width="2.4" stroke-dasharray="{dash}"/>')
        parts.append(f'<text x="{x + 30:g}" y="14" fill="var(--ink,#14141c)">{escape(words)}</text>')
        x += 52 + 6.3 * len(words)
    parts.append(
        f'<text x="0" y="{height - 6:.0f}" fill="{_MUTED}">one square: 0.2 s and 0.5 mV; beats laid on R, '
        f"{before_s:g} s from the left; level set just before the QRS</text></svg>"
    )
    return "".join(parts)
