"""What a slot will say: a distribution over bins (`bins`), and the chance that it says the last value again.

Charts repeat themselves: a temperature is copied, a fraction of oxygen stays set. A smooth density must be tall and
narrow to say so, and then fails whenever it does not. So a share of the mass may lie on the cell of the last report,
the numbers that are rounded to it: F = (1 - share) F_bins + share [even on the cell]. Within the cell F is taken to be
linear, so that it can be inverted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ehr_world.set_outcome import bins

__all__ = ["Again", "Marginal"]

_TINY = 1e-7


class Again(NamedTuple):
    """The last report's cell, [N] each; `share` 0 where there is none."""

    share: Tensor  # of the mass, below 1
    low: Tensor  # on the item's z scale
    high: Tensor  # above `low`


class Marginal(NamedTuple):
    """Predictions for N slots of K bins."""

    log_mass: Tensor  # [N, K]
    edges: Tensor  # [N, K + 1]
    around: bins.Around | None = None  # None: bins are even inside
    again: Again | None = None

    def take(self, rows: Tensor) -> Marginal:
        """The slots at `rows`, int64 [M] or bool [N]."""
        around = None if self.around is None else bins.Around(*(x[rows] for x in self.around))
        again = None if self.again is None else Again(*(x[rows] for x in self.again))
        return Marginal(self.log_mass[rows], self.edges[rows], around, again)

    def moved(self, by: Tensor) -> Marginal:
        """The same distributions, all that they say further up by `by` [N]."""
        around, again = self.around, self.again
        if around is not None:
            around = around._replace(location=around.location + by)
        if again is not None:
            again = again._replace(low=again.low + by, high=again.high + by)
        return Marginal(self.log_mass, self.edges + by.unsqueeze(-1), around, again)

    def log_density(self, z: Tensor) -> Tensor:
        """[N] at z [N], per unit of z; values outside the edges are taken to lie on them."""
        plain = bins.log_density(self.log_mass, z, self.edges, self.around)
        if self.again is None:
            return plain
        share, low, high = self.again
        below, above = self._ends()
        inside = (above - below).clamp_min(_TINY).log() - (high - low).log()
        return torch.where((z >= low) & (z <= high) & (share > 0), inside, torch.log1p(-share) + plain)

    def cdf(self, z: Tensor) -> Tensor:
        """P(Z <= z) [N]."""
        plain = bins.cdf(self.log_mass.exp(), z, self.edges, self.around)
        if self.again is None:
            return plain
        share, low, high = self.again
        below, above = self._ends()
        part = ((z - low) / (high - low)).clamp(0.0, 1.0)
        outside = (1 - share) * plain + share * (z > high)
        return torch.where((z >= low) & (z <= high) & (share > 0), below + part * (above - below), outside)

    def quantile(self, u: Tensor) -> Tensor:
        """z [N, Q] at probabilities u [N, Q] (or [N]): the inverse of `cdf`."""
        mass = self.log_mass.exp()
        if self.again is None:
            return bins.quantile(mass, u, self.edges, self.around)
        share, low, high, below, above = (x.unsqueeze(-1) for x in (*self.again, *self._ends()))
        at = u.unsqueeze(-1) if u.ndim == 1 else u
        left = at < below
        rest = (torch.where(left, at, at - share) / (1 - share)).clamp(0.0, 1.0)
        z = bins.quantile(mass, rest, self.edges, self.around)
        inside = low + (at - below) / (above - below).clamp_min(_TINY) * (high - low)
        z = torch.where(left | (at > above) | (share <= 0), z, inside)
        return z.squeeze(-1) if u.ndim == 1 else z

    def masses(self) -> Tensor:
        """Probability [N, K] of each bin, what lies on the cell with it."""
        mass = self.log_mass.exp()
        if self.again is None:
            return mass
        share, low, high = (x.unsqueeze(-1) for x in self.again)
        below = ((self.edges - low) / (high - low)).clamp(0.0, 1.0)
        # what lies beyond the outer edges belongs to the outer bins
        below = torch.cat([torch.zeros_like(below[:, :1]), below[:, 1:-1], torch.ones_like(below[:, :1])], 1)
        real = self.edges[:, 1:] > self.edges[:, :-1]
        last = real & (torch.arange(mass.shape[1], device=mass.device) == real.sum(-1, keepdim=True) - 1)
        upper = torch.where(last, 1.0, below[:, 1:])
        return (1 - share) * mass + share * torch.where(real, upper - below[:, :-1], 0.0)

    def _ends(self) -> tuple[Tensor, Tensor]:
        """F [N] at both ends of the cell."""
        assert self.again is not None
        share, low, high = self.again
        mass = self.log_mass.exp()
        below = (1 - share) * bins.cdf(mass, low, self.edges, self.around)
        above = (1 - share) * bins.cdf(mass, high, self.edges, self.around) + share
        return below, above
