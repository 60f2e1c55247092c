"""ST and T of a drawn beat: a level that dies out towards the T peak, a bend on it, and an asymmetric Gaussian.

Elementwise operations only. `t_bend` bends them.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ST_RISE", "smoothstep", "st_t_shapes"]

_T_LEFT = 0.25  # left sigma of T as a share of J-Tpeak
_T_ONSET = 0.45  # share of J-Tpeak over which T's left flank is brought to zero at J
_T_REACH = 4.5  # T is cut this many sigma after its peak (4e-5 of its height)
ST_RISE = 0.4  # the ST level is reached over this last share of the QRS


def smoothstep(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, with zero slope at both."""
    x = x.clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def st_t_shapes(after: Tensor, j_point: Tensor, qrs: Tensor, jt_peak: Tensor, tpeak_tend: Tensor) -> Tensor:
    """ST level, its bend and T, [B, 3, L], at the times `after` [L] ms from R; the others [B, 1] ms."""
    s = (after - j_point) / jt_peak  # 0 at J, 1 at the T peak
    inside = s.clamp(0.0, 1.0)
    level = smoothstep((after - j_point) / (ST_RISE * qrs) + 1.0) * (1.0 - smoothstep(s))
    bend = inside * inside * (1.0 - inside) * (1.0 - inside) * (1.0 - inside) * (5.0**5 / 108.0)
    from_peak = after - (j_point + jt_peak)
    left = from_peak / (_T_LEFT * jt_peak)
    right = from_peak / (0.5 * tpeak_tend)
    z = torch.where(from_peak < 0, left, right)
    wave = torch.exp(-0.5 * z * z) * smoothstep(s / _T_ONSET) * (right <= _T_REACH)
    return torch.stack((level, bend, wave), dim=1)
