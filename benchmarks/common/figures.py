"""Figures out of the files of results: read a file, select one row of it, print one number of that row.

A file is a list of objects whatever its kind: the rows of a CSV, the root of a JSON file, the rows of the Markdown
tables of a card.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.results import RESULTS, ROOT, read_csv, read_json

__all__ = ["NUMBER", "RESULTS", "ROOT", "Load", "figure", "load", "path_of", "printed", "select", "verdict"]

NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?"
FIELD = re.compile(r"(?P<name>.*?)(?:\[(?:(?P<low>[^,\]]+),(?P<high>[^\]]+))?\])?")
Row = Mapping[str, Any]
Load = Callable[[str], Sequence[Row]]  # a file's objects by its name, as `load` gives them


def path_of(name: str) -> Path:
    """A file of benchmarks/results or, where a folder stands before the name, of world_models."""
    return ROOT / "world_models" / name if "/" in name else RESULTS / name


@functools.lru_cache
def load(name: str) -> tuple[Row, ...]:
    """The objects of a file: `leaderboard.csv`, `speed.json`, `weights/ecg-wm-small/CARD.md`.

    A card has one object more, `{"text": ...}`, in which `figure` finds numbers by the words around them.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = path_of(name)
    if path.suffix == ".json":
        return (read_json(path),)
    if path.suffix == ".csv":
        return tuple(read_csv(path))
    text = path.read_text(encoding="utf-8")
    return (*_markdown_rows(text.splitlines()), {"text": text})


def _markdown_rows(lines: Sequence[str]) -> Iterable[Row]:
    """The rows of all tables of a Markdown text, by their column heads."""
    heads: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            heads = []
        elif not heads:
            heads = cells
        elif not set("".join(cells)) <= set("-: "):
            yield dict(zip(heads, cells, strict=True))


def select(objects: Iterable[Row], words: Iterable[str]) -> tuple[Row, ...]:
    """Where these words lead, in their order: a key goes on to what stands under it, `column=text` keeps the rows of
    which it is true, `column=text|other` those of which one of them is; `first` is the first row of all that is left.
    A list on the way stands for its items."""
    found = tuple(objects)
    for word in words:
        key, condition, text = word.partition("=")
        if condition:
            found = tuple(row for row in found if key in row and str(row[key]) in text.split("|"))
        elif word == "first":
            found = found[:1]
        else:
            inner = [row[key] for row in found]
            found = tuple(item for value in inner for item in (value if isinstance(value, list) else [value]))
    return found


def figure(objects: Iterable[Row], field: str, spec: str = "") -> str:
    """One field of the only one of these objects that has it, printed.

    Args:
        field: a key; with `[]` after it its interval too, `return[]` from return, return_low and return_high, or with
            named bounds, `auroc[low,high]`. Words with a `#` for a number find it in a card's text.
        spec: see `printed`; `verdict` says "yes" of an interval above 0, "no" of one below, else "not surely".

    Raises:
        LookupError: no object has the field, or several have.
    """
    objects = tuple(objects)
    if "#" in field:
        words = r"\s+".join(map(re.escape, field.split())).replace(r"\#", f"({NUMBER})")
        texts = [m[1] for row in objects for m in re.finditer(words, str(row.get("text", "")))]
        return printed(_only(texts, field).replace(",", ""), spec)
    parts = FIELD.fullmatch(field)
    assert parts is not None, "the pattern takes any text"
    name = parts["name"]
    row = _only([row for row in objects if name in row], field)
    low, high = parts["low"] or f"{name}_low", parts["high"] or f"{name}_high"
    if spec == "verdict":
        return verdict(float(row[low]), float(row[high]))
    value = printed(row[name], spec)
    if not field.endswith("]"):
        return value
    plain = spec.lstrip("+")
    return f"{value} [{printed(row[low], plain)}, {printed(row[high], plain)}]"


def verdict(low: float, high: float) -> str:
    """Whether a difference with this interval is a lead."""
    return "yes" if low > 0.0 else "no" if high < 0.0 else "not surely"


def _only(found: Sequence[Any], field: str) -> Any:
    if len(found) != 1:
        raise LookupError(f"{len(found)} places have {field!r}, not one")
    return found[0]


def printed(value: object, spec: str) -> str:
    """A value by a format of Python's, of which `%` stands apart from its number; `3s` is three significant digits,
    `yes` says yes or no; without a format the value as its file has it."""
    if not spec:
        return str(value)
    number = float(value) if isinstance(value, bool) else float(str(value))
    if spec == "yes":
        return "yes" if number else "no"
    if spec.endswith("s"):
        rounded = float(f"{number:.{int(spec[:-1])}g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 10 or rounded == int(rounded) else f"{rounded:g}"
    text = f"{number:{spec}}".replace("%", " %")
    return text.replace("-", "", 1) if re.fullmatch(r"-0\.?0*( %)?", text) else text
