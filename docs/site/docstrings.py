"""Docstrings are written as Markdown with Google's sections; autodoc reads reStructuredText. The few differences."""

from __future__ import annotations

import inspect
import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Attributes):$")
ITEM = re.compile(r"^(\s*)(?:[-*]|\d+\.) ")
FIELD = re.compile(r"^ {4}(\w+): [^#\n]+?  # (.+)$", re.MULTILINE)
TITLE = re.compile(r"^#+ (.*)$")
# code, strong and emphasised text stay; any other star, or underscore at a word's end, is one that is meant
MARKED = re.compile(r"(`[^`]*`|\*\*[^*\s](?:[^*]*[^*\s])?\*\*|\*[^*\s](?:[^*]*[^*\s])?\*)")


def as_rst(lines: list[str]) -> list[str]:
    """The lines with lists set apart, indented blocks marked as code, and stars that mark nothing escaped."""
    found: list[str] = []
    listed = -1  # the indent of the list that we are in; -1: in none
    code, section = False, False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        blank_before = not found or not found[-1].strip()
        if line.strip() and indent == 0:
            code, section = False, bool(SECTION.match(line))
        item = ITEM.match(line)
        if item and not code and not section:
            if not blank_before and listed < 0:
                found.append("")
            listed = indent
        elif line.strip() and blank_before and indent <= max(listed, 0):
            listed = -1
        if line.strip() and indent >= 4 and blank_before and not (section or code) and listed < 0:
            found += ["::", ""]
            code = True
        title = TITLE.match(line)
        text = f"**{title.group(1)}**" if title else line
        found.append(text if code else _escaped(text))
    return found


def _escaped(line: str) -> str:
    bullet = ITEM.match(line)
    head = bullet.group() if bullet else ""
    parts = MARKED.split(line[len(head) :])
    rest = (part if n % 2 else re.sub(r"\*|(?<=\w)_(?!\w)", r"\\\g<0>", part) for n, part in enumerate(parts))
    return head + "".join(rest)


def convert(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Autodoc's event: the docstring's lines, changed in place."""
    lines[:] = as_rst(lines)
    if what == "class":
        lines += ["", *_fields(obj), ""]


def _fields(made: type) -> list[str]:
    """A list of the class's fields, told by the comments that stand behind them in its source: shapes and units."""
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(made))
    except (OSError, TypeError):  # of no file
        return []
    return [f"- ``{name}``: {_escaped(comment)}" for name, comment in FIELD.findall(source)]


def skipped(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Sphinx's event of a member: the fields of a NamedTuple are listed by `_fields`."""
    return True if (getattr(obj, "__doc__", "") or "").startswith("Alias for field number") else None


def unlinked(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Sphinx's event of a reference that is not found: on a page of the API the types of annotations that have no page
    (other libraries', private ones) stay text; anywhere else somebody wrote the reference, and it is an error."""
    return (
        content
        if env.current_document.docname.startswith("api/") and node.get("reftype") in ("class", "exc", "obj")
        else None
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry point; before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", convert, priority=400)
    app.connect("autodoc-skip-member", skipped)
    app.connect("missing-reference", unlinked)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
