"""Builders of planners."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agents.making import Built, Making
from agents.planning.base_policies import base_policy
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.objective import ReturnAndCost
from agents.planning.plan_config import PlanConfig
from agents.planning.presets import config_of
from agents.planning.risk import Risk
from agents.planning.rollout_policy import RolloutConfig, RolloutPlanner
from clinenv.simulator import Simulator
from world_models.protocol import TellsFates

__all__ = ["rollout", "search"]

# A plan of the clinic is one decision held for three years of half-yearly visits: long enough for a drug to pay.
CLINIC: dict[str, Any] = dict(horizon=6, block=6, candidates=48, particles=8, iterations=3, elites=8, finalists=4)
EXPLAIN = CEMConfig(
    horizon=3, candidates=192, particles=1, iterations=3, elites=12, finalists=4, every=(), floor=0.01
)  # nothing is left to chance there
COST_WEIGHT = {"ECGDrug": 0.2, "ECGProgression": 0.03}  # what a unit of harm is worth in return, as for PPO
ROLLOUTS = {
    "ECGDrug": RolloutConfig(horizon=12, particles=8, edits=24, replan_every=2, caution=1.0),
    "EHRWard": RolloutConfig(horizon=12, particles=4, edits=40, finals=4, caution=1.0),
    "ECGProgression": RolloutConfig(horizon=12, particles=8, edits=24, replan_every=2, caution=1.0),
}
QUICK_ROLLOUT = RolloutConfig(horizon=4, particles=2, edits=4, replan_every=4)


def search(
    making: Making, planner: str = "cem", preset: str = "small", risk: Risk | None = None, **settings: Any
) -> Built:
    """A search over plans (`agents.planning.presets.PLANNERS`), replanned at every visit or two.

    Args:
        preset: of the task; quick: the cheapest.
        risk: how imagined returns become one number; None: their mean.
        settings: of the planner's config, instead of a preset.
    """
    task = making.simulator.task
    weight = COST_WEIGHT.get(task.name, 0.0)
    config = _config(making, planner, preset, settings)
    sees = _sees(making.simulator)
    agent = WorldPlanner(making.simulator, config, risk, weight, seed=making.seed, sees=sees, planner=planner)
    told = {"planner": planner, **asdict(config), "cost_weight": weight, "risk": repr(risk), "seed": making.seed}
    imagined = config.candidates * config.particles * config.horizon * getattr(config, "iterations", 1)
    return Built(agent, told, f"about {imagined:,} transitions imagined a plan")


def rollout(making: Making, policy: str = "rule") -> Built:
    """The clinicians' rule, or the best known constant, edited where the imagined futures say that it pays."""
    task = making.simulator.task
    config = QUICK_ROLLOUT if making.quick else ROLLOUTS[task.name]
    weight = COST_WEIGHT.get(task.name, 0.0)
    # events at their chances: a gain too small for drawn deaths is seen
    tells = isinstance(making.simulator.world, TellsFates)
    model = Simulator(making.simulator.world, task, events="expected") if tells else making.simulator
    base = base_policy(model, policy)
    objective = ReturnAndCost(cost_weight=weight)
    agent = RolloutPlanner(model, base, config, objective, seed=making.seed, sees=_sees(model))
    told = {"policy": base.name, **asdict(config), "cost_weight": weight, "seed": making.seed}
    imagined = (config.edits + 1) * config.particles * config.horizon
    return Built(agent, told, f"about {imagined:,} transitions imagined a plan")


def _config(making: Making, planner: str, preset: str, settings: dict[str, Any]) -> PlanConfig:
    task = making.simulator.task.name
    if making.quick:
        return config_of(making.simulator.task, planner, "fast")
    if settings:
        kind = type(config_of(making.simulator.task, planner, preset))
        return kind(**settings)
    if task == "ECGExplain":
        return EXPLAIN
    if task == "ECGProgression":
        return type(config_of(making.simulator.task, planner, preset))(**CLINIC)
    return config_of(making.simulator.task, planner, preset)


def _sees(simulator: Simulator) -> list[str] | None:
    """A belief about who comes to the clinic needs the ECG's latent, which is on request."""
    if simulator.task.name != "ECGProgression":
        return None
    return [*(column.name for column in simulator.task.observation), "latent"]
