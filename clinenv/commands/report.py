"""One self-contained HTML page about one simulated patient: no script, no font and no picture from anywhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from clinenv.rendering.ecg_paper import svg_paper
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE, label_and_unit
from clinenv.rendering.simulation_charts import IntervalCourse, beats_svg, course_svg
from world_models.files import write_text

__all__ = ["Beats", "ReportContent", "RiskLine", "page", "write_report", "write_whole"]


@dataclass(frozen=True)
class RiskLine:
    """One row of the risk table."""

    what: str
    value: str  # with its unit
    meaning: str = ""  # how it is counted


@dataclass(frozen=True)
class Beats:
    """Median beats to lay over each other."""

    beats: Mapping[str, np.ndarray]  # legend -> [len(leads), W] mV, at most three
    leads: tuple[str, ...]
    sampling_rate_hz: float
    before_s: float  # from the window's begin to R


@dataclass(frozen=True)
class ReportContent:
    """Everything the page says. Numbers are final: the page rounds, it does not compute."""

    title: str
    regimen: str  # what is given, in words: "dofetilide 0.5 mg by mouth at 0 and 12 h"
    patient: tuple[tuple[str, str], ...]  # (what, value with unit)
    intervals: Mapping[str, float]  # measured on the recorded ECG: chart name -> value, NaN where it has none
    quality: str  # of that measurement, in words
    trusted: bool  # False: the page warns above the table
    ecg_before_mv: np.ndarray  # [12, T] the recorded ECG
    ecg_after_mv: np.ndarray  # [12, T] the simulated one
    sampling_rate_hz: float
    after: str  # which moment ecg_after is, in words
    beats: Beats | None
    courses: Mapping[str, IntervalCourse]
    dose_hours: tuple[float, ...]
    risk: tuple[RiskLine, ...]
    model: tuple[tuple[str, str], ...]  # what made these numbers and what it was trained on
    warnings: tuple[str, ...] = ()
    command: str = ""  # to make the page again
    samples: int = 0
    notes: tuple[str, ...] = field(default=())


CSS = """
:root{color-scheme:light dark;--back:#f6f6f8;--card:#fff;--ink:#14141c;--muted:#5d6068;--rule:#e2e2e8;--series:#1c549e;
--recorded:#0f7b5f;--before:#72757e;--after:#b3470b;--warn:#b01c2e;--warn-back:#fdecee;--dose:#a06a00;--paper:#fffaf7;
--grid:#fae1db;--grid-bold:#eeb4ac}
@media screen and (prefers-color-scheme:dark){:root{--back:#121317;--card:#1b1d23;--ink:#e9eaee;--muted:#9da1ab;
--rule:#32353d;--series:#7fb2f0;--recorded:#4cc3a0;--before:#a9adb8;--after:#f0935a;--warn:#ff8593;--warn-back:#3a1a20;
--dose:#e0ac4c;--paper:#1d1718;--grid:#33211f;--grid-bold:#53302d}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1100px;margin:0 auto;padding:20px 20px 48px}
.banner{background:var(--warn-back);color:var(--warn);font-weight:600;text-align:center;padding:7px 12px}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0 .1rem}
h2{font-size:1.08rem;margin:1.7rem 0 .55rem}
p{margin:.35rem 0}
.lead{font-size:1.05rem;margin:0}
.muted{color:var(--muted);font-size:.88rem}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:12px 14px}
.facts{display:flex;flex-wrap:wrap;gap:6px 26px;margin:.8rem 0 0}
.facts dt{color:var(--muted);font-size:.8rem}
.facts dd{margin:0;font-weight:600}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:12px}
.grid h3{font-size:.95rem;margin:0}
.grid h3 span{display:block;font-weight:400;color:var(--muted);font-size:.85rem}
svg{display:block;max-width:100%;height:auto}
figure{margin:0 0 14px;break-inside:avoid}
.beats svg{max-height:440px;margin:0 auto}
figcaption{color:var(--muted);font-size:.88rem;margin-top:4px}
.paper{border:1px solid var(--grid-bold);width:100%}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:.84rem}
td.n,th.n{text-align:right;white-space:nowrap;padding-right:18px}
tr:last-child td{border-bottom:0}
table.narrow{width:auto;min-width:300px}
td:first-child{min-width:8.5em}
ul.warn{margin:.8rem 0 0;padding:9px 12px 9px 30px;background:var(--warn-back);border-radius:8px}
code{font:.83rem/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
.key{display:flex;gap:18px;flex-wrap:wrap;font-size:.85rem;color:var(--muted);margin:0 0 .5rem}
.key i{display:inline-block;width:14px;height:10px;margin-right:5px}
@page{size:A4 landscape;margin:10mm}
@media print{body{background:#fff;font-size:10.5pt}main{max-width:none;padding:0}.card{border:0;padding:0}
.paper{width:265mm;max-width:none;border:0}.grid{grid-template-columns:repeat(3,1fr)}h2{break-after:avoid}
.grid>*,tr,.card,.whole{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def _number(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}".strip() if math.isfinite(value) else "not measurable"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: int | None = None, wide: bool = True) -> str:
    """An HTML table; column `right` holds numbers. Cells are escaped here."""

    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(f"<{tag}{' class=n' if i == right else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table{"" if wide else " class=narrow"}>{top}<tbody>{body}</tbody></table></div>'


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


def page(content: ReportContent) -> str:
    """The whole page as text."""
    c = content
    out = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(c.title)}</title><style>{CSS}</style></head><body>"
        f'<div class="banner" role="note">{NOT_FOR_CLINICAL_USE}</div><main><header><h1>{escape(c.title)}</h1>'
        f'<p class="lead">{escape(c.regimen)}</p><dl class="facts">'
    ]
    out += [f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd></div>" for what, value in c.patient]
    out.append("</dl>")
    if c.warnings:
        out.append('<ul class="warn">' + "".join(f"<li>{escape(w)}</li>" for w in c.warnings) + "</ul>")
    out.append("</header><section><h2>Risk</h2><div class=card>")
    out.append(table(("", "Value", "How it is counted"), [(r.what, r.value, r.meaning) for r in c.risk], right=1))
    out.append("</div></section><section class=whole><h2>Course of the intervals</h2>")
    out.append(
        '<p class="key"><span><i style="background:var(--series);height:3px;vertical-align:middle"></i>median</span>'
        '<span><i style="background:var(--series);opacity:.25"></i>90 % band (5 to 95 % of '
        f"{c.samples} samples)</span>"
        '<span><i style="border:2px solid var(--recorded);border-radius:50%;width:10px"></i>measured on the recorded '
        'ECG</span><span><i style="border:5px solid transparent;border-bottom:9px solid var(--dose);border-top:0;'
        'width:0;height:0"></i>dose</span></p><div class="grid">'
    )
    out += [_course_card(name, course, c.dose_hours) for name, course in c.courses.items()]
    out.append("</div></section><section><h2>Before: the recorded ECG</h2><figure>")
    out.append(svg_paper(c.ecg_before_mv, c.sampling_rate_hz, "Recorded, before any dose", "before"))
    out.append("</figure><h2>After: the simulated ECG</h2><figure>")
    out.append(svg_paper(c.ecg_after_mv, c.sampling_rate_hz, f"Simulated, {c.after}", "after"))
    out.append(
        "<figcaption>The waveform is drawn by the model for the sample whose QTcF is nearest to the median at that "
        "hour. Both sheets are true to scale when printed at 100 % on A4 landscape.</figcaption></figure></section>"
    )
    if c.beats is not None:
        b = c.beats
        out.append('<section><h2>Median beats laid over each other</h2><figure class="card beats">')
        out.append(beats_svg(b.beats, b.leads, b.sampling_rate_hz, b.before_s) + "</figure></section>")
    out.append('<section><h2>Measured on the recorded ECG</h2><div class="card">')
    out.append(f"<p>{escape(c.quality)}</p>")
    rows = [(label_and_unit(name)[0], _number(value, label_and_unit(name)[1])) for name, value in c.intervals.items()]
    out.append(table(("Interval", "Value"), rows, right=1, wide=False) + "</div></section>")
    out.append('<section><h2>What made these numbers</h2><div class="card">')
    out.append(table(("", ""), list(c.model)))
    out += [f'<p class="muted">{escape(note)}</p>' for note in c.notes]
    if c.command:
        out.append(f'<p class="muted">Made by</p><code>{escape(c.command)}</code>')
    out.append(
        f'</div></section><p class="muted">{NOT_FOR_CLINICAL_USE}. The course shown is what a model expects of a '
        "patient with this ECG; it is no statement about a person and no ground for a decision about one.</p>"
        "</main></body></html>\n"
    )
    return "".join(out)


def write_whole(path: str | Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all: under a temporary name beside it, then renamed.

    Raises:
        OSError: the folder is not there or not writable, or the path is a device or a pipe, which renaming would do
            away with; nothing is left behind.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is no plain file; give the name of one")
    write_text(path, text)


def write_report(path: str | Path, content: ReportContent) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        OSError: the folder is not there or not writable.
        ValueError: an ECG that is not [12, T].
    """
    write_whole(path, page(content))
