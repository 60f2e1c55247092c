"""Whole stays of many patients at once, judged: what each earned, term by term, and how it ended.

Unlike `agents.rollout.judge`, who has left is dropped from the batch (most of a ward goes home long before the
fourteenth day), so the policy must be one that remembers nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from clinenv.simulator import Simulator
from world_models import tree
from world_models.protocol import Chart

__all__ = ["WardStays", "stays"]

# (chart of B patients, int64 [B] which of the judged patients they are) -> orders float32 [B, A]
Policy = Callable[[Chart, Tensor], Tensor]


class WardStays(NamedTuple):
    """One stay a patient, in the order of the keys. All [N] unless said."""

    returns: Tensor  # sum of rewards, undiscounted
    costs: Tensor  # sum of info["cost"]: harm as it was charted
    steps: Tensor  # int64 until the end
    died: Tensor  # bool
    home: Tensor  # bool
    hours: Tensor  # length of stay (until the horizon at most)
    terms: dict[str, Tensor]  # sum of each named reward term
    refused: Tensor  # orders not carried out
    orders: Tensor  # [N, A] total of each order that was carried out


@torch.no_grad()
def stays(
    policy: Policy, simulator: Simulator, keys: Tensor, steps: int = 84, progress: Callable[[int], None] | None = None
) -> WardStays:
    """Run a policy without memory on the patients of `keys` int64 [N]; equal keys give paired stays.

    Raises:
        ValueError: no keys, or fewer than one step.
    """
    if keys.ndim != 1 or keys.shape[0] == 0 or steps < 1:
        raise ValueError(f"stays needs keys [N >= 1] and steps >= 1, got {tuple(keys.shape)} and {steps}")
    count, device = keys.shape[0], keys.device
    state, chart = simulator.reset(keys)
    rows = torch.arange(count, device=device)
    zero = torch.zeros(count, device=device)
    returns, costs, refused, hours = zero.clone(), zero.clone(), zero.clone(), zero.clone()
    length = torch.zeros(count, dtype=torch.int64, device=device)
    died, home = zero.bool(), zero.bool()
    terms: dict[str, Tensor] = {}
    orders = torch.zeros(count, len(simulator.task.orders), device=device)
    for step in range(steps):
        out = simulator.step(state, chart, policy(chart, rows))
        returns[rows] += out.reward
        costs[rows] += out.cost
        for name, value in out.terms.items():
            terms.setdefault(name, zero.clone())[rows] += value
        orders[rows] += out.given
        if out.refused is not None:
            refused[rows] += out.refused.sum(-1).to(torch.float32)
        length[rows] += 1
        hours[rows] = out.chart["hours"]
        died[rows], home[rows] = out.chart["alive"] < 0.5, out.chart["discharged"] > 0.5
        stay = ~out.terminated
        if progress is not None:
            progress(step + 1)
        if not bool(stay.any()):
            break
        state, chart = out.state, out.chart
        if not bool(stay.all()):
            state, chart, rows = tree.take(state, stay), tree.take(chart, stay), rows[stay]
    return WardStays(returns, costs, length, died, home, hours, terms, refused, orders)
