"""A decoded beat in time, with the places of its waves: what the physics energy looks at.

The decoder is handed in as a `Decode`, so the energy knows nothing of the autoencoder. `PresentDecoder` is the one of a
world whose latent is (u, ..., m): u's intervals place the waves of the canonical beat that m decodes to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.ecg_wm import beats, latent
from world_models.ecg_wm.vae import BeatVAE

__all__ = ["Decode", "DecodedBeat", "PresentDecoder"]

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


class PresentDecoder:
    """z = (u, other coordinates, m) through the beat autoencoder onto a window of time.

    Args:
        vae: the beat autoencoder; its weights are not touched.
        coordinates: how many entries of z stand before m; the first six are u.
        rate_hz: of the beats. 250 reads T and P as 500 does, at half the cost.
    """

    def __init__(self, vae: BeatVAE, coordinates: int, rate_hz: float = beats.RATE_HZ):
        self.vae, self.coordinates, self.rate_hz = vae, coordinates, rate_hz

    def __call__(self, z: Tensor) -> DecodedBeat:
        """The beats of z [B, Z]."""
        found = latent.intervals_of(z[:, : len(latent.COORDINATES)])
        intervals = [found[name] for name in ("pr_ms", "qrs_ms", "jt_peak_ms", "tpeak_tend_ms")]
        ends = beats.piece_ends(*intervals)
        at_onset = round(BEFORE_MS * self.rate_hz / 1000)
        length = at_onset + round(AFTER_MS * self.rate_hz / 1000) + 1
        onset = torch.full_like(found["pr_ms"], float(at_onset))
        beat = beats.from_canonical(self.vae.decode(z[:, self.coordinates :]), ends, onset, length, self.rate_hz)
        return DecodedBeat(beat, at_onset, self.rate_hz, 60_000 / found["heart_rate_bpm"], *intervals)
