"""Weighted importance sampling: the weights of whole stays sum to 1.

Biased in small logs, consistent, and of far less variance than `importance` (Precup, Sutton & Singh 2000).
"""

from __future__ import annotations

from torch import Tensor

from agents.offline.ope.evidence import Evidence, discounts, weights

__all__ = ["weighted_importance_sampling"]


def weighted_importance_sampling(evidence: Evidence, times: Tensor) -> Tensor:
    """[R]: sum_i n_i w_i G_i / sum_i n_i w_i, with n = times [R, N]."""
    log = weights(evidence)[:, -1]
    weight = (log - log.max()).exp()  # a common factor cancels
    returns = (evidence.reward * discounts(evidence)).sum(-1)
    return times @ (weight * returns) / (times @ weight)
