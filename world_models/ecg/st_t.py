"""ST and T of a drawn beat, and how T is bent between J point and T end: its peak and its end stay where they are.

A drawn T wave falls to either side of its peak as exp(-z^2 / 2), z being the distance from the peak in sigmas
(`waveform`). With a `TShape` z is another monotone function of the same distance, one for all leads:

- right of the peak z = sqrt(2 a) u^(p / 2), u = distance / Tpeak-Tend, a = (p - 1) / (p u*^p) with u* = (p - 1) / p.
  The wave is steepest at u*, and the tangent there meets the baseline at u = 1 for every p. p = 2 is the Gaussian; a
  larger p falls later (a longer LRD_30).
- left of the peak z = Z (d / e)^q, d = distance; at d = e the wave has fallen by 30 %. The exponent q goes from
  `crown`, nearer to the peak than e, to `foot`, farther from it. Both 1 is the Gaussian.

Elementwise operations only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.rounding import power, softplus

__all__ = ["TShape", "smoothstep", "st_t_shapes"]

_T_LEFT = 0.25  # left sigma of T as a share of J-Tpeak
_T_ONSET = 0.45  # share of J-Tpeak over which T's left flank is brought to zero at J
_T_REACH = 4.5  # T is cut this many sigma after its peak (4e-5 of its height)
_ST_RISE = 0.4  # the ST level is reached over this last share of the QRS
_Z = math.sqrt(-2.0 * math.log(0.7))  # sigmas at which a Gaussian has fallen by 30 %
_BLEND = 0.25  # of log distance, over which the left exponent changes


class TShape(NamedTuple):
    """How the T waves of B drawn ECGs are bent; each [B], float32."""

    gain: Tensor  # of ST and T, all leads
    left_ms: Tensor  # before its peak the bare T wave has fallen by 30 %
    crown: Tensor  # exponent of the left flank near the peak
    foot: Tensor  # exponent of the left flank near the baseline
    right_power: Tensor  # p, above 1


def _left_sigmas(before_ms: Tensor, shape: TShape) -> Tensor:
    """Distance from the peak in sigmas [B, L], `before_ms` [B, L] left of it."""
    left, crown, foot = (x.unsqueeze(-1) for x in (shape.left_ms, shape.crown, shape.foot))
    away = (before_ms.clamp_min(1e-6) / left).log()
    return _Z * torch.exp(crown * away + (foot - crown) * _BLEND * (softplus(away / _BLEND) - math.log(2.0)))


def _right_sigmas(after_ms: Tensor, tpeak_tend_ms: Tensor, shape: TShape) -> Tensor:
    """Distance from the peak in sigmas [B, L], `after_ms` [B, L] right of it; tpeak_tend_ms [B, 1]."""
    p = shape.right_power.unsqueeze(-1)
    steepest = (p - 1.0) / p
    root = (2.0 * steepest / power(steepest, p)).sqrt()
    return root * power((after_ms / tpeak_tend_ms).clamp_min(0.0), 0.5 * p)


def smoothstep(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, with zero slope at both."""
    x = x.clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def st_t_shapes(
    after: Tensor, j_point: Tensor, qrs: Tensor, jt_peak: Tensor, tpeak_tend: Tensor, t_shape: TShape | None
) -> Tensor:
    """ST level, its bend and T, [B, 3, L], at the times `after` [L] ms from R; the others [B, 1] ms."""
    s = (after - j_point) / jt_peak  # 0 at J, 1 at the T peak
    inside = s.clamp(0.0, 1.0)
    level = smoothstep((after - j_point) / (_ST_RISE * qrs) + 1.0) * (1.0 - smoothstep(s))
    bend = inside * inside * (1.0 - inside) * (1.0 - inside) * (1.0 - inside) * (5.0**5 / 108.0)
    from_peak = after - (j_point + jt_peak)
    left = from_peak / (_T_LEFT * jt_peak)
    right = from_peak / (0.5 * tpeak_tend)
    if t_shape is not None:
        left, right = _left_sigmas(-from_peak, t_shape), _right_sigmas(from_peak, tpeak_tend, t_shape)
    z = torch.where(from_peak < 0, left, right)
    wave = torch.exp(-0.5 * z * z) * smoothstep(s / _T_ONSET) * (right <= _T_REACH)
    shapes = torch.stack((level, bend, wave), dim=1)
    return shapes if t_shape is None else shapes * t_shape.gain[:, None, None]
