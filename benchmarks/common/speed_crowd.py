"""Thousands of patients at once, on one core and on all: `python -m benchmarks.common.speed_crowd --json FILE`.

Steps a second of large batches in learned worlds: `Simulator.step` alone, the vector environment as it is, and with
`uncertainty=False`, whose infos tell no spreads; one process, and one for each core, each with a batch of its own (as
`torchrun` shares patients out). A ward's step costs what was ordered: beside random orders, which order half of all
there is, those that the clinician's rule gave during the first days of other patients.

A rate is the median of `--repeats` turns of `--seconds`, resets included, one torch thread a process. By the wall
clock: on a machine that others use it says too little.
"""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

import torch

from agents.baselines.rules import clinician
from agents.making import Making
from agents.protocol import menu_of, to_orders
from benchmarks.common.results import made_by, write_json
from benchmarks.common.several import rate_of_several
from benchmarks.common.stepping import CASES, TABLE, made, together, without_door
from benchmarks.common.timing import Work

WHAT = ("simulator", "environment", "without uncertainty")
SPACED = 3  # steps between two decisions of the rule that are kept
PLAYED = (("ECGDrug-v0", "random"), ("EHRWard-v0", "random"), ("EHRWard-v0", "clinician's rule"))


def by_rule(env: Any) -> list[Any]:
    """What the clinician's rule orders of all rows of a ward, TABLE times, SPACED steps apart."""
    env.reset(seed=1)
    episodes = env.unwrapped.episodes
    simulator = episodes.simulator
    agent = clinician(Making(env.spec.id, simulator, simulator.world.name, episodes.horizon_steps))
    kept = []
    for step in range(SPACED * TABLE):
        orders = to_orders(agent.act(episodes.running.chart), menu_of(simulator))
        action = (orders > 0).to(torch.int8).numpy()
        if step % SPACED == 0:
            kept.append(action)
        env.step(action)
    return kept


def crowd(env_id: str, orders: str, what: str, batch: int) -> Work:
    """One of WHAT for so many rows of an id in its learned world."""
    case = next(case for case in CASES if case.id == env_id and case.world != "oracle")
    env = made(case, batch, uncertainty=what == "environment")
    actions = by_rule(env) if orders == "clinician's rule" else None
    work = together(env, actions)
    return without_door(env, actions) if what == "simulator" else work


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every rate of the run as one JSON-ready dict."""
    rows = []
    before = os.getloadavg()[0]
    for env_id, orders in PLAYED:
        for processes in dict.fromkeys((1, args.processes)):
            row: dict[str, Any] = {"id": env_id, "orders": orders, "batch": args.batch, "processes": processes}
            for what in WHAT:
                row[what] = rate_of_several(
                    crowd, (env_id, orders, what, args.batch), processes, args.seconds, args.repeats
                )
            row["of_simulator"] = row["environment"]["median"] / row["simulator"]["median"]
            row["of_simulator_without_uncertainty"] = row["without uncertainty"]["median"] / row["simulator"]["median"]
            rows.append(row)
            told = ", ".join(f"{what} {row[what]['median']:,.0f}" for what in WHAT)
            print(f"{env_id}, {orders}, {processes} x {args.batch}: {told} steps/s", flush=True)
    return {
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "torch": torch.__version__,
        "load_average_before": before,
        "steps_per_second": rows,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, print and, with --json, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.common.speed_crowd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="file to write")
    args = parser.parse_args(argv)
    out = measure(args)
    if args.json:
        worlds = sorted({case.world for case in CASES for env_id, _ in PLAYED if case.id == env_id} - {"oracle"})
        write_json(args.json, out, made_by("benchmarks.common.speed_crowd", argv, {"actions, patients": 0}, worlds))
        print(f"written: {args.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
