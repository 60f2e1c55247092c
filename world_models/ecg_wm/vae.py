"""The beat autoencoder: a VAE over the eight independent leads of one beat on the canonical axis.

Encoding marks which leads and which samples it may trust, so an ECG with a missing lead or a fast rate (T running into
the next P) is read from what is left, and decoding fills in the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models import keys
from world_models.ecg_wm.beats import LEAD_COUNT, PIECES, SAMPLES
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.nn.mlp import mlp

__all__ = ["BeatVAE", "beat_loss"]

EXAMPLES = 512  # encoded beats that the prior remembers
KERNEL = 0.25  # width of the kernel on each, as a share of the examples' spread


class BeatVAE(nn.Module):
    """Shape of a beat [B, 8, 200] mV <-> latent m [B, morphology]."""

    examples: Tensor  # [EXAMPLES, morphology]
    centre: Tensor  # [morphology]
    factor: Tensor  # [morphology, morphology] lower Cholesky factor of the examples' covariance
    taper: Tensor  # [200]

    def __init__(self, config: ECGWorldConfig):
        super().__init__()
        self.size = config.morphology
        self.encoder = mlp(
            (LEAD_COUNT * SAMPLES + LEAD_COUNT + SAMPLES, config.beat_width, config.beat_width, 2 * self.size)
        )
        self.decoder = mlp((self.size, config.beat_width, config.beat_width, LEAD_COUNT * SAMPLES))
        # Where generated patients' shapes come from: kernels on encoded training beats. A single Gaussian over them
        # also gives shapes that no beat has (two-humped T waves), which a delineator then misreads by a whole wave.
        self.register_buffer("examples", torch.zeros(EXAMPLES, self.size))
        self.register_buffer("centre", torch.zeros(self.size))
        self.register_buffer("factor", torch.eye(self.size))
        self.register_buffer("taper", _taper())

    def encode(self, beat_mv: Tensor, lead_seen: Tensor, sample_seen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [B, morphology] of m; `lead_seen` [B, 8] and `sample_seen` [B, 200] are bool."""
        seen = lead_seen.unsqueeze(-1) & sample_seen.unsqueeze(1)
        beat = torch.where(seen, beat_mv, torch.zeros_like(beat_mv))
        flat = torch.cat([beat.flatten(1), lead_seen.to(beat.dtype), sample_seen.to(beat.dtype)], dim=-1)
        mean, log_variance = self.encoder(flat).chunk(2, dim=-1)
        return mean, log_variance.clamp(-10, 4)

    def decode(self, m: Tensor) -> Tensor:
        """Canonical beat [B, 8, 200] mV; its ends are tapered to zero."""
        return self.decoder(m).unflatten(-1, (LEAD_COUNT, SAMPLES)) * self.taper

    def prior(self, key: Tensor) -> Tensor:
        """m [B, morphology] of generated patients: an example, shrunk to the centre, and noise for the lost spread."""
        which = torch.floor(keys.uniform(key, 0, "beat_example") * EXAMPLES).long()
        noise = keys.normal(key, 0, "beat_shape", (self.size,)) @ self.factor.T
        return self.centre + (1 - KERNEL**2) ** 0.5 * (self.examples[which] - self.centre) + KERNEL * noise

    def lay_prior(self, encoded: Tensor) -> None:
        """Set the prior from encoded beats [N, morphology], at least EXAMPLES of them."""
        self.examples.copy_(encoded[:EXAMPLES])
        self.centre.copy_(encoded.mean(0))
        covariance = torch.cov(encoded.T) + 1e-4 * torch.eye(self.size, device=encoded.device)
        self.factor.copy_(torch.linalg.cholesky(covariance))


def beat_loss(
    decoded: Tensor, beat_mv: Tensor, mean: Tensor, log_variance: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Reconstruction and Kullback-Leibler terms, each a mean over the batch.

    P and T are a tenth of the QRS in size but carry four of the five intervals: they, and slopes (the tangent that
    ends T is one), are weighted up.
    """
    weight = torch.cat(
        [torch.full((n,), w) for n, w in zip(PIECES, (8.0, 8.0, 8.0, 1.0, 4.0, 8.0, 8.0), strict=True)]
    ).to(decoded)
    error = decoded - beat_mv
    slope = error[..., 1:] - error[..., :-1]
    reconstruction = (weight * error.square()).mean() + 8 * (weight[1:] * slope.square()).mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean()
    return reconstruction, beta * divergence


def _taper() -> Tensor:
    window = torch.ones(SAMPLES)
    window[: PIECES[0]] = torch.linspace(0, 1, PIECES[0])
    window[-PIECES[-1] :] = torch.linspace(1, 0, PIECES[-1])
    return window
