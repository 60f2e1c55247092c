"""How long a planner thinks, and about what: `python -m benchmarks.ecg_drug.plan_speed`.

CEM on `ECGDrug-v0` for one patient: 1,024 candidates, 4 particles and 24 steps of two hours by default, in the learned
world with its events at their chances; one round of candidates and two, on each number of threads. Decisions follow
each other along the patient's course; all settings take turns, so what else the machine does hits all of them. A
setting's first decision is a warm-up. What a decision imagines is counted by the planner itself: its rounds, the second
look at the finalists, and the course that it reports.

Then where the time goes, over further decisions (shares of 0 to 1, `benchmarks.common.network_share`): passes through
learned weights; the world's verbs with them, of which the transition and the belief; the task's reward, cost and end;
all of the scoring of plans; and what is the planner's own, neither world nor task: sampling, sorting and refitting,
and the adding up of what is imagined. Everything runs eagerly: no world here has a compiled form.

Two threads want two idle cores: beside other work they wait for each other, a hundred times as long as they compute
(with OMP_WAIT_POLICY=PASSIVE not much longer).

Writes plan_speed.json to --out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from agents.planning.cem import CEMConfig
from agents.planning.planners import planner_for
from agents.planning.presets import config_of
from agents.protocol import menu_of, to_orders
from benchmarks.common.network_share import time_shares
from benchmarks.common.results import RESULTS, made_by, write_json
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.command_line import MOST, MOST_THREADS, number, whole
from world_models.protocol import WorldModel

MODULE = "benchmarks.ecg_drug.plan_speed"
ELITE_SHARE = 16  # one of so many candidates is an elite
COURSE_HOURS = 48.0
JUDGED = ("reward", "cost", "terminated", "admissible", "refused")  # of a task, in what is imagined


class Thinker:
    """A planner of one setting, and the patient in whose course it decides."""

    def __init__(self, world: WorldModel, config: CEMConfig, threads: int, seed: int) -> None:
        self.config, self.threads = config, threads
        self.simulator = Simulator(world, ECGDrugTask())
        self.planner: Any = planner_for(self.simulator, "cem", config, seed=seed)
        self._menu, self._key = menu_of(self.simulator), keys.from_seed(seed)
        self._admit()

    def _admit(self) -> None:
        """The next patient."""
        self._key = keys.fold(self._key, "plan_speed")
        self._state, self._chart = self.simulator.reset(self._key)
        self.planner.reset()

    def decide(self) -> int:
        """One decision, which is carried out; 1, for `time_shares`."""
        action = self.planner.act(self._chart)
        step = self.simulator.step(self._state, self._chart, to_orders(action, self._menu))
        self._state, self._chart = step.state, step.chart
        if bool(step.terminated.any()) or bool((self.simulator.task.clock(step.chart) >= COURSE_HOURS).any()):
            self._admit()
        return 1

    def timed(self) -> tuple[float, float]:
        """Milliseconds of a decision, by the wall clock and of the processor (all threads added)."""
        torch.set_num_threads(self.threads)
        wall, cpu = time.perf_counter(), time.process_time()
        self.decide()
        return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3

    def shares(self, seconds: float) -> dict[str, float]:
        """Where the time of further decisions goes, 0 to 1."""
        torch.set_num_threads(self.threads)
        world, task, imagined_in = self.simulator.world, self.simulator.task, self.planner.simulator
        also = {
            "transition": [(world, "transition")],
            "belief": [(world, "infer")] if hasattr(world, "infer") else [],
            "task": [(task, name) for name in JUDGED],
            "scoring": [(imagined_in, "imagine")],
        }
        found = time_shares(self.decide, world, seconds, also=also)
        return {**found, "planner": found["rest"] - found["task"]}


def figures(thinker: Thinker, taken: list[tuple[float, float]], share_s: float) -> dict[str, Any]:
    """The row of a setting, of the milliseconds its decisions took."""
    wall, cpu = ([pair[i] for pair in taken] for i in (0, 1))
    imagined = int(thinker.planner.report.transitions[0])
    median = statistics.median(wall)
    return {
        "threads": thinker.threads,
        "iterations": thinker.config.iterations,
        "decisions": len(taken),
        "transitions": imagined,  # of the last decision; every one imagines as many
        "milliseconds": median,
        "milliseconds_low": min(wall),
        "milliseconds_high": max(wall),
        "cpu_milliseconds": statistics.median(cpu),
        "transitions_per_second": imagined / median * 1e3,
        "share": thinker.shares(share_s),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the run, JSON-ready.

    Raises:
        ValueError, OSError: of a world that there is not, or settings that are no plan's.
    """
    world = catalog.load(args.world)
    sizes = dict(candidates=args.candidates, particles=args.particles, horizon=args.horizon, replan_every=1)
    preset = config_of(ECGDrugTask(), "cem", "small")
    assert isinstance(preset, CEMConfig)
    config = replace(preset, elites=max(1, args.candidates // ELITE_SHARE), **sizes)
    load = os.getloadavg()[0]
    thinkers = [
        Thinker(world, replace(config, iterations=iterations), threads, args.seed)
        for threads in args.threads
        for iterations in args.iterations
    ]
    taken: list[list[tuple[float, float]]] = [[] for _ in thinkers]
    with tqdm(total=len(thinkers) * (args.decisions + 1), desc="decisions", unit="decision") as bar:
        for turn in range(args.decisions + 1):
            for thinker, found in zip(thinkers, taken, strict=True):
                took = thinker.timed()
                if turn:  # the first makes what is made once
                    found.append(took)
                bar.update()
    rows = [figures(*pair, args.share_seconds) for pair in zip(thinkers, taken, strict=True)]
    machine = {"cores": os.cpu_count(), "load_average_before": load, "torch": torch.__version__}
    settings = {name: value for name, value in asdict(config).items() if name != "iterations"}
    return {"machine": machine, "config": settings, "compiled": False, "decision": rows}


def told(row: dict[str, Any]) -> str:
    """A row of the figures in words."""
    found = {name: f"{value:,.0f}" for name, value in row.items() if name != "share"}
    shares = ", ".join(f"{name} {value:.1%}" for name, value in row["share"].items())
    return (
        "{threads} thread(s), {iterations} round(s): {milliseconds} ms a decision ({milliseconds_low} to "
        "{milliseconds_high}; {cpu_milliseconds} of the processor), {transitions_per_second} transitions/s of "
        "{transitions}\n".format_map(found)
        + f"   {shares}"
    )


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--world", default="ecg-wm-small", help="the learned world: a name or a folder")
    parser.add_argument("--candidates", type=whole(1, MOST), default=1024, help="plans of a round")
    parser.add_argument("--particles", type=whole(1, MOST), default=4, help="imagined futures of each plan")
    parser.add_argument("--horizon", type=whole(1, MOST), default=24, help="steps looked ahead")
    parser.add_argument("--iterations", type=whole(1, 1000), nargs="+", default=[1, 2], help="rounds of a decision")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), nargs="+", default=[1, 2], help="of torch")
    parser.add_argument("--decisions", type=whole(1, MOST), default=9, help="that are timed, of each setting")
    seconds = number(0.0, 86400.0, above=True)
    parser.add_argument("--share-seconds", type=seconds, default=5.0, help="spent on each setting's shares")
    parser.add_argument("--seed", type=whole(0, MOST), default=33_000_000, help="of the patient and the planner")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write. Returns the exit status."""
    args = _arguments(argv)
    try:
        content = measure(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in content["decision"]:
        print(told(row))
    seeds = {"patient and planner": args.seed}
    path = args.out / "plan_speed.json"
    write_json(path, content, made_by(MODULE, argv, seeds, [args.world]))
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
