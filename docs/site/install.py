"""The extras of the package, as pyproject.toml lists them, for the page on installing."""

from __future__ import annotations

import re

from docs.site.links import ROOT

__all__ = ["extras"]


def extras() -> str:
    """A table of the extras: what each installs, and the comment that its line in pyproject.toml bears.

    Raises:
        ValueError: there is no table of extras.
    """
    _, found, rest = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]\n")
    )
    if not found:
        raise ValueError("pyproject.toml has no [project.optional-dependencies]; the page on installing lists them")
    rows = []
    for line in rest.split("\n[")[0].splitlines():
        entry = re.match(r"(\w[\w-]*) = \[(.*)\](?:\s*#\s*(.*))?$", line)
        if entry:
            name, packages, comment = entry.groups()
            listed = ", ".join(f"`{package}`" for package in re.findall(r'"([^"]+)"', packages))
            rows.append(f"| `{name}` | {listed} | {comment or ''} |")
    return "| extra | installs | for |\n|---|---|---|\n" + "\n".join(rows)
