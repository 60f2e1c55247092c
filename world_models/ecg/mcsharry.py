"""McSharry's dynamical model of the ECG: its right-hand side, and the sum of Gaussians that solves it.

McSharry 2003, doi 10.1109/TBME.2003.808805 (ECGSYN): a point runs round a circle at omega = 2 pi / RR, and the voltage
z is pushed up and down as it passes the angles of P, Q, R, S and T:

    dz/dt = - sum_i a_i d_i exp(-d_i^2 / (2 b_i^2)) - (z - z0),    d_i = theta - theta_i wrapped to (-pi, pi].

Without the last term the solution is z = sum_i alpha_i exp(-d_i^2 / (2 b_i^2)) with alpha_i = a_i b_i^2 / omega (Sameni
2007, doi 10.1155/2007/43407), so a wave needs no integration. The right-hand side is for judging a wave that
something else has made: `ode_residual` is the physics penalty.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["McSharryWaves", "ecgsyn_waves", "gaussian_sum", "mcsharry_rhs", "ode_residual", "phase"]


class McSharryWaves(NamedTuple):
    """K waves of C leads of B patients."""

    theta: Tensor  # [B, K] rad, angle of each wave; R is at 0
    a: Tensor  # [B, C, K] mV/s per rad: strength
    b: Tensor  # [B, K] rad, width


def ecgsyn_waves(heart_rate_bpm: Tensor) -> McSharryWaves:
    """ECGSYN's P, Q, R, S, T of one lead for rates [B]; the widths grow with the root of the rate."""
    batch = heart_rate_bpm.shape[0]
    new = heart_rate_bpm.new_tensor
    theta = new([-70.0, -15.0, 0.0, 15.0, 100.0]) * (math.pi / 180.0)
    b = new([0.25, 0.1, 0.1, 0.1, 0.4]) * torch.sqrt(heart_rate_bpm / 60.0).unsqueeze(-1)
    a = new([1.2, -5.0, 30.0, -7.5, 0.75])
    return McSharryWaves(theta.expand(batch, -1), a.expand(batch, 1, -1), b)


def phase(r_samples: Tensor, samples: int, sampling_rate_hz: float = 500.0) -> tuple[Tensor, Tensor]:
    """Angle [B, T] in (-pi, pi] and omega [B, T] in rad/s from R samples [B, K] that surround the recording."""
    moments = torch.arange(samples, device=r_samples.device)
    spread = moments.expand(r_samples.shape[0], -1).contiguous()
    current = (torch.searchsorted(r_samples, spread, right=True) - 1).clamp(0, r_samples.shape[1] - 2)
    start = torch.gather(r_samples, 1, current)
    rr = (torch.gather(r_samples, 1, current + 1) - start).to(torch.float32)
    angle = 2.0 * math.pi * (moments - start).to(torch.float32) / rr
    return _wrap(angle), 2.0 * math.pi * sampling_rate_hz / rr


def _wrap(angle: Tensor) -> Tensor:
    """To (-pi, pi]."""
    return math.pi - torch.remainder(math.pi - angle, 2.0 * math.pi)


def _distances(theta: Tensor, waves: McSharryWaves) -> tuple[Tensor, Tensor]:
    """Distance to each wave and its bell, both [B, K, T]."""
    d = _wrap(theta.unsqueeze(1) - waves.theta.unsqueeze(-1))
    u = d / waves.b.unsqueeze(-1)
    return d, torch.exp(-0.5 * u * u)


def mcsharry_rhs(theta: Tensor, waves: McSharryWaves, z: Tensor | None = None, z0: Tensor | None = None) -> Tensor:
    """dz/dt in mV/s, [B, C, T], at angles theta [B, T].

    With z [B, C, T] the pull to the baseline z0 (default 0) is included, as in ECGSYN; without it, it is left out, as
    in the closed solution.
    """
    d, bell = _distances(theta, waves)
    push = d * bell
    total = torch.zeros_like(waves.a[..., :1] * push[:, :1])
    for i in range(push.shape[1]):
        total = total - waves.a[:, :, i : i + 1] * push[:, i : i + 1]
    if z is None:
        return total
    return total - (z if z0 is None else z - z0)


def gaussian_sum(theta: Tensor, omega: Tensor, waves: McSharryWaves) -> Tensor:
    """The closed solution in mV, [B, C, T], of `mcsharry_rhs` without the baseline term; omega [B, T] in rad/s."""
    _, bell = _distances(theta, waves)
    total = torch.zeros_like(waves.a[..., :1] * bell[:, :1])
    for i in range(bell.shape[1]):
        height = waves.a[:, :, i : i + 1] * (waves.b[:, i] * waves.b[:, i])[:, None, None]
        total = total + height * bell[:, i : i + 1]
    return total / omega.unsqueeze(1)


def ode_residual(z: Tensor, theta: Tensor, waves: McSharryWaves, sampling_rate_hz: float = 500.0) -> Tensor:
    """Central difference of z [B, C, T] minus the right-hand side, mV/s [B, C, T - 2]: zero where z obeys the model."""
    slope = (z[..., 2:] - z[..., :-2]) * (0.5 * sampling_rate_hz)
    return slope - mcsharry_rhs(theta[:, 1:-1], waves)
