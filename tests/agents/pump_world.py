"""Tiny worlds whose best plan is known: two pumps, each to be set at every step to what the patient needs.

Patient i needs of each pump a fixed amount at each step, sampled from its key and shown by the chart, 0 or 1 (with
`graded` anything from 0 to 2). The reward is minus the squared distance to it, so the best return is 0 for every kind
of action. The kinds share world and reward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.task import Column, Doses, Levels, Menu, Switches, Task
from world_models import keys
from world_models.quantity import Quantity

STEPS = 4
ORDERS = ("first_mg", "second_mg")


class PumpState(NamedTuple):
    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    given: Tensor  # float32 [B, 2] in the last step
    needed: Tensor  # float32 [B, STEPS, 2]
    dead: Tensor  # float32 [B]


class PumpWorld:
    name = "pumps"
    measures = (
        Quantity("hours", "h", 0, 1000),
        Quantity("given_mg", "mg", 0, 2, (2,)),
        Quantity("needed_mg", "mg", 0, 2, (STEPS, 2)),
        Quantity("dead", "bool", 0, 1),
    )
    orders = tuple(Quantity(name, "mg", 0, 2) for name in ORDERS)
    factors = (Quantity("needed_mg", "mg", 0, 2, (STEPS, 2)),)
    hours_per_step = 1.0
    device = torch.device("cpu")
    graded_orders = ORDERS  # `world_models.gradients.Differentiable`

    def __init__(self, graded: bool = False, drift: float = 0.0) -> None:
        self.graded, self.drift = graded, drift
        self.rows = 0  # stepped so far

    def initial(self, key, factors=None):
        uniform = keys.uniform(key, 0, "needed", (STEPS, 2))
        needed = 2.0 * uniform if self.graded else (uniform < 0.5).to(torch.float32)
        if factors and "needed_mg" in factors:
            needed = factors["needed_mg"]
        none = torch.zeros(key.shape[0])
        return PumpState(key, torch.zeros_like(key), torch.zeros(key.shape[0], 2), needed, none)

    def read(self, chart):
        return {"needed_mg": chart["needed_mg"]}

    def infer(self, history, key, factors=None):
        last = {name: value[:, -1] for name, value in history.charts.items()}
        t = last["hours"].round().to(torch.int64)
        return PumpState(key, t, last["given_mg"], last["needed_mg"], last["dead"])

    def transition(self, state, action):
        self.rows += len(action)
        moved = keys.normal(state.key, state.t, "drift", (2,)) * self.drift
        return state._replace(t=state.t + 1, given=action + moved)

    def observe(self, state, also=()):
        hours = state.t.to(torch.float32)
        return {"hours": hours, "given_mg": state.given, "needed_mg": state.needed, "dead": state.dead}

    def rekey(self, state, key):
        return state._replace(key=key)

    def spread(self, state):
        return {}

    def support(self, state):
        return torch.ones_like(state.key, dtype=torch.bool)


ACTIONS = {
    "menu": Menu(
        (
            ("nothing", {}),
            ("first", {"first_mg": 1.0}),
            ("second", {"second_mg": 1.0}),
            ("both", {"first_mg": 1.0, "second_mg": 1.0}),
        )
    ),
    "levels": Levels({name: (0.0, 1.0) for name in ORDERS}),
    "switches": Switches(dict.fromkeys(ORDERS, 1.0)),
    "doses": Doses(dict.fromkeys(ORDERS, 2.0)),
}


class PumpTask(Task):
    name = "pumps"
    orders = ORDERS
    horizon_hours = float(STEPS)
    observation = (Column("hours", 2.0, 2.0), Column("given_mg", 1.0, 1.0), Column("needed_mg", 1.0, 1.0))
    trend = ("hours",)

    def __init__(self, kind: str = "menu") -> None:
        self.actions = ACTIONS[kind]

    def reward(self, before, action, after):
        t = (after["hours"].round().to(torch.int64) - 1).clamp(0, STEPS - 1)
        needed = after["needed_mg"][torch.arange(len(t)), t]
        return {"distance": -(after["given_mg"] - needed).square().sum(-1)}

    def cost(self, before, action, after):
        return (action > 0).to(torch.float32).sum(-1)

    def terminated(self, chart):
        return chart["dead"] > 0.5


class BetTask(PumpTask):
    """The second pump is of no use. The first wins by chance: more often than not it loses, so the best is never to use
    it, unless one sees the luck to come."""

    name = "bets"

    def reward(self, before, action, after):
        won = after["given_mg"][:, 0] > 1.3  # the drift decides
        stake = (action[:, 0] > 0).to(torch.float32)
        return {"bet": stake * torch.where(won, 1.0, -1.0), "second": -action[:, 1]}
