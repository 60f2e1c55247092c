"""One person's heart as the electrodes see it: wave heights, intervals and habitual rate, all from the key alone.

Heights are blends of two normal LUDB beats of the shipped bank (`morphology.py`; beats with inverted T waves, raised
ST, pathological Q waves or voltages of hypertrophy are left out), so that a cohort is a continuum and not as many
clusters as the bank has beats. Age and sex move them as in the normal limits of 13,354 healthy Dutch (k; Rijnbeek 2014,
J Electrocardiol 47:914): the axis turns left with age and T flattens; women have smaller voltages, shorter QRS, longer
QTc and lower T in V2-V4.

One tensor `heights` [B, 8, 14] in mV holds every wave of the eight independent leads: columns `P` (right atrium, left
atrium, atrial repolarisation), `QRS` (eight Gaussians side by side), `ST`, `ST_T`, `T`. Conditions edit it; then the
recording is synthesised.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.waveform import WAVES

__all__ = ["LEFT_ATRIUM", "P", "PR_LEVEL", "QRS", "RIGHT_ATRIUM", "ST", "ST_T", "T", "Anatomy", "at_visit"]
__all__ += ["sample_anatomy", "per_lead", "to_axis", "turned"]

P, QRS = slice(0, 3), slice(3, 11)
RIGHT_ATRIUM, LEFT_ATRIUM, PR_LEVEL, ST, ST_T, T = 0, 1, 2, 11, 12, 13
_LIMB, _CHEST = slice(0, 2), slice(2, 8)
_ROOT3 = 3.0**0.5

_GROUPS = (0, 0, 0, *(1,) * 8, 2, 2, 2)  # the columns that vary together: P, QRS, ST-T
_PURPOSES = (
    ("anatomy/pick", 2), "anatomy/blend", "anatomy/voltage", ("anatomy/parts", 24), ("anatomy/shape", 8),
    "anatomy/axis", "anatomy/rate", "anatomy/pr", "anatomy/qrs", "anatomy/p", "anatomy/qtc", "anatomy/tpte",
)  # fmt: skip
_VISIT_PURPOSES = ("visit/turn", "visit/chest", "visit/rate", "visit/pr", "visit/qtc", ("visit/parts", 24))


class Anatomy(NamedTuple):
    """B hearts; float32."""

    heights: Tensor  # [B, 8, 14] mV
    voltage: Tensor  # [B] size of this person's QRS against the average: what a changed QRS shape is scaled with
    rate_bpm: Tensor  # [B] habitual resting sinus rate
    pr_ms: Tensor  # [B]
    qrs_ms: Tensor  # [B]
    p_ms: Tensor  # [B] duration of P
    qtc_ms: Tensor  # [B] Fridericia
    tpeak_tend_ms: Tensor  # [B] at 60 bpm


@lru_cache(maxsize=4)
def _normal_beats(device: torch.device) -> Tensor:
    """The bank's normal beats in this module's columns, [N, 8, 14]."""
    bank = MorphologyBank.load(device=device).heights_mv
    qrs, st, t = bank[:, :, 2:10], bank[:, :, WAVES.index("ST")], bank[:, :, WAVES.index("T")]
    r, s = qrs.amax(-1), qrs.amin(-1)
    lower = torch.tensor([0.05, 0.08, -1.0, 0.05, 0.1, 0.1, 0.1, 0.05], device=device)  # T in I, II, V1-V6
    good = (t > lower).all(-1) & (st.abs() < 0.12).all(-1)
    good &= (r[:, 0] > 0.2) & (qrs[:, 1].sum(-1) > 0) & (r[:, 2] < 0.7) & (s[:, 2] < -0.2) & (r[:, 4] > 0.2)
    good &= (r[:, 6] > 0.5) & (r[:, 7] > 0.4) & (torch.maximum(r[:, 6], r[:, 7]) - s[:, 2] < 3.5)
    good &= (qrs[:, [1, 5, 6, 7], :2].amin(-1) > -0.15).all(-1)
    chosen = bank[good]
    hump, swing = chosen[:, :, 0], chosen[:, :, 1]
    out = torch.zeros(chosen.shape[0], 8, 14, device=device)
    # The bank's biphasic part of P in V1 is the right atrium first, the left one away from V1 after it. Two bells
    # side by side add up to more than each alone, hence 0.62.
    out[:, :, RIGHT_ATRIUM] = 0.62 * hump + swing
    out[:, :, LEFT_ATRIUM] = 0.62 * hump - swing
    out[:, :, QRS] = chosen[:, :, 2:10]
    out[:, :, ST:] = chosen[:, :, 10:13]
    return out


def per_lead(heights: Tensor, values: Tensor | tuple[float, ...]) -> Tensor:
    """Eight numbers, one an independent lead, or rows of them [B, 8], as [1 or B, 8] beside `heights`."""
    return torch.as_tensor(values, dtype=torch.float32, device=heights.device).reshape(-1, 8)


def turned(heights: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Heights [B, 8, n] with the frontal plane turned clockwise (towards a right axis) by the angle given, [B]."""
    c, s = cosine.reshape(-1, 1), sine.reshape(-1, 1)
    x = heights[:, 0]
    y = (heights[:, 1] * 2.0 - heights[:, 0]) / _ROOT3
    across, down = c * x - s * y, s * x + c * y
    limb = torch.stack((across, (down * _ROOT3 + across) * 0.5), dim=1)
    return torch.cat((limb, heights[:, _CHEST]), dim=1)


@lru_cache(maxsize=64)
def _direction(degrees: float) -> tuple[float, float]:
    angle = torch.tensor(degrees * torch.pi / 180.0, dtype=torch.float64)
    return float(angle.cos()), float(angle.sin())


