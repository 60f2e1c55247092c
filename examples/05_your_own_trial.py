"""A trial nobody ran: two regimens, the same generated women over 70, the same chance; the effect with its interval."""

from __future__ import annotations

import argparse

import torch

from agents.baselines.ecg_rules import DofetilideLabelRule, menu_row
from agents.protocol import menu_of
from agents.rollout import format_table, judge, paired_table
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.protocol import Chart


class EveryEightHours:
    """An agent of your own: quinidine 200 mg three times a day while QTcF stays below 480 ms."""

    name = "quinidine 200 mg every 8 h"

    def __init__(self, simulator: Simulator) -> None:
        orders = [q.name for q in simulator.world.orders]
        self.row = menu_row(menu_of(simulator), orders, quinidine_mg=200.0)

    def reset(self, mask: torch.Tensor | None = None) -> None:
        """Nothing is remembered."""

    def act(self, chart: Chart) -> torch.Tensor:
        """int64 [B]: rows of the menu."""
        due = (chart["hours"].round().to(torch.int64) % 8 == 0) & (chart["qtcf_ms"] < 480.0)
        return torch.where(due, self.row, 0)


def main(argv: list[str] | None = None) -> list[dict[str, float | str]]:
    """Prints the table of both arms and returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="oracle", help="or ecg-wm-small")
    parser.add_argument("--patients", type=int, default=500)
    args = parser.parse_args(argv)

    simulator = Simulator(catalog.load(args.world), ECGDrugTask())
    patients = keys.fold(keys.from_seed(7, args.patients), "trial")
    women = {"sex_female": torch.ones(args.patients), "age_years": torch.linspace(70.0, 85.0, args.patients)}
    rule = DofetilideLabelRule(menu_of(simulator), [q.name for q in simulator.world.orders])
    arms = {arm.name: judge(arm, simulator, patients, 24, women) for arm in (rule, EveryEightHours(simulator))}
    rows = paired_table(arms, reference=rule.name)
    print(format_table(rows))
    return rows


if __name__ == "__main__":
    main()
