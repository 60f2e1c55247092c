"""Categorical proposals over a menu: which row of the menu at each step of the plan.

Probabilities are [B, H, M]: patients, steps, rows of the menu. Row 0 of a menu is "nothing".

Where a step chooses a level of each of D orders, the H steps are H x D places, one order after the other within a step,
and M is the largest number of levels: the places are drawn independently and refitted each by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import keys

__all__ = ["anchors", "level_anchors", "level_prior", "prior", "refit", "sample", "shift"]


def prior(patients: int, horizon: int, choices: int, nothing: float, device: torch.device | str = "cpu") -> Tensor:
    """[B, H, M]: "nothing" with probability `nothing` at every step, the other rows share the rest equally.

    Doses are hours apart, so plans in which most steps give nothing are the sensible ones: with equal chances a plan
    of eight steps would order seven doses.
    """
    if choices < 2:
        raise ValueError(f"there is nothing to plan with {choices} row(s) in the menu; at least 2 are needed")
    if not 0.0 <= nothing < 1.0:
        raise ValueError(f"the prior probability of 'nothing' must be at least 0 and below 1, got {nothing}")
    one = torch.full((choices,), (1.0 - nothing) / (choices - 1), device=device)
    one[0] = nothing
    return one.expand(patients, horizon, choices).clone()


def level_prior(patients: int, horizon: int, table: Tensor, nothing: float) -> Tensor:
    """[B, H * D, M] over the levels of table [D, M, A] (NaN: no such level): "nothing" where an order has it, at its
    first level; the others share the rest equally; an order without "nothing" has all its levels equally likely.
    """
    if not 0.0 <= nothing < 1.0:
        raise ValueError(f"the prior probability of 'nothing' must be at least 0 and below 1, got {nothing}")
    exists = ~table[:, :, 0].isnan()
    count = exists.sum(-1, keepdim=True)
    optional = (table[:, 0] == 0).all(-1, keepdim=True) & (count > 1)  # [D, 1]
    others = torch.where(optional, (1.0 - nothing) / (count - 1).clamp_min(1), 1.0 / count)
    one = torch.where(exists, others, 0.0)
    one[:, :1] = torch.where(optional, nothing, one[:, :1])
    return one.to(torch.float32).repeat(horizon, 1).expand(patients, -1, -1).clone()


def sample(key: Tensor, t: int, probabilities: Tensor, count: int) -> Tensor:
    """Plans int64 [B, count, H] drawn from probabilities [B, H, M] with keys [B] at draw number t."""
    horizon, choices = probabilities.shape[1:]
    edges = probabilities.cumsum(-1).unsqueeze(1)  # [B, 1, H, M]
    point = keys.uniform(key, t, "planning/proposal", (count, horizon)).unsqueeze(-1) * edges[..., -1:]
    return (point >= edges).sum(-1).clamp_max(choices - 1)


def refit(elites: Tensor, old: Tensor, smoothing: float, floor: float, possible: Tensor | None = None) -> Tensor:
    """[B, H, M]: the elites' frequencies (plans [B, E, H]), mixed with what was believed before.

    Args:
        smoothing: weight of `old` [B, H, M], 0 forgets it.
        floor: weight of the uniform distribution, so that no row of the menu is ever ruled out.
        possible: bool [H, M], the rows there are at each place; None: all.
    """
    counts = torch.zeros_like(old)
    ones = torch.ones_like(elites, dtype=old.dtype).transpose(1, 2)
    counts.scatter_add_(2, elites.transpose(1, 2), ones)
    new = smoothing * old + (1.0 - smoothing) * counts / elites.shape[1]
    if possible is None:
        return (1.0 - floor) * new + floor / old.shape[-1]
    return (1.0 - floor) * new + floor * possible / possible.sum(-1, keepdim=True)


def shift(probabilities: Tensor, steps: int, fill: Tensor) -> Tensor:
    """The same beliefs `steps` later [B, H, M]: the front is dropped, the end comes from `fill` (the prior)."""
    if steps >= probabilities.shape[1]:
        return fill
    return torch.cat([probabilities[:, steps:], fill[:, :steps]], dim=1)


def anchors(choices: int, horizon: int, every: tuple[int, ...] = (), device: torch.device | str = "cpu") -> Tensor:
    """Plans that are always tried, int64 [N, H]: nothing at all; each row of the menu once, now; the same at every
    step; and at every n-th step for each n of `every` that is below the horizon.
    """
    steps = torch.arange(horizon, device=device)
    patterns = [steps == 0, steps >= 0] + [steps % n == 0 for n in sorted(set(every)) if 1 < n < horizon]
    plans = [torch.zeros(horizon, dtype=torch.int64, device=device)]
    for pattern in patterns if horizon > 1 else patterns[:1]:
        plans += [pattern.to(torch.int64) * row for row in range(1, choices)]
    return torch.stack(plans)


def level_anchors(counts: tuple[int, ...], horizon: int, device: torch.device | str = "cpu") -> Tensor:
    """Plans over levels that are always tried, int64 [N, H * D]: the first level of everything; and each other level
    of each order alone, now and at every step.
    """
    nothing = torch.zeros(horizon, len(counts), dtype=torch.int64, device=device)
    plans = [nothing]
    for entry, count in enumerate(counts):
        for level in range(1, count):
            always = nothing.clone()
            always[:, entry] = level
            now = nothing.clone()
            now[0, entry] = level
            plans += [always, now] if horizon > 1 else [always]
    return torch.stack(plans).flatten(1)
