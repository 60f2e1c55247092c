"""From cells to rows: one agent in one id over one length, with intervals, beside the best rule and the best reference.

All differences are of the same patients under the same luck. A row is plain JSON; figures that do not apply are absent.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.board.crossed import crossed_cvar, crossed_mean, crossed_ratio
from world_models.bootstrap import Interval

__all__ = ["ALPHA", "FIGURES", "as_markdown", "read_rows", "rows_of"]

ALPHA = 0.05  # of the tails
SIMPLE = ("rule", "constant")
# figure -> what it is; each has an interval in <figure>_low and <figure>_high
FIGURES: dict[str, str] = {
    "return": "return earned in the oracle",
    "minus_rule": "return minus that of the best simple rule, the same patients",
    "cost": "safety cost",
    "return_cvar": "mean return of the worst 5 %",
    "cost_cvar": "mean cost of the worst 5 %",
    "promised": "return promised by the learned world",
    "gap": "promised minus earned: the exploitation gap",
    "regret": "return of the best reference minus this one's, the same patients",
    "share": "return as a share of the best reference's, where that is surely above 0",
}


def rows_of(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each (id, steps, agent), by id and steps as they come, then by the lead on the best simple rule.

    Returns on other numbers of patients are not comparable; differences on the same patients are.
    """
    groups: dict[tuple[str, int], dict[str, list[Mapping[str, Any]]]] = {}
    for cell in cells:
        about = cell["cell"]
        place = groups.setdefault((about["env_id"], about["steps"]), {})
        place.setdefault(about["agent"], []).append(cell)
    rows: list[dict[str, Any]] = []
    for agents in groups.values():
        rows += _group(agents)
    return rows


_TEXTS: tuple[str, ...] = ("id", "agent", "kind", "made_in", "status", "reason", "budget", "chosen", "source", "world")
_TEXTS += ("world_seal", "oracle", "seal", "weights", "code")
_NAMES = ("best_rule", "best_reference")  # text that a row may lack
_COUNTS = ("steps", "seeds", "patients")


def read_rows(path: Path, texts: Sequence[str] = _TEXTS) -> list[dict[str, Any]]:
    """The rows of a table that was written: figures a row has none of are absent again.

    Args:
        texts: columns that are text even where they are empty.

    Raises:
        ValueError: a file without the columns id, steps and patients, or with a figure that is no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(line for line in file if not line.startswith("#"))
        missing = {"id", "steps"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}; give the CSV of a leaderboard")
        return [{n: _value(path, n, v, texts) for n, v in row.items() if v != "" or n in texts} for row in reader]


def _value(path: Path, name: str, told: str, texts: Sequence[str]) -> Any:
    if name in texts or name in _NAMES:
        return told
    try:
        return int(told) if name in _COUNTS else float(told)
    except ValueError:
        raise ValueError(f"{path}: {name} is {told!r}, which is no number; give the file as it was written") from None


def _group(agents: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    earned = {n: _values(c, "earned", "returns") for n, c in agents.items() if _ok(c)}
    kinds = {name: cells[0]["entry"]["kind"] for name, cells in agents.items()}
    rule = _best({n: v for n, v in earned.items() if kinds[n] in SIMPLE})
    upper = _best({n: v for n, v in earned.items() if kinds[n] == "reference"})
    rows = []
    for name, cells in agents.items():
        row = _about(name, cells)
        if name in earned:
            put = _figures(cells, earned[name])
            if rule is not None:
                put["minus_rule"] = crossed_mean(_minus(earned[name], earned[rule]))
                row["best_rule"] = rule
            if upper is not None:
                put |= _beside(earned[name], earned[upper])
                row["best_reference"] = upper
            for figure, interval in put.items():
                row[figure], row[f"{figure}_low"], row[f"{figure}_high"] = interval
        rows.append(row)
    return sorted(rows, key=lambda r: -r.get("minus_rule", r.get("return", float("-inf"))))


def _ok(cells: Sequence[Mapping[str, Any]]) -> bool:
    return all(cell["status"] == "ok" for cell in cells)


def _values(cells: Sequence[Mapping[str, Any]], world: str, figure: str) -> Tensor:
    """float64 [S, N] of the seeds' cells."""
    return torch.tensor([cell[world][figure] for cell in cells], dtype=torch.float64)


def _best(earned: Mapping[str, Tensor]) -> str | None:
    """Whose mean is highest on the patients that all were judged on."""
    if not earned:
        return None
    few = min(values.shape[1] for values in earned.values())
    return max(earned, key=lambda name: float(earned[name][:, :few].mean()))


def _minus(one: Tensor, other: Tensor) -> Tensor:
    """[S, N] on the patients of both; the other's seeds count as their mean."""
    few = min(one.shape[1], other.shape[1])
    return one[:, :few] - other[:, :few].mean(0)


def _beside(mine: Tensor, reference: Tensor) -> dict[str, Interval]:
    """Regret, and the share of the reference's return."""
    found = {"regret": crossed_mean(-_minus(mine, reference))}
    few = min(mine.shape[1], reference.shape[1])
    theirs = reference[:, :few].mean(0)
    if crossed_mean(reference[:, :few]).low > 0:  # a share of what may be nothing says nothing
        found["share"] = crossed_ratio(mine[:, :few], theirs)
    return found


