"""Training of the beats: the autoencoder, and what generated patients' beats are drawn from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.delineation.delineate import delineate
from world_models.ecg_wm.beat_data import BeatPool, BeatSource
from world_models.ecg_wm.beats import RATE_HZ
from world_models.ecg_wm.encode import t_wave_of
from world_models.ecg_wm.recorded import INTERVALS
from world_models.ecg_wm.synthesis import synthesise
from world_models.ecg_wm.vae import EXAMPLES, BeatVAE, beat_loss
from world_models.training import Schedule, fit

__all__ = ["lay_linear", "lay_prior", "train_beats"]

SEED = 3_200_000_000
STRIDE = 1_000  # seeds from one step's batch to the next's
NOISE_MV = 0.012  # SD of what is added to the beats that the encoder sees
LOST = 0.33  # share of beats of which electrodes are lost, each lead with the chance
LOST_LEAD = 0.3
READ_MS = 4.0  # a generated patient's beat is one whose intervals a delineator reads as near as this
PAUSE_MS = 60.0  # at least from T end to half a PR before the next QRS, so that T and P stand apart
MOST_TRIES = 8


def train_beats(vae: BeatVAE, source: BeatSource, steps: int, batch: int, folder: Path) -> None:
    """The autoencoder (its linear part first, in closed form), then the prior of generated patients."""
    lay_linear(vae, source)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = keys.from_seed(SEED + step * STRIDE, batch, vae.weight.device)
        pool = source.batch(key)
        lost = keys.uniform(key, 0, "beats/lost", (pool.leads.shape[1],)) < LOST_LEAD
        leads = pool.leads & ~(lost & (keys.uniform(key, 0, "beats/loses") < LOST).unsqueeze(-1))
        leads = leads | (leads.sum(-1, keepdim=True) < 2)
        noise = NOISE_MV * keys.normal(key, 0, "beats/noise", tuple(pool.beat.shape[1:]))
        mean, log_variance = vae.encode(pool.beat + noise, leads, pool.samples)
        m = mean + (0.5 * log_variance).exp() * keys.normal(key, 0, "train/m", (mean.shape[-1],))
        rebuilt, divergence = beat_loss(vae, vae.shape(m), pool.beat, pool.samples, mean, log_variance)
        return rebuilt + divergence, {"rebuilt": rebuilt.item(), "divergence": divergence.item()}

    fit(vae, loss, Schedule(steps, learning_rate=5e-4, weight_decay=1e-3), folder, "beats", list(vae.parameters()))
    lay_prior(vae, source)


@torch.no_grad()
def lay_linear(vae: BeatVAE, source: BeatSource, rounds: int = 2) -> None:
    """Principal components of all beats; what was not seen of one is filled in by those of the round before."""
    pool, share = source.all()
    beat = pool.beat
    for _ in range(rounds):
        vae.lay_basis(beat, share)
        filled = torch.cat([vae.shape(vae.encode(*part)[0]) for part in _parts(pool)])
        seen = pool.leads.unsqueeze(-1) & pool.samples.unsqueeze(1)
        beat = torch.where(seen, pool.beat, filled)


def _parts(pool: BeatPool) -> list[tuple[Tensor, Tensor, Tensor]]:
    return list(zip(pool.beat.split(256), pool.leads.split(256), pool.samples.split(256), strict=True))


@torch.no_grad()
def lay_prior(vae: BeatVAE, source: BeatSource) -> None:
    """Generated patients' shapes: real beats varied, and drawn ones, on whose ECG a delineator reads what was asked."""
    latents, waves, found = [], [], 0
    for i in range(MOST_TRIES):
        if found >= EXAMPLES:
            break
        key = keys.from_seed(SEED + 900_000_000 + EXAMPLES * i, EXAMPLES, vae.weight.device)
        pool = source.batch(key)
        pool = pool.take(pool.leads.all(-1) & pool.intervals.isfinite().all(-1))
        mean, _ = vae.encode(pool.beat, pool.leads, pool.samples)
        good, t_wave = _read_as_asked(vae, mean, pool, key[: len(mean)])
        latents.append(mean[good])
        waves.append(t_wave[good])
        found += len(latents[-1])
    if found < EXAMPLES:
        raise ValueError(f"only {found} beats can be read, {EXAMPLES} are needed; is the training set whole?")
    encoded, t_wave = torch.cat(latents), torch.cat(waves)
    order = torch.argsort(keys.uniform(keys.from_seed(SEED, len(encoded), encoded.device), 0, "beats/order"))
    vae.lay_prior(encoded[order], t_wave[order])


def _read_as_asked(vae: BeatVAE, m: Tensor, pool: BeatPool, key: Tensor) -> tuple[Tensor, Tensor]:
    """bool [B]: the decoded beats' ECGs at the beats' intervals read as they should; and their own T waves [B, 5]."""
    qt = pool.intervals[:, 2:].sum(-1)
    fastest = 60_000 / (qt + 0.5 * pool.intervals[:, 1] + PAUSE_MS)
    asked = dict(zip(INTERVALS, pool.intervals.unbind(-1), strict=True))
    asked["heart_rate_bpm"] = torch.minimum(asked["heart_rate_bpm"], fastest).clamp(20.0, 200.0)
    read = delineate(synthesise(vae, m, None, key, torch.zeros_like(key), asked), RATE_HZ)
    t_wave = t_wave_of(read)
    good = read.trusted & torch.isfinite(t_wave).all(-1)
    for name in INTERVALS[1:]:
        good = good & ((getattr(read, name) - asked[name]).abs() < READ_MS)
    return good, t_wave
