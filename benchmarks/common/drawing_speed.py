"""12-lead ECGs a second that a drug world draws, chart included: in one process and in several at once."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

import torch

from benchmarks.common.timing import Work, rate
from world_models import catalog, keys

__all__ = ["waveform_rows", "waveforms"]


def waveforms(world: Any, batch: int) -> Work:
    """Work: a 12-lead, ten-second, 500 Hz ECG for each patient of a batch, chart included."""
    state = world.initial(keys.from_seed(0, batch))

    def work() -> int:
        world.observe(state, ("ecg_mv",))
        return batch

    return work


def waveform_rows(
    name: str, batches: tuple[int, ...], seconds: float, repeats: int, processes: int
) -> list[dict[str, Any]]:
    """ECGs a second of a world by batch, one process; then, above 1, of so many processes with the last batch each."""
    world = catalog.load(name)
    rows: list[dict[str, Any]] = [
        {"world": name, "batch": batch, "processes": 1, **rate(waveforms(world, batch), seconds, repeats)}
        for batch in batches
    ]
    if processes > 1:
        several = [_of_processes(name, batches[-1], seconds, processes) for _ in range(repeats)]
        found = {"median": statistics.median(several), "low": min(several), "high": max(several)}
        rows.append({"world": name, "batch": batches[-1], "processes": processes, **found})
    return rows


def _of_processes(name: str, batch: int, seconds: float, processes: int) -> float:
    """ECGs a second of so many processes at once, each on one thread: their rates' sum."""
    context = multiprocessing.get_context("spawn")
    together, found = context.Barrier(processes), context.Queue()
    several = [context.Process(target=_one, args=(name, batch, seconds, together, found)) for _ in range(processes)]
    for process in several:
        process.start()
    total = sum(found.get() for _ in several)
    for process in several:
        process.join()
    return total


def _one(name: str, batch: int, seconds: float, together: Any, found: Any) -> None:
    """In a process of its own: ECGs a second on one thread, once all of `together` are warm."""
    torch.set_num_threads(1)
    work = waveforms(catalog.load(name), batch)
    work()
    work()
    together.wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        done += work()
    found.put(done / (time.perf_counter() - start))
