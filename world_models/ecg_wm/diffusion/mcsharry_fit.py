"""How far a beat is from any solution of McSharry's model whose waves lie where this beat's waves lie.

McSharry's ODE pushes the voltage by one term a wave (`world_models.ecg.mcsharry`). Places and widths of the waves are
laid by the beat's intervals: two for P, eight for the QRS as the generator of drawn beats has them, six for ST and T.
Their strengths are those that leave the smallest residual (least squares, in closed form, so differentiable). What is
left, as a share of the slope's power, is what no sum of such waves makes: notches, noise, steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world_models.ecg.mcsharry import McSharryWaves, mcsharry_rhs, ode_residual
from world_models.ecg.waveform import p_duration_ms
from world_models.ecg_wm.diffusion.decoded import DecodedBeat

__all__ = ["mcsharry_residual"]

# (centre, width) of each wave: of P in P durations from P onset, of the QRS in QRS durations from its onset, of ST and
# T before the peak in J-Tpeak from J, after it in Tpeak-Tend from the peak (k).
_P = ((0.38, 0.18), (0.62, 0.18))
_QRS = tuple((0.1 + 0.8 * i / 7, 0.065) for i in range(8))
_BEFORE_PEAK = ((0.15, 0.12), (0.45, 0.15), (0.75, 0.15), (1.0, 0.2))
_AFTER_PEAK = ((0.15, 0.45), (0.75, 0.35))
_RIDGE = 1e-4  # share of the mean diagonal: neighbouring waves overlap


def mcsharry_residual(beat: DecodedBeat) -> Tensor:
    """Share [B] of the power of dz/dt that McSharry's waves at this beat's places cannot make, 0 to 1."""
    centre, width = _places(beat)
    length = beat.beat_mv.shape[-1]
    # One turn of the circle is the whole window, so that an isolated beat does not meet itself.
    per_ms = 2 * math.pi / (length * 1000 / beat.rate_hz)
    samples = torch.arange(length, dtype=centre.dtype, device=centre.device)
    theta = ((samples - beat.at_onset) * (1000 / beat.rate_hz) * per_ms).expand(centre.shape[0], -1)
    waves = McSharryWaves(centre * per_ms, centre.new_ones(centre.shape[0], 1, centre.shape[1]), width * per_ms)
    slope = (beat.beat_mv[..., 2:] - beat.beat_mv[..., :-2]) * (0.5 * beat.rate_hz)
    strengths = _strengths(theta[:, 1:-1], waves, slope)
    left = ode_residual(beat.beat_mv, theta, waves._replace(a=strengths), beat.rate_hz)
    return left.square().sum((1, 2)) / slope.square().sum((1, 2)).clamp_min(1e-6)


def _places(beat: DecodedBeat) -> tuple[Tensor, Tensor]:
    """Centres and widths of the waves, ms from QRS onset, [B, K] each."""
    duration = p_duration_ms(beat.pr_ms)
    peak = beat.qrs_ms + beat.jt_peak_ms
    groups = (
        (_P, -beat.pr_ms, duration),
        (_QRS, torch.zeros_like(peak), beat.qrs_ms),
        (_BEFORE_PEAK, beat.qrs_ms, beat.jt_peak_ms),
        (_AFTER_PEAK, peak, beat.tpeak_tend_ms),
    )
    centres = [start + share * unit for waves, start, unit in groups for share, _ in waves]
    widths = [share * unit for waves, _, unit in groups for _, share in waves]
    return torch.stack(centres, dim=-1), torch.stack(widths, dim=-1)


def _strengths(theta: Tensor, waves: McSharryWaves, slope: Tensor) -> Tensor:
    """The strengths a [B, 8, K] whose right-hand side comes nearest to `slope` [B, 8, T]."""
    count = waves.theta.shape[1]
    each = [
        McSharryWaves(waves.theta[:, k : k + 1], waves.a[..., k : k + 1], waves.b[:, k : k + 1]) for k in range(count)
    ]
    push = torch.cat([mcsharry_rhs(theta, one) for one in each], dim=1)  # [B, K, T], of strength 1
    size = push.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-9)
    push = push / size
    matrix = push @ push.transpose(1, 2) + _RIDGE * torch.eye(count, dtype=push.dtype, device=push.device)
    scaled = torch.linalg.solve(matrix, push @ slope.transpose(1, 2))
    return (scaled / size).transpose(1, 2)
