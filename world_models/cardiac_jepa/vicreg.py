"""VICReg (Bardes, Ponce & LeCun 2022, arXiv 2105.04906): variance, invariance, covariance; the ablation of SIGReg."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.cardiac_jepa.reduce import mean_over_ranks
from world_models.processes import ranks

__all__ = ["COVARIANCE", "INVARIANCE", "VARIANCE", "vicreg"]

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # the authors' weights
TARGET = 1.0  # standard deviation under which the hinge pulls
EPSILON = 1e-4


def vicreg(z: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and covariance terms, unweighted, of latents [B, D] of all processes together.

    variance: mean over coordinates of max(0, 1 - sqrt(var + 1e-4)).
    covariance: the squares off the covariance matrix' diagonal, summed and divided by D.

    Raises:
        ValueError: fewer than two rows.
    """
    rows, size = z.shape
    rows *= ranks()[1]
    if rows < 2:
        raise ValueError("VICReg's covariance needs two rows or more")
    with torch.autocast(z.device.type, enabled=False):
        z = z.float()
        centred = z - mean_over_ranks(z.mean(0))
        covariance = mean_over_ranks(centred.T @ centred / z.shape[0]) * (rows / (rows - 1))
        variance = covariance.diagonal()
        hinge = torch.relu(TARGET - torch.sqrt(variance + EPSILON)).mean()
        off = (covariance.square().sum() - variance.square().sum()) / size
    return hinge, off
