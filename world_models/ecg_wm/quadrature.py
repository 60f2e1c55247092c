"""When a step of the prior looks at its target, and what is made of it: quadratures of exp(-w), see `latent_ode`.

    integral of g(h - tau w) exp(-w) over w from 0 to h / tau

The Gauss nodes of the weight exp(-w) on that range give it with two or three looks at g whatever h is. Nodes from a
weight: Golub & Welsch 1969, doi 10.1090/S0025-5718-69-99647-1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.constants import constant
from world_models.ecg_wm.latent import BURDEN, COORDS

__all__ = ["BURDEN_TAU_H", "TAU_H", "Looks", "gauss_nodes", "looks_of"]

# h; of all coordinates but the burden: the sites carry a drug's delay. Of the burden, as published onsets have it.
TAU_H, BURDEN_TAU_H = 0.2, 16.0
NODES, BURDEN_NODES = 2, 4  # of the quadratures: what they miss is measured by `step_error`
BRIEFEST_H, SHORT_STEP_H = 0.05, 3.0  # in between the burden is told by the other nodes, beginning and end


@lru_cache(maxsize=1024)
def gauss_nodes(length: float, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights [count] of the Gauss quadrature with weight exp(-w) on [0, length]; the weights add up to
    1 - exp(-length)."""
    x, fine = np.polynomial.legendre.leggauss(64)
    reach = min(max(length, 1e-6), 40.0)  # beyond, exp(-w) is nothing; two visits may be of one moment
    w = 0.5 * reach * (x + 1.0)
    mass = 0.5 * reach * fine * np.exp(-w)
    # the recurrence of the orthogonal polynomials (Stieltjes), then the eigenvalues of its matrix
    before, now = np.zeros_like(w), np.ones_like(w)
    diagonal, off, last = [], [], 1.0
    for _ in range(count):
        norm = float((mass * now * now).sum())
        diagonal.append(float((mass * w * now * now).sum()) / norm)
        off.append(norm / last)
        before, now, last = now, (w - diagonal[-1]) * now - (off[-1] if len(off) > 1 else 0.0) * before, norm
    jacobi = np.diag(diagonal) + np.diag(np.sqrt(off[1:]), 1) + np.diag(np.sqrt(off[1:]), -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    return tuple(nodes.tolist()), tuple((vectors[0] ** 2 * mass.sum()).tolist())


@lru_cache(maxsize=1024)
def cubic_weights(length: float, points: tuple[float, ...]) -> tuple[float, ...]:
    """Weights with which values at `points` give the integral of exp(-w) times the polynomial through them, over
    [0, length]."""
    x, fine = np.polynomial.legendre.leggauss(64)
    w = 0.5 * length * (x + 1.0)
    moments = [float((0.5 * length * fine * np.exp(-w) * w**k).sum()) for k in range(len(points))]
    powers = np.vander(np.asarray(points), increasing=True).T
    return tuple(np.linalg.solve(powers, moments).tolist())


class Looks(NamedTuple):
    """When a step looks at the target, K moments from beginning to end, and what is made of it; of steps of one length
    ([1, ...]) or of each patient's own ([B, ...])."""

    hours: Tensor  # [1 or B, K] since the step began
    weights: Tensor  # [1 or B, 2, K] of all coordinates but the burden, and of the burden
    kept: Tensor  # [1 or B, COORDS] what is left of a deviation


def looks_of(hours: float | Tensor, like: Tensor) -> Looks:
    """Of a step of `hours` (a number or [B])."""
    if not isinstance(hours, Tensor):
        return Looks(*(constant(row, like.device, like.dtype).unsqueeze(0) for row in _made(float(hours), True)))
    lengths = hours.tolist()
    few = all(BRIEFEST_H <= length <= SHORT_STEP_H for length in lengths)  # all look equally often
    own = [_made(length, few) for length in lengths]
    return Looks(*(torch.tensor([of[i] for of in own], dtype=like.dtype, device=like.device) for i in range(3)))


@lru_cache(maxsize=1024)
def _made(hours: float, few: bool) -> tuple[Any, Any, Any]:
    """Hours [K], weights [2][K] and kept [COORDS] of a step of `hours`; with `few` K is small where that is enough."""
    kept = tuple(math.exp(-hours / (BURDEN_TAU_H if i == BURDEN else TAU_H)) for i in range(COORDS))
    nodes, weights = gauss_nodes(hours / TAU_H, NODES)
    near = [hours - TAU_H * w for w in nodes]
    if few and BRIEFEST_H <= hours <= SHORT_STEP_H:
        at = (0.0, *near, hours)
        burden = cubic_weights(hours / BURDEN_TAU_H, tuple((hours - t) / BURDEN_TAU_H for t in at))
        return at, ((0.0, *weights, 0.0), burden), kept
    nodes, burden = gauss_nodes(hours / BURDEN_TAU_H, BURDEN_NODES)
    at = (0.0, *near, *(hours - BURDEN_TAU_H * w for w in nodes), hours)
    none = (0.0,) * BURDEN_NODES
    return at, ((0.0, *weights, *none, 0.0), (0.0, *(0.0,) * NODES, *burden, 0.0)), kept
