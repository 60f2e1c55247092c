"""A distribution over bins with a shape inside each: density, distribution function, quantiles.

N slots, K bins; `edges` [N, K + 1] ascend on the item's z scale, equal edges mark bins an item does not have. The mass
of each bin is a base, placed by a location and a scale (so that "much the same as last time" is one number), corrected
bin by bin by free logits. The base is a logistic in t + bend t^3, t the distance from the location in scales: bend 0 is
the logistic, 0.017 all but the normal distribution (Page 1977, doi 10.2307/2346872 (k)), more has lighter tails still.

Inside a bin the density is that of the plain logistic there, cut to the bin, but never narrower than a quarter of it:
outer bins are wide, and spread evenly over them a sick patient's next pressure would fall far below any that was
met. Without `around` it is even.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["Around", "bin_of", "cdf", "log_density", "log_masses", "quantile"]

_TINY = 1e-7
_NARROWEST = 0.25  # of a bin's width: the scale of the density inside
_EVEN = 0.02  # a bin of fewer scales than this is as good as even
_FAR = 30.0  # scales: beyond, the base has no mass worth telling apart
_LEAST_MASS = 1e-5  # of the base in a bin: free logits can always raise it
_LEAST_SHARE = 1e-30  # before its logarithm


class Around(NamedTuple):
    """A slot's base, [N] each; a huge scale makes every bin even."""

    location: Tensor
    scale: Tensor
    bend: Tensor  # 0 or more


def _bent(t: Tensor, bend: Tensor) -> Tensor:
    """Log odds of the base's distribution function at t scales from its location."""
    t = t.clamp(-_FAR, _FAR)
    return t + bend * t * t * t


class _Cut(NamedTuple):
    """The base cut to one bin, mirrored so that the bin lies left of its middle: there small numbers stay exact."""

    scale: Tensor
    flip: Tensor  # bool: mirrored
    upper: Tensor  # log of the distribution function at the (mirrored) right edge
    ratio: Tensor  # of its value at the left edge to that
    even: Tensor  # bool


def _cut(left: Tensor, right: Tensor, around: Around) -> _Cut:
    scale = torch.maximum(around.scale, _NARROWEST * (right - left).clamp_min(_TINY))
    a, b = (left - around.location) / scale, (right - around.location) / scale
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    upper = logsigmoid(b)
    ratio = (logsigmoid(a) - upper).exp()
    return _Cut(scale, flip, upper, ratio, b - a < _EVEN)


def _share_below(z: Tensor, left: Tensor, right: Tensor, around: Around | None) -> Tensor:
    """Of a bin's mass, the share below z."""
    even = ((z - left) / (right - left).clamp_min(_TINY)).clamp(0.0, 1.0)
    if around is None:
        return even
    cut = _cut(left, right, around)
    t = (z.maximum(left).minimum(right) - around.location) / cut.scale
    share = ((logsigmoid(torch.where(cut.flip, -t, t)) - cut.upper).exp() - cut.ratio) / (1 - cut.ratio).clamp_min(
        _TINY
    )
    share = torch.where(cut.flip, 1 - share, share).clamp(0.0, 1.0)
    return torch.where(cut.even, even, share)


def _at_share(share: Tensor, left: Tensor, right: Tensor, around: Around | None) -> Tensor:
    """The inverse of `_share_below`."""
    even = left + share * (right - left)
    if around is None:
        return even
    cut = _cut(left, right, around)
    p = torch.where(cut.flip, 1 - share, share)
    log_p = cut.upper + (cut.ratio + p * (1 - cut.ratio)).clamp_min(_LEAST_SHARE).log()
    t = log_p - torch.log(-torch.expm1(log_p.clamp_max(-_TINY)))
    z = around.location + cut.scale * torch.where(cut.flip, -t, t)
    return torch.where(cut.even, even, z.maximum(left).minimum(right))


