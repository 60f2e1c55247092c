"""Training of the beats: the autoencoder, then the bender that gives any beat the T wave asked for."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models import keys
from world_models.ecg_wm.beat_data import BeatPool, BeatSource
from world_models.ecg_wm.t_bend import PASSES, bent, missed
from world_models.ecg_wm.t_reading import read_t
from world_models.ecg_wm.vae import EXAMPLES, BeatVAE, beat_loss
from world_models.training import Schedule, fit

__all__ = ["asked_t_waves", "train_beats"]

SEED = 3_200_000_000
STRIDE = 1_000  # seeds from one step's batch to the next's
NOISE_MV = 0.012  # SD of what is added to the beats that the encoder sees
LOST = 0.33  # share of beats of which electrodes are lost, each lead with the chance
LOST_LEAD = 0.3
STRAIN = 2e-3  # what a bend costs in the loss, by the mean square of its logarithms
# What a unit of drug does, and the scatter about it: near the trial's largest means (dofetilide, quinidine at 2.5 h)
DRUG = {
    "amplitude": (-0.5, 0.15),
    "asymmetry": (0.28, 0.06),
    "flatness": (0.1, 0.025),
    "erd": (22.0, 4.0),
    "lrd": (16.0, 3.0),
    "jt": (35.0, 10.0),
    "tail": (40.0, 8.0),
}


def train_beats(vae: BeatVAE, source: BeatSource, steps: int, bend_steps: int, batch: int, folder: Path) -> None:
    """The autoencoder (its linear part first, in closed form), the prior of generated patients, the bender."""
    lay_linear(vae, source)
    bender = {id(p) for p in vae.bender.parameters()}

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

    chosen = [p for p in vae.parameters() if id(p) not in bender]
    fit(vae, loss, Schedule(steps, learning_rate=5e-4, weight_decay=1e-3), folder, "beats", chosen)
    lay_prior(vae, source)
    train_bender(vae, source, bend_steps, batch, folder)


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
    """Generated patients' shapes: real beats varied, and drawn ones, whose T waves can be read."""
    latents, waves = [], []
    for i in range(6):
        pool = source.batch(keys.from_seed(SEED + 900_000_000 + 512 * i, 512, vae.weight.device))
        read = read_t(pool.beat, pool.intervals)
        whole = pool.leads.all(-1) & torch.isfinite(read.t_wave).all(-1)
        whole &= (read.peak_off_ms.abs() < 12) & (read.end_off_ms.abs() < 25)
        latents.append(vae.encode(pool.beat, pool.leads, pool.samples)[0][whole])
        waves.append(read.t_wave[whole])
    encoded, t_wave = torch.cat(latents), torch.cat(waves)
    order = torch.argsort(keys.uniform(keys.from_seed(SEED, len(encoded), encoded.device), 0, "beats/order"))
    if len(encoded) < EXAMPLES:
        raise ValueError(f"only {len(encoded)} beats can be read, {EXAMPLES} are needed; is the training set whole?")
    vae.lay_prior(encoded[order], t_wave[order])


def asked_t_waves(key: Tensor, t_wave: Tensor, intervals: Tensor) -> tuple[Tensor, Tensor]:
    """T waves [B, 5] and intervals [B, 5] to ask of beats that have these: near them, under drug, or another's."""
    kind = keys.uniform(key, 0, "asked/kind").unsqueeze(-1)
    other = torch.argsort(keys.uniform(key, 0, "asked/other"))
    unit = keys.uniform(key, 0, "asked/drug") * 1.6 - 0.2
    unit = torch.where(kind.squeeze(-1) < 0.2, torch.zeros_like(unit), unit)  # near
    swap = kind > 0.65
    wave, times = torch.where(swap, t_wave[other], t_wave), torch.where(swap, intervals[other], intervals)
    unit = torch.where(swap.squeeze(-1), 0.3 * unit, unit)
    noise = keys.normal(key, 0, "asked/noise", (len(DRUG),))
    moved = {n: unit * size + sd * noise[:, i] for i, (n, (size, sd)) in enumerate(DRUG.items())}
    jt = (times[:, 3] + moved["jt"]).clamp(110.0, 520.0)
    tail = (times[:, 4] + moved["tail"]).clamp(45.0, 210.0)
    amplitude, asymmetry, flatness, erd, lrd = wave.unbind(-1)
    erd = torch.minimum((erd + moved["erd"]).clamp_min(12.0), 0.7 * jt)
    lrd = torch.minimum(torch.maximum(lrd + moved["lrd"], 0.3 * tail), 0.68 * tail)
    rows = (
        (amplitude * moved["amplitude"].exp()).clamp(40.0, 2500.0),
        (asymmetry + moved["asymmetry"]).clamp(0.02, 1.3),
        (flatness + moved["flatness"]).clamp(0.25, 0.66),
        erd,
        lrd,
    )
    return torch.stack(rows, dim=-1), torch.stack([times[:, 0], times[:, 1], times[:, 2], jt, tail], dim=-1)


def train_bender(vae: BeatVAE, source: BeatSource, steps: int, batch: int, folder: Path) -> None:
    """The bender, by what a reader would measure of the bent beats; half recorded and drawn, half decoded."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = keys.from_seed(SEED + 500_000_000 + step * STRIDE, batch, vae.weight.device)
        with torch.no_grad():
            pool = source.batch(key)
            half = batch // 2
            rows = torch.argsort(keys.uniform(key, 0, "bend/decoded"))
            decoded = rows[:half]
            mean = vae.encode(pool.beat[decoded], pool.leads[decoded], pool.samples[decoded])[0]
            made = vae.shape(torch.cat([mean[: half // 2], vae.prior(key[half // 2 : half])]))
            beat = torch.cat([pool.beat[rows[half:]], made])
            order = torch.cat([rows[half:], decoded])
            own, times = read_t(beat, pool.intervals[order]).t_wave, pool.intervals[order]
            own = torch.where(torch.isfinite(own), own, pool.t_wave[order])
            asked, times = asked_t_waves(key, own, times)
            known = torch.isfinite(asked).all(-1)
            beat, asked, times = beat[known], asked[known], times[known]
        total, misses = torch.zeros((), device=key.device), torch.zeros_like(asked)
        for bend, _ in vae.bender.guesses(beat, asked, times, PASSES):
            shaped = bent(beat, bend)
            if shaped.requires_grad:  # a wave that cannot be read (no fall by 30 %, say) has no gradient either
                shaped.register_hook(lambda g: torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0))
            misses = missed(read_t(shaped, times), asked)
            total = total + F.smooth_l1_loss(torch.zeros_like(misses), misses, beta=0.5)
            total = total + STRAIN * (bend.early.square().mean() + bend.late.square().mean())
        figures = misses.detach().abs().median(0).values.tolist()
        names = ("amplitude", "asymmetry", "flatness", "erd", "lrd", "peak", "end")
        return total, dict(zip(names, figures, strict=True))

    fit(
        vae,
        loss,
        Schedule(steps, learning_rate=2e-3, weight_decay=1e-3),
        folder,
        "bender",
        list(vae.bender.parameters()),
    )
