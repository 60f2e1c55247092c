"""What compiled steps are worth: `python -m benchmarks.common.speed_compiled [--ids ID:WORLD ...] [--batches 1 64]`.

With `--plans 64 1024` it measures what planners ask for instead: transitions a second of `Simulator.imagine`, so many
plans of 6 steps for one patient in 4 possible futures each.

Measures, for each id and world, environment steps a second, resets included, eagerly and compiled by turns in one run
on one thread: at batch 1 the single environment as `gymnasium.make` gives it, above that the vector environment. Each
rate is the median of `--repeats` turns of `--seconds`; `cpu` counts processor time instead of the clock, which on a
machine that others use says what the clock cannot. Beside a vector environment stands `bare`, `Simulator.step` of as
many patients. Beside them: how long the code took to make and, later, to load from disk, and how often anything was
compiled after the first step of a shape (never, if all is well).
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common.playing import playing
from benchmarks.common.results import made_by, write_json
from benchmarks.common.stepping import Case, made, together, without_door
from benchmarks.common.timing import Work, by_turns
from clinenv import compiled
from clinenv.simulator import Simulator
from world_models import keys

Works = Callable[[str, str, int, bool], Work]
PLANNED, FUTURES = 6, 4  # steps of a plan, particles
IDS = (
    "ECGDrug-v0:ecg-wm-small",
    "ECGDrug-v0:oracle",
    "ECGDrugContinuous-v0:ecg-wm-small",
    "ECGProgression-v0:cardiac-jepa-small",
    "ECGProgression-v0:oracle",
    "EHRWard-v0:ehr-ward-small",
    "EHRWard-v0:oracle",
)


def stepping(id_: str, world: str, batch: int, compile: bool) -> Work:
    """Work: a step, and a reset where an episode has ended; says how many patients were stepped."""
    env = made(Case(id_, world), batch, compile=compile)
    return playing(env) if batch == 1 else together(env)


def bare(id_: str, world: str, batch: int, compile: bool) -> Work:
    """Work: what the vector environment stands around, `Simulator.step` of so many patients."""
    env = made(Case(id_, world), batch, compile=compile)
    env.reset(seed=0)
    return without_door(env)


def imagining(id_: str, world: str, plans: int, compile: bool) -> Work:
    """Work: plans imagined for one patient; says how many transitions that took."""
    env: Any = made(Case(id_, world), 1).unwrapped
    simulator = Simulator(env.world, env.task, compile=compile)
    state, chart = simulator.reset(keys.from_seed(0, 1))
    most = torch.tensor([order.high for order in env.world.orders])
    draw = torch.rand(1, plans, PLANNED, len(most), generator=torch.Generator().manual_seed(0))
    actions = (draw < 0.1) * most

    def work() -> int:
        simulator.imagine(state, chart, actions, FUTURES)
        return plans * FUTURES * PLANNED

    return work


def measure(id_: str, world: str, batch: int, works: Works, seconds: float, repeats: int) -> dict[str, Any]:
    """One row of the result; `works` makes the work of an id, a world and a batch, compiled or not."""
    eager = works(id_, world, batch, False)
    eager()
    before, began, used = compiled.counts(), time.perf_counter(), os.times()
    fast = works(id_, world, batch, True)
    fast()
    made, spent = time.perf_counter() - began, os.times()
    cpu = sum(spent[:4]) - sum(used[:4])
    turns = {"eager": eager, "compiled": fast}
    if works is stepping and batch > 1:
        turns |= {"bare": bare(id_, world, batch, False), "bare_compiled": bare(id_, world, batch, True)}
        turns["bare_compiled"]()
    first = compiled.counts()
    row = by_turns(turns, seconds, repeats)
    again = compiled.counts()
    shares = {
        f"of_{beside}": row["compiled"]["cpu"] / row[beside]["cpu"]
        for beside in ("bare", "bare_compiled")
        if beside in row
    }
    compiled._loaded.cache_clear()
    began = time.perf_counter()
    works(id_, world, batch, True)()
    return {
        "id": id_,
        "world": world,
        "batch": batch,
        **row,
        "times": row["compiled"]["median"] / row["eager"]["median"],
        "times_cpu": row["compiled"]["cpu"] / row["eager"]["cpu"],
        **shares,
        "compiled_anew": first.compiled - before.compiled,
        "first_step_s": made,
        "first_step_cpu_s": cpu,
        "first_step_from_disk_s": time.perf_counter() - began,
        "recompiles": again.compiled - first.compiled,
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", nargs="+", default=list(IDS), metavar="ID:WORLD")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 1024])
    parser.add_argument("--plans", nargs="+", type=int, help="imagined for one patient, in the place of environments")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="use the user's cache, instead of compiling all anew")
    parser.add_argument("--json", default="benchmarks/results/speed_compiled.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    out = {
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "torch": torch.__version__,
        "torch_threads": 1,
        "seconds": args.seconds,
        "repeats": args.repeats,
        "imagined_per_second" if args.plans else "steps_per_second": rows,
    }
    worlds = sorted({world for each in args.ids if (world := each.partition(":")[2]) != "oracle"})
    made = made_by("benchmarks.common.speed_compiled", None, {"patients and actions": 0}, worlds)
    with tempfile.TemporaryDirectory() as folder:
        if not args.keep:
            os.environ[compiled.CACHE_VARIABLE] = folder
        for each in args.ids:
            id_, _, world = each.partition(":")
            for batch in args.plans or args.batches:
                works = imagining if args.plans else stepping
                row = measure(id_, world, batch, works, args.seconds, args.repeats)
                rows.append(row)
                print(
                    f"{each:40s} {'plans' if args.plans else 'batch'} {batch:5d}: "
                    f"eager {row['eager']['median']:9,.0f}, compiled "
                    f"{row['compiled']['median']:9,.0f} steps/s ({row['times']:.1f} times, {row['times_cpu']:.1f} by "
                    f"processor time); made in {row['first_step_s']:.0f} s, loaded in "
                    f"{row['first_step_from_disk_s']:.1f} s; recompiles {row['recompiles']}",
                    flush=True,
                )
                write_json(args.json, out, made)


if __name__ == "__main__":
    main()
