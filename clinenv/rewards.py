"""Reusable terms of a reward: pure functions of tensors, each with the source of its form."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from world_models.constants import constant
from world_models.rounding import softplus

__all__ = ["exponential_excess", "relative_amount", "share_of_time", "total"]


def share_of_time(fraction: Tensor, hours: Tensor, horizon_hours: float) -> Tensor:
    """Part [B] of the horizon spent in a state that held for `fraction` [B] of the last `hours` [B]."""
    return fraction * hours * (1.0 / horizon_hours)


def exponential_excess(value: Tensor, threshold: float, growth: float, per: float, width: float) -> Tensor:
    """growth^(excess / per) - 1, with the excess over the threshold rounded off over `width`; 0 far below it.

    The shape of a hazard ratio that multiplies by `growth` with each `per` units. For QTc: 1.05 to 1.07 with each
    10 ms in the long-QT registry, as summed up in the AHA/ACC statement on torsades in hospital (Drew 2010, PMID
    20142454).

    Args:
        value: [B], in the unit of `threshold`, `per` and `width`.
        threshold: where the excess begins.
        growth: over 1.
        per: over 0.
        width: over 0; the excess at the threshold itself is width * ln 2.
    """
    excess = softplus((value - threshold) / width) * width
    return torch.expm1(excess * (math.log(growth) / per))


def relative_amount(action: Tensor, reference: tuple[float, ...]) -> Tensor:
    """Sum [B] over the orders of action [B, A] / reference; explicit adds, so that it never depends on the batch.

    Raises:
        ValueError: the action has not as many columns as there are reference amounts.
    """
    if action.shape[-1] != len(reference):
        raise ValueError(f"action has {action.shape[-1]} columns but there are {len(reference)} reference amounts")
    dtype = action.dtype if action.is_floating_point() else torch.float32
    inverse = constant(tuple(1.0 / amount for amount in reference), action.device, dtype)
    amount, *others = (action * inverse).unbind(-1)
    for other in others:
        amount = amount + other
    return amount


def total(values: Tensor) -> Tensor:
    """Sum [B] of values [B, K], one half onto the other: elementwise adds, so that it never depends on the batch."""
    while values.shape[-1] > 1:
        half = (values.shape[-1] + 1) // 2
        values = functional.pad(values, (0, 2 * half - values.shape[-1]))
        values = values[:, :half] + values[:, half:]
    return values[:, 0]
