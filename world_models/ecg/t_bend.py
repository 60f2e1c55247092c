"""A beat's own ST and T, and how they are bent: a monotone change of time and a gain, one for all leads.

Own time. Between J point and T peak an own ST and T is a function of the share of the way from J (0) to peak (1); past
the peak, of the distance in Tpeak-Tends. `own_st_t` tabulates it: the fitted waves of `st_t` and, where a recording is
to be kept, the residual that they do not express (`beat_axis`).

Bent. At a distance d before the peak the drawn wave has what the own wave has at a(d), past the peak at b(d). a and b
are the integrals of piecewise linear slopes (`TShape.left`, `.right`, all 1: not bent), so they rise, join smoothly
and are quick; a goes from 0 at the peak to 1 at the J point whatever the slopes. Peak and J point stay, and whatever
falls steadily can become whatever else falls steadily: all five measures of `t_wave` follow from where the wave has
fallen by how much. The gain sets in between J point and the middle of ST, so that the QRS is not touched.

Elementwise operations and gathers only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg import beat_axis
from world_models.ecg.st_t import smoothstep, st_t_shapes

__all__ = ["LEFT_KNOTS", "RIGHT_KNOTS", "TShape", "bent_st_t", "own_place", "own_st_t", "unbent"]

LEFT_KNOTS = (0.0, 0.12, 0.28, 0.55, 1.0)  # shares of the way from the T peak back to the J point
RIGHT_KNOTS = (0.0, 0.3, 0.6, 1.0, 1.6)  # Tpeak-Tends from the peak on; beyond, the last slope goes on
_LEFT, _RIGHT, _REACH = 96, 32, 3  # entries of the table from J to peak and a Tpeak-Tend; Tpeak-Tends that it reaches
_GAIN_IN = 0.5  # share of the own way from J to peak over which the gain sets in


class TShape(NamedTuple):
    """How ST and T of B drawn beats are bent; float32."""

    gain: Tensor  # [B] of T, all leads
    shift_ms: Tensor  # [B] by which the peak is drawn later than the intervals say, for readers who smooth
    left: Tensor  # [B, 5] slopes of the own share by the share, at LEFT_KNOTS; their integral is brought to 1
    right: Tensor  # [B, 5] slopes at RIGHT_KNOTS


def unbent(count: int, device: torch.device | str = "cpu") -> TShape:
    """The shape of `count` beats as they are."""
    one, five = torch.ones(count, device=device), torch.ones(count, len(LEFT_KNOTS), device=device)
    return TShape(one, torch.zeros_like(one), five, five)


def _risen(way: Tensor, slopes: Tensor, knots: tuple[float, ...]) -> Tensor:
    """Integral [B, L] from 0 to `way` [B, L] of the slope that is linear between its values [B, K] at the knots."""
    total = torch.zeros_like(way)
    for i, (start, stop) in enumerate(zip(knots, knots[1:], strict=False)):
        here, then = slopes[:, i : i + 1], slopes[:, i + 1 : i + 2]
        inside = (way - start).clamp(0.0, stop - start)
        total = total + inside * (here + (then - here) * (0.5 / (stop - start)) * inside)
    return total


def own_place(after_ms: Tensor, j_point: Tensor, jt_peak: Tensor, tpeak_tend: Tensor, shape: TShape) -> Tensor:
    """Place [B, L] in the table of `own_st_t` at the times `after_ms` [L] or [B, L] after R; the others [B, 1] ms."""
    shift = shape.shift_ms.unsqueeze(-1)
    to_peak = jt_peak + shift
    from_peak = after_ms - (j_point + to_peak)
    before = (-from_peak / to_peak).clamp(0.0, 1.0)
    past = (from_peak / (tpeak_tend - shift)).clamp_min(0.0)
    whole = _risen(torch.ones_like(to_peak), shape.left, LEFT_KNOTS)
    left = _risen(before, shape.left, LEFT_KNOTS) / whole
    right = _risen(past, shape.right, RIGHT_KNOTS) + shape.right[:, -1:] * (past - RIGHT_KNOTS[-1]).clamp_min(0.0)
    return _LEFT - left * _LEFT + (right * _RIGHT).clamp_max(float(_RIGHT * _REACH))


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each entry: ST level, its bend and T [3, N]; the place of its residual on the canonical axis, and its share
    [N]."""
    left = torch.arange(_LEFT, dtype=torch.float64) / _LEFT
    right = torch.arange(_RIGHT * _REACH + 1, dtype=torch.float64) / _RIGHT
    one = torch.ones(1, 1, dtype=torch.float64)
    waves = st_t_shapes(torch.cat((left, 1.0 + right)), torch.zeros_like(one), one, one, one)[0]
    place = torch.cat((beat_axis.st_place(left, -1), beat_axis.st_place(right, 1)))
    kept = torch.cat((torch.ones_like(left), 1.0 - smoothstep(right - 1.0)))
    with torch.inference_mode(False):  # kept beyond this call
        return tuple(x.to(device, torch.float32).clone() for x in (waves, place, kept))  # type: ignore[return-value]


def own_st_t(heights: Tensor | None, residual: Tensor | None = None) -> Tensor:
    """The own ST and T [B, 8, N] in mV of wave heights [B, 8, 3] (ST, its bend, T) and a residual [B, 8, 200]; one of
    them may be None."""
    if heights is None and residual is None:
        raise ValueError("neither heights nor residual is given: there is no ST and T")
    own: Tensor | None = None
    if heights is not None:
        waves = _tables(heights.device)[0]
        own = heights[:, :, :1] * waves[0]
        for i in (1, 2):
            own = own + heights[:, :, i : i + 1] * waves[i]
    if residual is None:
        assert own is not None
        return own
    _, place, kept = _tables(residual.device)
    low = place.floor().clamp_max(residual.shape[-1] - 2.0)
    share, index = place - low, low.to(torch.int64).expand(*residual.shape[:-1], -1)
    left = residual.gather(-1, index)  # a third of what indexing takes
    rest = (left + share * (residual.gather(-1, index + 1) - left)) * kept
    return rest if own is None else own + rest


def bent_st_t(own: Tensor, place: Tensor, gain: Tensor) -> Tensor:
    """Own ST and T [B, C, N] at the places [B, L] with the gain [B]: [B, C, L]."""
    low = place.floor().clamp_max(own.shape[-1] - 2.0)
    share = (place - low).unsqueeze(1)
    index = low.to(torch.int64).unsqueeze(1).expand(-1, own.shape[1], -1)
    left = own.gather(2, index)
    drawn = torch.lerp(left, own.gather(2, index + 1), share)
    return drawn * (1.0 + (gain - 1.0).unsqueeze(-1) * smoothstep(place * (1.0 / (_GAIN_IN * _LEFT)))).unsqueeze(1)