def log_masses(free: Tensor, around: Around, edges: Tensor, based: Tensor, temperature: float = 1.0) -> Tensor:
    """Log probability [N, K] of each bin; `based` bool [N]: the base applies (numbers, not labels). Above 1 the
    temperature (Guo 2017, arXiv 1706.04599) makes numbers less sure."""
    location, scale, bend = (x.unsqueeze(-1) for x in around)
    at = torch.sigmoid(_bent((edges - location) / scale, bend))
    # the first and the last edge stand for -inf and +inf: values beyond training's range belong to the outer bins
    at = torch.cat([torch.zeros_like(at[:, :1]), at[:, 1:-1], torch.ones_like(at[:, :1])], -1)
    width = edges[:, 1:] - edges[:, :-1]
    real = width > 0
    # where an item has fewer bins than K its last real bin also ends at +inf
    last = real & (torch.arange(width.shape[1], device=edges.device) == real.sum(-1, keepdim=True) - 1)
    upper = torch.where(last, 1.0, at[:, 1:])
    base = (upper - at[:, :-1]).clamp_min(0.0) + _LEAST_MASS
    logits = torch.where(based.unsqueeze(-1), (base.log() + free) / temperature, free)
    return torch.log_softmax(logits.masked_fill(~real, float("-inf")), -1)


def bin_of(z: Tensor, edges: Tensor) -> Tensor:
    """Index [N] of the bin that holds z; values outside belong to the first or last bin."""
    count = (edges[:, 1:] > edges[:, :-1]).sum(-1)
    index = (z.unsqueeze(-1) >= edges[:, 1:-1]).sum(-1)
    return torch.minimum(index, count - 1)


def log_density(log_mass: Tensor, z: Tensor, edges: Tensor, around: Around | None = None) -> Tensor:
    """Log density [N] at z per unit of z; values outside the edges are taken to lie on them."""
    index, left, right = _bin_at(z, edges)
    inside = -(right - left).clamp_min(_TINY).log()
    if around is not None:
        cut = _cut(left, right, around)
        t = (z.maximum(left).minimum(right) - around.location) / cut.scale
        log_cut = logsigmoid(t) + logsigmoid(-t) - cut.upper - torch.log((1 - cut.ratio).clamp_min(_TINY))
        inside = torch.where(cut.even, inside, log_cut - cut.scale.log())
    return torch.gather(log_mass, 1, index).squeeze(-1) + inside


def _bin_at(z: Tensor, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Index [N, 1] of z's bin, and the bin's ends [N]."""
    index = bin_of(z, edges).unsqueeze(-1)
    return index, torch.gather(edges, 1, index).squeeze(-1), torch.gather(edges, 1, index + 1).squeeze(-1)


def cdf(mass: Tensor, z: Tensor, edges: Tensor, around: Around | None = None) -> Tensor:
    """P(Z <= z) [N]."""
    index, left, right = _bin_at(z, edges)
    below = torch.gather(torch.cumsum(mass, -1) - mass, 1, index).squeeze(-1)
    return below + _share_below(z, left, right, around) * torch.gather(mass, 1, index).squeeze(-1)


def quantile(mass: Tensor, u: Tensor, edges: Tensor, around: Around | None = None) -> Tensor:
    """z [N, Q] at probabilities u [N, Q] (or [N]): the inverse of `cdf`."""
    flat = u.ndim == 1
    u = u.unsqueeze(-1) if flat else u
    above = torch.cumsum(mass, -1)
    count = (edges[:, 1:] > edges[:, :-1]).sum(-1, keepdim=True)
    index = torch.minimum(torch.searchsorted(above.contiguous(), u.contiguous(), right=True), count - 1)
    left, right = torch.gather(edges, 1, index), torch.gather(edges, 1, index + 1)
    here = torch.gather(mass, 1, index)
    share = ((u - (torch.gather(above, 1, index) - here)) / here.clamp_min(_TINY)).clamp(0.0, 1.0)
    wide = None if around is None else Around(*(x.unsqueeze(-1) for x in around))
    z = _at_share(share, left, right, wide)
    return z.squeeze(-1) if flat else z
