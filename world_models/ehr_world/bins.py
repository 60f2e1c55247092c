"""A distribution over bins with uniform interpolation inside each: density, distribution function, quantiles.

N slots, K bins; `edges` [N, K + 1] ascend on the item's z scale, equal edges mark bins an item does not have. The mass
of each bin is a logistic base, placed by a location and a scale (so that "much the same as last time" is one number),
corrected bin by bin by free logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bin_of", "cdf", "log_density", "log_masses", "quantile"]

_TINY = 1e-7


def log_masses(free: Tensor, location: Tensor, log_scale: Tensor, edges: Tensor, based: Tensor) -> Tensor:
    """Log probability [N, K] of each bin; `based` bool [N]: the logistic base applies (numbers, not labels)."""
    at = torch.sigmoid((edges - location.unsqueeze(-1)) * (-log_scale).exp().unsqueeze(-1))
    # the first and the last edge stand for -inf and +inf: values beyond training's range belong to the outer bins
    at = torch.cat([torch.zeros_like(at[:, :1]), at[:, 1:-1], torch.ones_like(at[:, :1])], -1)
    width = edges[:, 1:] - edges[:, :-1]
    real = width > 0
    # where an item has fewer bins than K its last real bin also ends at +inf
    last = real & (torch.arange(width.shape[1], device=edges.device) == real.sum(-1, keepdim=True) - 1)
    upper = torch.where(last, 1.0, at[:, 1:])
    base = (upper - at[:, :-1]).clamp_min(0.0) + 1e-5
    logits = torch.where(based.unsqueeze(-1), base.log() + free, free)
    return torch.log_softmax(logits.masked_fill(~real, float("-inf")), -1)


def bin_of(z: Tensor, edges: Tensor) -> Tensor:
    """Index [N] of the bin that holds z; values outside belong to the first or last bin."""
    count = (edges[:, 1:] > edges[:, :-1]).sum(-1)
    index = (z.unsqueeze(-1) >= edges[:, 1:-1]).sum(-1)
    return torch.minimum(index, count - 1)


def log_density(log_mass: Tensor, z: Tensor, edges: Tensor) -> Tensor:
    """Log density [N] at z per unit of z; values outside the edges are taken to lie on them."""
    index = bin_of(z, edges).unsqueeze(-1)
    width = torch.gather(edges, 1, index + 1) - torch.gather(edges, 1, index)
    return (torch.gather(log_mass, 1, index) - width.clamp_min(_TINY).log()).squeeze(-1)


def cdf(mass: Tensor, z: Tensor, edges: Tensor) -> Tensor:
    """P(Z <= z) [N]."""
    index = bin_of(z, edges).unsqueeze(-1)
    left, right = torch.gather(edges, 1, index), torch.gather(edges, 1, index + 1)
    share = ((z.unsqueeze(-1) - left) / (right - left).clamp_min(_TINY)).clamp(0.0, 1.0)
    below = torch.cumsum(mass, -1) - mass
    return (torch.gather(below, 1, index) + share * torch.gather(mass, 1, index)).squeeze(-1)


def quantile(mass: Tensor, u: Tensor, edges: Tensor) -> Tensor:
    """z [N, Q] at probabilities u [N, Q] (or [N]): the inverse of `cdf`."""
    flat = u.ndim == 1
    u = u.unsqueeze(-1) if flat else u
    above = torch.cumsum(mass, -1)
    count = (edges[:, 1:] > edges[:, :-1]).sum(-1, keepdim=True)
    index = torch.minimum(torch.searchsorted(above.contiguous(), u.contiguous(), right=True), count - 1)
    left, right = torch.gather(edges, 1, index), torch.gather(edges, 1, index + 1)
    here = torch.gather(mass, 1, index)
    share = ((u - (torch.gather(above, 1, index) - here)) / here.clamp_min(_TINY)).clamp(0.0, 1.0)
    z = left + share * (right - left)
    return z.squeeze(-1) if flat else z
