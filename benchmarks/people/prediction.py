"""What a rival says of values: a distribution each, and every score's column of it, the same for all.

A distribution is a `Marginal` on the item's z scale: bins between quantiles, even inside, exponential tails beyond the
outer ones cut into halves of their mass, and where a rival says how likely the last report is to come again, a share of
the mass on its cell. So every rival has a likelihood, also one that gives quantiles alone. A value was rounded when it
was reported, and the likelihood is that of its report: the mass of what rounds to it over the width of that (of items
without a grid, of WIDTH), so that nobody gains by being surer than the reports are exact.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.people.slots import Places
from benchmarks.ward.fidelity_tables import HIGH_80, LOW_80, MEDIAN
from benchmarks.ward.scores import CLOSE, LEVELS, pinball_crps
from world_models import keys
from world_models.ehr_world.set_outcome.marginal import Again, Marginal
from world_models.ehr_world.vocabulary import Vocabulary, from_z, to_z

__all__ = ["Scale", "columns", "from_quantiles", "laplace", "refined", "said_again", "scored"]

HALVES = 10  # bins of a tail, each of half the mass of the one before
WIDTH = 0.01  # standard deviations of an item: the cell of a report without a grid
GAP = 1e-4  # between quantiles, at least
LEAST = 1e-7  # mass of a report, at least
SHARE = 0.995  # of the mass on the last report's cell, at most
# two tails whose mass halves in two steps, and the middle: even bins lose 0.005 nats against the density itself
_HALVING = [2.0 ** (-k / 2) for k in range(2, 13)]
FINE = torch.cat(
    [torch.tensor([0.005, 0.01, 0.025]), torch.linspace(0.05, 0.95, 19), torch.tensor([0.975, 0.99, 0.995])]
)
FINE = FINE.double()
LAPLACE_LEVELS = torch.tensor(sorted({*_HALVING, *(1 - p for p in _HALVING)}), dtype=torch.float64)


class Scale:
    """The items' scales, grids and ends as a vocabulary tells them."""

    def __init__(self, words: Vocabulary) -> None:
        self.scale, self.grid = words.scale_table().double(), words.grids().double()
        edges = words.edge_table().double()
        self.low, self.high = edges[:, 0], edges[:, -1]

    def z(self, value: Tensor, item: Tensor) -> Tensor:
        """Values [N] of these items on their z scales."""
        return to_z(value.double(), self.scale[item])

    def value(self, z: Tensor, item: Tensor) -> Tensor:
        """The inverse of `z`."""
        return from_z(z, self.scale[item])

    def cell(self, value: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """The ends [N] on the z scale of what is reported as `value`."""
        z, half = self.z(value, item), self.grid[item] / 2
        low = torch.where(half > 0, self.z(value - half, item), z - WIDTH / 2)
        high = torch.where(half > 0, self.z(value + half, item), z + WIDTH / 2)
        return torch.minimum(low, z - GAP / 2), torch.maximum(high, z + GAP / 2)


def from_quantiles(q: Tensor, levels: Tensor, scale: Scale, item: Tensor) -> Marginal:
    """Even between quantiles q [N, Q] at `levels` [Q], exponential beyond."""
    q, levels = q.double().sort(-1).values, levels.double()
    q = q + GAP * torch.arange(q.shape[1], dtype=torch.float64)
    first, last = float(levels[0]), float(1 - levels[-1])
    left = (q[:, 1] - q[:, 0]) / math.log(float(levels[1]) / first)  # of the exponential through the outer two
    right = (q[:, -1] - q[:, -2]) / math.log(float(1 - levels[-2]) / last)
    steps = math.log(2.0) * torch.arange(1, HALVES + 1, dtype=torch.float64)
    below, above = q[:, :1] - left.unsqueeze(1) * steps.flip(0), q[:, -1:] + right.unsqueeze(1) * steps
    ends = (
        torch.minimum(scale.low[item], below[:, 0] - left).unsqueeze(1),
        torch.maximum(scale.high[item], above[:, -1] + right).unsqueeze(1),
    )
    half = 0.5 ** torch.arange(1, HALVES + 1, dtype=torch.float64)
    tail = torch.cat([half, half[-1:]])
    mass = torch.cat([first * tail.flip(0), levels.diff(), last * tail])
    edges = torch.cat([ends[0], below, q, above, ends[1]], 1)
    return Marginal(mass.log().expand(len(q), -1), edges)


def refined(q: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles [N, R] at FINE from few [N, Q] at `levels` [Q]: pieces of logistic distributions between them, and the
    outer pieces' beyond."""
    q, x, fine = q.double().sort(-1).values, torch.logit(levels.double()), torch.logit(FINE)
    at = torch.searchsorted(x, fine).clamp(1, len(x) - 1)
    part = (fine - x[at - 1]) / (x[at] - x[at - 1])
    return q[:, at - 1] + part * (q[:, at] - q[:, at - 1]), FINE


def laplace(middle: Tensor, spread: Tensor, scale: Scale, item: Tensor) -> Marginal:
    """Laplace distributions around `middle` [N] of mean absolute error `spread` [N], on the z scale."""
    p = LAPLACE_LEVELS
    unit = torch.where(p < 0.5, (2 * p).log(), -(2 * (1 - p)).log())
    return from_quantiles(middle.double().unsqueeze(1) + spread.double().unsqueeze(1) * unit, p, scale, item)


def said_again(marginal: Marginal, share: Tensor, report: Tensor, scale: Scale, item: Tensor) -> Marginal:
    """With a share [N] of the mass on what rounds to `report` [N] (NaN: none), in the item's unit."""
    none = report.isnan() | (scale.grid[item] == 0)
    low, high = scale.cell(report.nan_to_num(0.0), item)
    share = torch.where(none, 0.0, share.double().clamp(0.0, SHARE))
    return marginal._replace(again=Again(share, torch.where(none, 0.0, low), torch.where(none, 1.0, high)))


def columns(marginal: Marginal, y: Tensor, item: Tensor, scale: Scale, chunk: int = 50_000) -> dict[str, Tensor]:
    """Quantiles [N, 19] and nll [N] of a distribution, and the point [N] likeliest within 25 % of the value."""
    parts = [_columns(marginal.take(at), y[at], item[at], scale) for at in torch.arange(len(y)).split(chunk)]
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _columns(marginal: Marginal, y: Tensor, item: Tensor, scale: Scale) -> dict[str, Tensor]:
    q = marginal.quantile(LEVELS.double().expand(len(y), -1))
    low, high = scale.cell(y, item)
    mass = (marginal.cdf(high) - marginal.cdf(low)).clamp_min(LEAST)
    return {
        "quantiles": q.float(),
        "nll": ((high - low).log() - mass.log()).float(),
        "hits": _most_hits(marginal, q, scale, item).float(),
    }


def _most_hits(marginal: Marginal, q: Tensor, scale: Scale, item: Tensor) -> Tensor:
    """The quantile [N], in the unit, within 25 % of which most of the mass lies: |yhat - y| <= 0.25 |y|."""
    point = scale.value(q, item.unsqueeze(1))
    ends = scale.z(point / (1 + CLOSE), item.unsqueeze(1)), scale.z(point / (1 - CLOSE), item.unsqueeze(1))
    odds = _cdf(marginal, torch.maximum(*ends)) - _cdf(marginal, torch.minimum(*ends))
    best = (odds - 1e-6 * (LEVELS.double() - 0.5).abs()).argmax(1, keepdim=True)  # of equal ones the nearest the median
    return torch.gather(point, 1, best).squeeze(1)


def _cdf(marginal: Marginal, z: Tensor) -> Tensor:
    """`Marginal.cdf` at z [N, Q], many points of each distribution at once."""
    edges, mass = marginal.edges, marginal.log_mass.exp()
    at = torch.searchsorted(edges[:, 1:-1].contiguous(), z.contiguous(), right=True)
    left, right = torch.gather(edges, 1, at), torch.gather(edges, 1, at + 1)
    part = ((z - left) / (right - left)).clamp(0.0, 1.0)
    plain = torch.gather(mass.cumsum(1) - mass, 1, at) + part * torch.gather(mass, 1, at)
    if marginal.again is None:
        return plain
    share, low, high = (x.unsqueeze(1) for x in marginal.again)
    below, above = _cdf(marginal._replace(again=None), torch.cat([low, high], 1)).split(1, 1)
    inside = (1 - share) * (below + (z - low) / (high - low) * (above - below)) + share * (z - low) / (high - low)
    outside = (1 - share) * plain + share * (z > high)
    return torch.where((z >= low) & (z <= high) & (share > 0), inside, outside)


def scored(name: str, told: dict[str, Tensor], places: Places, scale: Scale) -> dict[str, Tensor]:
    """The columns of `benchmarks.ward.records.Slots` for a rival, from what `columns` gives."""
    q, item = told["quantiles"].double(), places.item
    even = keys.uniform(keys.from_seed(88), 0, "even", (len(item),))[0].double() - 0.5
    spread = scale.z(
        places.y.double() + even * scale.grid[item], item
    )  # else an interval of rounded numbers means little
    z = scale.z(places.y, item)
    return {
        f"point/{name}": scale.value(q[:, MEDIAN], item).float(),
        f"point/{name}_hits": told["hits"],
        f"nll/{name}": told["nll"],
        f"crps/{name}": pinball_crps(q, z).float(),
        f"inside/{name}": ((spread >= q[:, LOW_80]) & (spread <= q[:, HIGH_80])).float(),
    }
