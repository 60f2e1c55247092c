"""Tables of `speed.json`: a row an id and world, its batches as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.common.figures import Load, printed

__all__ = ["rates", "splits"]

FILE = "speed.json"
BATCHES = (1, 64, 1024)
SPLIT_AT = (1024, 64)  # of these the first that was measured
KINDS = ("learned", "keys", "admissions", "physiology", "door")


def rates(load: Load) -> str:
    """Steps a processor second by batch, and what that is of `Simulator.step` at the greatest."""
    rows = [
        "| | batch 1 | batch 64 | batch 1024 | of `Simulator.step`, batch 64 | batch 1024 |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in _by_case(load, "steps_per_second").items():
        cells = [_cell(found, batch, lambda row: printed(row["environment"]["cpu"], "2s")) for batch in BATCHES]
        cells += [_cell(found, batch, lambda row: printed(row["of_simulator"], ".2f")) for batch in BATCHES[1:]]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def splits(load: Load) -> str:
    """Shares of processor time by kind, at the greatest batch measured, and what learned passes reach of the peak."""
    heads = ("", "batch", "learned passes", "keys", "admissions", "physiology", "door", "of the matrix peak")
    rows = [f"| {' | '.join(heads)} |".replace("|  |", "| |"), "|---" * len(heads) + "|"]
    for name, found in _by_case(load, "time_share").items():
        batch = next(batch for batch in SPLIT_AT if batch in found)
        row = found[batch]
        cells = [printed(row["share"][kind], ".0%") for kind in KINDS]
        peak = printed(row["share_of_peak"], ".1%") if row["share"]["learned"] else "–"
        rows.append(f"| {name} | {batch} | {' | '.join(cells)} | {peak} |")
    return "\n".join(rows)


def _by_case(load: Load, key: str) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Name of an id in a world, charts alone -> batch -> row."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in load(FILE)[0][key]:
        if row["observation"] == "chart":
            found.setdefault(f"`{row['id']}`, {row['world']}", {})[row["batch"]] = row
    return found


def _cell(found: Mapping[int, Mapping[str, Any]], batch: int, said: Callable[[Mapping[str, Any]], str]) -> str:
    return said(found[batch]) if batch in found else "–"
