"""A decoded beat in time, with the places of its waves: what the physics energy looks at.

The decoder is handed in as a `Decode`, so the energy knows nothing of the autoencoder. `WorldDecoder` is this world's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg_wm import beats, latent
from world_models.ecg_wm.bending import asked_for
from world_models.ecg_wm.vae import BeatVAE

__all__ = ["Decode", "DecodedBeat", "WorldDecoder"]

INTERVALS = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")
BEFORE_MS, AFTER_MS = 400.0, 800.0  # of QRS onset: PR up to 330 ms with half a P wave before it, QT up to 650 ms


class DecodedBeat(NamedTuple):
    """B isolated beats, all with QRS onset at one sample."""

    beat_mv: Tensor  # [B, 8, L] I, II, V1-V6
    at_onset: int  # sample of QRS onset
    rate_hz: float
    rr_ms: Tensor  # [B]
    # Where the decoder was told to put the waves, ms; each [B]
    pr_ms: Tensor
    qrs_ms: Tensor
    jt_peak_ms: Tensor
    tpeak_tend_ms: Tensor


Decode = Callable[[Tensor], DecodedBeat]  # z [B, Z] to its beat, differentiable


class WorldDecoder:
    """z = (u, m) through the beat autoencoder onto a window of time: u's intervals place the waves, and the T wave
    is the one that u asks for.

    Args:
        vae: the beat autoencoder; its weights are not touched.
        rate_hz: of the beats. 250 reads T and P as 500 does, at half the cost.
    """

    def __init__(self, vae: BeatVAE, rate_hz: float = 250.0):
        self.vae, self.rate_hz = vae, rate_hz

    def __call__(self, z: Tensor) -> DecodedBeat:
        """The beats of z [B, COORDS + morphology]."""
        found = latent.intervals_of(z[:, : latent.COORDS])
        times = torch.stack([found[name] for name in INTERVALS], dim=-1)
        wave = torch.stack([found[name] for name in latent.T_WAVE], dim=-1)
        ends = beats.piece_ends(*times[:, 1:].unbind(-1))
        at_onset = round(BEFORE_MS * self.rate_hz / 1000)
        length = at_onset + round(AFTER_MS * self.rate_hz / 1000) + 1
        onset = torch.full_like(times[:, 0], float(at_onset))
        canonical = asked_for(self.vae.shape(z[:, latent.COORDS :]), wave, times)
        beat = beats.from_canonical(canonical, ends, onset, length, self.rate_hz)
        return DecodedBeat(beat, at_onset, self.rate_hz, 60_000 / times[:, 0], *times[:, 1:].unbind(-1))
