"""The effects as a text table and as a forest plot, a panel an order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.results import write_figure

__all__ = ["draw", "lines"]

_NAMES = {
    "raw": "raw change in the treated",
    "naive": "treated - untreated",
    "outcome_regression": "outcome regression",
    "doubly_robust": "doubly robust",
    "doubly_robust_logistic": "doubly robust, logistic",
    "oracle_regularised": "drawn to the oracle",
    "oracle": "oracle ward",
}
_COLOURS = {"naive": "0.55", "raw": "0.55", "oracle_regularised": "C2", "oracle": "C2"}


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for a screen."""
    out: list[str] = []
    last = None
    for r in rows:
        where = (r["question"], r["record"])
        if where != last:
            out += ["", *_head(r)]
            last = where
        if "estimator" in r:
            control = r["estimator"].startswith("control")
            name = _name(r["estimator"]) + (f" ({r['outcome']})" if control else "")
            usual = "" if control else f"   usual dose {_span(r, 'usual_dose_effect')}"
            out.append(f"  {name:42s}{_span(r, 'effect')}{usual}")
            if r.get("verdict"):
                out.append(f"  {'':42s}-> {r['verdict']}")
    return out


def _head(r: Mapping[str, Any]) -> list[str]:
    if "estimator" not in r:
        return [f"{r['question']}, {r['record']}: {r['verdict']}"]
    title = f"{r['question']}, {r['record']}: {r['treated']} treated ({r['treated_patients']} patients), "
    title += f"{r['untreated']} untreated; mean dose {r['mean_dose']:.3g} {r['dose_unit']} "
    title += f"(told of {r['doses_told']:.0%}), outcome after {r['outcome_after_h']:.1f} h, measured in "
    title += f"{r['measured_treated']:.0%} and {r['measured_untreated']:.0%}"
    known = f"  known, usual dose {r['usual_dose']:g}: {r['known_low']:g} to {r['known_high']:g}: {r['literature']}"
    if math.isnan(r["imbalance"]):
        return [title, known]
    seen = (
        f"  overlap: {r['propensity_cut']:.0%} of the treated cut, {r['effective_untreated']:.0f} untreated's worth; "
    )
    seen += f"{r['outcome']} before {r['imbalance_before']:+.2f} SD apart, weighted {r['imbalance']:+.2f}"
    return [title, known, seen]


def _span(r: Mapping[str, Any], name: str) -> str:
    value, low, high = (r[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{value:9.3g}" + ("" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]")


def _name(estimator: str) -> str:
    if estimator.startswith("control "):
        return f"control: {_NAMES[estimator.removeprefix('control ')]}"
    return _NAMES.get(estimator, estimator)


def draw(rows: Sequence[Mapping[str, Any]], path: Path, made: Mapping[str, Any]) -> None:
    """Effects of a usual dose, a panel a question, a block a record; the known range shaded."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [r for r in rows if "estimator" in r and not r["estimator"].startswith("control")]
    questions = list(dict.fromkeys(r["question"] for r in shown))
    if not questions:
        return
    across = min(3, len(questions))
    blocks = [_blocks([r for r in shown if r["question"] == q]) for q in questions]
    down = -(-len(questions) // across)
    heights = [max(len(b) for b in blocks[i * across : (i + 1) * across]) for i in range(down)]
    figure, panels = plt.subplots(
        down, across, figsize=(6.2 * across, 0.19 * sum(heights) + 1.0 * down), squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for panel, block in zip(panels.flat, blocks, strict=False):
        _panel(panel, block)
    for panel in list(panels.flat)[len(blocks) :]:
        panel.set_axis_off()
    figure.tight_layout()
    write_figure(path, figure, made, dpi=110)
    plt.close(figure)


def _blocks(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any] | str]:
    """Rows with the record's name before each block."""
    out: list[Mapping[str, Any] | str] = []
    record = None
    for r in rows:
        if r["record"] != record:
            record = r["record"]
            told = "" if math.isfinite(r["mean_dose"]) else ", doses not told"
            out.append(f"{record}, {r['treated']} treated{told}")
        out.append(r)
    return out


def _panel(panel: Any, block: Sequence[Mapping[str, Any] | str]) -> None:
    rows = [r for r in block if not isinstance(r, str)]
    low, high = rows[0]["known_low"], rows[0]["known_high"]
    adjusted = [r["usual_dose_effect"] for r in rows if "robust" in r["estimator"] or "oracle" in r["estimator"]]
    reach = max([abs(low), abs(high), *(1.2 * abs(x) for x in adjusted if math.isfinite(x))])
    least, most = (-0.7 * reach, 1.6 * reach) if low + high > 0 else (-1.6 * reach, 0.7 * reach)
    panel.axvspan(low, high, color="C1", alpha=0.25, lw=0, label="known")
    panel.axvline(0.0, color="0.3", lw=0.8)
    labels = []
    for y, r in enumerate(block):
        if isinstance(r, str):
            labels.append(r)
            continue
        labels.append(_name(r["estimator"]))
        value, left, right = (r[f"usual_dose_effect{end}"] for end in ("", "_low", "_high"))
        colour = "C3" if r["estimator"].startswith("world") else _COLOURS.get(r["estimator"], "C0")
        if math.isfinite(left):
            panel.plot([max(left, least), min(right, most)], [y, y], color=colour, lw=1.2)
        if least <= value <= most:
            panel.plot([value], [y], "o", ms=4, color=colour)
        elif math.isfinite(value):  # beyond the panel: an arrow, and how far
            edge = least if value < least else most
            panel.plot([edge], [y], "<" if value < least else ">", ms=5, color=colour)
            panel.annotate(f"{value:.3g}", (edge, y), fontsize=6, va="center", ha="left" if value < least else "right",
                           xytext=(6 if value < least else -6, 0), textcoords="offset points")  # fmt: skip
    panel.set_yticks(range(len(block)), labels, fontsize=6.5)
    for tick, r in zip(panel.get_yticklabels(), block, strict=True):
        tick.set_fontweight("bold" if isinstance(r, str) else "normal")
    panel.set_ylim(len(block) - 0.5, -0.5)
    panel.set_xlim(least, most)
    first = rows[0]
    dose = f"{first['usual_dose']:g} {first['dose_unit']}".replace("1 units", "1 unit")
    panel.set_title(f"{first['question']}: {dose}", fontsize=9, loc="left")
    outcome = first["outcome"].replace("urine_output_ml", "urine_output_ml_h")  # asked as a rate over the window
    panel.set_xlabel(f"{outcome}; shaded: literature", fontsize=7)
    panel.tick_params(axis="x", labelsize=7)
