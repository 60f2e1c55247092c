"""How fast one id is in one world: rows of rates, of the split of time, of the learned passes' share of the peak."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.common.matrix_peak import share_of_peak
from benchmarks.common.playing import playing
from benchmarks.common.stepping import Case, made, together, without_door
from benchmarks.common.time_split import flops_by_kind, time_by_kind
from benchmarks.common.timing import by_turns

__all__ = ["case_rows"]

TURNS = 48  # of a split at most: in two days of a drug's patient the row's next two are drawn once
COUNTED = 2  # of those of which matrix products are counted


def case_rows(
    case: Case, batches: tuple[int, ...], seconds: float, repeats: int, peak: float, patience_s: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows as they are found: ("steps_per_second", row), ("time_share", row); where a batch is left out,
    ("left_out", row) with the reason.

    Args:
        seconds: of each of `repeats` turns of a rate; a split takes four times as long at most.
        peak: operations a processor second of this run's matrix products.
        patience_s: processor time of a step beyond which the batch is left out.
    """
    for batch in batches:
        named = {"id": case.id, "world": case.world, "observation": case.arguments.get("observation", "chart")}
        named["batch"] = batch
        env = made(case, batch)
        work = playing(env) if batch == 1 else together(env)
        work()  # what is computed once
        began = time.process_time()
        work()
        took = time.process_time() - began
        if took > patience_s:
            yield "left_out", {**named, "why": f"a step takes {took:.1f} s of processor time"}
            continue
        works = {"environment": work} if batch == 1 else {"environment": work, "simulator": without_door(env)}
        rates = by_turns(works, seconds, repeats)
        ratio = rates["environment"]["cpu"] / rates["simulator"]["cpu"] if batch > 1 else None
        yield "steps_per_second", {**named, **rates, "of_simulator": ratio}
        episodes = env.unwrapped.episodes
        split = time_by_kind(work, episodes, 4 * seconds, TURNS)
        flops = flops_by_kind(work, episodes, COUNTED)["learned"]
        reached = share_of_peak(flops * split.units, split.cpu_s * split.share["learned"], peak)
        more = {"flops_per_step": flops, "share_of_peak": reached, "steps": split.units, "cpu_s": split.cpu_s}
        yield "time_share", {**named, "share": split.share, **more}
        env.close()
