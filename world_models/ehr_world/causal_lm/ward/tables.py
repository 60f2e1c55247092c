"""What a causal ward takes from its training stays besides the language model: who comes, what is measured on arrival,
how long results take, and on which grid values are reported.

Delays are frequencies, by the product limit (Kaplan & Meier 1958, doi 10.1080/01621459.1958.10501452): a specimen that
was still out when the stay ended counts as long as it was out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, LAST_DELAY, NEVER, UNKNOWN, Stays
from world_models.ehr_world.vocabulary import report_grid
from world_models.quantities.ward import COMPLAINTS, INQUIRIES, STATIC

__all__ = ["Tables", "empty_tables", "tables_of"]

MOST_ADMISSIONS = 4000  # rows kept


class Tables(NamedTuple):
    """I inquiries, S static features."""

    admissions: Tensor  # [N, S] static context of training patients; NaN: not known
    triage: Tensor  # [I] share of admissions that measure it on arrival
    delay: Tensor  # [I, NEVER + 1] chance that a result comes so many steps after it was ordered; last: it is lost
    grid: Tensor  # [I] step that reported values are multiples of; 0: none

    @property
    def sd(self) -> Tensor:
        """[S] standard deviations of the static context, 1 where it does not vary."""
        known = ~self.admissions.isnan()
        count = known.sum(0).clamp_min(1)
        mean = self.admissions.nan_to_num(0.0).sum(0) / count
        off = torch.where(known, self.admissions - mean, 0.0)
        sd = (off.square().sum(0) / count).sqrt()
        return torch.where(sd > 0, sd, 1.0)


def empty_tables(admissions: int) -> dict[str, Tensor]:
    """Tensors of the shapes that `admissions` rows give, by the names of `Tables`."""
    items, features = len(INQUIRIES), len(STATIC) + len(COMPLAINTS)
    shapes = {"admissions": (admissions, features), "triage": (items,), "delay": (items, NEVER + 1), "grid": (items,)}
    return {name: torch.zeros(*shape) for name, shape in shapes.items()}


def tables_of(stays: Stays) -> Tables:
    """From training stays of the ward."""
    rows = torch.arange(min(MOST_ADMISSIONS, len(stays.static))) * max(1, len(stays.static) // MOST_ADMISSIONS)
    there = stays.asked & ~stays.value.isnan()
    grids = []
    for i in range(len(INQUIRIES)):
        values = stays.value[..., i][there[..., i]].double()
        grids.append(report_grid(values) if len(values) and INQUIRIES[i].kind != "culture" else 0.0)
    return Tables(
        stays.static[rows].to(torch.float32),
        stays.asked[:, 0].float().mean(0),
        _delays(stays),
        torch.tensor(grids, dtype=torch.float32),
    )


def _delays(stays: Stays) -> Tensor:
    """[I, NEVER + 1]"""
    last = (stays.valid.sum(1) - 1).view(-1, 1, 1)
    place = torch.arange(stays.asked.shape[1]).view(1, -1, 1)
    out = (last - place).clamp(0, LAST_DELAY).expand_as(stays.asked)  # steps that a censored one was known to be out
    delay = torch.where(stays.delay == UNKNOWN, 0, stays.delay.to(torch.int64))
    came = stays.asked & (delay >= 0) & (delay <= LAST_DELAY)
    cut = stays.asked & (delay == CENSORED)
    lost = (stays.asked & (delay == NEVER)).sum((0, 1)).double()
    count = came.sum((0, 1)).double()
    alive, chance = torch.ones_like(count), torch.zeros(len(count), NEVER + 1, dtype=torch.float64)
    for k in range(LAST_DELAY + 1):
        # one that was out for k whole steps is known not to have come by then
        risk = ((came & (delay >= k)) | (cut & (out > k))).sum((0, 1))
        hazard = (came & (delay == k)).sum((0, 1)) / risk.clamp_min(1)
        chance[:, k] = alive * hazard
        alive = alive * (1 - hazard)
    chance[:, LAST_DELAY] += alive  # nobody was seen to wait longer
    chance[count == 0] = 0.0
    chance[count == 0, 0] = 1.0  # never met: at once
    gone = lost / (lost + count).clamp_min(1)
    chance = chance * (1 - gone).unsqueeze(-1)
    chance[:, NEVER] = gone
    return chance.to(torch.float32)
