"""Belief about one patient: from a history of visits to a Gaussian over what differs between patients.

A recurrent encoder reads the visits in order and gives, after each, mean and standard deviation of the patient's random
effects and of the correction of a baseline that was read with error. After the last visit of a whole course it is
trained by the evidence lower bound (Kingma & Welling 2014, arXiv 1312.6114); after every earlier visit on draws of the
last one's belief (neural posterior estimation), so that a short history gives the wide belief it deserves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models.ecg_wm.latent_ode import COORDS, PATIENT
from world_models.nn.mlp import mlp

__all__ = ["BeliefEncoder"]


class BeliefEncoder(nn.Module):
    """GRU over visits [B, T, features] -> mean and standard deviation [B, T, size] after each visit."""

    def __init__(self, drugs: int, size: int, width: int):
        super().__init__()
        # change of u and whether each was seen, effect sites expected of a typical patient, doses, hours, day, patient
        self.features = 2 * COORDS + 2 * drugs + drugs + 2 + 4 + PATIENT + COORDS
        self.inward = mlp((self.features, width, width))
        self.memory = nn.GRU(width, width, batch_first=True)
        self.outward = mlp((width, width, 2 * size), zero_last=True)

    def forward(self, visits: Tensor) -> tuple[Tensor, Tensor]:
        hidden, _ = self.memory(self.inward(visits))
        mean, raw = self.outward(hidden).chunk(2, dim=-1)
        # No belief wider than the prior's unit spread by much, nor narrower than a hundredth of it.
        return mean, torch.exp(raw.clamp(-4.6, 0.5))
