"""Damaged inputs: each is read, or refused by one error of the package's own that names what is wrong.

    python -m tests.campaign mutate --count 10000 --out campaign.json

A trial fails if reading raises anything else, takes over 20 s or over 2 GiB, ends the process, or opens a file outside
the folder that it was given. The number of a trial and --seed make it again.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.campaign import tally
from tests.campaign.guarded import LIMIT_BYTES, LIMIT_S, Opened, guarded
from tests.campaign.inputs import KINDS, Kind

__all__ = ["judged", "main"]

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(str(ROOT / name) for name in ("world_models", "clinenv", "agents"))
ROUNDS = 8  # over all kinds, so that a run that is stopped has tried each
SHORTEST = 20  # characters of a message that says what is wrong


def judged(error: Exception) -> str | None:
    """Why an error is not one that a reader may raise; None if it is."""
    kind = type(error)
    if not isinstance(error, ValueError | OSError):
        return f"{kind.__name__} is neither a ValueError nor an OSError"
    if kind.__module__.split(".")[0] not in ("builtins", "world_models", "clinenv", "agents"):
        return f"{kind.__module__}.{kind.__name__} is another library's"
    if isinstance(error, UnicodeError) or len(str(error)) < SHORTEST:
        return f"{kind.__name__} says only {str(error)!r}"
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return None if last.startswith(OURS) else f"{kind.__name__} comes from {last}, not from the package"


def _trial(kind: Kind, whole: Path, work: Path, seed: int, number: int, opened: Opened) -> dict[str, Any]:
    """Damage a copy of the input, read it, put it back."""
    rng = random.Random(f"{seed} {kind.name} {number}")
    folder = work / "in"
    said = kind.damage(folder, rng)
    opened.since()
    try:
        kind.read(folder)
        outcome: dict[str, Any] = {"outcome": "read"}
    except Exception as error:
        wrong = judged(error)
        outcome = {"outcome": "refused"}
        if wrong is not None:
            outcome = {"failed": f"{wrong}\n{''.join(traceback.format_exception(error))[-1200:]}"}
    strays = opened.since()
    if strays:
        outcome = {"failed": f"opened {', '.join(sorted(set(strays)))} outside its folder"}
    shutil.rmtree(folder)
    shutil.copytree(whole, folder, symlinks=True)
    return {**outcome, "damage": said}


def _run(kind: Kind, numbers: list[int], told: tally.Tally, deadline: float) -> None:
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        whole, outside = work / "whole", work / "outside"

        def prepare(_: int) -> None:  # in a child as well: threads of libraries do not survive a fork
            for folder in (whole, outside):
                folder.mkdir()
                kind.write(folder)
            shutil.copytree(whole, work / "in", symlinks=True)
            kind.read(work / "in")

        ((_, failed),) = guarded(prepare, [0])
        if failed is not None:
            told.fail(kind.name, f"the whole input was not read: {failed}")
            return
        watch: list[Opened] = []  # one a child

        def trial(number: int) -> dict[str, Any]:
            if not watch:
                watch.append(Opened(outside))
            return _trial(kind, whole, work, told.seed, number, watch[0])

        for number, outcome in guarded(trial, numbers, kind.a_child):
            if "failed" in outcome:
                told.fail(kind.name, outcome["failed"], number=number, damage=outcome.get("damage", ""))
                if not outcome.get("damage"):  # the child died in the middle
                    shutil.rmtree(work / "in", ignore_errors=True)
                    shutil.copytree(whole, work / "in", symlinks=True)
            else:
                told.add(kind.name, outcome["outcome"])
            for name in ("seconds", "kilobytes"):
                told.figures[f"most_{name}"] = max(told.figures.get(f"most_{name}", 0), outcome.get(name, 0))
            if number % 100 == 99:
                told.save()
            if time.monotonic() > deadline:
                return


def main(given: list[str] | None = None) -> int:
    """Run it; 1 if a trial failed."""
    options = tally.arguments(__doc__ or "", 500, 300.0, given)
    told = tally.Tally.begun("mutate", options.seed, options.out)
    kinds = [kind for kind in KINDS if not options.only or kind.name in options.only]
    shares = sum(kind.share for kind in kinds)
    deadline = time.monotonic() + options.seconds
    print(f"limits: {LIMIT_S:g} s, {LIMIT_BYTES >> 30} GiB", file=sys.stderr)
    for part, kind in ((part, kind) for part in range(1, ROUNDS + 1) for kind in kinds):
        wanted = -(-options.count * kind.share * part // (shares * ROUNDS))
        numbers = list(range(told.done(kind.name), wanted))
        if numbers and time.monotonic() < deadline:
            _run(kind, numbers, told, deadline)
            told.save()
    return told.report()
