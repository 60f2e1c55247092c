"""Builders of planners."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from agents.making import Built, Making
from agents.planning.base_policies import base_policy
from agents.planning.planners import planner_for
from agents.planning.presets import config_of, rollout_of
from agents.planning.risk import Risk
from clinenv.task import Levels

__all__ = ["rollout", "search"]

FUTURES = 2  # of a plan for the antiarrhythmics: of a mean, rare events at their chances, these say enough


def search(
    making: Making, planner: str = "cem", preset: str = "small", risk: Risk | None = None, **settings: Any
) -> Built:
    """A search over plans (`agents.planning.presets.PLANNERS`), replanned at every visit or two.

    Args:
        preset: of the task; quick: the cheapest.
        risk: how imagined returns become one number; None: their mean.
        settings: of the planner's config, instead of the preset's.
    """
    if risk is None and making.simulator.task.name == "ECGDrug":
        settings.setdefault("particles", FUTURES)
    config = replace(config_of(making.simulator.task, planner, "fast" if making.quick else preset), **settings)
    more: dict[str, Any] = {"seed": making.seed, "episode_hours": _ends(making), "state_of": making.state_of}
    agent = planner_for(making.simulator, planner, config, risk=risk, **more)
    told = {"planner": planner, **asdict(config), "objective": repr(agent.objective), "seed": making.seed}
    imagined = config.candidates * config.particles * config.horizon * asdict(config).get("iterations", 1)
    return Built(agent, told, f"about {imagined:,} transitions imagined a plan")


def rollout(making: Making, policy: str = "rule", preset: str = "small") -> Built:
    """The clinicians' rule, or the best known constant, edited where the imagined futures say that it pays."""
    config = rollout_of(making.simulator.task, "fast" if making.quick else preset)
    base = base_policy(making.simulator, policy)
    more: dict[str, Any] = {"seed": making.seed, "episode_hours": _ends(making), "state_of": making.state_of}
    agent = planner_for(making.simulator, "rollout", config, base, **more)
    told = {"policy": base.name, **asdict(config), "objective": repr(agent.objective), "seed": making.seed}
    imagined = (config.edits + 1) * config.particles * config.horizon
    return Built(agent, told, f"about {imagined:,} transitions imagined a plan")


def _ends(making: Making) -> float | None:
    """Hours after which the judge cuts an episode off; None where the decider says how long a step lasts."""
    actions = making.simulator.task.actions
    if isinstance(actions, Levels) and actions.interval:
        return None
    return making.steps * float(making.simulator.world.hours_per_step)
