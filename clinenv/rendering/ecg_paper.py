"""A 12-lead ECG as it comes out of the machine: 25 mm/s, 10 mm/mV, three rows of four leads and a rhythm strip of II.

Two back-ends over one layout in millimetres: `svg_paper` for a page, `paper_image` for a frame of pixels. Each column
of 2.5 s goes on in time where the one before it stopped, as on a real electrocardiograph, and each lead lies about
its own median (the machine's high-pass filter does the same).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from clinenv.rendering import svg_colours as svg
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from clinenv.rendering.panels import trend_image
from clinenv.rendering.pixels import OVERSAMPLE, WARNING, Colour, font
from clinenv.rendering.traces import path_data, unbroken
from world_models.ecg.lead_names import LEADS

__all__ = ["checked_ecg", "close_sheet", "ecg_frame", "open_sheet", "paper_image", "svg_paper"]

MM_PER_SECOND = 25.0
MM_PER_MV = 10.0
SCALES = "25 mm/s &#160; 10 mm/mV"  # the same, as small print of an SVG

# The layout, in mm: the sheet's sides are multiples of 5, so that the bold lines meet the border.
WIDTH, HEIGHT = 265.0, 135.0
LEFT = 10.0  # where the ten seconds begin; the calibration pulse stands left of it
ROWS = (25.0, 55.0, 85.0, 115.0)  # baselines: three rows of leads, then the rhythm strip
COLUMNS, COLUMN_S = 4, 2.5  # of leads, and how long each shows
STRIP_S = COLUMNS * COLUMN_S
EDGE = 0.5  # no trace comes nearer to the border
NAME_RIGHT, NAME_UP = 1.2, 8.3  # a lead's name on a page: from its left end and up from its baseline
SIDE, TITLE_DOWN, FOOT_UP = 2.5, 5.2, 1.6  # the title and the small print on a page: from the borders

PIXELS_PER_MM = 4
TREND_HEIGHT = 240  # px, below the paper
_PAPER, _FINE, _BOLD, _INK, _FAINT = (255, 250, 247), (250, 225, 219), (238, 180, 172), (20, 20, 28), (95, 88, 92)

Trace: TypeAlias = tuple[np.ndarray, np.ndarray]  # x and y in mm, y downwards


class Strip(NamedTuple):
    """Some seconds of one lead, and where they stand."""

    lead: int  # index into LEADS
    row: int  # index into ROWS
    start_s: float
    stop_s: float


STRIPS = (
    *(Strip(c * 3 + r, r, c * COLUMN_S, (c + 1) * COLUMN_S) for c in range(COLUMNS) for r in range(3)),
    Strip(LEADS.index("II"), 3, 0.0, STRIP_S),
)


def checked_ecg(ecg_mv: np.ndarray, sampling_rate_hz: float) -> np.ndarray:
    """The ECG [12, T] in mV about each lead's median, as float64; samples that are not finite are NaN.

    Raises:
        ValueError: not 12 leads, fewer than two samples, or a rate that is not positive.
    """
    ecg = np.asarray(ecg_mv, dtype=np.float64)
    if ecg.ndim != 2 or ecg.shape[0] != len(LEADS) or ecg.shape[1] < 2:
        raise ValueError(f"an ECG on paper is [12, T] in mV, T >= 2, in the order {', '.join(LEADS)}; got {ecg.shape}")
    if not sampling_rate_hz > 0:
        raise ValueError(f"sampling_rate_hz={sampling_rate_hz} must be above 0")
    ecg = np.where(np.isfinite(ecg), ecg, np.nan)
    dead = np.isnan(ecg).all(axis=1, keepdims=True)
    return ecg - np.nanmedian(np.where(dead, 0.0, ecg), axis=1, keepdims=True)


def _traces(ecg: np.ndarray, hz: float, strip: Strip) -> list[Trace]:
    """The strip as unbroken traces; a gap in the signal is a gap on the paper."""
    first, last = round(strip.start_s * hz), min(round(strip.stop_s * hz) + 1, ecg.shape[1])
    y = ROWS[strip.row] - MM_PER_MV * ecg[strip.lead, first:last]
    x = LEFT + MM_PER_SECOND * np.arange(first, last) / hz
    good = np.isfinite(y)
    y = np.clip(y, EDGE, HEIGHT - EDGE)
    return [(x[piece], y[piece]) for piece in unbroken(good) if piece.stop - piece.start > 1]


def _calibration(row: float) -> Trace:
    """1 mV for 0.2 s: ten millimetres high and five wide."""
    x = np.array([1.25, 2.5, 2.5, 7.5, 7.5, 8.75])
    return x, row - np.array([0.0, 0.0, MM_PER_MV, MM_PER_MV, 0.0, 0.0])


@lru_cache(maxsize=1)
def _blank() -> Image.Image:
    """The empty sheet: grid, calibration pulses, lead names."""
    scale = PIXELS_PER_MM
    sheet = Image.new("RGB", (int(WIDTH * scale), int(HEIGHT * scale)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for step, colour in ((1, _FINE), (5, _BOLD)):
        for mm in range(0, int(WIDTH) + 1, step):
            pen.line([(mm * scale, 0), (mm * scale, HEIGHT * scale)], fill=colour)
        for mm in range(0, int(HEIGHT) + 1, step):
            pen.line([(0, mm * scale), (WIDTH * scale, mm * scale)], fill=colour)
    for row in ROWS:
        pen.line([(x * scale, y * scale) for x, y in zip(*_calibration(row), strict=True)], fill=_INK, width=1)
    for strip in STRIPS:
        x = (LEFT + strip.start_s * MM_PER_SECOND) * scale
        y = (ROWS[strip.row] - 11.5) * scale
        pen.text((x + 5, y), LEADS[strip.lead], fill=_INK, font=font(13))
        if strip.start_s > 0:
            pen.line([(x, y + 10), (x, y + 26)], fill=_FAINT)
    return sheet


def paper_image(ecg_mv: np.ndarray, sampling_rate_hz: float, title: str = "") -> Image.Image:
    """The ECG on paper as a picture of 1060 x 540 pixels (4 to the millimetre).

    Args:
        ecg_mv: [12, T] in mV, standard lead order; the first ten seconds are shown, fewer leave paper empty.
        sampling_rate_hz: samples a second.
        title: one line at the top.

    Raises:
        ValueError: see `checked_ecg`.
    """
    ecg = checked_ecg(ecg_mv, sampling_rate_hz)
    sheet = _blank().copy()
    fine = PIXELS_PER_MM * OVERSAMPLE
    mask = Image.new("L", (sheet.width * OVERSAMPLE, sheet.height * OVERSAMPLE), 0)
    pen = ImageDraw.Draw(mask)
    for strip in STRIPS:
        for x, y in _traces(ecg, sampling_rate_hz, strip):
            points = np.stack([x * fine, y * fine], axis=1).astype(np.float32)
            pen.line(points.ravel().tolist(), fill=255, width=OVERSAMPLE + 1)
    sheet.paste(_INK, (0, 0), mask.reduce(OVERSAMPLE))
    text = ImageDraw.Draw(sheet)
    text.text((10, 8), title, fill=_INK, font=font(14))
    _line_on_paper(text, sheet, "25 mm/s   10 mm/mV", 10, _FAINT)
    _line_on_paper(text, sheet, NOT_FOR_CLINICAL_USE, None, WARNING)
    return sheet


def _line_on_paper(pen: ImageDraw.ImageDraw, sheet: Image.Image, words: str, left: int | None, colour: Colour) -> None:
    """Small print at the foot, from the left or against the right edge, on clean paper so that it stays legible."""
    small = font(12)
    width = int(pen.textlength(words, font=small))
    x = sheet.width - width - 12 if left is None else left
    y = sheet.height - 19
    pen.rectangle([x - 3, y - 1, x + width + 3, y + 15], fill=_PAPER)
    pen.text((x, y), words, fill=colour, font=small)


def ecg_frame(
    ecg_mv: np.ndarray,
    sampling_rate_hz: float,
    trend: Mapping[str, Sequence],
    title: str = "",
    hours_total: float | None = None,
    doses: Sequence[tuple[float, str]] = (),
) -> np.ndarray:
    """One frame of a patient: the ECG on paper with the trend of its intervals below. Always the same size.

    Args:
        ecg_mv: [12, T] in mV, standard lead order.
        sampling_rate_hz: samples a second.
        trend: chart name -> (hours [N], values [N]) or (hours, values, low, high); the first six are shown.
        title: one line at the top.
        hours_total: where the hour axis ends; None: at the last hour there is.
        doses: (hour, words) of what was given, marked on the hour axis.

    Returns:
        uint8 [780, 1060, 3].

    Raises:
        ValueError: see `checked_ecg`; or a trend whose arrays differ in length.
    """
    paper = paper_image(ecg_mv, sampling_rate_hz, title)
    below = trend_image(trend, paper.width, TREND_HEIGHT, hours_total, doses)
    frame = Image.new("RGB", (paper.width, paper.height + below.height))
    frame.paste(paper, (0, 0))
    frame.paste(below, (0, paper.height))
    return np.asarray(frame, dtype=np.uint8).copy()


def open_sheet(width_mm: float, height_mm: float, title: str, prefix: str) -> str:
    """The beginning of an inline SVG true to scale, as far as the empty paper; `close_sheet` ends it.

    `prefix` keeps the ids of two sheets on one page apart.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="paper" role="img" aria-label="{escape(title or "ECG")}" '
        f'viewBox="0 0 {width_mm:g} {height_mm:g}" width="{width_mm:g}mm" height="{height_mm:g}mm" '
        'font-family="system-ui,sans-serif" font-size="3.3">'
        f'<defs><pattern id="{prefix}-fine" width="1" height="1" patternUnits="userSpaceOnUse">'
        f'<path d="M1 0H0V1" fill="none" stroke="{svg.GRID}" stroke-width=".12"/></pattern>'
        f'<pattern id="{prefix}-bold" width="5" height="5" patternUnits="userSpaceOnUse">'
        f'<rect width="5" height="5" fill="url(#{prefix}-fine)"/>'
        f'<path d="M5 0H0V5" fill="none" stroke="{svg.GRID_BOLD}" stroke-width=".24"/></pattern></defs>'
        f'<rect width="{width_mm:g}" height="{height_mm:g}" fill="{svg.PAPER}"/>'
        f'<rect width="{width_mm:g}" height="{height_mm:g}" fill="url(#{prefix}-bold)"/>'
    )


