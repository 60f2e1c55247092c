"""Units of work a second: several things to time, taken in turn. Needs nothing but Python."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["Work", "by_turns", "rate"]

Work = Callable[[], int]  # does some and says how many units it was


def by_turns(works: Mapping[str, Work], seconds: float, repeats: int) -> dict[str, dict[str, float]]:
    """Units a second of each of `works`: median, lowest and highest of `repeats` turns of at least `seconds` each.

    They are taken one after the other, round by round, so that what else the machine does falls on all of them. `cpu`
    is the median per second of this process's processor time (all threads added): on a machine that others use too it
    says what the wall clock cannot. Each is done once beforehand, untimed.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(repeats):
        for name, work in works.items():
            start, used = time.perf_counter(), time.process_time()
            done = work()
            while time.perf_counter() - start < seconds:
                done += work()
            clock, cpu = time.perf_counter() - start, time.process_time() - used
            found[name].append((done / clock, done / max(cpu, 1e-9)))
    return {name: _summed_up(*zip(*rates, strict=True)) for name, rates in found.items()}


def rate(work: Work, seconds: float, repeats: int) -> dict[str, float]:
    """`by_turns` of one."""
    return by_turns({"": work}, seconds, repeats)[""]


def _summed_up(clock: tuple[float, ...], cpu: tuple[float, ...]) -> dict[str, float]:
    return {"median": statistics.median(clock), "low": min(clock), "high": max(clock), "cpu": statistics.median(cpu)}
