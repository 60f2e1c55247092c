"""What the ward's benchmarks share: a row of the table, and the same patients under two sets of orders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from world_models import keys
from world_models.oracles.ward.world import WardOracle, WardState
from world_models.quantities.ward import ORDERS, order_index

__all__ = ["OWN", "PUBLISHED", "Orders", "Row", "action", "change", "effect", "kept_in", "patients", "run"]

PUBLISHED, OWN = "published", "our own range"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    `kind` says whose the range is: PUBLISHED if both its ends are those of the source, an interval or the span of what
    it found; else OWN, though a published figure may lie within.
    """

    probe: str
    measured: float
    low: float
    high: float
    unit: str
    source: str
    kind: str = OWN

    @property
    def inside(self) -> str:
        """ "yes" if the measured value lies within its range, else "no"."""
        return "yes" if self.low <= self.measured <= self.high else "no"


Orders = dict[str, float]


def action(count: int, orders: Orders) -> Tensor:
    """[count, A] the same orders for everybody."""
    given = torch.zeros(count, len(ORDERS))
    for name, amount in orders.items():
        given[:, order_index(name)] = amount
    return given


def kept_in(state: WardState) -> WardState:
    """Nobody has died or gone home."""
    course = state.course
    here = course._replace(alive=torch.ones_like(course.alive), discharged=torch.zeros_like(course.alive))
    return state._replace(course=here)


def run(world: WardOracle, state: WardState, steps: list[Orders]) -> list[WardState]:
    """States after each step; death and discharge are kept off, so that means compare the same patients."""
    states = []
    for orders in steps:
        state = kept_in(world.transition(state, action(len(state.key), orders)))
        states.append(state)
    return states


def patients(disease: str, count: int, hours: float = 1.0, **factors: float) -> tuple[WardOracle, WardState]:
    """The ward at steps of `hours`, and patients of one disease with these factors fixed."""
    world = WardOracle(disease.replace("_", "-"), hours_per_step=hours)
    given = {name: torch.full((count,), value) for name, value in factors.items()}
    return world, world.initial(keys.from_seed(11, count), given)


def change(world: WardOracle, a: WardState, b: WardState, name: str) -> Tensor:
    """Difference [B] of a hidden true value between two states."""
    return (world.truth(b)[name] - world.truth(a)[name]).to(torch.float64)


def effect(
    world: WardOracle, state: WardState, orders: list[Orders], without: list[Orders], name: str
) -> tuple[list[float], list[WardState]]:
    """Mean paired effect on a true value after each step, and the treated states."""
    treated, control = run(world, state, orders), run(world, state, without)
    return [float(change(world, c, t, name).mean()) for c, t in zip(control, treated, strict=True)], treated
