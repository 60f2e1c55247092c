"""What drugs and the hour of the day do to the ECG: effect laws, elementwise.

Effects are linear in the effect-site concentration, or saturate: E = slope · C / (1 + C / C50), which is Emax with
Emax = slope · C50 and tends to the linear law as C50 grows (Holford & Sheiner 1981, PMID 7032803). Where Tpeak-Tend
grows faster than the concentration a power enters: slope · C · (C / reference)^(power - 1) / (1 + C / C50).

For a drug without a fitted slope there is only ion-channel block and a rough law fitted on the four trial drugs
(`channel_effects`); it misses by up to 20 ms and every result of it is marked as extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from world_models import rounding
from world_models.oracles.ecg_drug.cipa import CipaDrug

__all__ = ["ENDPOINTS", "block", "channel_effects", "daily_basis", "daily_course", "harmonics", "saturating"]

# what is modelled: five intervals (QT, QTcF and J-Tpeak follow from them and the heart rate), then the T wave
ENDPOINTS: tuple[str, ...] = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms")
ENDPOINTS += ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")

HERG_POWER = 1.15
JT_PEAK_PER_HERG_MS, JT_PEAK_PER_CALCIUM_MS, JT_PEAK_PER_LATE_SODIUM_MS = 113.0, -156.0, -70.0
TPEAK_TEND_PER_HERG_MS = 96.0
PR_PER_CALCIUM_MS = 154.0

MEAL_PEAK_H = 1.0  # from the meal to its greatest effect (k)


def saturating(concentration: Tensor, slope: Tensor, per_c50: Tensor, power: Tensor, per_reference: Tensor) -> Tensor:
    """slope · C · (C / reference)^(power - 1) / (1 + C / C50); per_c50 = 1 / C50 (0: none), per_reference likewise."""
    steepened = concentration * rounding.power(concentration * per_reference, power - 1.0)
    return slope * steepened / (1.0 + concentration * per_c50)


def harmonics(clock_hour: Tensor, count: int) -> Tensor:
    """cos and sin of the day's first `count` harmonics, [..., 2 · count] (cos 1, sin 1, cos 2, ...)."""
    parts = []
    for k in range(1, count + 1):
        angle = clock_hour * (2.0 * math.pi * k / 24.0)
        parts += [torch.cos(angle), torch.sin(angle)]
    return torch.stack(parts, -1)


def daily_basis(clock_hour: Tensor, count: int, meals: Sequence[float] = ()) -> Tensor:
    """The day's first `count` harmonics, then one column a meal begun at that clock hour, [..., 2 · count + meals].

    A meal's column rises from 0 to 1 in MEAL_PEAK_H hours and fades: (t / peak) exp(1 - t / peak), t hours since.
    """
    columns = [harmonics(clock_hour, count)]
    for hour in meals:
        since = ((clock_hour - hour) % 24.0) / MEAL_PEAK_H
        columns.append((since * torch.exp(1.0 - since)).unsqueeze(-1))
    return torch.cat(columns, -1)


def daily_course(clock_hour: Tensor, coefficients: Tensor, meals: Sequence[float] = ()) -> Tensor:
    """Periodic course [...] from its coefficients [2 · K + meals]; term by term: a row does not depend on the batch."""
    basis = daily_basis(clock_hour, (coefficients.numel() - len(meals)) // 2, meals)
    total = basis[..., 0] * coefficients[0]
    for i in range(1, coefficients.numel()):
        total = total + basis[..., i] * coefficients[i]
    return total


def block(concentration_nm: Tensor, ic50_nm: float, hill: float) -> Tensor:
    """Fraction of the channel blocked, 1 / (1 + (IC50 / C)^h); IC50 0 means none."""
    if ic50_nm <= 0:
        return torch.zeros_like(concentration_nm)
    return 1.0 / (1.0 + rounding.power(ic50_nm / concentration_nm.clamp_min(1e-12), hill))


def channel_effects(drug: CipaDrug, free_nm: Tensor) -> dict[str, Tensor]:
    """Extrapolated changes of the endpoints at a free concentration in nM. Sodium's QRS effect is not modelled (0)."""
    herg = rounding.power(block(free_nm, *drug.herg), HERG_POWER)
    calcium, late = block(free_nm, *drug.calcium), block(free_nm, *drug.late_sodium)
    return {
        "heart_rate_bpm": torch.zeros_like(free_nm),
        "pr_ms": PR_PER_CALCIUM_MS * calcium,
        "qrs_ms": torch.zeros_like(free_nm),
        "jt_peak_c_ms": JT_PEAK_PER_HERG_MS * herg
        + JT_PEAK_PER_CALCIUM_MS * calcium
        + JT_PEAK_PER_LATE_SODIUM_MS * late,
        "tpeak_tend_ms": TPEAK_TEND_PER_HERG_MS * herg,
    }
