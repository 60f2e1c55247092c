"""12-lead ECGs a second that a drug world draws, chart included: in one process and in several at once."""

from __future__ import annotations

from typing import Any

from benchmarks.common.several import rate_of_several
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
        found = rate_of_several(_drawing, (name, batches[-1]), processes, seconds, repeats)
        rows.append({"world": name, "batch": batches[-1], "processes": processes, **found})
    return rows


def _drawing(name: str, batch: int) -> Work:
    return waveforms(catalog.load(name), batch)
