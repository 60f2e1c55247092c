"""What the Cardiac JEPA paper's tables ask, the figures it gives, and its Figure 4 redrawn.

Its figures are of MIMIC-IV-ECG, other patients and labels: rows of them are marked and compare with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.results import write_figure
from benchmarks.progression.arms import PROBE, TUNED, WHOLE

__all__ = ["NAMES", "NO_LABELS", "NO_PATIENT", "PAPER", "QUESTIONS", "TASKS", "figure"]

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
    """Figure 4: macro AUROC against the number of training patients."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    picture = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.subplots(1, 2, sharey=True)
    lines = list(dict.fromkeys((r["method"], r["protocol"]) for r in rows))
    for axis, (task, title) in zip(axes, TASKS.items(), strict=True):
        for i, line in enumerate(lines):
            mine = sorted((r for r in rows if (r["method"], r["protocol"]) == line), key=lambda r: r["train_patients"])
            x, y = [r["train_patients"] for r in mine], [r[task] for r in mine]
            spread = [
                [a - r[f"{task}_low"] for a, r in zip(y, mine, strict=True)],
                [r[f"{task}_high"] - a for a, r in zip(y, mine, strict=True)],
            ]
            axis.errorbar(
                x,
                y,
                [[max(0.0, s) for s in side] for side in spread],
                marker="o",
                capsize=3,
                color=f"C{i}",
                linestyle="--" if line[1] == PROBE else "-",
                label=f"{line[0]}, {line[1].lower()}",
            )
        ticks = sorted({(r["train_patients"], r["share"]) for r in rows})
        axis.set(xscale="log", xlabel="training patients", title=title)
        axis.set_xticks([n for n, _ in ticks], [f"{n:,}\n({100 * s:g} %)" for n, s in ticks])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("macro AUROC")
    axes[0].legend(fontsize=8)
    write_figure(path, picture, made)
