"""A planner believes in the learned world and treats patients of the oracle: how much does fear of risk change?"""

from __future__ import annotations

import argparse

from agents.baselines.constant import no_treatment
from agents.planning.controller import WorldPlanner
from agents.planning.risk import CVaR, Mean, MeanMinusSigma, Risk
from agents.rollout import format_table, judge, paired_table
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys


def main(argv: list[str] | None = None) -> list[dict[str, float | str]]:
    """Prints the table of deciders and returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="the world the planner believes in")
    parser.add_argument("--patients", type=int, default=32)
    parser.add_argument("--steps", type=int, default=24, help="of 2 h")
    parser.add_argument("--preset", default="fast", help="fast, small or careful")
    args = parser.parse_args(argv)

    task = ECGDrugTask()
    truth = Simulator(catalog.load("oracle"), task)
    believed = Simulator(catalog.load(args.world), task)
    patients = keys.fold(keys.from_seed(0, args.patients), "judge")
    results = {"no treatment": judge(no_treatment(), truth, patients, args.steps)}
    risks: tuple[Risk, ...] = (Mean(), MeanMinusSigma(2.0), CVaR(0.25))
    for risk in risks:
        planner = WorldPlanner(believed, args.preset, risk, cost_weight=0.2)
        results[f"CEM, {risk}"] = judge(planner, truth, patients, args.steps)
    rows = paired_table(results, reference="no treatment")
    print(format_table(rows))
    return rows


if __name__ == "__main__":
    main()
