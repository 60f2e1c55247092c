"""Figure 4 of the Cardiac JEPA paper redrawn under each schedule, and the tasks it is drawn of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.results import write_figure
from benchmarks.progression.arms import PROBE

__all__ = ["TASKS", "fair_figure"]

SCHEDULE_TITLES = {
    "fair": "Each to its plateau",
    "equal": "Equal processor seconds",
    "paper": "The paper's epochs",
    "mixed": "Pairs by the paper's epochs,\nlabels to the plateau",
}
TASKS = {"triage": "Triage (first ECG)", "monitoring": "Monitoring (all)"}


def fair_figure(rows: list[dict[str, Any]], path: Path, made: Mapping[str, Any]) -> None:
    """Figure 4 under each schedule: macro AUROC of triage against the share of the patients; rows of
    `fair_arms.arm_rows`."""
    schedules = list(dict.fromkeys(r["schedule"] for r in rows))
    picture, axes = _panels(len(schedules))
    for axis, schedule in zip(axes, schedules, strict=True):
        mine = [r for r in rows if r["schedule"] == schedule]
        _drawn(axis, mine, "triage", SCHEDULE_TITLES[schedule], "share", _colours(rows))
        shares = sorted({r["share"] for r in rows})
        axis.set_xticks(shares, [f"{100 * s:g} %" for s in shares])
    handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    picture.legend(handles.values(), handles.keys(), fontsize=8, loc="outside lower center", ncols=3)
    write_figure(path, picture, made)


def _colours(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Of each method its place in the cycle of colours, the same in every panel."""
    return {name: i for i, name in enumerate(dict.fromkeys(r["method"] for r in rows))}


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(4.5 * max(2, count), 4.2), layout="constrained")
    FigureCanvasAgg(picture)
    axes = list(picture.subplots(1, count, sharey=True, squeeze=False)[0])
    axes[0].set_ylabel("macro AUROC")
    return picture, axes


def _drawn(
    axis: Any, rows: list[dict[str, Any]], task: str, title: str, across: str, colours: Mapping[str, int]
) -> None:
    """A line a method and protocol, with intervals."""
    from matplotlib.ticker import NullFormatter

    for line in dict.fromkeys((r["method"], r["protocol"]) for r in rows):
        mine = sorted((r for r in rows if (r["method"], r["protocol"]) == line), key=lambda r: r[across])
        y = [r[task] for r in mine]
        spread = [
            [max(0.0, a - r[f"{task}_low"]) for a, r in zip(y, mine, strict=True)],
            [max(0.0, r[f"{task}_high"] - a) for a, r in zip(y, mine, strict=True)],
        ]
        axis.errorbar(
            [r[across] for r in mine],
            y,
            spread,
            marker="o",
            capsize=3,
            color=f"C{colours[line[0]]}",
            linestyle="--" if line[1] == PROBE else "-",
            label=f"{line[0]}, {line[1].lower()}",
        )
    axis.set(xscale="log", xlabel="training patients", title=title)
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)