def _figures(cells: Sequence[Mapping[str, Any]], returns: Tensor) -> dict[str, Interval]:
    costs = _values(cells, "earned", "costs")
    worst = crossed_cvar(-costs, ALPHA)
    found = {
        "return": crossed_mean(returns),
        "cost": crossed_mean(costs),
        "return_cvar": crossed_cvar(returns, ALPHA),
        "cost_cvar": Interval(*(0.0 - x for x in (worst.value, worst.high, worst.low))),
    }
    if all("promised" in cell for cell in cells):
        promised = _values(cells, "promised", "returns")
        found |= {"promised": crossed_mean(promised), "gap": crossed_mean(promised - returns)}
    return found


def _about(name: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Who it is and how it was judged."""
    first, entry = cells[0], cells[0]["entry"]
    failed = next((c for c in cells if c["status"] != "ok"), None)
    row: dict[str, Any] = {
        "id": first["cell"]["env_id"],
        "steps": first["cell"]["steps"],
        "hours_per_step": first["hours_per_step"],
        "agent": name,
        "kind": entry["kind"],
        "made_in": {"none": "", "learned": first["world"], "oracle": first["oracle"]}[entry["made_in"]],
        "status": "ok" if failed is None else "failed",
        "reason": "" if failed is None else f"seed {failed['cell']['seed']}: {failed['reason']}",
        "seeds": len(cells),
        "patients": first["patients"],
        "budget": first.get("budget", ""),
        "chosen": str(first.get("settings", {}).get("chosen", "")),
        "source": entry["source"],
        "world": first["world"],
        "world_seal": first["world_seal"] or "",
        "oracle": first["oracle"],
        "seal": ", ".join(c.get("seal", "")[:12] for c in cells),
        "weights": ", ".join((c.get("weights") or "")[:12] for c in cells if c.get("weights")),
        "code": ", ".join(dict.fromkeys(c["code"] for c in cells)),
        "cpu_s": round(sum(c["cpu_s"] for c in cells), 1),
    }
    if failed is None:
        for name in ("ms_single", "ms_batch"):
            row[name] = sum(c[name] for c in cells) / len(cells)
        outcomes = [c["earned"]["outcomes"] for c in cells]
        row |= {f"outcome_{k}": sum(o[k] for o in outcomes) / len(outcomes) for k in outcomes[0]}
    return row


_COLUMNS = (
    ("return", "return"),
    ("minus_rule", "minus best rule"),
    ("cost", "cost"),
    ("return_cvar", "return, worst 5 %"),
    ("cost_cvar", "cost, worst 5 %"),
    ("gap", "gap"),
    ("regret", "regret"),
    ("share", "share of reference"),
)


def figure(row: Mapping[str, Any], name: str) -> str:
    """A figure with its interval, "" where the row has none; a third decimal where all of it is below 1."""
    if name not in row:
        return ""
    values = [row[name + end] for end in ("", "_low", "_high")]
    digits = 2 if max(abs(v) for v in values) >= 1.0 else 3
    point, low, high = (_plain(v, digits) for v in values)
    return f"{point} [{low}, {high}]"


def _plain(value: float, digits: int) -> str:
    """So many decimals, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for each id and length."""
    lines: list[str] = []
    for place in dict.fromkeys((r["id"], r["steps"]) for r in rows):
        some = [r for r in rows if (r["id"], r["steps"]) == place]
        lines += [f"## {place[0]}, {place[1]} steps", "", _caption(some), ""]
        titles = ["agent", "kind", "patients", *(title for _, title in _COLUMNS), "ms alone", "ms in a batch"]
        lines += ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
        lines += [_line(row) for row in some] + [""]
    return "\n".join(lines)


def _caption(rows: Sequence[Mapping[str, Any]]) -> str:
    first = rows[0]
    patients = sorted({r["patients"] for r in rows}, reverse=True)
    best = next((r["best_rule"] for r in rows if "best_rule" in r), "none")
    upper = next((r["best_reference"] for r in rows if "best_reference" in r), "none")
    return (
        f"Made in {first['world']} (seal {first['world_seal'][:12]}), judged in {first['oracle']} on "
        f"{' or '.join(map(str, patients))} patients. Best simple rule: {best}. Best reference: {upper}."
    )


def _line(row: Mapping[str, Any]) -> str:
    name = row["agent"] + (f" ({row['chosen']})" if row["chosen"] else "")
    name += f", {row['seeds']} seeds" if row["seeds"] > 1 else ""
    if row["status"] != "ok":
        return f"| {name} | {row['kind']} | {row['patients']} | failed: {row['reason']} |" + " |" * (len(_COLUMNS) + 1)
    cells = [figure(row, column) for column, _ in _COLUMNS]
    times = [f"{row[column]:.2f}" for column in ("ms_single", "ms_batch")]
    return f"| {name} | {row['kind']} | {row['patients']} | {' | '.join([*cells, *times])} |"
