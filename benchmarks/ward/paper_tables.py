"""Layouts of EHRWorld's Table 2, Figure 3, efficiency and hyperparameter tables, and the figures legible in its text.

Its figures stand on MIMIC-IV, on H100s; ours on a simulated ward or a demo, on one core: marked, not compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common.results import read_json, write_figure

__all__ = ["efficiency", "figure", "figure_rows", "hyperparameters", "paper_rows", "retention"]

_MARK = "paper's own figure, other data"
_PAIRS = (("s25", "s25"), ("status_f1", "status_f1"), ("label_f1", "label_f1"), ("average", "average"))
# EHRWorld, appendix D.1: model, seconds a case, tokens a second (None: not told)
_SERVED = (
    ("EHRWorld-14B", 1.29, 23318.0), ("MedGemma-27B-IT", 2.60, None), ("GPT-OSS-120B", 1.60, 14571.0),
    ("Qwen3-235B-A22B-Instruct", 1.53, None), ("MiniMax-M2.1", None, 6081.0),
    ("Qwen3-Next-80B-A3B-Instruct", None, 5808.0),
)  # fmt: skip
# appendix D.2; the rates are not legible in our copy, the best is the third
_TUNED = (
    ("learning_rate", "first of four", 0.652, 0.885, 0.720), ("learning_rate", "second", 0.698, 0.902, 0.751),
    ("learning_rate", "third", 0.716, 0.913, 0.765), ("learning_rate", "fourth", 0.645, 0.860, 0.702),
    ("epochs", "1", 0.640, 0.856, 0.705), ("epochs", "2", 0.692, 0.898, 0.748), ("epochs", "3", 0.716, 0.913, 0.765),
    ("epochs", "5", 0.712, 0.911, 0.761),
)  # fmt: skip


def paper_rows(short: bool = False) -> list[dict[str, Any]]:
    """The row of EHRWorld-14B as far as its text tells (its tables' numbers are lost in our copy)."""
    if short:
        return [
            {"model": "EHRWorld-14B", "s25_full": 0.716, "label_f1_full": 0.913, "average_full": 0.765, "remark": _MARK}
        ]
    best = {"s25": 0.716, "label_f1": 0.913, "average": 0.765}
    return [{"data": "MIMIC-IV", "setting": "full_trajectory", "model": "EHRWorld-14B", **best, "remark": _MARK}]


def retention(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Table 2: next step, full trajectory and their ratio in percent, of each model."""
    found = []
    nexts = {(r["data"], r["model"]): r for r in rows if r["setting"] == "next_step"}
    for full in rows:
        near = nexts.get((full["data"], full["model"]))
        if full["setting"] != "full_trajectory" or near is None:
            continue
        row = {"data": full["data"], "model": full["model"]}
        for short, name in _PAIRS:
            row |= {f"{short}_next": near[name], f"{short}_full": full[name]}
            row[f"{short}_retention"] = 100 * full[name] / near[name] if near[name] else float("nan")
        found.append(
            row | {"horizon_h": full["horizon_h"], "patients_full": full["patients"], "remark": full["remark"]}
        )
    return found


def figure_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figure 3: scores of all values beside those that moved by more than 25 % against the last one charted."""
    found = []
    for r in rows:
        if "high_sensitivity_smape" in r:
            drop, rise = r["s25"] - r["high_sensitivity_s25"], r["high_sensitivity_smape"] - r["smape"]
            same = {
                n: r[n]
                for n in ("data", "setting", "model", "s25", "high_sensitivity_s25", "smape", "high_sensitivity_smape")
            }
            found.append(same | {"s25_drop": drop, "smape_rise": rise, "moved": r["moved"], "values": r["values"]})
    return found


def figure(rows: list[dict[str, Any]], path: Path, made: dict[str, Any]) -> None:
    """Both panels of Figure 3, next step, one row of panels a set of data."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in rows if r["setting"] == "next_step"]
    sets = list(dict.fromkeys(r["data"] for r in rows))
    most = max((sum(r["data"] == d for r in rows) for d in sets), default=1)
    shown, panels = plt.subplots(
        max(1, len(sets)), 2, figsize=(11, 1.2 + 0.42 * most * max(1, len(sets))), squeeze=False
    )
    for axes, data in zip(panels, sets, strict=True):
        some = [r for r in rows if r["data"] == data][::-1]
        for axis, name, title in zip(
            axes, ("s25", "smape"), ("S@25 (higher is better)", "SMAPE (lower is better)"), strict=True
        ):
            for i, r in enumerate(some):
                whole, moved = r[name], r[f"high_sensitivity_{name}"]
                axis.plot([whole, moved], [i, i], color="0.7", zorder=1)
                axis.scatter([whole], [i], color="tab:blue", zorder=2, label="all values" if i == 0 else None)
                axis.scatter(
                    [moved], [i], color="tab:red", zorder=2, label="moved by more than 25 %" if i == 0 else None
                )
            axis.set_yticks(range(len(some)), [r["model"] for r in some] if name == "s25" else [])
            axis.set_xlim(0, 1.03 if name == "s25" else None)
            axis.set_title(f"{title}, {data}", fontsize=9)
    handles, labels = panels[0][0].get_legend_handles_labels()
    shown.legend(handles, labels, fontsize=8, loc="upper right", ncols=2)
    shown.tight_layout(rect=(0, 0, 1, 0.95))
    write_figure(path, shown, made)
    plt.close(shown)


def efficiency(path: Path) -> list[dict[str, Any]]:
    """Seconds a case and tokens a second, ours and the paper's. Raises FileNotFoundError: the speeds were not
    measured."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; measure it: python -m benchmarks.ward.speed")
    told = read_json(path)
    rows = [
        {
            "model": r["model"],
            "parameters": r["parameters"],
            "batch": r["batch"],
            "seconds_a_case": r["seconds_a_case"],
            "tokens_a_second": r.get("tokens_a_second", ""),
            "outcomes_a_second": r["outcomes_a_second"],
            "remark": "one core",
        }
        for r in told["outcomes"]
    ]
    for model, seconds, tokens in _SERVED:
        row = {"model": model, "batch": 64, "seconds_a_case": seconds, "tokens_a_second": tokens}
        rows.append(row | {"remark": "paper's own figure, other hardware (H100)"})
    return rows


def hyperparameters() -> list[dict[str, Any]]:
    """The paper's own rows of the hyperparameter table."""
    return [
        {"parameter": p, "value": v, "model": "EHRWorld-14B", "s25": s, "label_f1": f, "average": mean, "remark": _MARK}
        for p, v, s, f, mean in _TUNED
    ]
