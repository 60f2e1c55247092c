"""Steps of one Gymnasium environment with random actions, resets included. Needs nothing but Gymnasium."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium

from benchmarks.common.timing import Work

__all__ = ["playing"]

DRAWN = 256  # random legal actions, drawn beforehand


def playing(env: gymnasium.Env[Any, Any]) -> Work:
    """Work: a step, and a reset where an episode has ended. One step was made."""
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(DRAWN)]
    env.reset(seed=0)
    turn = itertools.count()

    def work() -> int:
        _, _, terminated, truncated, _ = env.step(actions[next(turn) % DRAWN])
        if terminated or truncated:
            env.reset()
        return 1

    return work
