"""Any planner for any task, by name: the planner, its preset, the policy it starts from.

planner_for(simulator, "rollout", "small")  # edits of the task's rule, continued by the rule
planner_for(simulator, "icem", "careful")
"""

from __future__ import annotations

import copy
from typing import Any

from agents.planning.base_policies import base_policy
from agents.planning.believer import Believer
from agents.planning.controller import WorldPlanner
from agents.planning.presets import PLANNERS, config_of, rollout_of
from agents.planning.rollout_policy import RolloutPlanner
from agents.protocol import Agent
from clinenv.simulator import Simulator
from world_models.protocol import TellsFates

__all__ = ["NAMES", "planner_for"]

ROLLOUT = "rollout"
NAMES = (*PLANNERS, ROLLOUT)
CENTRED = ("EHRWard",)  # tasks with dozens of orders: plans are edits of the rule, unless told otherwise


def planner_for(
    simulator: Simulator, planner: str = "cem", preset: str = "small", policy: Agent | None = None, **more: Any
) -> Believer:
    """A planner that believes in the simulator's world.

    Args:
        planner: one of NAMES.
        preset: "fast", "small" or "careful".
        policy: that it edits, proposes and continues; None: of a rollout, and in tasks with dozens of orders, the
            task's rule (`base_policy`), else none.
        more: further arguments of `WorldPlanner` or `RolloutPlanner`.

    Raises:
        ValueError: an unknown planner or preset, or a task without a base policy where one is needed.
    """
    if planner not in NAMES:
        raise ValueError(f"no planner {planner!r}; there are: {', '.join(NAMES)}")
    if policy is None and (planner == ROLLOUT or simulator.task.name in CENTRED):
        policy = base_policy(simulator)
    if planner == ROLLOUT:
        assert policy is not None
        return RolloutPlanner(at_their_chances(simulator), policy, rollout_of(simulator.task, preset), **more)
    config = config_of(simulator.task, planner, preset)
    return WorldPlanner(simulator, config, policy=policy, **more)


def at_their_chances(simulator: Simulator) -> Simulator:
    """The simulator with rare events at their chances, where its world tells them: only so is a gain seen that is
    smaller than what one drawn death in a dozen futures makes of it."""
    if not isinstance(simulator.world, TellsFates) or simulator.events == "expected":
        return simulator
    expecting = copy.copy(simulator)
    expecting.events = "expected"
    return expecting
