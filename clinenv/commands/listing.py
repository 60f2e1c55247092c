"""What the commands that list something share: rows as aligned text, or the same as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["add_json_flag", "aligned", "as_json"]


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """State --json, which prints JSON in the place of text."""
    parser.add_argument("--json", action="store_true", help="print JSON instead, for programs")


def as_json(rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> str:
    """Rows as the text of a JSON document."""
    return json.dumps(rows, indent=2, allow_nan=False, ensure_ascii=False)


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows of one length as lines, each column but the last as wide as its longest cell."""
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in table
    )
