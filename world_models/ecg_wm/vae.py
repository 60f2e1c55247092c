"""The beat autoencoder: a VAE over the eight independent leads of one beat on the canonical axis.

A linear Gaussian model (probabilistic PCA, Tipping & Bishop 1999, doi 10.1111/1467-9868.00196) laid by the principal
components of real and drawn beats, with networks that add what is not linear: of real beats there are hundreds, not
thousands, and networks alone learn them by heart. The size of a beat and its shape are told apart: latent 0 is the
logarithm of the size.

Encoding marks which leads and which samples it may trust. The linear part is then conditioned on what was seen, in
closed form, so an ECG with missing leads or a fast rate (T running into the next P) is read from what is left, and
decoding fills in the rest. A decoded beat has its own T wave; drawing bends it to the one asked for (`synthesis`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from world_models import keys
from world_models.ecg_wm.beats import LEAD_COUNT, PIECES, SAMPLES
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.t_measures import standardised
from world_models.nn.mlp import mlp

__all__ = ["BeatVAE", "beat_loss"]

EXAMPLES = 512  # encoded beats that the prior remembers
CANDIDATES = 12  # of them that are looked at for one whose T wave is near to the one asked for
KERNEL = 0.25  # width of the kernel on each, as a share of the examples' spread
# How much an error of a sample counts, by piece: about the root of the time it stands for, more where P and T carry
# four of the five intervals, little in the tails.
WEIGHTS = (0.5, 1.6, 0.9, 1.0, 1.5, 1.2, 0.6)
LEAST_MV = 0.02  # root mean square of a beat that is not taken for smaller
SIZE_SD = 0.4  # of the logarithm of a beat's size
LEVEL_SD = 0.5  # of the share of the mean beat in a beat of unit size, as the encoder's least squares expects it


class BeatVAE(nn.Module):
    """Shape of a beat [B, 8, SAMPLES] mV <-> latent m [B, morphology], about standard normal over beats."""

    examples: Tensor  # [EXAMPLES, morphology]
    example_t_wave: Tensor  # [EXAMPLES, 5] on the working scale
    centre: Tensor  # [morphology]
    factor: Tensor  # [morphology, morphology] lower Cholesky factor of the examples' covariance
    taper: Tensor  # [SAMPLES]
    weight: Tensor  # [SAMPLES]
    log_size: Tensor  # scalar: logarithm of the typical size in mV
    energy: Tensor  # [8, SAMPLES] shares of a typical beat's weighted power
    noise: Tensor  # scalar: mean square that the components leave, of a beat of unit size

    def __init__(self, config: ECGWorldConfig):
        super().__init__()
        self.size = config.morphology
        flat = LEAD_COUNT * SAMPLES
        self.mean = nn.Parameter(torch.zeros(flat))  # of weighted beats of unit size
        self.basis = nn.Parameter(torch.zeros(self.size - 1, flat))
        inputs = flat + LEAD_COUNT + SAMPLES + self.size
        self.encoder = mlp((inputs, config.beat_width, config.beat_width, 2 * self.size), zero_last=True)
        self.decoder = mlp((self.size, config.beat_width, flat), zero_last=True)
        # Where generated patients' shapes come from: kernels on encoded training beats. A single Gaussian over them
        # also gives shapes that no beat has (two-humped T waves), which a delineator then misreads by a whole wave.
        self.register_buffer("examples", torch.zeros(EXAMPLES, self.size))
        self.register_buffer("example_t_wave", torch.zeros(EXAMPLES, 5))
        self.register_buffer("centre", torch.zeros(self.size))
        self.register_buffer("factor", torch.eye(self.size))
        self.register_buffer("taper", _taper())
        self.register_buffer("weight", _weights())
        self.register_buffer("log_size", torch.zeros(()))
        self.register_buffer("energy", torch.full((LEAD_COUNT, SAMPLES), 1.0 / flat))
        self.register_buffer("noise", torch.full((), 0.01))

    # ---- beats <-> latents ---------------------------------------------------------------------------------------

    def encode(self, beat_mv: Tensor, lead_seen: Tensor, sample_seen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [B, morphology] of m; `lead_seen` [B, 8] and `sample_seen` [B, SAMPLES] are bool."""
        seen = (lead_seen.unsqueeze(-1) & sample_seen.unsqueeze(1)).to(beat_mv.dtype)
        scaled = torch.nan_to_num(beat_mv) * self.taper * self.weight * seen
        share = (self.energy * seen).sum((1, 2)).clamp_min(0.05)
        size = (scaled.square().sum((1, 2)) / share / seen[0].numel()).sqrt().clamp_min(LEAST_MV)
        unit = (scaled / size[:, None, None]).flatten(1)
        linear = self._linear(unit, seen.flatten(1), size)
        given = torch.cat([unit, lead_seen.to(unit.dtype), sample_seen.to(unit.dtype), linear], dim=-1)
        shift, spread = self.encoder(given).chunk(2, dim=-1)
        return linear + shift, (spread - 4.0).clamp(-10, 2)

    def _linear(self, unit: Tensor, seen: Tensor, size: Tensor) -> Tensor:
        """m [B, morphology] by the components alone: the mean of the posterior given the samples seen."""
        rows = torch.cat([self.mean.unsqueeze(0), self.basis])  # the level, too, is not known
        masked = rows.unsqueeze(0) * seen.unsqueeze(1)
        power = masked @ rows.T
        right = (masked @ unit.unsqueeze(-1)).squeeze(-1)
        expected = torch.zeros_like(right)
        expected[:, 0] = 1.0
        precision = torch.full_like(expected[0], 1.0)
        precision[0] = 1.0 / LEVEL_SD**2
        precision = precision * self.noise
        found = torch.linalg.solve(power + torch.diag(precision), right + precision * expected)
        level = found[:, :1].clamp(0.2, 5.0)
        log_size = (size.unsqueeze(-1) * level).log()
        return torch.cat([(log_size - self.log_size) / SIZE_SD, (found[:, 1:] / level).clamp(-8, 8)], dim=-1)

    def shape(self, m: Tensor) -> Tensor:
        """The canonical beat [B, 8, SAMPLES] mV of m [B, morphology] with its own T wave; its ends are tapered."""
        unit = self.mean + m[:, 1:] @ self.basis + self.decoder(m)
        size = (SIZE_SD * m[:, :1] + self.log_size).exp()
        return (unit * size).unflatten(-1, (LEAD_COUNT, SAMPLES)) * (self.taper / self.weight)

    # ---- generated patients --------------------------------------------------------------------------------------

    def prior(self, key: Tensor, t_wave: Tensor | None = None) -> Tensor:
        """m [B, morphology] of generated patients: an example, shrunk to the centre, and noise for the lost spread.

        With `t_wave` [B, 5] the example is, of a few, the one whose T wave is nearest: less is left to be bent.
        """
        which = torch.floor(keys.uniform(key, 0, "beat_example", (CANDIDATES,)) * EXAMPLES).long()
        if t_wave is None:
            chosen = which[:, 0]
        else:
            away = (self.example_t_wave[which] - standardised(t_wave).unsqueeze(1)).square().sum(-1)
            chosen = which.gather(1, away.argmin(-1, keepdim=True)).squeeze(1)
        noise = keys.normal(key, 0, "beat_shape", (self.size,)) @ self.factor.T
        return self.centre + (1 - KERNEL**2) ** 0.5 * (self.examples[chosen] - self.centre) + KERNEL * noise

    @torch.no_grad()
    def lay_prior(self, encoded: Tensor, t_wave: Tensor | None = None) -> None:
        """Set the prior from encoded beats [N, morphology], at least EXAMPLES of them, and their T waves [N, 5]."""
        self.examples.copy_(encoded[:EXAMPLES])
        if t_wave is not None:
            self.example_t_wave.copy_(standardised(t_wave[:EXAMPLES]))
        self.centre.copy_(encoded.mean(0))
        covariance = torch.cov(encoded.T) + 1e-4 * torch.eye(self.size, device=encoded.device)
        self.factor.copy_(torch.linalg.cholesky(covariance))

    @torch.no_grad()
    def lay_basis(self, beat_mv: Tensor, share: Tensor) -> None:
        """Set the linear part from beats [N, 8, SAMPLES] mV by their principal components; `share` [N] weighs them."""
        scaled = beat_mv * self.taper * self.weight
        size = scaled.square().mean((1, 2)).sqrt().clamp_min(LEAST_MV)
        unit = (scaled / size[:, None, None]).flatten(1)
        share = share / share.sum()
        self.energy.copy_((share[:, None, None] * unit.unflatten(-1, (LEAD_COUNT, SAMPLES)).square()).sum(0))
        self.energy.div_(self.energy.sum())
        mean = (share.unsqueeze(-1) * unit).sum(0)
        _, spread, direction = torch.linalg.svd(share.sqrt().unsqueeze(-1) * (unit - mean), full_matrices=False)
        kept = self.size - 1
        self.mean.copy_(mean)
        self.basis.copy_(spread[:kept].unsqueeze(-1) * direction[:kept])
        self.noise.copy_(spread[kept:].square().sum() / unit.shape[1])
        self.log_size.copy_((share * size.log()).sum())


