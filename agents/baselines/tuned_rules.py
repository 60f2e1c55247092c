"""Clinicians' rules with knobs, turned in a world by the cross-entropy method: how the ward's and the clinic's are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.baselines import progression_rule, ward_rule
from agents.expected import judge_expected
from agents.making import Built, Making, seal_of
from agents.planning.parameter_cem import ParameterCEM, search
from agents.protocol import Agent
from agents.rollout import judge
from clinenv.simulator import Simulator
from clinenv.task import Switches
from world_models import keys
from world_models.config_json import parse_json
from world_models.files import write_text
from world_models.protocol import TellsFates
from world_models.quantities.progression import CODES

__all__ = ["kept_knobs", "tune_knobs", "tuned_rule"]

TUNING_SEED = 8_410_000_000
OWN_STEPS = {"EHRWard": 84, "ECGProgression": 120}  # tuned once, for the id's own length
# iterations, candidates, patients of each; the clinic's oracle draws and reads an ECG a visit, which is slow
SEARCHES = {
    "quick": (ParameterCEM(2, 8, 2), 12),
    "learned": (ParameterCEM(8, 20, 5), 40),
    "oracle": (ParameterCEM(6, 16, 4), 24),
}
RULE_THRESHOLD = 0.5  # of a reading, before its knob is turned


def tune_knobs(
    simulator: Simulator,
    make: Callable[[Tensor], Agent],
    knobs: tuple[int, float],
    config: ParameterCEM,
    patients: int,
    first: int,
    steps: int,
    seed: int = 0,
) -> Tensor:
    """Knobs [P] found in `simulator`, from all at 0, on new patients every iteration.

    Args:
        make: the agent with knobs [B, P], one set a row.
        knobs: how many there are, and how far one turns.
        patients: that each candidate meets in an iteration.
        first: seed of the first of them.
        steps: of a course at most.
        seed: of the sampling.
    """

    def evaluate(drawn: Tensor, iteration: int) -> Tensor:
        key = keys.from_seed(first + iteration * patients, patients, simulator.device).repeat(len(drawn))
        agent = make(drawn.repeat_interleave(patients, 0))
        # deaths are most of a stay's return: drawn, those that luck alone decides would choose the knobs
        judged = judge_expected if isinstance(simulator.world, TellsFates) else judge
        return judged(agent, simulator, key, steps).returns.view(len(drawn), patients)

    count, limit = knobs
    return search(evaluate, torch.zeros(count), config, seed, limit=limit)


def kept_knobs(path: Path, names: Sequence[str], make: Callable[[], Tensor], about: Mapping[str, Any]) -> Tensor:
    """Knobs of `path` if they were found with the same settings; else those of `make`, written there by their names."""
    if path.exists():
        old = parse_json(path.read_bytes(), str(path))
        knobs = old.get("knobs")
        if old.get("about") == dict(about) and isinstance(knobs, dict) and list(knobs) == list(names):
            return torch.tensor(list(knobs.values()), dtype=torch.float32)
    found = make()
    named = {name: round(float(v), 6) for name, v in zip(names, found, strict=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"about": dict(about), "knobs": named}, indent=1) + "\n")
    return torch.tensor(list(named.values()), dtype=torch.float32)


def tuned_rule(making: Making) -> Built:
    """The rule of the id with knobs found in the world it is made in."""
    simulator, world = making.simulator, Path(making.world).name
    effort = "quick" if making.quick else ("oracle" if world == "oracle" else "learned")
    config, patients = SEARCHES[effort]
    steps = min(OWN_STEPS[simulator.task.name], making.steps) if making.quick else OWN_STEPS[simulator.task.name]
    names, limit, make = _kind(simulator)
    first = TUNING_SEED + making.seed * 1_000_000
    about = {**asdict(config), "id": making.env_id, "world": world, "seed": making.seed, "patients": patients}
    about |= {"steps": steps, "weights": seal_of(simulator.world)}

    def find() -> Tensor:
        knobs = (len(names), limit)
        return tune_knobs(simulator, make, knobs, config, patients, first, steps, making.seed)

    path = making.runs / f"tuned-{making.env_id}-{world}-{effort}-{making.seed}.json"
    knobs = kept_knobs(path, names, find, about)
    budget = f"{config.iterations * config.candidates * patients:,} courses"
    return Built(make(knobs), {**about, "knobs": dict(zip(names, knobs.tolist(), strict=True))}, budget)


def _kind(simulator: Simulator) -> tuple[list[str], float, Callable[[Tensor], Agent]]:
    """Names of the knobs, how far they turn, and the agent that they make."""
    hours = float(simulator.world.hours_per_step)
    if simulator.task.name == "ECGProgression":
        threshold = torch.full((len(CODES),), RULE_THRESHOLD)
        return (
            list(progression_rule.KNOBS),
            progression_rule.LARGEST,
            lambda x: progression_rule.TunedRule(threshold, x),
        )
    names = [k.name for k in ward_rule.KNOBS]

    def exact(knobs: Tensor) -> ward_rule.TunedClinician:
        return ward_rule.TunedClinician(knobs, hours)

    def standard(knobs: Tensor) -> ward_rule.AtStandardAmounts:
        return ward_rule.AtStandardAmounts(exact(knobs))

    return names, ward_rule.LARGEST, standard if isinstance(simulator.task.actions, Switches) else exact
