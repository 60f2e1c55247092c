"""Tolerance: what days of a drug take off its effect on repolarisation.

Dofetilide lengthens QTc by 15 to 25 ms per ng/mL after the first dose and by 10 to 15 on day 23 (Tikosyn label,
volunteers); by 12.9 to 14.2 on day 1 and 9.9 to 12.8 on day 5 (Allen, Nichols & Oliver 2000, Br J Clin Pharmacol
50:247). For quinidine nothing of the kind was found; it is taken to adapt too (assumption), as the trial's single dose
lengthens QTc by more than patients on repeated ones show.

A slow effect compartment X (`PER_H`) follows the plasma; what is left of the effect is

    1 - k x / (x + HALF),  x = max(X / X0 - 1, 0),  X0 = PER_H * area under the curve of the trial's dose in that person

X of one such dose can never pass X0, whoever takes it: the fitted single-dose curves stay exactly as they are, and
tolerance begins with the doses after the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.dynamics import ENDPOINTS

__all__ = ["PER_H", "REPOLARISATION", "adapts_above", "area_per_mg", "effect_left", "strengths"]

PER_H = math.log(2.0) / 24.0  # of the slow compartment: steady within the three to five days that were studied
STRENGTH = {"dofetilide": 0.40, "quinidine": 0.55}  # k: the share that no dosing takes more of
HALF = 1.1  # x at which half of it is gone: 500 ug of dofetilide twice a day come to x = 1.9, and keep 0.75
REPOLARISATION = tuple(e not in ("heart_rate_bpm", "pr_ms", "qrs_ms") for e in ENDPOINTS)  # what it takes from


def strengths(drugs: Sequence[str], device: torch.device) -> Tensor:
    """k of each drug [D] float64; 0 for those that do not adapt."""
    return torch.tensor([STRENGTH.get(drug, 0.0) for drug in drugs], dtype=torch.float64, device=device)


def area_per_mg(rates: Tensor, plasma: Tensor) -> Tensor:
    """Area under the plasma curve of one mg [...], ng/mL h, from rates [..., M >= 4] and coefficients [..., 4]."""
    parts = plasma / rates[..., : plasma.shape[-1]]
    total = parts[..., 0]
    for m in range(1, plasma.shape[-1]):
        total = total + parts[..., m]
    return total


def adapts_above(rates: Tensor, plasma: Tensor, single_dose_mg: Tensor) -> Tensor:
    """X0 [B, D] in ng/mL of people with these kinetics [B, D, ...] and the trial's doses [D] in mg."""
    return area_per_mg(rates, plasma) * single_dose_mg * PER_H


def effect_left(slow_site: Tensor, above: Tensor, strength: Tensor) -> Tensor:
    """What is left [B, D, E] of each drug's effect on each endpoint; exactly 1 until X passes X0.

    Args:
        slow_site: X [B, D], ng/mL. above: X0 [B, D]. strength: k [D].
    """
    beyond = (slow_site / above - 1.0).clamp_min(0.0)
    lost = beyond / (beyond + HALF) * strength
    return 1.0 - lost.unsqueeze(-1) * _adapts(lost.device)


@lru_cache(maxsize=8)
def _adapts(device: torch.device) -> Tensor:
    """1 or 0 [E]: whether an endpoint's effect adapts."""
    return torch.tensor(REPOLARISATION, dtype=torch.float64, device=device)
