"""Independent PPO for the care team, trained to its plateau: learning rates and budgets, judged on validation patients.

Every rate is trained for every number of iterations, from every seed (PPO's rate falls to 0 over its run, so a longer
run is another run). Each team is judged in the learned ward on patients that neither training nor the table meets, with
deaths at their chances, once as it samples and once at its mode. The setting with the best mean over seeds is the one
that stands in the table; whether its number of iterations is a plateau is what the longest budget gains on the next
shorter one, paired over patients.
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
from benchmarks.common.intervals import put_mean
from benchmarks.common.spent import spending, spent
from clinenv.simulator import Simulator
from world_models import keys
from world_models.files import write_text

__all__ = ["VALIDATION_SEED", "Trained", "trained_teams", "training_text"]

VALIDATION_SEED = 8_900_000_000  # of the first validation patient; training's begin at 8 700 000 000


class Trained(NamedTuple):
    """The teams of the setting that was chosen, and what each setting was worth."""

    folders: list[Path]  # one a seed
    modal: bool  # they give what is likeliest; else they sample as in training
    rows: list[dict[str, Any]]  # one a setting


class _Setting(NamedTuple):
    rate: float
    iterations: int
    modal: bool


def trained_teams(
    simulator: Simulator,
    base: TeamPPO,
    runs: Path,
    rates: Sequence[float],
    budgets: Sequence[int],
    seeds: Sequence[int],
    patients: int,
    steps: int,
) -> Trained:
    """Train every setting from every seed, judge it on `patients` validation patients, and choose.

    Args:
        simulator: the learned ward under the team's task.
        base: what no setting changes.
        runs: where trainings and judgements are kept; what is there is not made again.
        budgets: iterations.
        steps: the longest stay.
    """
    key = keys.from_seed(VALIDATION_SEED, patients)
    rule = _returns(split_rule(), simulator, key, steps, runs / f"validation-{patients}-{steps}-rule.json")
    gains: dict[_Setting, list[Tensor]] = {}
    cpu_s: dict[_Setting, float] = {}
    for iterations in sorted(budgets):  # the short ones first: a run that is stopped has a whole table of them
        for rate in rates:
            for seed in seeds:
                config = dataclasses.replace(base, learning_rate=rate, iterations=iterations, seed=seed)
                folder = _folder(runs, config)
                with spending(folder):
                    train(folder, config, simulator.world)
                for modal in (False, True):
                    setting = _Setting(rate, iterations, modal)
                    team = learned_team(folder, simulator, None if modal else 0)
                    kept = folder / f"validation-{patients}-{steps}-{'mode' if modal else 'sampled'}.json"
                    gains.setdefault(setting, []).append(_returns(team, simulator, key, steps, kept) - rule)
                    cpu_s[setting] = cpu_s.get(setting, 0.0) + spent(folder)
    mean = {setting: torch.stack(found).mean(0) for setting, found in gains.items()}
    best = max(mean, key=lambda s: float(mean[s].mean()))
    rows = [_row(s, gains[s], mean, cpu_s[s], s == best) for s in mean]
    chosen = dataclasses.replace(base, learning_rate=best.rate, iterations=best.iterations)
    return Trained([_folder(runs, dataclasses.replace(chosen, seed=seed)) for seed in seeds], best.modal, rows)


def _folder(runs: Path, config: TeamPPO) -> Path:
    return runs / f"ppo-{config.iterations}-{config.num_envs}-{config.learning_rate:g}-{config.seed}"


def _row(
    setting: _Setting, gains: Sequence[Tensor], mean: dict[_Setting, Tensor], cpu_s: float, chosen: bool
) -> dict[str, Any]:
    """A setting's gain on the split rule and on the next shorter run of its rate, over the mean of its seeds."""
    row: dict[str, Any] = {"learning_rate": setting.rate, "iterations": setting.iterations}
    row |= {"acts": "mode" if setting.modal else "sampled", "seeds": len(gains), "patients": len(mean[setting])}
    put_mean(row, "validation_minus_split", mean[setting])
    values = [float(gain.mean()) for gain in gains]
    row |= {"lowest_seed": min(values), "highest_seed": max(values)}
    shorter = [s for s in mean if s[::2] == setting[::2] and s.iterations < setting.iterations]
    if shorter:
        put_mean(row, "minus_shorter", mean[setting] - mean[max(shorter, key=lambda s: s.iterations)])
    return row | {"cpu_seconds": cpu_s, "chosen": chosen}


def _returns(agent: Agent, simulator: Simulator, key: Tensor, steps: int, kept: Path) -> Tensor:
    """Returns [N] of the patients of `key`, deaths at their chances; kept in a file."""
    if kept.exists():
        return torch.tensor(json.loads(kept.read_text(encoding="utf-8")))
    tqdm.write(f"judging {kept.parent.name}/{kept.stem}")
    found = judge_expected(agent, simulator, key, steps).returns
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text(kept, json.dumps(found.tolist()) + "\n")
    return found


def training_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as fixed-width text."""

    def cell(row: dict[str, Any], name: str) -> str:
        return f"{row[name]:+.2f} [{row[name + '_low']:+.2f}, {row[name + '_high']:+.2f}]" if name in row else ""

    head = (
        f"{'rate':>8s} {'iterations':>10s} {'acts':8s} {'validation, minus split':24s} {'minus shorter run':24s} CPU s"
    )
    lines = [
        f"{r['learning_rate']:8g} {r['iterations']:10d} {r['acts']:8s} {cell(r, 'validation_minus_split'):24s} "
        f"{cell(r, 'minus_shorter'):24s} {r['cpu_seconds']:.0f}{'  <- chosen' if r['chosen'] else ''}"
        for r in rows
    ]
    return "\n".join([head, *lines])
