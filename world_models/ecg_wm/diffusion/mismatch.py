"""A misspecified prior, for showing what the model does when its physiology is wrong.

Log-normal factors of SD `size` on the prior's rates and effects: drawn once for the population ("the textbook is
wrong", `misspecified`), or anew for each patient on the change predicted ("this patient is not the textbook's",
`mistaken_change`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from world_models import keys

__all__ = ["mistaken_change", "misspecified"]

P = TypeVar("P", bound=nn.Module)


@torch.no_grad()
def misspecified(
    prior: P,
    key: Tensor,
    size: float,
    log_parameters: Sequence[str] = ("log_rate",),
    factors: Sequence[str] = ("slope",),
) -> P:
    """A copy of a prior whose rates (kept as logarithms) and effects are off by log-normal factors of SD `size`.

    Args:
        prior: a module that has the parameters named, as `latent_ode.PhysiologicalPrior` does.
        key: int64 [1]; another key, another mistake.
        size: SD of the logarithm; 0 is the prior itself, 0.5 a factor of 1.6 either way in the typical parameter.

    Raises:
        ValueError: a size below 0, or a name that the prior does not have.
    """
    if size < 0:
        raise ValueError(f"size={size} of a mismatch must be at least 0")
    wrong = copy.deepcopy(prior)
    named = dict(wrong.named_parameters())
    missing = [name for name in (*log_parameters, *factors) if name not in named]
    if missing:
        raise ValueError(f"the prior has no {', '.join(missing)}; it has {', '.join(named)}")
    for name in (*log_parameters, *factors):
        parameter = named[name]
        off = size * keys.normal(key, 0, f"mismatch/{name}", (parameter.numel(),)).reshape(parameter.shape)
        parameter.copy_(parameter + off if name in log_parameters else parameter * off.exp())
    return wrong


def mistaken_change(change: Tensor, key: Tensor, size: float) -> Tensor:
    """The change [B, Z] predicted, each entry off by a log-normal factor of median 1 and SD `size`, by keys [B]."""
    return change * torch.exp(size * keys.normal(key, 0, "mismatch/change", (change.shape[-1],)))
