"""The page of a recommendation, from numbers that are final: the page rounds, it does not compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from clinenv.commands.html_page import page_foot, page_head, table
from clinenv.commands.recommend.evaluate import Band, Evaluation
from clinenv.rendering.candidate_charts import DotRow, dots_svg
from clinenv.rendering.ecg_paper import svg_paper
from clinenv.rendering.labels import label_and_unit

__all__ = ["Content", "page"]

DISCLAIMER = (
    "The order shown is how a model and a risk predictor, both made from simulated patients, compare treatments; it is "
    "no advice about a person and no ground for a decision about one."
)
CSS = """
table.rank{font-size:.86rem}table.rank td{white-space:nowrap}table.rank th{vertical-align:bottom}
table.rank td.n,table.rank th.n{padding-right:10px}table.rank th.n{white-space:normal}
table.rank td:first-child{min-width:1.2em}table.rank .tag{margin:0;font-size:.72rem}
.tag{display:inline-block;border-radius:4px;padding:0 6px;font-size:.78rem;font-weight:600;margin-left:6px}
.tag.no{background:var(--warn-back);color:var(--warn)}.tag.out{border:1px solid var(--dose);color:var(--dose)}
tr.no td{color:var(--muted)}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:12px}
.charts h3{font-size:.95rem;margin:0 0 .3rem}
.charts h3 span{display:block;font-weight:400;color:var(--muted);font-size:.85rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:.83rem/1.5 ui-monospace,monospace;margin:.4rem 0}
"""


@dataclass(frozen=True)
class Content:
    """Everything the page says."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]  # of patient and settings: (what, value with unit)
    summary: tuple[str, ...]  # paragraphs on what comes out
    order: Sequence[Evaluation]  # as ranked
    samples: int
    risk_aversion: float
    hours: float
    intervals: dict[str, float]  # measured on the recorded ECG
    quality: str
    ecg_mv: np.ndarray  # [12, T]
    sampling_rate_hz: float
    model: tuple[tuple[str, str], ...]  # what made these numbers
    advice: tuple[tuple[str, str], ...] = ()  # what a vision-language model said, and what became of it
    answer: str = ""  # its words
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""


def page(c: Content) -> str:
    """The whole page as text.

    Raises:
        ValueError: an ECG that is not [12, T].
    """
    out = [
        page_head(c.title, c.lead, c.facts, c.warnings, CSS),
        "<section><h2>What comes out</h2><div class=card>",
        "".join(f"<p>{escape(words)}</p>" for words in c.summary),
        "</div></section>",
        _ranking(c),
        _charts(c),
        _label(c),
        _advice(c),
        "<section><h2>The recorded ECG</h2><figure>",
        svg_paper(c.ecg_mv, c.sampling_rate_hz, "Recorded, before any dose", "before"),
        f'</figure><div class="card"><p>{escape(c.quality)}</p>',
        table(("Interval", "Value"), [_interval(n, v) for n, v in c.intervals.items()], right=1, wide=False),
        '</div></section><section><h2>What made these numbers</h2><div class="card">',
        table(("", ""), c.model),
        "".join(f'<p class="muted">{escape(note)}</p>' for note in c.notes),
        page_foot(c.command, DISCLAIMER),
    ]
    return "".join(out)


def _interval(name: str, value: float) -> tuple[str, str]:
    label, unit = label_and_unit(name)
    return label, f"{value:.0f} {unit}".strip() if math.isfinite(value) else "not measurable"


def _percent(share: float, decimals: int = 1) -> str:
    text = f"{100 * share:.{decimals}f}"
    return "0" if float(text) == 0 else text


def _spread(band: Band, decimals: int = 0, scale: float = 1.0) -> str:
    if not math.isfinite(band.median):
        return "none"
    a, b, c = (f"{scale * v:.{decimals}f}" for v in (band.median, band.low, band.high))
    return f"{a} ({b} to {c})"