def close_sheet(
    width_mm: float, height_mm: float, traces: Sequence[Trace], title: str, small_print: str, over: str = ""
) -> str:
    """The rest of an SVG that `open_sheet` began: the traces, what lies over them, the title, the foot.

    Args:
        small_print: at the foot, as SVG text.
        over: SVG elements on top of the traces.
    """
    foot = height_mm - FOOT_UP
    return (
        f'<path transform="scale(.01)" d="{path_data(traces)}" fill="none" stroke="{svg.INK}" stroke-width="28" '
        f'stroke-linejoin="round"/>{over}'
        f'<text x="{SIDE:g}" y="{TITLE_DOWN:g}" fill="{svg.INK}" font-size="3.8" font-weight="600">'
        f"{escape(title)}</text>"
        f'<text x="{SIDE:g}" y="{foot:g}" fill="{svg.INK}" font-size="3">{small_print}</text>'
        f'<text x="{width_mm - SIDE:g}" y="{foot:g}" fill="{svg.WARNING}" font-size="3" text-anchor="end">'
        f"{NOT_FOR_CLINICAL_USE}</text></svg>"
    )


def svg_paper(
    ecg_mv: np.ndarray, sampling_rate_hz: float, title: str = "", prefix: str = "ecg", made: Sequence[str] = ()
) -> str:
    """The ECG on paper as an inline SVG of 265 x 135 mm: printed at 100 %, a millimetre is a millimetre.

    Colours are those of `svg_colours`. `prefix` keeps the ids of two sheets on one page apart. The leads of `made` were
    not recorded: their names say so.

    Raises:
        ValueError: see `checked_ecg`.
    """
    ecg = checked_ecg(ecg_mv, sampling_rate_hz)
    parts = [open_sheet(WIDTH, HEIGHT, title, prefix)]
    traces = [_calibration(row) for row in ROWS]
    for strip in STRIPS:
        traces += _traces(ecg, sampling_rate_hz, strip)
        x, y = LEFT + strip.start_s * MM_PER_SECOND, ROWS[strip.row] - NAME_UP
        name, colour = LEADS[strip.lead], svg.INK
        if name in made:
            name, colour = f"{name} (reconstructed)", svg.WARNING
        parts.append(f'<text x="{x + NAME_RIGHT:g}" y="{y:g}" fill="{colour}" font-weight="600">{name}</text>')
        if strip.start_s > 0:
            parts.append(f'<path d="M{x:g} {y - 1:g}v4" stroke="{svg.INK}" stroke-width=".2" opacity=".6"/>')
    parts.append(close_sheet(WIDTH, HEIGHT, traces, title, SCALES))
    return "".join(parts)
