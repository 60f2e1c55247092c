"""Python, the versions of what clinenv needs, and packages that install modules under its names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from clinenv.clashes import OURS, REMEDY, clash_of, others_that_install
from clinenv.commands.doctor.finding import Finding

__all__ = ["NAME", "clashing", "constraints", "findings", "python_version", "versions"]

NAME = "clinenv"
_NORMAL = re.compile(r"[-_.]+")


def findings() -> Iterator[Finding]:
    """All of this module."""
    yield python_version()
    yield from versions()
    yield from clashing()


def python_version() -> Finding:
    """This Python against what the distribution asks for."""
    from packaging.specifiers import SpecifierSet

    here = ".".join(map(str, sys.version_info[:3]))
    try:
        asked = metadata.metadata(NAME)["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        return Finding("Python", "note", f"{here}; clinenv runs from a folder, not installed", "pip install .")
    if here in SpecifierSet(asked):
        return Finding("Python", "ok", f"{here} (asked for: {asked})")
    return Finding("Python", "wrong", f"{here}, asked for: {asked}", "make an environment with another Python")


def constraints() -> dict[str, str]:
    """Distribution (normalised name) -> the version that everything is tested with; empty where no list is here."""
    from packaging.requirements import Requirement

    import clinenv

    home = Path(clinenv.__file__).parent
    path = next((p for p in (home / "constraints.txt", home.parent / "constraints.txt") if p.is_file()), None)
    found = {}
    for line in [] if path is None else path.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text:
            asked = Requirement(text)
            if asked.marker is None or asked.marker.evaluate():
                found[_normal(asked.name)] = str(asked.specifier).removeprefix("==")
    return found


def versions() -> Iterator[Finding]:
    """What clinenv cannot do without: within the range it asks for, and beside the version it is tested with."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(text) for text in metadata.requires(NAME) or ()]
    except metadata.PackageNotFoundError:
        return
    tested = constraints()
    differ = []
    for one in asked:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            here = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            yield Finding(one.name, "wrong", "is not installed", f'pip install "{one}"')
            continue
        if not one.specifier.contains(here, prereleases=True):
            yield Finding(one.name, "wrong", f"{here}, asked for: {one.specifier}", f'pip install "{one}"')
        elif tested.get(_normal(one.name), here) != here.split("+")[0] and _normal(one.name) in tested:
            differ.append(f"{one.name} {here} (tested: {tested[_normal(one.name)]})")
    if differ:
        remedy = "nothing, unless numbers differ: then pip install -c constraints.txt"
        yield Finding("versions", "note", f"within the ranges, not those tested with: {', '.join(differ)}", remedy)
    else:
        yield Finding("versions", "ok", "those that everything is tested with" if tested else "within the ranges")


def clashing() -> Iterator[Finding]:
    """Our modules by the names that others use as well."""
    for name in OURS:
        said = clash_of(name)
        others = others_that_install(name)
        if said is not None:
            yield Finding(f"module {name}", "wrong", said, REMEDY)
        elif others:
            told = f"is ours, but {', '.join(others)} installs one, too: one of the two will not work"
            yield Finding(f"module {name}", "wrong", told, REMEDY)
        else:
            yield Finding(f"module {name}", "ok", "is ours, and nobody else's")


def _normal(name: str) -> str:
    return _NORMAL.sub("-", name).lower()
