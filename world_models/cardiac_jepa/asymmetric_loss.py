"""Asymmetric loss for many labels of which few are present (Ridnik et al. 2021, arXiv:2009.14119).

A present label costs (1 - p)^gamma+ (-log p). An absent one costs q^gamma- (-log(1 - q)) of the shifted probability
q = max(p - clip, 0): easy absences fade with gamma- and vanish below the clip, so that hundreds of them do not drown
one finding that is there. With both gammas and the clip at zero it is binary cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["asymmetric_loss"]

_TINY = 1e-8  # under which a logarithm is not followed


def asymmetric_loss(
    logits: Tensor, label: Tensor, gamma_negative: float = 4.0, gamma_positive: float = 1.0, clip: float = 0.05
) -> Tensor:
    """Mean over all entries; always in float32 or better, also under autocast.

    The published sum over labels is this mean times their number: the mean lets one learning rate and one gradient clip
    serve 24 labels as well as 76. The gradient goes through the focusing weights too, as in the paper's equations.

    Args:
        logits: [..., C], any floating type.
        label: [..., C], bool or 0/1.

    Raises:
        ValueError: the shapes differ, a gamma is negative or the clip is outside [0, 1).
    """
    if logits.shape != label.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and label {tuple(label.shape)} must have one shape")
    if min(gamma_negative, gamma_positive) < 0 or not 0 <= clip < 1:
        raise ValueError(f"gammas {gamma_negative}, {gamma_positive} must be 0 or more, clip {clip} in [0, 1)")
    x = logits if logits.dtype == torch.float64 else logits.float()
    with torch.autocast(x.device.type, enabled=False):
        y = label.to(x.dtype)
        absent = torch.sigmoid(-x)  # 1 - p, without the cancellation of subtracting
        present_cost = -F.logsigmoid(x) * _power(absent, gamma_positive)
        shifted = (absent + clip).clamp(max=1.0)  # 1 - q
        # without a clip the logarithm has a stable form; with one its argument is at least the clip
        log = F.logsigmoid(-x) if clip == 0 else torch.log(shifted.clamp(min=_TINY))
        absent_cost = -log * _power(1.0 - shifted, gamma_negative)
        return (y * present_cost + (1.0 - y) * absent_cost).mean()


def _power(base: Tensor, gamma: float) -> Tensor:
    """base ** gamma with a gradient of zero, not NaN, at a base of zero."""
    return torch.ones_like(base) if gamma == 0 else base.clamp(min=_TINY) ** gamma