def beat_loss(
    vae: BeatVAE, decoded: Tensor, beat_mv: Tensor, known: Tensor, mean: Tensor, log_variance: Tensor
) -> tuple[Tensor, Tensor]:
    """The two terms of the evidence bound, each a mean over the batch and a sample: misfit and divergence.

    Misfit: squares over the noise that the components leave, of beats [B, 8, SAMPLES] on unit size, where they are
    `known` [B, SAMPLES]; slopes count as well, as marks are read by tangents.
    """
    scaled = beat_mv * vae.taper * vae.weight
    size = (scaled * known.unsqueeze(1)).square().mean((1, 2)).sqrt().clamp_min(LEAST_MV)
    error = (decoded - beat_mv * vae.taper) * (vae.weight * known.to(decoded.dtype)).unsqueeze(1) / size[:, None, None]
    slope = error[..., 1:] - error[..., :-1]
    misfit = 0.5 * (error.square().mean() + slope.square().mean()) / vae.noise
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean() / error[0].numel()
    return misfit, divergence


def _taper() -> Tensor:
    window = torch.ones(SAMPLES)
    window[: PIECES[0]] = torch.linspace(0, 1, PIECES[0])
    window[-PIECES[-1] :] = torch.linspace(1, 0, PIECES[-1])
    return window


def _weights() -> Tensor:
    weights = torch.cat([torch.full((n,), w) for n, w in zip(PIECES, WEIGHTS, strict=True)])
    return weights / weights.square().mean().sqrt()