def to_axis(heights: Tensor, degrees: float, weight: Tensor) -> Tensor:
    """Heights with the mean QRS axis moved to `degrees` (0: lead I, +90: aVF) where weight [B] is 1, in part below."""
    x, y = heights[:, 0, QRS.start], (heights[:, 1, QRS.start] * 2.0 - heights[:, 0, QRS.start]) / _ROOT3
    for i in range(QRS.start + 1, QRS.stop):  # added in one order: a reduction may not be
        x = x + heights[:, 0, i]
        y = y + (heights[:, 1, i] * 2.0 - heights[:, 0, i]) / _ROOT3
    size = torch.sqrt(x * x + y * y).clamp_min(0.05)
    x, y = x / size, y / size
    to_x, to_y = _direction(degrees)
    # A part of the way: the mean of the two directions, made a direction again.
    goal_x, goal_y = x + weight * (to_x - x), y + weight * (to_y - y)
    size = torch.sqrt(goal_x * goal_x + goal_y * goal_y).clamp_min(0.05)
    goal_x, goal_y = goal_x / size, goal_y / size
    qrs = turned(heights[:, :, QRS], goal_x * x + goal_y * y, goal_y * x - goal_x * y)
    return torch.cat((heights[:, :, P], qrs, heights[:, :, ST:]), dim=2)


def sample_anatomy(key: Tensor, age_years: Tensor, sex_female: Tensor) -> Anatomy:
    """The hearts of keys [B] at ages [B] (years) and sexes [B] (1 female)."""
    bank = _normal_beats(key.device)
    u = keys.uniforms(key, 0, _PURPOSES)
    n = keys.to_normal(u)
    old = ((age_years - 50.0) / 30.0).clamp(-1.2, 1.6)
    female = sex_female

    pick = (u[:, 0:2] * bank.shape[0]).to(torch.int64).clamp_max(bank.shape[0] - 1)
    blend = u[:, 2].reshape(-1, 1, 1)
    heights = bank[pick[:, 0]] * (1.0 - blend) + bank[pick[:, 1]] * blend
    voltage = torch.exp(0.16 * n[:, 3] - 0.06 - 0.12 * female)
    parts = torch.exp(0.14 * n[:, 4:28]).reshape(-1, 8, 3)[..., list(_GROUPS)]
    t_size = 1.0 - 0.12 * old
    chest_t = per_lead(heights, (0.0, 0.0, 0.1, 0.3, 0.3, 0.2, 0.08, 0.0)) * female.unsqueeze(-1)
    columns = torch.ones_like(heights)
    columns[:, :, QRS] *= voltage.reshape(-1, 1, 1)
    columns[:, :, ST:] *= (t_size.unsqueeze(-1) * (1.0 - chest_t)).unsqueeze(-1)
    heights = heights * parts * columns
    # Shapes within the QRS differ between people more than gains do.
    heights[:, :, QRS] *= (1.0 + 0.1 * n[:, 28:36]).unsqueeze(1)
    tilt = (n[:, 36] * 14.0 - 12.0 * old) * (torch.pi / 180.0)
    heights = turned(heights, torch.cos(tilt), torch.sin(tilt))

    return Anatomy(
        heights,
        voltage,
        (68.0 + 9.0 * n[:, 37] + 3.0 * female).clamp(48.0, 98.0),
        (154.0 + 18.0 * n[:, 38] + 5.0 * old - 3.0 * female).clamp(118.0, 198.0),
        (93.0 + 7.0 * n[:, 39] - 6.0 * female).clamp(74.0, 112.0),
        (98.0 + 7.0 * n[:, 40] + 3.0 * old).clamp(78.0, 114.0),
        (408.0 + 13.0 * n[:, 41] + 11.0 * female + 4.0 * old).clamp(370.0, 455.0),
        (84.0 + 7.0 * n[:, 42] - 4.0 * female).clamp(66.0, 105.0),
    )


def at_visit(key: Tensor, t: Tensor, anatomy: Anatomy) -> Anatomy:
    """The same hearts on the day: electrodes a little elsewhere, posture, rate and conduction of the hour.

    Axis +-3.5 degrees, chest electrodes up to a quarter of their distance, heights +-4 %, rate +-6 bpm, PR +-4 ms,
    QTc +-5 ms (standard deviations; k).
    """
    n = keys.to_normal(keys.uniforms(key, t, _VISIT_PURPOSES))
    tilt = n[:, 0] * (3.5 * torch.pi / 180.0)
    heights = turned(anatomy.heights, torch.cos(tilt), torch.sin(tilt))
    shift = (n[:, 1] * 0.1).clamp(-0.25, 0.25).reshape(-1, 1, 1)
    chest = heights[:, _CHEST]
    left = torch.cat((chest[:, 1:], chest[:, -1:]), dim=1)
    right = torch.cat((chest[:, :1], chest[:, :-1]), dim=1)
    moved = chest + shift.clamp_min(0.0) * (left - chest) + (-shift).clamp_min(0.0) * (right - chest)
    heights = torch.cat((heights[:, _LIMB], moved), dim=1)
    heights = heights * torch.exp(0.04 * n[:, 5:29]).reshape(-1, 8, 3)[..., list(_GROUPS)]
    return anatomy._replace(
        heights=heights,
        rate_bpm=anatomy.rate_bpm + 6.0 * n[:, 2],
        pr_ms=anatomy.pr_ms + 4.0 * n[:, 3],
        qtc_ms=anatomy.qtc_ms + 5.0 * n[:, 4],
    )
