"""What a decider may do next, as a distribution whose probabilities are exact: mixtures of independent entries.

    log p(a) = log sum_k exp(w_k + sum_d l_kd(a_d))

`Chances` are over options (a menu is one entry; a set of switches many), `DoseChances` over amounts: an entry is not
given, or given at an amount from a normal distribution cut to (0, 1]; its log-probability is that of "not given", or
the log-density of the amount.

K parts, D entries, at most M options of one. Every number drawn is a function of (key, t, purpose).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys

__all__ = ["Chances", "DoseChances", "mixed"]

SMALLEST_SHARE = 1e-4  # of the largest dose: a smaller amount could round to none


class Chances(NamedTuple):
    """Over the options of D entries."""

    weight: Tensor  # float32 [B, K]: log weights of the parts, summing to 1
    option: Tensor  # float32 [B, K, D, M]: log-probability of each option; -inf where an entry has no such option

    def of_parts(self, choice: Tensor) -> Tensor:
        """float32 [B, K]: log-probability of the choice int64 [B, D] within each part."""
        index = choice[:, None, :, None].expand(-1, self.option.shape[1], -1, 1)
        return self.option.gather(-1, index).squeeze(-1).sum(-1)

    def log_prob(self, choice: Tensor) -> Tensor:
        """float32 [B]: log-probability of the choice int64 [B, D]."""
        return torch.logsumexp(self.weight + self.of_parts(choice), -1)

    def sample(self, key: Tensor, t: int | Tensor, purpose: str) -> Tensor:
        """int64 [B, D], drawn by key [B]."""
        part = keys.categorical(key, t, f"{purpose}/part", self.weight.exp())
        chosen = self.option[torch.arange(len(part), device=part.device), part].exp()  # [B, D, M]
        edges = chosen.cumsum(-1)
        point = keys.uniform(key, t, f"{purpose}/option", (chosen.shape[1],)).unsqueeze(-1) * edges[..., -1:]
        return (point >= edges).sum(-1).clamp_max(chosen.shape[-1] - 1)

    def marginals(self) -> Tensor:
        """float32 [B, D, M]: probability of each option of each entry by itself."""
        return (self.weight[:, :, None, None] + self.option).exp().sum(1)


class DoseChances(NamedTuple):
    """Over amounts of D entries, each a share of the largest dose in [0, 1]; 0: not given."""

    weight: Tensor  # float32 [B, K]: log weights of the parts, summing to 1
    given: Tensor  # float32 [B, K, D]: chance that the entry is given, in (0, 1)
    centre: Tensor  # float32 [B, K, D]: of the normal distribution of its amount, before it is cut to (0, 1]
    sd: Tensor  # float32 [B, K, D], above 0

    def of_parts(self, choice: Tensor) -> Tensor:
        """float32 [B, K]: log-probability of the amounts float32 [B, D] within each part."""
        amount = choice.unsqueeze(1)
        z = (amount - self.centre) / self.sd
        log_density = -0.5 * z.square() - self.sd.log() - 0.5 * math.log(2.0 * math.pi) - self._inside().log()
        each = torch.where(amount > 0, self.given.log() + log_density, (-self.given).log1p())
        return each.sum(-1)

    def log_prob(self, choice: Tensor) -> Tensor:
        """float32 [B]: log-probability of the amounts float32 [B, D]."""
        return torch.logsumexp(self.weight + self.of_parts(choice), -1)

    def sample(self, key: Tensor, t: int | Tensor, purpose: str) -> Tensor:
        """float32 [B, D], drawn by key [B]."""
        part = keys.categorical(key, t, f"{purpose}/part", self.weight.exp())
        rows = torch.arange(len(part), device=part.device)
        given, centre, sd = (x[rows, part] for x in (self.given, self.centre, self.sd))
        least = torch.special.ndtr((0.0 - centre) / sd)
        inside = self._inside()[rows, part]
        u = keys.uniform(key, t, f"{purpose}/amount", (given.shape[1],))
        amount = centre + sd * torch.special.ndtri((least + u * inside).clamp(1e-6, 1.0 - 1e-6))
        yes = keys.uniform(key, t, f"{purpose}/given", (given.shape[1],)) < given
        return torch.where(yes, amount.clamp(SMALLEST_SHARE, 1.0), 0.0)

    def _inside(self) -> Tensor:
        """float32 [B, K, D]: probability of (0, 1] before the cut."""
        return torch.special.ndtr((1.0 - self.centre) / self.sd) - torch.special.ndtr(-self.centre / self.sd)


def mixed(parts: Sequence[Chances | DoseChances], weight: Tensor) -> Chances | DoseChances:
    """One distribution of several, all of a kind: log weight float32 [B, number of parts] of each."""
    each = [p.weight + weight[:, i : i + 1] for i, p in enumerate(parts)]
    others = zip(*(p[1:] for p in parts), strict=True)
    return type(parts[0])(torch.cat(each, 1), *(torch.cat(columns, 1) for columns in others))
