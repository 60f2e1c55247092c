"""The command: everything that is looked at, as a table or as JSON; 1 where something is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from clinenv.commands.doctor.finding import Finding
from clinenv.commands.listing import add_json_flag, aligned, as_json

__all__ = ["add_arguments", "findings", "run"]

WRONG = 1  # exit code where something is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv doctor`."""
    add_json_flag(parser)
    parser.add_argument(
        "--step", action="store_true", help="also make every id in its worlds and take one step (half a minute)"
    )


def findings(step: bool = False) -> Iterator[Finding]:
    """All that is looked at, as it is found. `step`: every id as well."""
    from clinenv.commands.doctor import machine, shipped, software

    yield from software.findings()
    yield from machine.findings()
    yield from shipped.weights()
    if step:
        yield from shipped.steps()


def run(given: argparse.Namespace) -> int:
    """Print what was found; 0 where all is well, 1 where something is wrong."""
    import clinenv

    found = list(findings(given.step))
    wrong = sum(one.status == "wrong" for one in found)
    if given.json:
        print(as_json({"clinenv": clinenv.__version__, "wrong": wrong, "findings": [asdict(one) for one in found]}))
        return WRONG if wrong else 0
    print(f"clinenv {clinenv.__version__}")
    print(aligned([(one.status, one.about, one.said) for one in found]))
    for one in found:
        if one.remedy and one.status != "ok":
            print(f"{one.about}: {one.remedy}")
    print(f"{wrong} wrong" if wrong else "all is well")
    return WRONG if wrong else 0
