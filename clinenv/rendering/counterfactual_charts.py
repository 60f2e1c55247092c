"""Charts of a counterfactual as inline SVG: what a probe reads before and after, and the latent's move on a map.

Colours are CSS variables with a light default (--ink, --muted, --rule, --before, --after, --series, --warn).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

__all__ = ["Dots", "dots_svg", "map_svg"]

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 940.0, 392.0, 880.0, 23.0, 30.0
_TEXT = 'font-family="system-ui,sans-serif" font-size="13"'
_INK, _MUTED, _RULE = "var(--ink,#14141c)", "var(--muted,#5d6068)", "var(--rule,#e2e2e8)"
_BEFORE, _AFTER, _SERIES, _WARN = (
    "var(--before,#72757e)", "var(--after,#b3470b)", "var(--series,#1c549e)", "var(--warn,#b01c2e)",
)  # fmt: skip
MAP_WIDTH, MAP_HEIGHT = 560.0, 400.0
MOST_POINTS = 900


class Dots(NamedTuple):
    """One row: chances from 0 to 1."""

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
        parts.append(f'<path d="M{x:g} {_TOP - 6:g}V{height - 4:g}" stroke="{_RULE}"/>')
        parts.append(f'<text x="{x:g}" y="{_TOP - 12:g}" fill="{_MUTED}" text-anchor="middle">{tick:g}</text>')
    for i, row in enumerate(rows):
        top = _TOP + i * _ROW
        y = top + _ROW / 2
        a, b, limit = x_of(row.before), x_of(row.after), x_of(row.threshold)
        if row.intended:
            parts.append(
                f'<rect x="0" y="{top + 1:g}" width="{_WIDTH:g}" height="{_ROW - 2:g}" rx="4" fill="{_SERIES}" '
                'fill-opacity=".14"/>'
            )
        words = f"{row.label}, {row.intended}" if row.intended else row.label
        weight = ' font-weight="600"' if row.intended else ""
        parts.append(f'<text x="8" y="{y + 4.5:g}" fill="{_INK}"{weight}>{escape(words)}</text>')
        if row.threshold < 1:
            parts.append(f'<path d="M{limit:.1f} {y - 6:g}v12" stroke="{_MUTED}" stroke-width="1.4"/>')
        parts.append(
            f'<path d="M{a:.1f} {y:g}H{b:.1f}" stroke="{_AFTER}" stroke-width="2" opacity=".55"/>'
            f'<circle cx="{a:.1f}" cy="{y:g}" r="5" fill="none" stroke="{_BEFORE}" stroke-width="2"/>'
            f'<circle cx="{b:.1f}" cy="{y:g}" r="4.2" fill="{_AFTER}"/>'
            f'<circle cx="{x_of(row.without):.1f}" cy="{y:g}" r="2.4" fill="{_SERIES}"><title>{escape(row.label)}: {row.before:.2f} '
            f"before, {row.after:.2f} after, {row.without:.2f} by time alone, threshold {row.threshold:.2f}</title></circle>"
        )
        was, now = row.before >= row.threshold, row.after >= row.threshold
        if was != now:
            said, right = ("read now", max(a, b, limit)) if now else ("no longer read", max(a, b, limit))
            anchor, x = ("start", right + 9) if right < _RIGHT - 60 else ("end", min(a, b, limit) - 9)
            parts.append(
                f'<text x="{x:.1f}" y="{y + 4:g}" fill="{_WARN}" font-size="11.5" text-anchor="{anchor}">{said}</text>'
            )
    return "".join(parts) + "</svg>"


def map_svg(
    points: np.ndarray, before: np.ndarray, after: np.ndarray, without: np.ndarray, like: np.ndarray | None = None
) -> str:
    """A plane of stored latents [R, 2] with three of one patient on it: the ECG, the moved one, the one time alone moves.

    Args:
        like: bool [R], points to colour: those that have what sets in. At most `MOST_POINTS` are drawn, spread evenly.
    """
    step = max(1, -(-len(points) // MOST_POINTS))
    shown = points[::step]
    alike = np.zeros(len(shown), bool) if like is None else np.asarray(like, bool)[::step]
    # a few far points would press the others into a corner: they may fall off, the patient may not
    usual = np.percentile(shown, [1.0, 99.0], axis=0) if len(shown) else np.zeros((0, 2))
    every = np.concatenate([usual, before[None], after[None], without[None]])
    low, high = every.min(0), every.max(0)
    margin = 0.07 * (high - low) + 1e-6
    low, high = low - margin, high + margin
    within = ((shown > low) & (shown < high)).all(1)

    def at(point: np.ndarray) -> tuple[float, float]:
        u = (point - low) / (high - low)
        return MAP_WIDTH * float(u[0]), MAP_HEIGHT * (1 - float(u[1]))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {MAP_WIDTH:g} {MAP_HEIGHT:g}" {_TEXT} '
        f'aria-label="the latent\'s move on a map of stored ECGs"><rect x=".5" y=".5" width="{MAP_WIDTH - 1:g}" '
        f'height="{MAP_HEIGHT - 1:g}" fill="none" stroke="{_RULE}"/>'
    ]
    for mask, colour, opacity in ((~alike, _MUTED, 0.35), (alike, _SERIES, 0.75)):
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in map(at, shown[mask & within]))
        parts.append(
            f'<path d="{dots}" stroke="{colour}" stroke-opacity="{opacity}" stroke-width="4.5" '
            'stroke-linecap="round" fill="none"/>'
        )
    (ax, ay), (bx, by), (cx, cy) = at(before), at(after), at(without)
    parts.append(
        f'<path d="M{ax:.1f} {ay:.1f}L{cx:.1f} {cy:.1f}" stroke="{_BEFORE}" stroke-width="2" stroke-dasharray="4 4"/>'
        f'<path d="M{ax:.1f} {ay:.1f}L{bx:.1f} {by:.1f}" stroke="{_AFTER}" stroke-width="2.4"/>'
        f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4.5" fill="{_BEFORE}"/>'
        f'<circle cx="{ax:.1f}" cy="{ay:.1f}" r="6" fill="var(--card,#fff)" stroke="{_BEFORE}" stroke-width="2.6"/>'
        f'<circle cx="{bx:.1f}" cy="{by:.1f}" r="6" fill="{_AFTER}"/></svg>'
    )
    return "".join(parts)
