"""Surroundings that go wrong: forks, spawns, threads, a full disk, a home that cannot be written to, clocks, Ctrl-C.

    python -m tests.campaign faults --out campaign.json

Each promise is a function of `PROMISES`, run in a process of its own; it fails by raising.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import format_exception

from tests.campaign import tally
from tests.campaign.promises import PROMISES

__all__ = ["held", "main"]

LIMIT_S = 600.0  # wall time of one promise


def held(name: str) -> str | None:
    """Whether a promise holds, in this process: None, or the traceback."""
    with TemporaryDirectory() as folder:
        try:
            PROMISES[name](Path(folder))
        except Exception as error:
            return "".join(format_exception(error))[-1500:]
    return None


def main(given: list[str] | None = None) -> int:
    """Run it; 1 if a promise was broken."""
    options = tally.arguments(__doc__ or "", len(PROMISES), 900.0, given)
    told = tally.Tally.begun("faults", options.seed, options.out)
    deadline = time.monotonic() + options.seconds
    for name in PROMISES:
        if time.monotonic() > deadline or told.done(name) or (options.only and name not in options.only):
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            try:
                wrong = pool.submit(held, name).result(timeout=LIMIT_S)
            except Exception as error:  # the process died, or waits for ever
                wrong = f"{type(error).__name__}: {error}"
        told.add(name, "held") if wrong is None else told.fail(name, wrong)
        told.save()
    return told.report()
