"""Processor time of what a benchmark trains, kept beside it so that a resumed run knows the whole."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path

from world_models.files import write_text

__all__ = ["spending", "spent"]


@contextmanager
def spending(folder: Path):
    """Adds the processor time of what runs inside to `folder/spent.json`, until it has once come to its end: reading
    what is done costs nothing of the budget."""
    folder.mkdir(parents=True, exist_ok=True)
    path, done, start = folder / "spent.json", False, time.process_time()
    told = json.loads(path.read_text()) if path.exists() else {"cpu_s": 0.0, "done": False}
    try:
        yield
        done = True
    finally:
        if not told["done"]:
            write_text(path, json.dumps({"cpu_s": told["cpu_s"] + time.process_time() - start, "done": done}))


def spent(folder: Path) -> float:
    """Seconds of processor time noted in the folder, 0 where there are none."""
    path = folder / "spent.json"
    return float(json.loads(path.read_text())["cpu_s"]) if path.exists() else 0.0
