"""Builders of planners."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agents.making import Built, Making
from agents.planning.cem import CEMConfig
from agents.planning.controller import PLANNER_PRESETS, WorldPlanner
from agents.planning.risk import Risk

__all__ = ["cem"]

# A plan of the clinic is one decision held for three years of half-yearly visits: long enough for a drug to pay.
CLINIC = CEMConfig(horizon=6, candidates=48, particles=8, iterations=3, elites=8, finalists=4, hold=True)
EXPLAIN = CEMConfig(
    horizon=3, candidates=192, particles=1, iterations=3, elites=12, finalists=4, every=(), floor=0.01
)  # nothing is left to chance there
COST_WEIGHT = {"ECGDrug": 0.2, "ECGProgression": 0.03}  # what a unit of harm is worth in return, as for PPO


def cem(making: Making, preset: str = "small", risk: Risk | None = None) -> Built:
    """CEM, replanned at every visit or two; quick: the cheapest preset.

    Args:
        preset: of a planner over a menu, see `PLANNER_PRESETS`; the clinic and explanations have their own.
        risk: how imagined returns become one number; None: their mean.
    """
    task = making.simulator.task.name
    config = {"ECGProgression": CLINIC, "ECGExplain": EXPLAIN}.get(task, PLANNER_PRESETS[preset])
    if making.quick:
        config = PLANNER_PRESETS["fast"]
    weight = COST_WEIGHT.get(task, 0.0)
    sees = None
    if task == "ECGProgression":  # a belief about who comes to the clinic needs the ECG's latent, which is on request
        sees = [*(c.name for c in making.simulator.task.observation), "latent"]
    planner = WorldPlanner(making.simulator, config, risk, weight, seed=making.seed, sees=sees)
    settings: dict[str, Any] = {**asdict(config), "cost_weight": weight, "risk": repr(risk), "seed": making.seed}
    imagined = config.candidates * config.particles * config.horizon * config.iterations
    return Built(planner, settings, f"about {imagined:,} transitions imagined a plan")
