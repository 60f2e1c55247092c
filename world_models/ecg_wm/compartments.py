"""A drug's compartments as sums of exponentials: exact however long a step, for `latent_ode`."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.kinetics import dispose

__all__ = ["BASE_MODES", "MODES", "SITES", "exponentials"]

SITES = 3  # effect sites of a drug: fast, slow, lasting
BASE_MODES = 4  # exponentials of the plasma: two stages of absorption, two of disposition
STAGE_RATIO = 1.15  # of the second absorption stage's rate to the first's
# Equal rates would divide by zero, and near ones cancel in single precision: a rate is moved off those before it.
LEAST_GAP = 0.03
MODES = BASE_MODES + SITES  # exponentials of a drug: two of absorption, two of disposition, one a site


def exponentials(rates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The compartments' solution as sums of exponentials, by partial fractions.

    Args:
        rates: k1, ke, k12, k21 and the sites' [..., 4 + SITES] per h.

    Returns:
        Rates [..., MODES] (absorption, disposition, sites), and what an amount of 1 in each makes of the central level
        [..., BASE_MODES] and of the sites' [..., MODES, SITES].
    """
    k1, ke, k12, k21, *sites = rates.unbind(-1)
    one = torch.ones_like(k1)
    alpha, beta, _ = dispose(ke, one, k12, k12 / k21)
    first = _off(k1, [alpha, beta])
    second = _off(k1 * STAGE_RATIO, [alpha, beta, first])
    base = [first, second, alpha, beta]
    parts = []
    for m, pole in enumerate(base):
        value = first * second * (k21 - pole)
        for n, other in enumerate(base):
            if n != m:
                value = value / (other - pole)
        parts.append(value)
    plasma = torch.stack(parts, -1)
    own = _off(torch.stack(sites, -1), [rate.unsqueeze(-1) for rate in base])  # [..., SITES]
    through = plasma.unsqueeze(-1) * own.unsqueeze(-2) / (own.unsqueeze(-2) - torch.stack(base, -1).unsqueeze(-1))
    site = torch.cat([through, torch.diag_embed(-through.sum(-2))], -2)
    return torch.cat([torch.stack(base, -1), own], -1), plasma, site


def _off(rate: Tensor, others: list[Tensor]) -> Tensor:
    """The rate [...] at least LEAST_GAP above or below each of the others, relative."""
    for _ in others:  # a push may land on another: as many passes as there are neighbours
        for other in others:
            rate = torch.where((rate - other).abs() < LEAST_GAP * other, other * (1.0 + 1.01 * LEAST_GAP), rate)
    return rate
