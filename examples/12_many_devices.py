"""A planner judged by as many processes as `torchrun` starts, each on its own device; the figures are the same.

python -m examples.12_many_devices
torchrun --nproc-per-node 2 -m examples.12_many_devices
"""

from __future__ import annotations

import argparse

from agents.baselines.constant import no_treatment
from agents.planning.controller import WorldPlanner
from agents.rollout import format_table, paired_table
from agents.together import judge_together
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys, processes


def main(argv: list[str] | None = None) -> list[dict[str, float | str]]:
    """The first process prints the table of deciders; all return its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="ecg-wm-small", help="the world the planner believes in")
    parser.add_argument("--patients", type=int, default=64)
    parser.add_argument("--group", type=int, default=16, help="patients judged at once by a process")
    parser.add_argument("--steps", type=int, default=24, help="of 2 h")
    parser.add_argument("--preset", default="fast", help="fast, small or careful")
    args = parser.parse_args(argv)
    device = processes.join()

    task = ECGDrugTask()
    truth = Simulator(catalog.load("oracle", device), task)
    believed = Simulator(catalog.load(args.world, device), task)
    patients = keys.fold(keys.from_seed(0, args.patients), "judge")

    def planner(first: int) -> WorldPlanner:
        return WorldPlanner(believed, args.preset, cost_weight=0.2, seed=first)

    agents = {"no treatment": lambda _: no_treatment(), "CEM": planner}
    results = {n: judge_together(make, truth, patients, args.steps, args.group) for n, make in agents.items()}
    rows = paired_table(results, reference="no treatment")
    if processes.ranks()[0] == 0:
        print(format_table(rows))
    return rows


if __name__ == "__main__":
    main()
