"""Importance sampling of whole stays: each return weighed by how much likelier the policy made the whole stay.

Unbiased where the propensities are right and the policy does nothing that the behaviour never does; the variance grows
with the stay's length (Precup, Sutton & Singh 2000, "Eligibility traces for off-policy policy evaluation").
"""

from __future__ import annotations

from torch import Tensor

from agents.offline.ope.evidence import Evidence, discounts, weights

__all__ = ["importance_sampling"]


def importance_sampling(evidence: Evidence, times: Tensor) -> Tensor:
    """[R]: sum_i n_i w_i G_i / sum_i n_i, with G_i the discounted return of a stay and n = times [R, N]."""
    value = weights(evidence)[:, -1].exp() * (evidence.reward * discounts(evidence)).sum(-1)
    return times @ value / times.sum(-1)
