"""Work in several processes at once: what all cores of a machine do together."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common.timing import Work

__all__ = ["rate_of_several"]


def rate_of_several(
    making: Callable[..., Work], arguments: tuple[Any, ...], processes: int, seconds: float, repeats: int
) -> dict[str, float]:
    """Units a second of so many processes at once, each on one thread with a work of its own: their rates' sum, the
    median, lowest and highest of `repeats` turns of `seconds` each, by the wall clock.

    Args:
        making: makes the work, in the process that does it; a function of a module, for it is pickled.
    """
    context = multiprocessing.get_context("spawn")
    together, found = context.Barrier(processes), context.Queue()
    told = (making, arguments, seconds, repeats, together, found)
    several = [context.Process(target=_one, args=told) for _ in range(processes)]
    for process in several:
        process.start()
    turns = [sum(rates) for rates in zip(*(found.get() for _ in several), strict=True)]
    for process in several:
        process.join()
    return {"median": statistics.median(turns), "low": min(turns), "high": max(turns)}


def _one(
    making: Callable[..., Work], arguments: tuple[Any, ...], seconds: float, repeats: int, together: Any, found: Any
) -> None:
    """In a process of its own: a rate for each turn, which begins once all are there."""
    torch.set_num_threads(1)
    work = making(*arguments)
    work()
    work()
    rates = []
    for _ in range(repeats):
        together.wait()
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            done += work()
        rates.append(done / (time.perf_counter() - start))
    found.put(rates)
