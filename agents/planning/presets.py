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
from agents.planning.tree_search import TreeConfig
from clinenv.task import Task

__all__ = ["PLANNERS", "PLANNER_PRESETS", "config_of"]

PLANNERS: dict[str, type[PlanConfig]] = {
    "shooting": ShootingConfig,
    "cem": CEMConfig,
    "icem": ICEMConfig,
    "mppi": MPPIConfig,
    "gradient": GradientConfig,
    "tree": TreeConfig,
    "inverse": InverseConfig,
}

# Steps imagined a patient and decision: about 400, 1,200 and 14,000.
_DRUG: dict[str, dict[str, Any]] = {
    "fast": dict(horizon=6, candidates=30, particles=4, iterations=1, elites=4, finalists=3, replan_every=2),
    "small": dict(horizon=8, candidates=32, particles=4, iterations=2, elites=6, finalists=4, replan_every=2),
    "careful": dict(horizon=12, candidates=48, particles=8, iterations=3, elites=8, finalists=6, replan_every=1),
}
_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {"ECGDrug": _DRUG}


def config_of(task: Task, planner: str, preset: str) -> PlanConfig:
    """The config of a planner by the names of planner and preset, for a task (one that is not known gets the drug's).

    Raises:
        ValueError: an unknown planner or preset.
    """
    if planner not in PLANNERS:
        raise ValueError(f"no planner {planner!r}; there are: {', '.join(PLANNERS)}")
    settings = _SETTINGS.get(task.name, _DRUG)
    if preset not in settings:
        raise ValueError(f"no planner preset {preset!r}; there are: {', '.join(settings)}")
    kind = PLANNERS[planner]
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in settings[preset].items() if name in known})


PLANNER_PRESETS: dict[str, CEMConfig] = {name: CEMConfig(**settings) for name, settings in _DRUG.items()}
