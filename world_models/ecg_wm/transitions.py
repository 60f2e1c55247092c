"""Pairs of ECGs around one order, from the oracle: what inverse dynamics and foretellers of the next chart learn.

A patient of any cohort is charted, takes nothing or one drug, and is charted again some hours later. Charts and orders
alone are kept; `effect_ms`, how far the drug moved QTcF against the same patient with the same luck and no drug, is for
judging.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ecg_wm import latent
from world_models.ecg_wm.courses import oracle_of
from world_models.inputs import admit
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.protocol import Chart
from world_models.quantities.drugs import ANTIARRHYTHMICS

__all__ = ["COVARIATES", "DOSE_LOW", "HOURS", "NOTHING_SHARE", "Transition", "dose_limits"]
__all__ += ["oracle_pairs", "pooled", "rows_of", "sample_transitions"]

HOURS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 24.0)  # between the two ECGs
COVARIATES = ("age_years", "sex_female", "weight_kg", "creatinine_clearance_ml_min", "clock_hour")
NOTHING_SHARE = 0.2  # of the pairs without a drug; each drug has an equal part of the rest
DOSE_LOW = 0.15  # smallest dose, of the trial's single dose; up to the order's limit, log-uniform


class Transition(NamedTuple):
    """B pairs of charts around one order."""

    before: Tensor  # [B, COORDS] `latent.standardise` of the chart before; NaN where unknown
    after: Tensor  # [B, COORDS]
    hours: Tensor  # [B] between them; the order is given right after the first
    covariates: Tensor  # [B, len(COVARIATES)] NaN where unknown
    drug: Tensor  # [B] int64: 0 nothing, else 1 + column of the order
    dose_mg: Tensor  # [B] 0 where nothing was given
    effect_ms: Tensor  # [B] of the drug on QTcF at the second ECG, for judging alone
    charts: tuple[Chart, Chart] = ({}, {})  # before and after; empty where pairs were pooled


def dose_limits(device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Lowest and highest dose [D] in mg of the drugs."""
    low = [DOSE_LOW * d.trial_dose_mg for d in ANTIARRHYTHMICS]
    return torch.tensor(low, device=device), torch.tensor([d.order_limit_mg for d in ANTIARRHYTHMICS], device=device)


def _covariates(chart: Chart) -> Tensor:
    unknown = torch.full_like(chart["age_years"], torch.nan)
    return torch.stack([chart.get(name, unknown).to(torch.float32) for name in COVARIATES], -1)


@torch.no_grad()
def oracle_pairs(
    key: Tensor, hours: float, drug: Tensor, dose_mg: Tensor, cohort: str | None = None, factors: dict | None = None
) -> Transition:
    """Oracle patients with these keys [B] who take `dose_mg` [B] of `drug` [B] (0: nothing) and are seen after `hours`.

    Args:
        cohort: of all of them; None: an equal share of every cohort.
        factors: of the oracle that are known, [B] each (a cohort must be named then).

    Raises:
        ValueError: factors without a cohort.
    """
    if factors and cohort is None:
        raise ValueError("factors are those of one cohort's patients; name the cohort")
    names = [cohort] if cohort else sorted(COHORTS)
    device = str(key.device)
    parts = zip(names, key.chunk(len(names)), strict=False)
    state = tree.cat([admit(oracle_of(n, hours, device), k, dict(factors or {})) for n, k in parts])
    oracle = oracle_of(names[0], hours, device)  # once admitted, all cohorts go through the same transition
    doses = dose_mg.unsqueeze(-1) * torch.nn.functional.one_hot(drug, len(oracle.orders) + 1)[:, 1:]
    first = oracle.observe(state)
    given = oracle.observe(oracle.transition(state, doses.to(torch.float32)))
    without = oracle.observe(oracle.transition(state, torch.zeros_like(doses, dtype=torch.float32)))
    return Transition(
        latent.standardise(first),
        latent.standardise(given),
        torch.full_like(dose_mg, hours),
        _covariates(first),
        drug,
        dose_mg,
        given["qtcf_ms"] - without["qtcf_ms"],
        (first, given),
    )


def sample_transitions(key: Tensor, hours: float, cohort: str | None = None) -> Transition:
    """Pairs for keys [B] with orders from the training distribution."""
    low, high = dose_limits(key.device)
    count = len(low)
    shares = torch.tensor([NOTHING_SHARE] + [(1 - NOTHING_SHARE) / count] * count, device=key.device)
    drug = keys.categorical(key, 0, "pairs/drug", shares)
    which = (drug - 1).clamp_min(0)
    level = keys.uniform(key, 0, "pairs/dose")
    dose = torch.exp(low[which].log() + level * (high[which] / low[which]).log()).minimum(high[which])
    return oracle_pairs(key, hours, drug, torch.where(drug > 0, dose, 0.0), cohort)


def _of(columns: Sequence[Tensor]) -> Transition:
    """All but the charts."""
    before, after, hours, covariates, drug, dose_mg, effect_ms = columns
    return Transition(before, after, hours, covariates, drug, dose_mg, effect_ms)


def rows_of(data: Transition, row: Tensor) -> Transition:
    """The pairs at `row` [N] int64, without their charts."""
    return _of([value[row] for value in data[:-1]])


def pooled(seed: int, each: int, device: torch.device | str = "cpu", cohort: str | None = None) -> Transition:
    """`each` pairs for every one of HOURS together, of patients with the seeds from `seed` on, without their charts."""
    stride = 1_000_000
    parts = [
        sample_transitions(keys.from_seed(seed + i * stride, each, torch.device(device)), hours, cohort)
        for i, hours in enumerate(HOURS)
    ]
    return _of([torch.cat(column) for column in list(zip(*parts, strict=True))[:-1]])
