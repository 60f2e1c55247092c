"""The cross-entropy method over the parameters of a policy: sample, try each on the same patients, keep the best.

Rubinstein 1999, doi 10.1023/A:1010091220143, with a diagonal normal proposal and a smoothed refit. Unlike
`agents.planning.cem` it decides once, before any patient comes. Every candidate of an iteration meets the same patients
with the same chance, and the next iteration meets others, so that no candidate lives on chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.planning.risk import Mean, Risk
from world_models import keys

__all__ = ["EvaluateParameters", "ParameterCEM", "search"]

# (parameters [K, P], iteration) -> returns [K, N] of the iteration's N patients
EvaluateParameters = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class ParameterCEM:
    """How long to search: iterations * candidates * patients courses."""

    iterations: int = 16
    candidates: int = 32  # sampled in pairs on both sides of the mean
    elites: int = 8
    spread: float = 0.5  # SD of the first proposal
    least_spread: float = 0.1  # below it a refit does not go: with noisy scores a proposal shrinks by chance
    rate: float = 0.5  # weight of the elites in a refit of the mean
    spread_rate: float = 0.2  # and of the SD

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.candidates < 2 or self.candidates % 2:
            raise ValueError(f"need iterations >= 1 and an even number of candidates >= 2, got {self}")
        if not 1 <= self.elites <= self.candidates:
            raise ValueError(f"elites ({self.elites}) must be 1 to candidates ({self.candidates})")


def search(
    evaluate: EvaluateParameters,
    start: Tensor,
    config: ParameterCEM,
    seed: int = 0,
    risk: Risk | None = None,
    limit: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Tensor:
    """The proposal's mean [P] after the last iteration.

    Args:
        evaluate: returns of each candidate on the iteration's patients.
        start: [P] first mean.
        seed: of the sampling.
        risk: how a candidate's returns become one score, higher is better (default: the mean).
        limit: parameters stay within -limit .. limit.
        progress: called with the iteration and the mean score of its candidates.
    """
    risk = risk or Mean()
    mean, sd = start.clone(), torch.full_like(start, config.spread)
    key = keys.fold(keys.from_seed(seed, config.candidates // 2), "agent/parameters")
    for iteration in range(config.iterations):
        noise = keys.normal(key, iteration, "candidates", (len(start),)).to(start)
        candidates = mean + sd * torch.cat([noise, -noise])
        if limit is not None:
            candidates = candidates.clamp(-limit, limit)
        score = risk(evaluate(candidates, iteration))
        best = candidates[score.topk(config.elites).indices]
        mean = mean + config.rate * (best.mean(0) - mean)
        spread = ((best - mean).square().mean(0)).sqrt()
        sd = (sd + config.spread_rate * (spread - sd)).clamp_min(config.least_spread)
        if progress is not None:
            progress(iteration + 1, float(score.mean()))
    return mean
