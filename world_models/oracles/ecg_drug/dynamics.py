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
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import rounding
from world_models.constants import constant
from world_models.oracles.ecg_drug.cipa import CipaDrug

__all__ = ["ENDPOINTS", "EffectLaw", "block", "channel_effects", "daily_basis", "daily_course", "daily_rows"]
__all__ += ["harmonics", "saturating"]

# what is modelled: five intervals (QT, QTcF and J-Tpeak follow from them and the heart rate), then the T wave
ENDPOINTS: tuple[str, ...] = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms")
ENDPOINTS += ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")

HERG_POWER = 1.15
JT_PEAK_PER_HERG_MS, JT_PEAK_PER_CALCIUM_MS, JT_PEAK_PER_LATE_SODIUM_MS = 113.0, -156.0, -70.0
TPEAK_TEND_PER_HERG_MS = 96.0
PR_PER_CALCIUM_MS = 154.0
# The T wave on its working scales (`scales`), from hERG block alone: what the fits of dofetilide and quinidine have at
# the mean peak for each ms of Tpeak-Tend, times the 96 ms above, mean of the two (amplitude -0.70 and -1.05, asymmetry
# 0.60 and 0.56, flatness 0.45 and 0.32, ERD_30 1.11 and 0.88, LRD_30 0.98 and 1.12).
T_AMPLITUDE_PER_HERG, T_ASYMMETRY_PER_HERG, T_FLATNESS_PER_HERG = -0.88, 0.58, 0.38
ERD_30_PER_HERG, LRD_30_PER_HERG = 1.0, 1.05

MEAL_PEAK_H = 1.0  # from the meal to its greatest effect (k)


class EffectLaw(NamedTuple):
    """Numbers of the law of drugs' effects that all people share, [D, E]."""

    per_c50: Tensor  # mL/ng: 1 / C50, 0 where the effect does not saturate
    power: Tensor  # exponent of the concentration, 1 where the effect is linear
    per_reference: Tensor  # mL/ng: 1 over the concentration at which the power changes nothing
    steep: tuple[int, ...]  # the endpoints that have a power other than 1 for any drug

    @classmethod
    def of(cls, per_c50: Tensor, power: Tensor, per_reference: Tensor) -> EffectLaw:
        """The law, and where it has powers."""
        steep = tuple(i for i in range(power.shape[-1]) if bool((power[..., i] != 1.0).any()))
        return cls(per_c50, power, per_reference, steep)


def saturating(concentration: Tensor, slope: Tensor | None, law: EffectLaw) -> Tensor:
    """slope · C · (C / reference)^(power - 1) / (1 + C / C50) of C [B, D, E]; without the slope where it is None."""
    steepened = concentration
    if law.steep:
        steepened = concentration.clone()
        for i in law.steep:
            share = concentration[..., i] * law.per_reference[:, i]
            steepened[..., i] *= rounding.power(share, law.power[:, i] - 1.0)
    if slope is not None:
        steepened = steepened * slope
    return steepened / (concentration * law.per_c50 + 1.0)


def harmonics(clock_hour: Tensor, count: int) -> Tensor:
    """cos and sin of the day's first `count` harmonics, [..., 2 · count] (cos 1, sin 1, cos 2, ...)."""
    return _harmonics(clock_hour, count).movedim(0, -1)


def _harmonics(clock_hour: Tensor, count: int) -> Tensor:
    """`harmonics` as rows [2 · count, ...]."""
    waves = constant(tuple(2.0 * math.pi * k / 24.0 for k in range(1, count + 1)), clock_hour.device, clock_hour.dtype)
    angle = waves.reshape(-1, *(1,) * clock_hour.ndim) * clock_hour
    return torch.stack((angle.cos(), angle.sin()), 1).flatten(0, 1)


def daily_basis(clock_hour: Tensor, count: int, meals: Sequence[float] = ()) -> Tensor:
    """The day's first `count` harmonics, then one column a meal begun at that clock hour, [..., 2 · count + meals].

    A meal's column rises from 0 to 1 in MEAL_PEAK_H hours and fades: (t / peak) exp(1 - t / peak), t hours since.
    """
    return daily_rows(clock_hour, count, meals).movedim(0, -1)


def daily_rows(clock_hour: Tensor, count: int, meals: Sequence[float] = ()) -> Tensor:
    """`daily_basis` as rows [2 · count + meals, ...]."""
    rows = _harmonics(clock_hour, count)
    if not meals:
        return rows
    begun = constant(tuple(meals), clock_hour.device, clock_hour.dtype).reshape(-1, *(1,) * clock_hour.ndim)
    since = ((clock_hour - begun) % 24.0) / MEAL_PEAK_H
    return torch.cat((rows, since * (1.0 - since).exp()))


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
    """Extrapolated changes of the endpoints, on their working scales, at a free concentration in nM.

    Sodium's QRS effect is not modelled (0).
    """
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
        "t_amplitude_uv": T_AMPLITUDE_PER_HERG * herg,
        "t_asymmetry": T_ASYMMETRY_PER_HERG * herg,
        "t_flatness": T_FLATNESS_PER_HERG * herg,
        "erd_30_ms": ERD_30_PER_HERG * herg,
        "lrd_30_ms": LRD_30_PER_HERG * herg,
    }
