"""The smallest world and task with a known best course: a dial to be turned along a path that the chart shows.

The dial starts at 0 and each order adds to it (and chance moves it, where `drift` is above 0). Patient i's path is a
fixed sequence of increments sampled from its key; the reward is minus the squared distance to the path after each step,
so a plan has to be right from its first step and the best return without drift is 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.task import Column, Menu, Task
from world_models import keys
from world_models.quantity import Quantity

STEPS = 8


class DialState(NamedTuple):
    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    dial: Tensor  # float32 [B]
    path: Tensor  # float32 [B, STEPS]: the increments that are right


class DialWorld:
    name = "dial"
    measures = (
        Quantity("hours", "h", 0, 1000),
        Quantity("dial_turns", "1", -100, 100),
        Quantity("path_turns", "1", 0, 2, (STEPS,)),
        Quantity("torsades", "bool", 0, 1),
    )
    orders = (Quantity("turn_mg", "mg", 0, 2),)
    factors = (Quantity("path_turns", "1", 0, 2, (STEPS,)),)
    hours_per_step = 2.0
    device = torch.device("cpu")

    def __init__(self, drift: float = 0.0) -> None:
        self.drift = drift

    def initial(self, key, factors=None):
        path = torch.floor(keys.uniform(key, 0, "path", (STEPS,)) * 3)
        if factors and "path_turns" in factors:
            path = factors["path_turns"]
        return DialState(key, torch.zeros_like(key), torch.zeros(key.shape[0]), path)

    def read(self, chart):
        return {"path_turns": chart["path_turns"]}

    def transition(self, state, action):
        moved = keys.normal(state.key, state.t, "drift") * self.drift
        return state._replace(t=state.t + 1, dial=state.dial + action[:, 0] + moved)

    def observe(self, state, also=()):
        hours = state.t.to(torch.float32) * self.hours_per_step
        return {
            "hours": hours,
            "dial_turns": state.dial,
            "path_turns": state.path,
            "torsades": (state.dial > 60).to(torch.float32),
        }

    def rekey(self, state, key):
        return state._replace(key=key)

    def spread(self, state):
        return {}

    def support(self, state):
        return torch.ones_like(state.key, dtype=torch.bool)


class InferringDialWorld(DialWorld):
    """The same, with `infer`; it records what it was asked."""

    def __init__(self, drift: float = 0.0) -> None:
        super().__init__(drift)
        self.asked: list = []

    def infer(self, history, key, factors=None):
        self.asked.append(history)
        t = torch.full_like(key, history.actions.shape[1] - 1)
        return DialState(key, t, history.charts["dial_turns"][:, -1], history.charts["path_turns"][:, -1])


class DialTask(Task):
    name = "dial"
    orders = ("turn_mg",)
    horizon_hours = STEPS * 2.0
    observation = (Column("hours", 8.0, 8.0), Column("dial_turns", 4.0, 4.0), Column("path_turns", 1.0, 1.0))
    records = ()
    actions = Menu((("nothing", {}), ("one", {"turn_mg": 1.0}), ("two", {"turn_mg": 2.0})))
    trend = ("dial_turns",)

    def reward(self, before, action, after):
        t = (after["hours"] / 2.0).round().to(torch.int64)
        goal = after["path_turns"].cumsum(-1).gather(1, (t - 1).clamp(0, STEPS - 1).unsqueeze(1)).squeeze(1)
        return {"distance": -((after["dial_turns"] - goal) ** 2), "effort": -0.0 * action[:, 0]}

    def cost(self, before, action, after):
        return (action[:, 0] > 1.5).to(torch.float32)

    def terminated(self, chart):
        return chart["torsades"] > 0.5
