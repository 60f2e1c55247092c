"""What the Cardiac JEPA paper's tables ask, the figures it gives, and its Figure 4 redrawn, also under each schedule.

Its figures are of MIMIC-IV-ECG, other patients and labels: rows of them are marked and compare with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.results import write_figure
from benchmarks.progression.arms import PROBE, TUNED, WHOLE

__all__ = ["NAMES", "NO_LABELS", "NO_PATIENT", "PAPER", "QUESTIONS", "TASKS", "fair_figure", "figure"]

SCHEDULE_TITLES = {
    "fair": "Each to its plateau",
    "equal": "Equal processor seconds",
    "paper": "The paper's epochs",
}
TASKS = {"triage": "Triage (first ECG)", "monitoring": "Monitoring (all)"}
NAMES = {
    "supervised": "Supervised",
    "naive": "Naive SSL (Invariance)",
    "ours": "Ours (Latent Dynamics)",
    "vicreg": "Ours with VICReg",
    "inverse": "Ours with inverse dynamics",
    "random": "Random encoder",
}
NO_LABELS, NO_PATIENT = ("naive", "random"), ("supervised", "random")  # what they learn from
# The paper's own figures: (table, method, protocol) -> triage, monitoring
PAPER = {
    ("table1", "supervised", WHOLE): ("0.735 [0.727 - 0.751]", "0.786 [0.776 - 0.797]"),
    ("table1", "naive", PROBE): ("0.666 [0.656 - 0.682]", "0.698 [0.689 - 0.709]"),
    ("table1", "naive", TUNED): ("0.679 [0.668 - 0.697]", "0.726 [0.715 - 0.737]"),
    ("table1", "ours", PROBE): ("0.725 [0.714 - 0.742]", "0.744 [0.734 - 0.755]"),
    ("table1", "ours", TUNED): ("0.742 [0.733 - 0.756]", "0.786 [0.777 - 0.794]"),
    ("table2", "supervised", WHOLE): ("0.515 [0.500 - 0.526]", "0.503 [0.491 - 0.514]"),
    ("table2", "ours", PROBE): ("0.563 [0.551 - 0.575]", "0.575 [0.560 - 0.591]"),
    ("table2", "ours", TUNED): ("0.510 [0.498 - 0.525]", "0.507 [0.497 - 0.519]"),
    ("table3", "vicreg", TUNED): ("0.720 [0.710 - 0.738]", "0.770 [0.759 - 0.780]"),
    ("table3", "ours", TUNED): ("0.742 [0.733 - 0.756]", "0.786 [0.777 - 0.794]"),
}
# what the differences ask: (name, a, b), each (method, protocol, share)
QUESTIONS = (
    ("ours probe - naive probe", ("ours", PROBE, 1.0), ("naive", PROBE, 1.0)),
    ("ours probe - random probe", ("ours", PROBE, 1.0), ("random", PROBE, 1.0)),
    ("ours probe - supervised", ("ours", PROBE, 1.0), ("supervised", WHOLE, 1.0)),
    ("ours fine-tuned - naive fine-tuned", ("ours", TUNED, 1.0), ("naive", TUNED, 1.0)),
    ("inverse dynamics probe - naive probe", ("inverse", PROBE, 1.0), ("naive", PROBE, 1.0)),
    ("inverse dynamics probe - ours probe", ("inverse", PROBE, 1.0), ("ours", PROBE, 1.0)),
    ("SIGReg - VICReg, probe", ("ours", PROBE, 1.0), ("vicreg", PROBE, 1.0)),
    ("SIGReg - VICReg, fine-tuned", ("ours", TUNED, 1.0), ("vicreg", TUNED, 1.0)),
)


def figure(rows: list[dict[str, Any]], path: Path, made: Mapping[str, Any]) -> None:
    """Figure 4: macro AUROC of both tasks against the number of training patients."""
    picture, axes = _panels(len(TASKS))
    for axis, (task, title) in zip(axes, TASKS.items(), strict=True):
        _drawn(axis, rows, task, title, "train_patients", _colours(rows))
        ticks = sorted({(r["train_patients"], r["share"]) for r in rows})
        axis.set_xticks([n for n, _ in ticks], [f"{n:,}\n({100 * s:g} %)" for n, s in ticks])
    axes[0].legend(fontsize=8)
    write_figure(path, picture, made)


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
