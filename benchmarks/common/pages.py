"""Write the pages of results, and the README's figures, from the files of benchmarks/results.

    python -m benchmarks.common.pages          # writes docs/results/*.md, docs/versions.md, README.md's blocks
    python -m benchmarks.common.pages --check  # writes nothing: prints what would change, and exits 1 if anything would

The text stands in `templates/`, a file a page. Between double braces, a template says where a figure comes from:

    {{planners.csv agent=constant return:.2f}}          file, conditions, field and format (`figures.printed`)
    {{planners.csv agent=constant return[]:.2f}}        the same with its interval
    {{leaderboard.csv kind=policy|planner first agent}} the first of the rows of which one or the other is true
    {{speed.json time_share batch=64 share learned:.0%}} in JSON keys lead on, conditions select from lists
    {{@planners.csv agent=constant}}                    prints nothing: slots that name no file look here from now on
    {{each planners.csv patients=120}}                  first in a line: the line once for each of these rows
    {{=orders near truth:.0f}}                          computed (`derived.DERIVED`): a figure, or a whole table
    {{made planners.csv planners_foresight.csv}}        what made these files, and whether they are out of date

A slot must find exactly one figure, and a page must name every file it reads in a `made`.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.common.derived import DERIVED
from benchmarks.common.figures import Row, figure, load, path_of, printed, select
from benchmarks.common.results import RESULTS, ROOT, provenance
from world_models.files import write_text

__all__ = ["PAGES", "TEMPLATES", "VERSIONS", "main", "written"]

TEMPLATES = Path(__file__).parent / "templates"
PAGES = ("agents", "ecg_drug", "ward", "people", "progression", "speed")
VERSIONS = "versions"  # in docs, of the table of ids
README = ROOT / "README.md"

SLOT = re.compile(r"\{\{(.*?)\}\}")
EACH = re.compile(r"^\{\{each (.*?)\}\}")
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- /figures -->)", re.DOTALL)
CODE = re.compile(r"`[^`]*`")
SUFFIXES = (".csv", ".json", ".md")


class Renderer:
    """One template to one page: it holds where slots look that name no file, and which files were read."""

    def __init__(self) -> None:
        self.context: tuple[Row, ...] = ()
        self.read: set[str] = set()
        self.named: set[str] = set()

    def text(self, template: str) -> str:
        """The template with its slots filled.

        Raises:
            LookupError: a slot does not find exactly one figure.
        """
        return wrapped(line for source in template.splitlines() for line in self._lines(source))

    def _load(self, name: str) -> tuple[Row, ...]:
        self.read.add(name)
        return load(name)

    def _lines(self, source: str) -> Iterable[str]:
        """What one line of a template becomes: itself, one for each row, or, if it only says where to look, none."""
        each = EACH.match(source)
        if each is None:
            line = self._filled(source)
            yield from line.splitlines() if line or source else [""]
            return
        for row in self._found(shlex.split(each[1])):
            self.context = (row,)
            yield self._filled(source[each.end() :])

    def _filled(self, line: str) -> str:
        try:
            return SLOT.sub(lambda slot: self._slot(slot[1]), line)
        except (LookupError, ValueError) as error:
            raise type(error)(f"{error} (in {line!r})") from error

    def _slot(self, body: str) -> str:
        if body.startswith("="):
            name, _, spec = body[1:].partition(":")
            return printed(DERIVED[name](self._load), spec)
        if body.startswith("@"):
            self.context = self._found(shlex.split(body[1:]))
            return ""
        words = shlex.split(body)
        if words[0] == "made":
            self.named.update(words[1:])
            return made(words[1:])
        field, _, spec = words.pop().rpartition(":") if ":" in words[-1] else (words.pop(), "", "")
        return figure(self._found(words), field, spec)

    def _found(self, words: list[str]) -> tuple[Row, ...]:
        """The objects that a file (or else the context), keys and conditions lead to."""
        objects = self.context
        if words and words[0].endswith(SUFFIXES):
            objects = self._load(words.pop(0))
        return select(objects, words)


def wrapped(lines: Iterable[str]) -> str:
    """Sentences broken at 120 columns, since figures are shorter or longer than their slots; tables and the like as
    they are."""
    parts: list[str] = []
    sentences = False
    for line in lines:
        plain = bool(line) and line[0] not in "|#!<- "
        if sentences and (plain or line.startswith("  ")):
            parts[-1] += " " + line.strip()
            continue
        sentences = plain or line.startswith("- ")
        parts.append(line)
    return "".join(_broken(part) + "\n" for part in parts)


def _broken(part: str) -> str:
    """One paragraph or point; what cannot be broken is left."""
    if not part or part[0] in "|#!<":
        return part
    indent = "  " if part.startswith("- ") else ""
    whole = CODE.sub(lambda code: code[0].replace(" ", "\0"), part)  # a command stays on one line
    filled = textwrap.fill(whole, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ")


def made(names: Iterable[str]) -> str:
    """A list of these files of results, by the command and the seeds that made them and, if they are stale, why."""
    by_making: dict[tuple[str, str], list[str]] = {}
    for name in names:
        link = f"[{name}](../../benchmarks/results/{name})"
        by_making.setdefault((making(name), stale(name)), []).append(link)
    return "\n".join(
        f"- {', '.join(links)}: {how}." + (f" **Stale:** {reason}." if reason else "")
        for (how, reason), links in by_making.items()
    )


def making(name: str) -> str:
    """The command that made a file of results, and its seeds."""
    found = provenance(path_of(name))
    seeds = ", ".join(f"{what} {seed}" for what, seed in found["seeds"].items())
    return f"`{found['command']}`" + (f", seeds: {seeds}" if seeds else "")


def stale(name: str) -> str:
    """Why a file of results is out of date; empty if it is not known to be."""
    path = path_of(name)
    return str(provenance(path).get("stale", "")).rstrip(".") if path.parent == RESULTS else ""


def page(name: str, folder: str = "../..") -> str:
    """A page of docs/results, or of another folder: its title, what it was generated from, and its text.

    Args:
        folder: the way up from the page to the root.

    Raises:
        LookupError: a slot does not find exactly one figure.
        ValueError: the page reads a file of results that no `made` names.
    """
    title, _, text = (TEMPLATES / f"{name}.md").read_text(encoding="utf-8").partition("\n")
    note = (
        "*Generated by `python -m benchmarks.common.pages` from "
        f"[its text]({folder}/benchmarks/common/templates/{name}.md) and "
        + (f"[the table of ids]({folder}/clinenv/registration.py)" if name == VERSIONS else "the files of ")
        + ("" if name == VERSIONS else f"[benchmarks/results]({folder}/benchmarks/results)")
        + ": edit those, not this page.*"
    )
    renderer = Renderer()
    body = renderer.text(text)
    if unnamed := {file for file in renderer.read if path_of(file).parent == RESULTS} - renderer.named:
        raise ValueError(f"{name}.md reads what no {{{{made}}}} names: {', '.join(sorted(unnamed))}")
    return f"{title}\n\n{note}\n{body}"


def block(name: str) -> str:
    """A block of the README; what is stale in it is said below it."""
    renderer = Renderer()
    text = renderer.text((TEMPLATES / f"readme_{name}.md").read_text(encoding="utf-8"))
    marks = [f"Stale: {file}, {reason}.\n" for file in sorted(renderer.read) if (reason := stale(file))]
    return "\n".join([text, *marks])


def written() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    pages = {ROOT / "docs/results" / f"{name}.md": page(name) for name in PAGES}
    readme = BLOCK.sub(lambda found: found[1] + block(found[2]) + found[3], README.read_text(encoding="utf-8"))
    return {**pages, README: readme, ROOT / "docs" / f"{VERSIONS}.md": page(VERSIONS, folder="..")}


def differences(files: Mapping[Path, str]) -> list[str]:
    """Lines of a unified diff between what is there and what should be."""
    lines: list[str] = []
    for path, text in files.items():
        before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        name = str(path.relative_to(ROOT))
        lines += difflib.unified_diff(before, text.splitlines(), name, f"{name}, generated", lineterm="")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or say how they differ; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; print differences, exit 1 if there are any"
    )
    arguments = parser.parse_args(argv)
    try:
        files = written()
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        print(f"error: {name} is not there; benchmarks/README.md says which command makes it", file=sys.stderr)
        return 2
    if arguments.check:
        lines = differences(files)
        print("\n".join(lines) if lines else "The pages are what their sources say")
        return int(bool(lines))
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
