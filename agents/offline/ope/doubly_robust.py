"""Doubly robust estimates: a fitted Q, corrected by the weighed errors it makes on the log.

    V = sum_t discount^t (w_{t-1} v_t + w_t (r_t - q_t))

Unbiased if the propensities are right, whatever Q; and of less variance the better Q is (Jiang & Li 2016, arXiv
1511.03722). The weighted form divides w_t by its sum over stays at each step (Thomas & Brunskill 2016, arXiv
1604.00923). Q must come from other stays than those it corrects (`fitted_q.FittedQ.crossed`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.offline.ope.evidence import Evidence, discounts, weights

__all__ = ["doubly_robust", "weighted_doubly_robust"]


def doubly_robust(evidence: Evidence, times: Tensor) -> Tensor:
    """[R]: the mean over stays counted n = times [R, N]."""
    weight = weights(evidence).exp()
    before = torch.cat([torch.ones_like(weight[:, :1]), weight[:, :-1]], -1)
    each = before * evidence.v + weight * (evidence.reward - evidence.q)
    return times @ (each * discounts(evidence)).sum(-1) / times.sum(-1)


def weighted_doubly_robust(evidence: Evidence, times: Tensor) -> Tensor:
    """[R]: with weights that sum to 1 over the stays at each step."""
    log = weights(evidence)
    weight = (log - log.max(0).values).exp()
    total = times @ weight  # [R, T]
    now = times @ (weight * (evidence.reward - evidence.q)) / total
    first = times @ evidence.v[:, :1] / times.sum(-1, keepdim=True)
    later = times @ (weight[:, :-1] * evidence.v[:, 1:]) / total[:, :-1]
    return ((now + torch.cat([first, later], -1)) * discounts(evidence)).sum(-1)
