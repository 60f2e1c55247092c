"""What the tests share: two states, two actions, and logs of the dial that `tests.agents.bandit_world` turns."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.offline.behaviour import Behaviour, Exploring, Mixture
from agents.offline.choices import Choices
from agents.offline.ope.evidence import Evidence
from clinenv.simulator import Simulator
from tests.agents.bandit_world import DialTask
from world_models import keys

GOAL = 4.0
STEPS = 4
START = torch.tensor([0.7, 0.3], dtype=torch.float64)
MOVE = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.1, 0.9]]], dtype=torch.float64)  # [state, action, next]
REWARD = torch.tensor([[1.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)  # [state, action]
POLICY = torch.tensor([[0.3, 0.7], [0.2, 0.8]], dtype=torch.float64)  # [state, action]
BEHAVIOUR = torch.tensor([[0.6, 0.4], [0.5, 0.5]], dtype=torch.float64)


def true_q() -> tuple[Tensor, Tensor]:
    """q [STEPS, state, action] and v [STEPS, state] of POLICY with so many steps behind, by dynamic programming."""
    q = torch.zeros(STEPS, 2, 2, dtype=torch.float64)
    v = torch.zeros(STEPS + 1, 2, dtype=torch.float64)
    for t in reversed(range(STEPS)):
        q[t] = REWARD + MOVE @ v[t + 1]
        v[t] = (POLICY * q[t]).sum(-1)
    return q, v[:STEPS]


def true_value() -> float:
    """What POLICY earns."""
    return float(START @ true_q()[1][0])


def sampled(count: int, seed: int, q: Tensor | None = None) -> Evidence:
    """Evidence of `count` stays under BEHAVIOUR about POLICY, with a fitted Q [STEPS, state, action]."""
    key = keys.from_seed(seed * 1_000_003, count)
    state = (keys.uniform(key, 0, "start") >= START[0]).to(torch.int64)
    q = torch.zeros(STEPS, 2, 2, dtype=torch.float64) if q is None else q
    reward, ratio, at_q, at_v = [], [], [], []
    for t in range(STEPS):
        action = (keys.uniform(key, t, "action") >= BEHAVIOUR[state, 0]).to(torch.int64)
        reward.append(REWARD[state, action])
        ratio.append((POLICY[state, action] / BEHAVIOUR[state, action]).log())
        at_q.append(q[t][state, action])
        at_v.append((POLICY[state] * q[t][state]).sum(-1))
        state = (keys.uniform(key, t, "move") >= MOVE[state, action, 0]).to(torch.int64)
    columns = [torch.stack(x, 1) for x in (reward, ratio, at_q, at_v)]
    here = torch.ones(count, STEPS, dtype=torch.bool)
    return Evidence(columns[0], here, columns[1], columns[2], columns[3], 1.0)


class HoldTask(DialTask):
    """To turn the dial to GOAL and leave it there: what is to come depends on the dial and the hour alone."""

    def reward(self, before, action, after):
        return {"distance": -0.25 * (after["dial_turns"] - GOAL) ** 2, "effort": -0.0 * action[:, 0]}


class Follower:
    """Turns the dial to GOAL, or (`off`) further than it thinks."""

    def __init__(self, off: int = 0, name: str = "follower") -> None:
        self.off, self.name = off, name

    def reset(self, mask: Tensor | None = None) -> None:
        pass

    def act(self, chart):
        return ((GOAL - chart["dial_turns"]).round().clamp(0, 2).to(torch.int64) + self.off) % 3


def dial_behaviour(simulator: Simulator, epsilon: float = 0.3) -> Behaviour:
    """Two colleagues, of whom one is always off by one."""
    choices = Choices(simulator)
    parts = [Exploring(Follower(off), choices, epsilon, f"off {off}") for off in (0, 1)]
    return Mixture(parts, [0.6, 0.4], "stay")
