"""Candidates beside each other as inline SVG: a row each, with a dot, its band, and a second mark where there is one.

Colours are those of `svg_colours`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from clinenv.rendering.labels import nice_ticks
from clinenv.rendering.svg_colours import AFTER, INK, MUTED, RULE, SERIES, WARNING

__all__ = ["DotRow", "dots_svg"]

_TEXT = 'font-family="system-ui,sans-serif" font-size="11"'
# In px.
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _FOOT = 460.0, 132.0, 446.0, 8.0, 22.0, 34.0
_MARGIN = 0.06  # of the range, free at either end
_FAINT = 0.45  # opacity of a row that is ruled out


class DotRow(NamedTuple):
    """One candidate; NaN where there is no value."""

    label: str
    low: float
    middle: float
    high: float
    mark: float = float("nan")  # a second value, shown as a bar across
    faint: bool = False


def dots_svg(rows: Sequence[DotRow], unit: str, title: str, limit: float | None = None, zero: bool = False) -> str:
    """Rows of a dot with its band on one axis.

    Args:
        unit: of the values, written below the axis.
        title: for those who do not see the picture.
        limit: a line to be crossed by nobody, where the values come near it.
        zero: whether 0 is on the axis whatever the values.
    """
    values = [v for r in rows for v in (r.low, r.middle, r.high, r.mark) if math.isfinite(v)]
    values += [0.0] if zero or not values else []
    low, high = min(values), max(values)
    if limit is not None and high + 0.35 * (high - low) > limit:
        high = max(high, limit)
    room = (high - low) * _MARGIN or 1.0
    low, high = (low if zero and low == 0.0 else low - room), high + room
    bottom = _TOP + _ROW * len(rows)

    def x_of(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH:g} {bottom + _FOOT:g}" {_TEXT} '
        f'aria-label="{escape(title)}">'
    ]
    for tick in nice_ticks(low, high, 5):
        x = x_of(tick)
        parts.append(f'<path d="M{x:.1f} {_TOP:g}V{bottom:g}" stroke="{RULE}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14:g}" fill="{MUTED}" text-anchor="middle">{tick:g}</text>')
    parts.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{bottom + 29:g}" fill="{MUTED}" text-anchor="middle">'
        f"{escape(unit)}</text>"
    )
    for value, colour in ((limit, WARNING), (0.0 if zero else None, MUTED)):
        if value is not None and low <= value <= high:
            parts.append(f'<path d="M{x_of(value):.1f} {_TOP:g}V{bottom:g}" stroke="{colour}" stroke-dasharray="5 4"/>')
    for i, row in enumerate(rows):
        y = _TOP + _ROW * (i + 0.5)
        words = escape(f"{row.label}: {row.middle:.4g} ({row.low:.4g} to {row.high:.4g}) {unit}")
        parts.append(f'<g opacity="{_FAINT if row.faint else 1:g}"><title>{words}</title>')
        parts.append(
            f'<text x="{_LEFT - 8:g}" y="{y + 4:.1f}" fill="{INK}" text-anchor="end">{escape(row.label)}</text>'
        )
        if math.isfinite(row.low) and math.isfinite(row.high):
            parts.append(
                f'<path d="M{x_of(row.low):.1f} {y:.1f}H{x_of(row.high):.1f}" stroke="{SERIES}" stroke-width="5" '
                'stroke-opacity=".35" stroke-linecap="round"/>'
            )
        if math.isfinite(row.mark):
            parts.append(f'<path d="M{x_of(row.mark):.1f} {y - 7:.1f}v14" stroke="{AFTER}" stroke-width="2.5"/>')
        if math.isfinite(row.middle):
            parts.append(f'<circle cx="{x_of(row.middle):.1f}" cy="{y:.1f}" r="4" fill="{SERIES}"/>')
        parts.append("</g>")
    return "".join(parts) + "</svg>"
