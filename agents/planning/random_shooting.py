"""Random shooting: sample plans once from the prior and carry out the best. The yardstick for cleverer planners."""

from __future__ import annotations

from dataclasses import replace

from agents.planning.cem import CEM, CEMConfig
from agents.planning.plan_space import PlanSpace

__all__ = ["random_shooting"]


def random_shooting(config: CEMConfig, space: PlanSpace) -> CEM:
    """CEM that never refits, with the same number of plans scored as `config` would score."""
    return CEM(replace(config, candidates=config.candidates * config.iterations, iterations=1), space)
