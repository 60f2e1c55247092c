"""How the benchmarks write their tables: whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from world_models.files import replacing

__all__ = ["RESULTS", "write_csv", "write_tables"]

RESULTS = Path(__file__).resolve().parents[1] / "results"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows to CSV, the columns in the order in which the rows first name them; floats to six significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def write_tables(prefix: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]], most: Mapping[str, int] | None = None) -> None:
    """Each table to PREFIX_name.csv, its path and rows printed; of those in `most` so many rows at most."""
    for name, rows in tables.items():
        path = prefix.with_name(f"{prefix.name}_{name}.csv")
        write_csv(path, rows)
        print(path)
        for row in rows[: (most or {}).get(name)]:
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
