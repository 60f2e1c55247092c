"""The scale on which each endpoint is modelled: where people, drugs and the day add up.

Intervals add in ms and the heart rate in bpm. Amplitude, ERD_30 and LRD_30 are magnitudes that drugs and people change
by a factor: their logarithm. Asymmetry is the mean square of a difference between two legs (`ecg.t_wave`): its root,
which is a difference, adds. Flatness is a share that stays far from 0 and 1: as it is.

Elementwise, of kernels that round alike in every batch (`world_models.rounding`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.oracles.ecg_drug.dynamics import ENDPOINTS

__all__ = ["SCALES", "T_ENDPOINTS", "Scale", "from_scale", "scaled", "slope_of", "to_scale"]

T_ENDPOINTS = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")
_SMALLEST_ROOT = 1e-3  # of asymmetry, where its root's slope is still finite


class Scale(NamedTuple):
    """One endpoint's working scale."""

    name: str  # as the fit's JSON says it
    unit: str  # of a difference on it
    step: float  # a change on it that compares with 10 ms of an interval: what ridges and starts are measured in
    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]  # of the inverse, at a value in the endpoint's own unit


def _identity(unit: str, step: float) -> Scale:
    return Scale("identity", unit, step, lambda x: x, lambda w: w, torch.ones_like)


def _log(step: float) -> Scale:
    return Scale("log", "1 (natural log)", step, lambda x: x.clamp_min(1e-6).log(), torch.exp, lambda x: x)


def _root(step: float) -> Scale:
    return Scale(
        "square root",
        "1 (square root)",
        step,
        lambda x: x.clamp_min(0.0).sqrt(),
        lambda w: w.clamp_min(0.0) * w.clamp_min(0.0),
        lambda x: 2.0 * x.clamp_min(_SMALLEST_ROOT**2).sqrt(),
    )


SCALES: dict[str, Scale] = {
    "heart_rate_bpm": _identity("bpm", 10.0),
    "pr_ms": _identity("ms", 10.0),
    "qrs_ms": _identity("ms", 10.0),
    "jt_peak_c_ms": _identity("ms", 10.0),
    "tpeak_tend_ms": _identity("ms", 10.0),
    "t_amplitude_uv": _log(0.15),
    "t_asymmetry": _root(0.08),
    "t_flatness": _identity("1", 0.03),
    "erd_30_ms": _log(0.12),
    "lrd_30_ms": _log(0.12),
}


def _runs() -> tuple[tuple[Scale, int], ...]:
    """Neighbours among ENDPOINTS that share a scale, with their number: changed together."""
    runs: list[tuple[Scale, int]] = []
    for e in ENDPOINTS:
        if runs and runs[-1][0].name == SCALES[e].name:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((SCALES[e], 1))
    return tuple(runs)


_RUNS = _runs()


def _changed(values: Tensor, change: str, dim: int) -> Tensor:
    parts = values.split([count for _, count in _RUNS], dim)
    return torch.cat([getattr(scale, change)(part) for (scale, _), part in zip(_RUNS, parts, strict=True)], dim)


def to_scale(values: Tensor, dim: int = -1) -> Tensor:
    """Endpoints [..., E] in their own units, in the order of ENDPOINTS -> on their working scales.

    dim: along which they lie.
    """
    return _changed(values, "forward", dim)


def from_scale(levels: Tensor, dim: int = -1) -> Tensor:
    """Endpoints [..., E] on their working scales -> in their own units; `dim` as in `to_scale`."""
    return _changed(levels, "inverse", dim)


def slope_of(values: Tensor) -> Tensor:
    """Change [..., E] in the own unit per unit of the working scale, at `values` [..., E] in their own units."""
    return _changed(values, "slope", -1)


def scaled(name: str, values: Any, inverse: bool = False) -> np.ndarray:
    """`to_scale`, or with `inverse` `from_scale`, of one endpoint's numbers (numpy, any shape, NaN stays NaN)."""
    change = SCALES[name].inverse if inverse else SCALES[name].forward
    return change(torch.as_tensor(np.asarray(values, dtype=float))).numpy()