def _ranking(c: Content) -> str:
    heads = ("", "Drug and dose", "S, %", "μ, %", "σ, %", "Longest QTcF, ms", "QTcF > 500 ms, %", "Longest PR, ms",
             "In the arrhythmia, % of time", "its change, points", "In support, %")  # fmt: skip
    rows, place = [], 0
    for e in c.order:
        banned = e.candidate.forbidden
        place += not banned
        name = escape(e.candidate.name)
        if banned:
            name += '<br><span class="tag no">label forbids</span>'
        if not e.trusted:
            name += '<br><span class="tag out">extrapolated</span>'
        cells = (
            "-" if banned else f"{place}", name, _percent(e.score), _percent(e.mu), _percent(e.sigma),
            _spread(e.qtcf_peak_ms), _percent(float(e.over_500_ms["probability"])), _spread(e.pr_peak_ms),
            _spread(e.burden, 0, 100.0), _spread(e.burden_change, 1, 100.0),
            _percent(float(e.supported["probability"]), 0),
        )  # fmt: skip
        tds = "".join(f"<td{' class=n' if i > 1 else ''}>{cell}</td>" for i, cell in enumerate(cells))
        rows.append(f"<tr{' class=no' if banned else ''}>{tds}</tr>")
    head = "".join(f"<th{' class=n' if i > 1 else ''}>{h}</th>" for i, h in enumerate(heads))
    return (
        '<section class=whole><h2>Ranking by risk: S = μ + λσ, the least first</h2><div class="card"><div class=scroll>'
        f'<table class="rank"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<p class="muted">μ and σ: mean and standard deviation, over {c.samples} samples, of the risk that the '
        f"frozen predictor reads off each sample's worst ECG within {c.hours:g} h; λ = {c.risk_aversion:g}. S orders: "
        "it is no chance and may exceed 100 %. Medians stand with the 5 to 95 % band. Change: of the time in the "
        "arrhythmia against the same samples without a drug, negative is benefit. What the label forbids in this "
        "patient has no rank.</p></div></section>"
    )


def _charts(c: Content) -> str:
    def card(title: str, words: str, svg: str) -> str:
        return f'<div class="card"><h3>{escape(title)}<span>{escape(words)}</span></h3>{svg}</div>'

    def rows(pick: str, scale: float = 1.0) -> list[DotRow]:
        found = []
        for e in c.order:
            band: Band = getattr(e, pick)
            low, median, high = (scale * v for v in band)
            found.append(DotRow(e.candidate.name, low, median, high, faint=e.candidate.forbidden))
        return found

    risk = [
        DotRow(e.candidate.name, 100 * max(e.mu - e.sigma, 0.0), 100 * e.mu, 100 * min(e.mu + e.sigma, 1.0),
               100 * e.score, e.candidate.forbidden)
        for e in c.order
    ]  # fmt: skip
    cards = (
        card("Risk", "dot: μ, band: one σ either way, bar: S", dots_svg(risk, "%", "risk by candidate", zero=True)),
        card(
            "Benefit: change of the time in the arrhythmia",
            "median and 90 % band, against no drug; further left is better",
            dots_svg(rows("burden_change", 100.0), "percentage points", "benefit by candidate", zero=True),
        ),
        card(
            "Longest QTcF", "median and 90 % band; the line is 500 ms",
            dots_svg(rows("qtcf_peak_ms"), "ms", "longest QTcF by candidate", limit=500.0),
        ),
        card(
            "Slowest heart rate", "median and 90 % band",
            dots_svg(rows("lowest_rate_bpm"), "bpm", "slowest heart rate by candidate"),
        ),
    )  # fmt: skip
    return f'<section class=whole><h2>Risk beside benefit</h2><div class="charts">{"".join(cards)}</div></section>'


def _label(c: Content) -> str:
    rows = [
        (e.candidate.name, f.severity, f.text, f.source)
        for e in sorted(c.order, key=lambda e: (e.candidate.column, e.candidate.dose_mg))
        for f in e.candidate.findings
    ]
    inner = (
        table(("Drug and dose", "", "Why", "Source"), rows) if rows else "<p>None of the rules speaks against any.</p>"
    )
    return f'<section><h2>What the labels say of this patient</h2><div class="card">{inner}</div></section>'


def _advice(c: Content) -> str:
    if not c.advice:
        return ""
    words = f"<p class=muted>Its words:</p><pre>{escape(c.answer)}</pre>" if c.answer else ""
    return (
        '<section><h2>What the vision-language model says</h2><div class="card">'
        f"{table(('', ''), c.advice)}{words}</div></section>"
    )
