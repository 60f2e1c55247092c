"""Pages of results: those of docs/results as they stand, and one for each file that they were made of."""

from __future__ import annotations

import csv
import html
import json
from pathlib import Path

from docs.site.links import ROOT, Links

__all__ = ["RESULTS", "generate", "pages"]

RESULTS = ROOT / "benchmarks" / "results"
WRITTEN = ROOT / "docs" / "results"
SHOWN_ROWS = 40  # of a table; the rest is in the file
LONG_CHARACTERS = 30  # of a cell: it may be broken into lines
SHOWN_CHARACTERS = 6_000  # of a JSON file
TITLES = {
    "ecg_drug": "Drug start",
    "ward": "Hospital stay",
    "people": "People",
    "progression": "Clinic years",
    "agents": "Agents",
    "speed": "Speed",
}


def pages() -> dict[str, str]:
    """File of the repository -> page."""
    found = {path.relative_to(ROOT).as_posix(): f"results/{path.stem}" for path in WRITTEN.glob("*.md")}
    for path in _files():
        found[path.relative_to(ROOT).as_posix()] = _page(path)
    return found


def generate(links: Links) -> dict[str, str]:
    """Page -> text of every results page, of every file of results, and of the two lists of them."""
    found = {}
    for path in sorted(WRITTEN.glob("*.md")):
        found[f"results/{path.stem}"] = links.rewrite(
            path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        )
    for path in _files():
        found[_page(path)] = _file(path, links)
    found["results/files"] = _list()
    unnamed = sorted({path.stem for path in WRITTEN.glob("*.md")} - set(TITLES))
    entries = "\n".join([*TITLES, *unnamed, "benchmarks", "files"])
    rows = "\n".join(f"- [{title}](/results/{name}.md)" for name, title in TITLES.items())
    found["results/index"] = (
        "# Results\n\nWhat was measured, on what, by which command, with intervals and reservations. Every figure "
        "comes out of a committed file, and [each file](/results/files.md) says what made it. What a page says leads, "
        "leads in a simulation: none of it is advice on care.\n\n"
        f"{rows}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"
    )
    return found


def _files() -> list[Path]:
    return sorted(path for path in RESULTS.iterdir() if path.suffix in {".csv", ".json", ".png", ".md", ".html"})


def _page(path: Path) -> str:
    return "results/file-" + path.name.replace(".", "-")


def _file(path: Path, links: Links) -> str:
    name = path.relative_to(ROOT).as_posix()
    head = f"---\norphan: true\n---\n\n# {path.name}\n\n"
    if path.suffix == ".md":
        text = links.rewrite(path.read_text(encoding="utf-8"), name)
        return f"---\norphan: true\n---\n\n# {path.name}\n\n" + text.replace("\n# ", "\n## ").removeprefix("# ")
    if path.suffix == ".png":
        return f"{head}![{path.stem.replace('_', ' ')}](/pictures/{path.name})\n"
    download = f"The whole file: {{download}}`{path.name} </data/{path.name}>`.\n"
    if path.suffix == ".html":
        return head + "A page of its own, to be opened in a browser. " + download
    return head + download + "\n" + (_json(path) if path.suffix == ".json" else _csv(path))


def _json(path: Path) -> str:
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=1)
    cut = (
        ""
        if len(text) <= SHOWN_CHARACTERS
        else f"Its beginning ({SHOWN_CHARACTERS:,} of {len(text):,} characters):\n\n"
    )
    return f"{cut}```text\n{text[:SHOWN_CHARACTERS]}\n```\n"


def _csv(path: Path) -> str:
    """What made the table, and its first rows."""
    lines = path.read_text(encoding="utf-8").splitlines()
    made = "\n".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    cut = f"The first {SHOWN_ROWS} of {len(rows) - 1:,} rows:\n\n" if len(rows) - 1 > SHOWN_ROWS else ""
    if not rows:
        return f"What made it:\n\n```text\n{made}\n```\n"
    table = _html(rows[: SHOWN_ROWS + 1])
    return f"{cut}{table}\n\nWhat made it:\n\n```text\n{made}\n```\n"


def _html(rows: list[list[str]]) -> str:
    """A table as HTML, not Markdown: thousands of cells of plain text need no parser (it took most of the build)."""

    def line(cells: list[str], tag: str) -> str:
        # a sentence gets the room of one: with that of a number it would be a word a line
        starts = (f'{tag} class="long"' if len(cell) > LONG_CHARACTERS else tag for cell in cells)
        both = zip(starts, cells, strict=True)
        return "<tr>" + "".join(f"<{start}>{html.escape(cell)}</{tag}>" for start, cell in both) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows[1:])
    head = f"<thead>{line(rows[0], 'th')}</thead>"
    table = f'<table class="docutils align-default csv">{head}<tbody>\n{body}\n</tbody></table>'
    return f'```{{raw}} html\n<div class="table-wrapper docutils container">{table}</div>\n```'


def _list() -> str:
    rows = "\n".join(f"- [{path.name}](/{_page(path)}.md)" for path in _files())
    return f"# Files of results\n\nEach says what made it: the command, the versions, the files it read.\n\n{rows}\n"
