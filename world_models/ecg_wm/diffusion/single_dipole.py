"""How much of a beat a single moving dipole cannot have made: what lies outside three dimensions.

In a torso that is a linear conductor the leads of one dipole are a fixed matrix times its three coordinates (the VCG),
so eight leads have rank 3. Whose matrix? `outside_rank` takes the beat's own: the share of its power beyond the three
largest eigenvalues of the leads' 8 x 8 moment matrix, the smallest share that any torso leaves. `outside_dower` takes
Dower's (Dower 1980, doi 10.1016/S0022-0736(80)80013-9), and asks for the dipole of that one torso. The eigenvalues are
those of a symmetric matrix and have a gradient where they cross too, as their sum is smooth.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DOWER", "outside_dower", "outside_rank"]

# I, II, V1-V6 from X (left), Y (inferior), Z (posterior): Dower 1980
DOWER = (
    (0.632, -0.235, 0.059),
    (0.235, 1.066, -0.132),
    (-0.515, 0.157, -0.917),
    (0.044, 0.164, -1.387),
    (0.882, 0.098, -1.277),
    (1.213, 0.127, -0.601),
    (1.125, 0.127, -0.086),
    (0.831, 0.076, 0.230),
)
_LEAST_POWER_MV2 = 1e-6


def outside_rank(beat_mv: Tensor, rank: int = 3) -> Tensor:
    """Share [B] of the power of beats [B, 8, L] outside their own best `rank` dimensions, 0 to 1.

    Raises:
        ValueError: a rank that eight leads cannot have.
    """
    if not 1 <= rank < beat_mv.shape[1]:
        raise ValueError(f"rank={rank} must be 1 to {beat_mv.shape[1] - 1}")
    moment = beat_mv @ beat_mv.transpose(1, 2) / beat_mv.shape[-1]
    values = torch.linalg.eigvalsh(moment.double())
    return (values[:, :-rank].sum(-1) / (values.sum(-1) + _LEAST_POWER_MV2)).to(beat_mv.dtype)


def outside_dower(beat_mv: Tensor) -> Tensor:
    """Share [B] of the power of beats [B, 8, L] that no dipole makes in Dower's torso, 0 to 1."""
    forward = torch.tensor(DOWER, dtype=beat_mv.dtype, device=beat_mv.device)
    inside = forward @ torch.linalg.solve(forward.T @ forward, forward.T)
    left = beat_mv - inside @ beat_mv
    return left.square().sum((1, 2)) / (beat_mv.square().sum((1, 2)) + _LEAST_POWER_MV2 * beat_mv.shape[-1])
