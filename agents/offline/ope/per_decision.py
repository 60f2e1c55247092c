"""Per-decision importance sampling: each reward weighed by the decisions before it alone, not by those after it.

Unbiased with less variance than weighing whole stays (Precup, Sutton & Singh 2000). The weighted form divides by the
sum of the weights at each step (consistent weighted per-decision importance sampling, Thomas 2015, "Safe reinforcement
learning", section 3.7).
"""

from __future__ import annotations

from torch import Tensor

from agents.offline.ope.evidence import Evidence, discounts, weights

__all__ = ["per_decision", "weighted_per_decision"]


def per_decision(evidence: Evidence, times: Tensor) -> Tensor:
    """[R]: sum_i n_i sum_t discount^t w_it r_it / sum_i n_i, with n = times [R, N]."""
    value = (weights(evidence).exp() * evidence.reward * discounts(evidence)).sum(-1)
    return times @ value / times.sum(-1)


def weighted_per_decision(evidence: Evidence, times: Tensor) -> Tensor:
    """[R]: sum_t discount^t (sum_i n_i w_it r_it / sum_i n_i w_it). A stay that has ended keeps its weight, with
    reward 0."""
    log = weights(evidence)
    weight = (log - log.max(0).values).exp()
    return ((times @ (weight * evidence.reward)) / (times @ weight) * discounts(evidence)).sum(-1)
