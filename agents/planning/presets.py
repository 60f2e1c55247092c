"""How hard each planner thinks about each kind of patient: three presets a task, the same for all planners."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from agents.planning.cem import CEMConfig
from agents.planning.gradient import GradientConfig
from agents.planning.icem import ICEMConfig
from agents.planning.inverse_planner import InverseConfig
from agents.planning.mppi import MPPIConfig
from agents.planning.plan_config import PlanConfig
from agents.planning.random_shooting import ShootingConfig
from agents.planning.rollout_policy import RolloutConfig
from agents.planning.tree_search import TreeConfig
from clinenv.task import Task

__all__ = ["PLANNERS", "config_of", "rollout_of"]

PLANNERS: dict[str, type[PlanConfig]] = {
    "shooting": ShootingConfig,
    "cem": CEMConfig,
    "icem": ICEMConfig,
    "mppi": MPPIConfig,
    "gradient": GradientConfig,
    "tree": TreeConfig,
    "inverse": InverseConfig,
}

# Two days ahead, a decision every four hours: a drug pays late, and who looks 16 hours ahead earns less than the
# label's rule. Steps imagined a patient and decision: about 1,500, 3,600 and 28,000.
_DRUG: dict[str, dict[str, Any]] = {
    "fast": dict(candidates=12, particles=4, iterations=1, elites=3, finalists=2, replan_every=4),
    "small": dict(candidates=16, particles=4, iterations=2, elites=4, finalists=3, replan_every=2),
    "careful": dict(candidates=48, particles=8, iterations=3, elites=8, finalists=6, replan_every=2),
}
for _sizes in _DRUG.values():
    _sizes |= dict(horizon=24, block=2, nothing=0.8)
# Edits of the ward's rule, four-hour steps: a day to two ahead.
_WARD: dict[str, dict[str, Any]] = {
    "fast": dict(horizon=6, candidates=24, particles=2, iterations=1, elites=4, finalists=2, replan_every=3),
    "small": dict(horizon=9, candidates=32, particles=4, iterations=2, elites=6, finalists=3, replan_every=3),
    "careful": dict(horizon=12, candidates=48, particles=8, iterations=3, elites=8, finalists=4, replan_every=3),
}
for _sizes in _WARD.values():
    _sizes |= dict(nothing=0.97, block=3, every=())
# One decision held for years: long enough for a drug to pay, few enough to search.
_CLINIC: dict[str, dict[str, Any]] = {
    "fast": dict(horizon=4, candidates=32, particles=4, iterations=2, elites=6, finalists=3, block=4),
    "small": dict(horizon=6, candidates=48, particles=8, iterations=3, elites=8, finalists=4, block=6),
    "careful": dict(horizon=12, candidates=64, particles=12, iterations=4, elites=8, finalists=6, block=6),
}
# Nothing in an explanation is left to chance.
_EXPLAIN: dict[str, dict[str, Any]] = {
    "fast": dict(horizon=2, candidates=100, particles=1, iterations=2, elites=8, finalists=0),
    "small": dict(horizon=3, candidates=192, particles=1, iterations=3, elites=12, finalists=0),
    "careful": dict(horizon=4, candidates=256, particles=1, iterations=6, elites=16, finalists=0),
}
for _sizes in _EXPLAIN.values():
    _sizes |= dict(nothing=0.4, every=(), floor=0.01, widening_power=0.0)
_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "ECGDrug": _DRUG,
    "EHRWard": _WARD,
    "ECGProgression": _CLINIC,
    "ECGExplain": _EXPLAIN,
}
_ROLLOUTS: dict[str, dict[str, RolloutConfig]] = {
    "ECGDrug": {
        "fast": RolloutConfig(horizon=12, particles=4, edits=24, replan_every=2, finals=2),
        "small": RolloutConfig(horizon=24, particles=6, edits=24, replan_every=2, finals=4),
        "careful": RolloutConfig(horizon=24, particles=16, edits=24, replan_every=1, finals=4),
    },
    "EHRWard": {
        "fast": RolloutConfig(horizon=6, particles=2, edits=24, replan_every=6, finals=4),
        "small": RolloutConfig(horizon=12, particles=4, edits=40, replan_every=6, finals=6),
        "careful": RolloutConfig(horizon=18, particles=8, edits=80, replan_every=6, finals=6),
    },
    "ECGProgression": {
        "fast": RolloutConfig(horizon=4, particles=4, edits=24, replan_every=1, finals=2),
        "small": RolloutConfig(horizon=8, particles=8, edits=24, replan_every=1, finals=4),
        "careful": RolloutConfig(horizon=16, particles=16, edits=24, replan_every=1, finals=4),
    },
}


def _settings_of(task: Task, preset: str) -> dict[str, Any]:
    settings = _SETTINGS.get(task.name, _DRUG)
    if preset not in settings:
        raise ValueError(f"no planner preset {preset!r}; there are: {', '.join(settings)}")
    return settings[preset]


def config_of(task: Task, planner: str, preset: str) -> PlanConfig:
    """The config of a planner by the names of planner and preset, for a task (one that is not known gets the drug's).

    Raises:
        ValueError: an unknown planner or preset.
    """
    if planner not in PLANNERS:
        raise ValueError(f"no planner {planner!r}; there are: {', '.join(PLANNERS)}")
    kind, settings = PLANNERS[planner], _settings_of(task, preset)
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in settings.items() if name in known})


def rollout_of(task: Task, preset: str) -> RolloutConfig:
    """The config of rollouts of a policy by the name of a preset, for a task.

    Raises:
        ValueError: an unknown preset.
    """
    sizes = _ROLLOUTS.get(task.name, _ROLLOUTS["ECGDrug"])
    if preset not in sizes:
        raise ValueError(f"no planner preset {preset!r}; there are: {', '.join(sizes)}")
    return sizes[preset]
