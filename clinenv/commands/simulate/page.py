"""The page of one simulated patient, from numbers that are final: the page rounds, it does not compute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np

from clinenv.commands.html_page import page_foot, page_head, table
from clinenv.rendering.ecg_paper import svg_paper
from clinenv.rendering.labels import label_and_unit
from clinenv.rendering.simulation_charts import IntervalCourse, beats_svg, course_svg

__all__ = ["MedianBeats", "ReportContent", "RiskLine", "page"]

DISCLAIMER = (
    "The course shown is what a model expects of a patient with this ECG; it is no statement about a person and no "
    "ground for a decision about one."
)


@dataclass(frozen=True)
class RiskLine:
    """One row of the risk table."""

    what: str
    value: str  # with its unit
    meaning: str = ""  # how it is counted


@dataclass(frozen=True)
class MedianBeats:
    """Median beats to lay over each other."""

    beats: Mapping[str, np.ndarray]  # legend -> [len(leads), W] mV, at most three
    leads: tuple[str, ...]
    sampling_rate_hz: float
    before_s: float  # from the window's begin to R


@dataclass(frozen=True)
class ReportContent:
    """Everything the page says."""

    title: str
    regimen: str  # what is given, in words: "dofetilide 0.5 mg by mouth at 0 and 12 h"
    patient: tuple[tuple[str, str], ...]  # (what, value with unit)
    intervals: Mapping[str, float]  # measured on the recorded ECG: chart name -> value, NaN where it has none
    quality: str  # of that measurement, in words
    ecg_before_mv: np.ndarray  # [12, T] the recorded ECG
    ecg_after_mv: np.ndarray  # [12, T] the simulated one
    sampling_rate_hz: float
    after: str  # which moment ecg_after_mv is, in words
    beats: MedianBeats | None
    courses: Mapping[str, IntervalCourse]
    dose_hours: tuple[float, ...]
    risk: tuple[RiskLine, ...]
    model: tuple[tuple[str, str], ...]  # what made these numbers and what it was trained on
    warnings: tuple[str, ...] = ()
    command: str = ""  # to make the page again
    samples: int = 0
    leads_made: tuple[str, ...] = ()  # of the recorded ECG: reconstructed from the others
    notes: tuple[str, ...] = ()


def page(content: ReportContent) -> str:
    """The whole page as text.

    Raises:
        ValueError: an ECG that is not [12, T].
    """
    c = content
    rows = [(r.what, r.value, r.meaning) for r in c.risk]
    out = [
        page_head(c.title, c.regimen, c.patient, c.warnings),
        "<section><h2>Risk</h2><div class=card>",
        table(("", "Value", "How it is counted"), rows, right=1),
        "</div></section>",
        _courses(c),
        _ecgs(c),
    ]
    if c.beats is not None:
        b = c.beats
        out.append('<section><h2>Median beats laid over each other</h2><figure class="card beats">')
        out.append(beats_svg(b.beats, b.leads, b.sampling_rate_hz, b.before_s) + "</figure></section>")
    out.append('<section><h2>Measured on the recorded ECG</h2><div class="card">')
    out.append(f"<p>{escape(c.quality)}</p>")
    measured = [
        (label_and_unit(name)[0], _rounded(value, label_and_unit(name)[1])) for name, value in c.intervals.items()
    ]
    out.append(table(("Interval", "Value"), measured, right=1, wide=False) + "</div></section>")
    out.append('<section><h2>What made these numbers</h2><div class="card">')
    out.append(table(("", ""), c.model))
    out += [f'<p class="muted">{escape(note)}</p>' for note in c.notes]
    out.append(page_foot(c.command, DISCLAIMER))
    return "".join(out)


def _rounded(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}".strip() if math.isfinite(value) else "not measurable"


def _courses(c: ReportContent) -> str:
    key = (
        '<p class="key"><span><i style="background:var(--series);height:3px;vertical-align:middle"></i>median</span>'
        '<span><i style="background:var(--series);opacity:.25"></i>90 % band (5 to 95 % of '
        f"{c.samples} samples)</span>"
        '<span><i style="border:2px solid var(--recorded);border-radius:50%;width:10px"></i>measured on the recorded '
        'ECG</span><span><i style="border:5px solid transparent;border-bottom:9px solid var(--dose);border-top:0;'
        'width:0;height:0"></i>dose</span></p>'
    )
    cards = "".join(_course_card(name, course, c.dose_hours) for name, course in c.courses.items())
    return f'<section class=whole><h2>Course of the intervals</h2>{key}<div class="grid">{cards}</div></section>'


def _course_card(name: str, course: IntervalCourse, dose_hours: tuple[float, ...]) -> str:
    label, unit = label_and_unit(name)
    words = ""
    if np.isfinite(course.median).any():
        change = course.median - course.median[0]
        peak = int(np.nanargmax(np.abs(change)))
        words = (
            f"{course.median[0]:.0f} → {course.median[peak]:.0f} {unit} "
            f"({course.low[peak]:.0f} to {course.high[peak]:.0f}) at {course.hours[peak]:g} h"
        )
    return (
        f'<div class="card"><h3>{escape(label)}<span>{escape(words)}</span></h3>'
        f"{course_svg(name, course, dose_hours)}</div>"
    )


def _ecgs(c: ReportContent) -> str:
    before = svg_paper(c.ecg_before_mv, c.sampling_rate_hz, "Recorded, before any dose", "before", c.leads_made)
    after = svg_paper(c.ecg_after_mv, c.sampling_rate_hz, f"Simulated, {c.after}", "after")
    return (
        f"<section><h2>Before: the recorded ECG</h2><figure>{before}</figure>"
        f"<h2>After: the simulated ECG</h2><figure>{after}"
        "<figcaption>The waveform is drawn by the model for the sample whose QTcF is nearest to the median at that "
        "hour. Both sheets are true to scale when printed at 100 % on A4 landscape.</figcaption></figure></section>"
    )
