"""How a patient's conditions come and go between two visits, learned from visits: one two-state process a condition.

Given who the patient is, what is present at the visit, what was done and what is taken until the next, every condition
is a two-state Markov process with an onset rate and a resolution rate per month, so that the chance of being present
after m months is exact for any m:

    P(present | present) = p + (1 - p) exp(-(on + off) m),  P(present | absent) = p (1 - exp(-(on + off) m)),
    p = on / (on + off)

(the textbook solution of a two-state chain (k)). Procedures may act at once, before the months begin: each has a chance
of ending and of starting each condition. Death and a major bleed are hazards per month. Conditions of `IRREVERSIBLE`
have no way back, and what `BECOMES` another leaves it behind: facts about diseases, not learned. Hidden frailty and how
long a condition has lasted are not known to it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.nn.mlp import mlp
from world_models.quantities.progression import DRUGS, IRREVERSIBLE, PROCEDURES, scars

__all__ = ["Followed", "LabelModel", "Moves"]


# Round numbers near the clinic's middle and spread: they only set the scale the network sees.
MIDDLE_AGE_YEARS, AGE_SPREAD_YEARS = 65.0, 15.0
LOG_RATE_LIMITS = (-16.0, 3.0)  # per month: once in 700,000 years, and within two days
LEAST_CHANCE = 1e-7  # of anything at the next visit, so that a logarithm of it is finite


class Moves(NamedTuple):
    """Chances of B patients at the next visit."""

    present: Tensor  # [B, C]
    dead: Tensor  # [B]
    bleeding: Tensor  # [B]


class Followed(NamedTuple):
    """B times from one visit to the next, as charts and orders told them."""

    condition: Tensor  # float32 [B, C] at the visit
    age_years: Tensor  # [B]
    sex_female: Tensor  # [B]
    ever: Tensor  # [B, PROCEDURES] procedures done before the visit
    done: Tensor  # [B, PROCEDURES] at the visit
    taken: Tensor  # [B, DRUGS] drugs until the next visit
    months: Tensor  # [B] to the next visit
    next_condition: Tensor  # [B, C]
    dead: Tensor  # [B] by the next visit; the other two then say nothing
    bleeding: Tensor  # [B]


class LabelModel(nn.Module):
    """Rates from a small network on top of constants; the network's last layer starts at zero."""

    lasting: Tensor  # bool [C]: without a way back

    def __init__(self, codes: tuple[str, ...], hidden: int = 64) -> None:
        super().__init__()
        count, procedures = len(codes), len(PROCEDURES)
        self.codes = codes
        inputs = count + 3 + 2 * procedures + len(DRUGS)
        self.rates = mlp((inputs, hidden, 2 * count + 2), zero_last=True)
        # log rate per month: onsets, resolutions, death, bleed
        self.usual = nn.Parameter(torch.full((2 * count + 2,), -5.0))
        # logit that a procedure ends a condition at once, and that it starts one
        self.ends = nn.Parameter(torch.full((procedures, count), -4.0))
        self.starts = nn.Parameter(torch.full((procedures, count), -6.0))
        self.register_buffer("lasting", torch.tensor([c in IRREVERSIBLE for c in codes]), persistent=False)
        self.leaves = scars(codes)

    def forward(
        self,
        condition: Tensor,
        age_years: Tensor,
        sex_female: Tensor,
        ever: Tensor,
        done: Tensor,
        taken: Tensor,
        months: Tensor,
    ) -> Moves:
        """Chances at the next visit; shapes as in `Followed`."""
        count = len(self.codes)
        age = (age_years - MIDDLE_AGE_YEARS) / AGE_SPREAD_YEARS
        features = torch.cat([condition, torch.stack([age, age * age, sex_female], -1), ever, done, taken], -1)
        log_rate = (self.usual + self.rates(features)).clamp(*LOG_RATE_LIMITS)
        on, off, ends = log_rate.exp().split([count, count, 2], -1)
        off = torch.where(self.lasting, 0.0, off)
        stays = _none(done, self.ends)  # chance that no procedure ends it
        start = torch.where(condition > 0.5, torch.where(self.lasting, 1.0, stays), 1 - _none(done, self.starts))
        total = on + off
        left = torch.exp(-total * months.unsqueeze(-1))
        usual = on / total
        present = usual + (start - usual) * left
        never = torch.exp(-ends * months.unsqueeze(-1))
        dead, bleeding = (1 - never).clamp(LEAST_CHANCE, 1 - LEAST_CHANCE).unbind(-1)
        return Moves(present.clamp(LEAST_CHANCE, 1 - LEAST_CHANCE), dead, bleeding)

    def sample(self, moves: Moves, condition: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Conditions [B, C], death and bleed [B] at the next visit (0 or 1) from uniforms u [B, C + 2]."""
        count = len(self.codes)
        after = (u[:, :count] < moves.present).to(torch.float32)
        after = torch.where(self.lasting & (condition > 0.5), 1.0, after)
        for acute, scar in self.leaves:
            healed = (condition[:, acute] > 0.5) & (after[:, acute] < 0.5)
            after[:, scar] = torch.where(healed, 1.0, after[:, scar])
        dead = (u[:, count] < moves.dead).to(torch.float32)
        bleeding = (u[:, count + 1] < moves.bleeding).to(torch.float32)
        return torch.where(dead.unsqueeze(-1) > 0.5, condition, after), dead, bleeding

    def loss(self, seen: Followed) -> Tensor:
        """Mean negative log likelihood of what was found at the next visit, nats a visit."""
        moves = self(*seen[:7])
        lived = 1 - seen.dead
        # with the scar that an infarction must leave there is nothing to learn about it
        weight = torch.ones_like(moves.present)
        for acute, scar in self.leaves:
            healed = (seen.condition[:, acute] > 0.5) & (seen.next_condition[:, acute] < 0.5)
            weight[:, scar] = torch.where(healed, 0.0, weight[:, scar])
        known = self.lasting & (seen.condition > 0.5)
        weight = torch.where(known, 0.0, weight)
        terms = nn.functional.binary_cross_entropy(moves.present, seen.next_condition, reduction="none")
        death = nn.functional.binary_cross_entropy(moves.dead, seen.dead, reduction="none")
        bleed = nn.functional.binary_cross_entropy(moves.bleeding, seen.bleeding, reduction="none")
        return ((terms * weight).sum(-1) * lived + death + bleed * lived).mean()


def _none(done: Tensor, logit: Tensor) -> Tensor:
    """Chance [B, C] that none of the procedures done [B, P] acts."""
    act = torch.sigmoid(logit)
    out = torch.ones(len(done), logit.shape[1], device=done.device)
    for p in range(logit.shape[0]):
        out = out * (1 - done[:, p : p + 1] * act[p])
    return out
