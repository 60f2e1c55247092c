"""Noise whose neighbours in time are alike: a power spectrum 1 / f^beta over the steps of a plan.

Timmer & Koenig 1995 (Astron Astrophys 300, 707); for sampled plans: Pinneri 2020, arXiv 2008.06389. White noise
(beta 0) seldom holds an order for hours; red noise (beta 2) hardly changes its mind.
"""

from __future__ import annotations

import torch
from torch import Tensor

from world_models import keys

__all__ = ["coloured_uniforms"]


def coloured_uniforms(key: Tensor, look: int, shape: tuple[int, int], steps: int, beta: float) -> Tensor:
    """Uniform on (0, 1), float32 [B, *shape, steps]; each place by itself is uniform, along the steps it is coloured.

    Args:
        key: int64 [B]; another `look` is an independent sample.
        beta: exponent of the power spectrum, 0 or more.

    Raises:
        ValueError: a negative beta.
    """
    if beta < 0:
        raise ValueError(f"beta must be 0 or more, got {beta}; 0 is white noise")
    if 0 in shape:  # which the transform refuses
        return torch.zeros(*key.shape, *shape, steps, device=key.device)
    frequencies = torch.fft.rfftfreq(steps, device=key.device)
    # the mean of a plan gets as much as its slowest wave
    amplitude = frequencies.clamp_min(1.0 / steps) ** (-beta / 2.0)
    normal = keys.normal(key, look, "planning/coloured", (*shape, 2, len(frequencies)))
    real, imaginary = (normal * amplitude).unbind(-2)
    # waves that are their own mirror image have no phase: all of their power is real
    alone = torch.zeros_like(frequencies, dtype=torch.bool)
    alone[0] = True
    alone[-1] |= steps % 2 == 0
    real = torch.where(alone, real * 2**0.5, real)
    imaginary = torch.where(alone, 0.0, imaginary)
    # the inverse adds each inner wave to its conjugate and divides by the steps
    wave = torch.fft.irfft(torch.complex(real, imaginary), n=steps) * steps
    variance = torch.where(alone, 2.0 * amplitude.square(), 4.0 * amplitude.square()).sum()
    return torch.special.ndtr(wave / variance.sqrt()).clamp(1e-6, 1.0 - 1e-6)
