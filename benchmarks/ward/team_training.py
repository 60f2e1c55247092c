"""Independent PPO for the care team, trained to its plateau: learning rates and budgets, judged on validation patients.

From the first seed every rate is trained for every number of iterations (PPO's rate falls to 0 over its run, so a
longer run is another run). Each team is judged in the learned ward on patients that neither training nor the table
meets, with deaths at their chances, once as it samples and once at its mode. A rate that is surely behind the best one
at two lengths on end is not trained longer. The best setting is the one that all other seeds are trained with. Whether
its number of iterations is a plateau is what it gains on the next shorter run, paired over patients.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from agents.expected import judge_expected
from agents.protocol import Agent
from agents.team.learned import learned_team
from agents.team.ppo import TeamPPO, train
from agents.team.split_rule import split_rule
from benchmarks.common.intervals import mean_interval, put_mean
from benchmarks.common.spent import spending, spent
from clinenv.simulator import Simulator
from world_models import keys
from world_models.files import write_text

__all__ = ["VALIDATION_SEED", "Trained", "trained_teams", "training_text"]

PATIENCE = 2  # lengths at which a rate may be surely behind
VALIDATION_SEED = 8_900_000_000  # of the first validation patient; training's begin at 8 700 000 000


class Trained(NamedTuple):
    """The teams of the setting that was chosen, and what each training was worth."""

    folders: list[Path]  # one a seed
    modal: bool  # they give what is likeliest; else they sample as in training
    rows: list[dict[str, Any]]  # one a training and way to act


@dataclasses.dataclass(frozen=True)
class Judges:
    """Who the teams are chosen by.

    Args:
        simulator: the learned ward under the team's task.
        patients: of validation.
        steps: the longest stay.
    """

    simulator: Simulator
    patients: int
    steps: int

    def returns(self, agent: Agent, kept: Path) -> Tensor:
        """What it earns [N], deaths at their chances; kept in a file beside `kept`."""
        path = kept.with_name(f"validation-{self.patients}-{self.steps}-{kept.name}.json")
        if path.exists():
            return torch.tensor(json.loads(path.read_text(encoding="utf-8")))
        tqdm.write(f"judging {path.parent.name}, {kept.name}")
        key = keys.from_seed(VALIDATION_SEED, self.patients)
        found = judge_expected(agent, self.simulator, key, self.steps).returns
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found.tolist()) + "\n")
        return found


def trained_teams(
    judges: Judges,
    base: TeamPPO,
    runs: Path,
    rates: Sequence[float],
    budgets: Sequence[int],
    seeds: Sequence[int],
) -> Trained:
    """Train every setting from the first seed, choose, and train the others with it.

    Args:
        base: what no setting changes.
        runs: where trainings and judgements are kept; what is there is not made again.
        budgets: iterations.
    """
    rule = judges.returns(split_rule(), runs / "rule")
    gains: dict[tuple[float, int, bool, int], Tensor] = {}  # rate, iterations, modal, seed -> over the rule's, [N]
    rows: dict[tuple[float, int, bool, int], dict[str, Any]] = {}

    def trained(rate: float, iterations: int, seed: int) -> None:
        config = dataclasses.replace(base, learning_rate=rate, iterations=iterations, seed=seed)
        folder = _folder(runs, config)
        with spending(folder):
            train(folder, config, judges.simulator.world)
        for modal in (False, True):
            team = learned_team(folder, judges.simulator, None if modal else 0)
            gain = judges.returns(team, folder / ("mode" if modal else "sampled")) - rule
            row: dict[str, Any] = {"learning_rate": rate, "iterations": iterations, "seed": seed}
            row |= {"acts": "mode" if modal else "sampled", "patients": len(gain)}
            put_mean(row, "validation_minus_split", gain)
            shorter = [n for r, n, m, s in gains if (r, m, s) == (rate, modal, seed) and n < iterations]
            if shorter:
                put_mean(row, "minus_shorter", gain - gains[rate, max(shorter), modal, seed])
            gains[rate, iterations, modal, seed] = gain
            rows[rate, iterations, modal, seed] = row | {"cpu_seconds": spent(folder), "chosen": False}

    behind = dict.fromkeys(rates, 0)  # at how many lengths on end
    for iterations in sorted(budgets):  # the short ones first: a run that is stopped has a whole table of them
        going = [rate for rate in rates if behind[rate] < PATIENCE]
        for rate in going:
            trained(rate, iterations, seeds[0])
        best_of = {
            rate: max((gains[rate, iterations, m, seeds[0]] for m in (False, True)), key=lambda g: float(g.mean()))
            for rate in going
        }
        leader = max(best_of.values(), key=lambda g: float(g.mean()))
        for rate, gain in best_of.items():
            behind[rate] = behind[rate] + 1 if mean_interval(gain - leader).high < 0 else 0
    rate, iterations, modal, _ = max(gains, key=lambda setting: float(gains[setting].mean()))
    for seed in seeds:
        if seed != seeds[0]:
            trained(rate, iterations, seed)
        rows[rate, iterations, modal, seed]["chosen"] = True
    chosen = dataclasses.replace(base, learning_rate=rate, iterations=iterations)
    folders = [_folder(runs, dataclasses.replace(chosen, seed=seed)) for seed in seeds]
    return Trained(folders, modal, list(rows.values()))


def _folder(runs: Path, config: TeamPPO) -> Path:
    return runs / f"ppo-{config.iterations}-{config.num_envs}-{config.learning_rate:g}-{config.seed}"


def training_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as fixed-width text."""

    def cell(row: dict[str, Any], name: str) -> str:
        return f"{row[name]:+.2f} [{row[name + '_low']:+.2f}, {row[name + '_high']:+.2f}]" if name in row else ""

    head = (
        f"{'rate':>8s} {'iterations':>10s} seed {'acts':8s} {'validation, minus split':24s} {'minus shorter':24s} CPU s"
    )
    lines = [
        f"{r['learning_rate']:8g} {r['iterations']:10d} {r['seed']:4d} {r['acts']:8s} "
        f"{cell(r, 'validation_minus_split'):24s} {cell(r, 'minus_shorter'):24s} {r['cpu_seconds']:.0f}"
        f"{'  <- chosen' if r['chosen'] else ''}"
        for r in rows
    ]
    return "\n".join([head, *lines])
