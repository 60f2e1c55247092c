"""Belief about one patient: from a history of visits to a Gaussian over what differs between patients.

A recurrent encoder reads the visits in order and gives, after each, mean and standard deviation of the patient's random
effects and of the correction of a baseline that was read with error. After the last visit of a whole course it is
trained by the evidence lower bound (Kingma & Welling 2014, arXiv 1312.6114); after every earlier visit on samples of
the last one's belief (neural posterior estimation), so that a short history gives the wide belief it deserves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.latent_ode import DAY_NUMBERS, HOURS_PER_DAY, PATIENT, SITES, clock_waves
from world_models.nn.mlp import mlp

__all__ = ["BeliefEncoder", "visit_features"]

TYPICAL_GAP_H = 2.0  # between visits: the default step


LOG_SD_LOW, LOG_SD_HIGH = -4.6, 0.5  # no belief much wider than the prior's unit spread, nor under a hundredth of it


def visit_features(
    patient: Tensor,
    measured: Tensor,
    start_hour: Tensor,
    u: Tensor,
    effect: Tensor,
    dose: Tensor,
    hours: Tensor,
    gap: Tensor,
) -> Tensor:
    """What the encoder is shown of T visits, [B, T, features].

    Args:
        patient: covariates [B, PATIENT].
        measured: u [B, COORDS] of the admission reading.
        start_hour: clock hour of admission [B].
        u: [B, T, COORDS] at each visit, NaN where a coordinate was not charted.
        effect: [B, T, D * SITES] effect-site levels of a typical patient.
        dose: [B, T, D] given at the visit before, in reference doses.
        hours: [B, T] since admission.
        gap: [B, T] h since the visit before.
    """
    seen = ~u.isnan()
    change = torch.where(seen, u - measured.unsqueeze(1), 0.0)
    times = torch.stack([hours / HOURS_PER_DAY, gap / TYPICAL_GAP_H], dim=-1)
    clock = clock_waves(start_hour.unsqueeze(1) + hours)
    fixed = torch.cat([patient, measured], dim=-1).unsqueeze(1).expand(-1, u.shape[1], -1)
    return torch.cat([change, seen.to(change.dtype), effect, dose, times, clock, fixed], dim=-1)


class BeliefEncoder(nn.Module):
    """GRU over visits [B, T, features] -> mean and standard deviation [B, T, size] after each visit."""

    def __init__(self, drugs: int, size: int, width: int):
        super().__init__()
        # as `visit_features` joins them
        self.features = 2 * COORDS + SITES * drugs + drugs + 2 + DAY_NUMBERS + PATIENT + COORDS
        self.inward = mlp((self.features, width, width))
        self.memory = nn.GRU(width, width, batch_first=True)
        self.outward = mlp((width, width, 2 * size), zero_last=True)

    def forward(self, visits: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, T, size] after each of the visits [B, T, features]."""
        hidden, _ = self.memory(self.inward(visits))
        mean, raw = self.outward(hidden).chunk(2, dim=-1)
        return mean, torch.exp(raw.clamp(LOG_SD_LOW, LOG_SD_HIGH))
