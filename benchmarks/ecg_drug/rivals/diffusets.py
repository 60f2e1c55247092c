"""DiffuSETS-like: diffusion in the latent of a variational autoencoder, conditioned on text and patient data (Lai 2025,
arXiv 2501.05932). No physics.

The clinical note is written in words of a small vocabulary of its own (drug, dose, hours, sex, age, rate, intervals in
steps) and embedded here; the paper takes a language model's embedding. Autoencoder and denoiser learn side by side, the
denoiser on latents that it does not move. The latent is of the change of the beat; the ten measures lie beside it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ecg_drug.rivals.blocks import LEADS, MEASURES, SAMPLES, Attention, BeatEncoder, dense, sinusoid
from benchmarks.ecg_drug.rivals.denoising import ddim, noised
from benchmarks.ecg_drug.rivals.frame import FEATURES
from benchmarks.ecg_drug.rivals.network import Batch, PairNetwork
from world_models import keys

__all__ = ["DiffuSETS", "words_of"]

_LATENT = 24
_BETA = 1e-3  # of the divergence
_STEPS_OF = 12  # words for each number that is told
_DRUGS = 5


def words_of(told: Tensor) -> Tensor:
    """The note as word numbers int64 [B, 1 + numbers]: the drug, then each other feature in `_STEPS_OF` steps of
    its own words."""
    drug = told[:, MEASURES : MEASURES + _DRUGS].argmax(-1, keepdim=True)
    rest = torch.cat([told[:, :MEASURES], told[:, MEASURES + _DRUGS :]], -1)
    step = ((rest.clamp(-2.99, 2.99) + 3.0) * (_STEPS_OF / 6.0)).long()
    own = _DRUGS + torch.arange(rest.shape[1], device=told.device) * _STEPS_OF
    return torch.cat([drug, step + own], -1)


class DiffuSETS(PairNetwork):
    """See the module's docstring."""

    title, paper = "DiffuSETS", "arXiv 2501.05932"

    def __init__(self, size: int = 64, width: int = 192):
        super().__init__()
        flat, state = LEADS * SAMPLES, _LATENT + MEASURES
        self.encoder = dense(flat, width, 2 * _LATENT)
        self.decoder = dense(_LATENT, width, flat)
        self.words = nn.Embedding(_DRUGS + (FEATURES - _DRUGS) * _STEPS_OF, size)
        self.see = BeatEncoder(size)
        self.inward = nn.Linear(state + 3 * size, width)
        self.cross = nn.ModuleList(Attention(width, 4, size) for _ in range(2))
        self.blocks = nn.ModuleList(dense(width + 2 * size, width, width) for _ in range(2))
        self.out = nn.Linear(width, state)
        self.size = size

    @staticmethod
    def _unit(latent: Tensor) -> Tensor:
        """A latent on the scale of the noise, however the autoencoder chose its own."""
        return F.layer_norm(latent, (_LATENT,))

    def _context(self, pre: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        return self.see(pre, told), self.words(words_of(told))

    def _velocity(self, x: Tensor, time: Tensor, seen: Tensor, note: Tensor) -> Tensor:
        """The velocity [B, state] in x at times [B]."""
        at = sinusoid(time, self.size)
        h = self.inward(torch.cat([x, at, seen, note.mean(1)], -1))
        for cross, block in zip(self.cross, self.blocks, strict=True):
            h = h + cross(F.layer_norm(h, h.shape[-1:]).unsqueeze(1), note).squeeze(1)
            h = h + block(torch.cat([F.layer_norm(h, h.shape[-1:]), at, seen], -1))
        return self.out(F.silu(h))

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """Autoencoder's and denoiser's losses, side by side."""
        mean, log_variance = self.encoder(batch.beat.flatten(1)).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-10, 4)
        drawn = self._unit(mean) + (0.5 * log_variance).exp() * keys.normal(batch.key, 0, "rival/vae", (_LATENT,))
        rebuilt = (self.decoder(drawn) - batch.beat.flatten(1)).square().mean()
        divergence = 0.5 * (log_variance.exp() - 1 - log_variance).sum(-1).mean()
        clean = torch.cat([self._unit(mean).detach(), batch.measures], -1)
        x, velocity, time = noised(clean, batch.key)
        denoised = (self._velocity(x, time, *self._context(batch.pre, batch.told)) - velocity).square().mean()
        figures = {"rebuilt": float(rebuilt.detach()), "denoised": float(denoised.detach())}
        return rebuilt + _BETA * divergence + denoised, figures

    def generate(self, pre: Tensor, told: Tensor, drug: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """See `PairNetwork.generate`."""
        context = self._context(pre, told)
        x = ddim(lambda z, time: self._velocity(z, time, *context), key, _LATENT + MEASURES)
        latent, measures = x.split((_LATENT, MEASURES), -1)
        return self.decoder(latent).unflatten(-1, (LEADS, SAMPLES)), measures
