"""The multiplier of a chance constraint, found by dual ascent over the decisions of many patients.

max over plans of risk(return) subject to P(cost > limit) <= alpha has the dual min over multipliers m >= 0 of max over
plans of risk(return) - m (P - alpha), whose slope in m is alpha - P at the best plans. So a planner decides whole
episodes of a batch of patients, the share that exceeded the limit is counted, and

    m <- max(0, m + rate / sqrt(round) * (share - alpha))

Shares of a batch are noisy and plans change by leaps, so the multiplier is the mean over the later half of the rounds
(Nedic & Ozdaglar 2009, doi 10.1137/070708111). The episodes lie in the world that is planned in: what is judged
elsewhere stays untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from agents.planning.objective import ChanceConstraint

__all__ = ["Ascent", "Ascended", "ascend"]


class Ascended(NamedTuple):
    """What an ascent found."""

    constraint: ChanceConstraint  # with the multiplier
    multipliers: tuple[float, ...]  # tried, one a round
    shares: tuple[float, ...]  # of patients that exceeded the limit under each


@dataclass(frozen=True)
class Ascent:
    """How long to climb, and how fast.

    Raises:
        ValueError: fewer than one round, or a rate that is not above 0.
    """

    rounds: int = 12
    rate: float = 40.0  # of the first round: return for a whole chance of exceeding the limit

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.rate > 0:
            raise ValueError(f"an ascent needs rounds of at least 1 and a rate above 0, got {self}")


def ascend(
    constraint: ChanceConstraint,
    costs: Callable[[ChanceConstraint, int], Tensor],
    config: Ascent | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> Ascended:
    """The constraint with the multiplier at which it is just kept, starting from its own.

    Args:
        costs: (constraint, round) -> costs [N] of the episodes that a planner with this objective decides; of other
            patients in each round, best.
        config: None: the defaults.
        progress: called after each round with its number, the multiplier tried and the share that exceeded the limit.
    """
    config = config or Ascent()
    here, tried, shares = constraint.multiplier, [], []
    for i in range(1, config.rounds + 1):
        share = float((costs(replace(constraint, multiplier=here), i) > constraint.limit).double().mean())
        tried.append(here)
        shares.append(share)
        here = max(0.0, here + config.rate / i**0.5 * (share - constraint.alpha))
        if progress is not None:
            progress(i, tried[-1], share)
    late = [*tried[1:], here][config.rounds // 2 :]
    return Ascended(replace(constraint, multiplier=sum(late) / len(late)), tuple(tried), tuple(shares))
