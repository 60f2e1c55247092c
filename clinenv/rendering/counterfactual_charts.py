"""Charts of a counterfactual as inline SVG: what a probe reads before and after, and the latent's move on a map.

Colours are those of `svg_colours`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from clinenv.rendering.svg_colours import AFTER, BEFORE, CARD, INK, MUTED, RULE, SERIES, WARNING

__all__ = ["Dots", "dots_svg", "map_svg"]

# The rows of dots, in px: labels stand left of _LEFT.
_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 940.0, 392.0, 880.0, 23.0, 30.0
_WORDS = 60  # px that "no longer read" needs to the right of its dots
_TEXT = 'font-family="system-ui,sans-serif" font-size="13"'
# The map, in px.
MAP_WIDTH, MAP_HEIGHT = 560.0, 400.0
MOST_POINTS = 900
_MAP_MARGIN = 0.07  # of the extent
_USUAL = (1.0, 99.0)  # percentiles of the stored latents that the map has to hold


class Dots(NamedTuple):
    """One condition's row: probabilities from 0 to 1."""

    label: str
    before: float
    after: float
    without: float  # had nothing but time passed
    threshold: float  # 1: there is none
    intended: str = ""  # "sets in", "resolves"; empty for the other rows


def dots_svg(rows: Sequence[Dots]) -> str:
    """A row each: a ring before, a dot after, a small dot had only time passed, a tick at the threshold.

    Rows that were asked to change stand on a band.
    A dot that crossed its threshold carries "read now" or "no longer read".
    """
    height = _TOP + _ROW * len(rows) + 8

    def x_of(chance: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(max(chance, 0.0), 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH:g} {height:g}" {_TEXT} '
        'aria-label="chance of each condition before and after">'
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = x_of(tick)
        parts.append(f'<path d="M{x:g} {_TOP - 6:g}V{height - 4:g}" stroke="{RULE}"/>')
        parts.append(f'<text x="{x:g}" y="{_TOP - 12:g}" fill="{MUTED}" text-anchor="middle">{tick:g}</text>')
    for i, row in enumerate(rows):
        top = _TOP + i * _ROW
        y = top + _ROW / 2
        a, b, limit = x_of(row.before), x_of(row.after), x_of(row.threshold)
        if row.intended:
            parts.append(
                f'<rect x="0" y="{top + 1:g}" width="{_WIDTH:g}" height="{_ROW - 2:g}" rx="4" fill="{SERIES}" '
                'fill-opacity=".14"/>'
            )
        words = f"{row.label}, {row.intended}" if row.intended else row.label
        weight = ' font-weight="600"' if row.intended else ""
        parts.append(f'<text x="8" y="{y + 4.5:g}" fill="{INK}"{weight}>{escape(words)}</text>')
        if row.threshold < 1:
            parts.append(f'<path d="M{limit:.1f} {y - 6:g}v12" stroke="{MUTED}" stroke-width="1.4"/>')
        parts.append(
            f'<path d="M{a:.1f} {y:g}H{b:.1f}" stroke="{AFTER}" stroke-width="2" opacity=".55"/>'
            f'<circle cx="{a:.1f}" cy="{y:g}" r="5" fill="none" stroke="{BEFORE}" stroke-width="2"/>'
            f'<circle cx="{b:.1f}" cy="{y:g}" r="4.2" fill="{AFTER}"/>'
            f'<circle cx="{x_of(row.without):.1f}" cy="{y:g}" r="2.4" fill="{SERIES}">'
            f"<title>{escape(row.label)}: {row.before:.2f} before, {row.after:.2f} after, "
            f"{row.without:.2f} by time alone, threshold {row.threshold:.2f}</title></circle>"
        )
        was, now = row.before >= row.threshold, row.after >= row.threshold
        if was != now:
            words, right = "read now" if now else "no longer read", max(a, b, limit)
            anchor, x = ("start", right + 9) if right < _RIGHT - _WORDS else ("end", min(a, b, limit) - 9)
            parts.append(
                f'<text x="{x:.1f}" y="{y + 4:g}" fill="{WARNING}" font-size="11.5" text-anchor="{anchor}">'
                f"{words}</text>"
            )
    return "".join(parts) + "</svg>"


def map_svg(
    points: np.ndarray, before: np.ndarray, after: np.ndarray, without: np.ndarray, like: np.ndarray | None = None
) -> str:
    """A plane of stored latents with three of one patient on it.

    Args:
        points: [R, 2] stored latents; at most `MOST_POINTS` of them are shown, evenly spaced.
        before: [2] the recorded ECG's.
        after: [2] the moved one.
        without: [2] the one that time alone moves.
        like: bool [R], points to colour: those that have what sets in.
    """
    step = max(1, -(-len(points) // MOST_POINTS))
    shown = points[::step]
    alike = np.zeros(len(shown), bool) if like is None else np.asarray(like, bool)[::step]
    # a few far points would press the others into a corner: they may fall off, the patient may not
    usual = np.percentile(shown, _USUAL, axis=0) if len(shown) else np.zeros((0, 2))
    every = np.concatenate([usual, before[None], after[None], without[None]])
    low, high = every.min(0), every.max(0)
    margin = _MAP_MARGIN * (high - low) + 1e-6
    low, high = low - margin, high + margin
    within = ((shown > low) & (shown < high)).all(1)

    def at(point: np.ndarray) -> tuple[float, float]:
        u = (point - low) / (high - low)
        return MAP_WIDTH * float(u[0]), MAP_HEIGHT * (1 - float(u[1]))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {MAP_WIDTH:g} {MAP_HEIGHT:g}" {_TEXT} '
        f'aria-label="the latent\'s move on a map of stored ECGs"><rect x=".5" y=".5" width="{MAP_WIDTH - 1:g}" '
        f'height="{MAP_HEIGHT - 1:g}" fill="none" stroke="{RULE}"/>'
    ]
    for mask, colour, opacity in ((~alike, MUTED, 0.35), (alike, SERIES, 0.75)):
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in map(at, shown[mask & within]))
        parts.append(
            f'<path d="{dots}" stroke="{colour}" stroke-opacity="{opacity}" stroke-width="4.5" '
            'stroke-linecap="round" fill="none"/>'
        )
    (ax, ay), (bx, by), (cx, cy) = at(before), at(after), at(without)
    parts.append(
        f'<path d="M{ax:.1f} {ay:.1f}L{cx:.1f} {cy:.1f}" stroke="{BEFORE}" stroke-width="2" stroke-dasharray="4 4"/>'
        f'<path d="M{ax:.1f} {ay:.1f}L{bx:.1f} {by:.1f}" stroke="{AFTER}" stroke-width="2.4"/>'
        f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4.5" fill="{BEFORE}"/>'
        f'<circle cx="{ax:.1f}" cy="{ay:.1f}" r="6" fill="{CARD}" stroke="{BEFORE}" stroke-width="2.6"/>'
        f'<circle cx="{bx:.1f}" cy="{by:.1f}" r="6" fill="{AFTER}"/></svg>'
    )
    return "".join(parts)
