"""The world's own steps, for judging its diffusion: two-ended steps of the oracle's patients as the latent sees them.

As `world_models.ecg_wm.visits` has them; of every test patient one step, so that rows are patients. The beat that
happened is the decoder's of the latent that happened: what the autoencoder cannot say is judged elsewhere
(`benchmarks.ecg_drug.beats_real`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ecg_drug.diffusion_scores import FEW, SAMPLES, physics, scores
from world_models import catalog, keys, tree
from world_models.ecg_wm import latent
from world_models.ecg_wm.diffusion.decoded import WorldDecoder
from world_models.ecg_wm.diffusion.energy import EPK, EnergyWeights
from world_models.ecg_wm.diffusion.energy_score import energy_score
from world_models.ecg_wm.diffusion.latent_diffusion import DiffusionConfig, LatentDiffusion, Pairs
from world_models.ecg_wm.diffusion.sampler import Sampler
from world_models.ecg_wm.diffusion.train import Draw, fresh
from world_models.ecg_wm.diffusion_training import AT_ONCE, STEPS_H, STEPS_OF, pool_of_steps
from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.residual import parts_of
from world_models.ecg_wm.visits import sample_steps
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["BATCH", "LENGTHS_H", "MANY", "SEED", "TEST_SEED", "TRAIN_SEED", "Bench", "draw_all", "judged", "prepared"]
__all__ += ["SIZES", "errors_of_patients", "steps_of_patients", "with_shapes", "world_of"]

SEED = 2026
TRAIN_SEED, TEST_SEED = 5_000_000_000, 6_500_000_000
LENGTHS_H = tuple(dict.fromkeys(STEPS_H))
SIZES = DiffusionConfig(teacher_width=192)
BATCH = 256
MANY = 50  # evaluations that count as many


def world_of(name: str) -> ECGWorldModel:
    """A learned ECG world by name or folder.

    Raises:
        ValueError: another kind of world.
        FileNotFoundError, CheckpointError: see `catalog.load`.
    """
    world: Any = catalog.load(name)
    if not isinstance(world, ECGWorldModel):
        raise ValueError(f"{name} is no learned ECG world; name one, or its folder")
    return world.eval().requires_grad_(False)


@dataclass
class Bench:
    """What all parts share."""

    work: Path
    scale: float  # of all numbers of training steps
    world: ECGWorldModel
    train: Pairs
    test: Pairs
    tests: int  # patients of each step length that were asked for
    kept: Tensor  # bool [patients]: of whose steps all measures can be read; the rows of `test`
    true_beat: Tensor  # [N, 8, L] mV
    model: LatentDiffusion  # untrained, in the units of the steps
    epk: EPK
    worst: float  # total energy of a true beat's 99th percentile

    def draw(self, stage: str, batch: int = BATCH) -> Draw:
        """Batches of the training steps, a function of the step."""

        def one(step: int) -> tuple[Pairs, Tensor]:
            key = keys.fold(keys.from_seed(TRAIN_SEED + step * batch, batch), stage)
            index = torch.floor(keys.uniform(key, 0, "bench/row") * len(self.train.z_pre)).long()
            return self.train.take(index.clamp_max(len(self.train.z_pre) - 1)), key

        return one


def steps_of_patients(world: ECGWorldModel, patients: int, seed: int = TEST_SEED) -> Pairs:
    """One step of each of `patients` patients [N] of every length, where the prior leads in all of z; patients without
    two sinus ECGs in a row are left out."""
    parts = []
    for n, hours in enumerate(LENGTHS_H):
        for start in range(0, patients, AT_ONCE):
            key = keys.from_seed(seed + n * 100_000_000 + start, min(AT_ONCE, patients - start))
            parts.append(sample_steps(world, key, hours, STEPS_OF, each=1)[0])
    return with_shapes(world, tree.cat(parts))


def with_shapes(world: ECGWorldModel, pairs: Pairs) -> Pairs:
    """The pairs with the shape that goes with where the prior leads u, as a step of the world has it."""
    first = pairs.parts["admission"][:, COORDS:]
    with torch.no_grad():
        given = world.residual.given(pairs.z_prior[:, :COORDS], first, pairs.parts["deviation"])
    return pairs._replace(z_prior=given)


@torch.no_grad()
def prepared(name: str, work: Path, scale: float, patients: int, tests: int) -> Bench:
    """Steps to train on (of `patients` patients a length) and to judge (of `tests`), and the calibrated energy."""
    world = world_of(name)
    train = with_shapes(world, pool_of_steps(world, patients, work / f"of_{_seal(world)}", TRAIN_SEED))
    every = steps_of_patients(world, tests)
    kept = torch.isfinite(every.predicted).all(-1)
    test = every.take(kept.nonzero().squeeze(-1))
    model = fresh(SIZES, train.z_pre.shape[-1], parts_of(world.config, len(DRUGS)), SEED)
    model.units.measure(train.z_post - train.z_prior)
    decode = WorldDecoder(world.vae)
    some = train.take(torch.arange(0, len(train.z_pre), max(1, len(train.z_pre) // 1000)))
    model.energy.calibrate(decode(some.z_post), some.predicted)
    energies = model.energy(decode(some.z_post), some.predicted).total(EnergyWeights())
    beat = torch.cat([decode(z).beat_mv for z in test.z_post.split(256)])
    epk = EPK(model.energy, decode)
    return Bench(work, scale, world, train, test, tests, kept, beat, model, epk, float(energies.quantile(0.99)))


def _seal(world: ECGWorldModel) -> str:
    """What training kept of one world must not be used for another."""
    return (world.weights_sha256 or "own")[:12]


@torch.no_grad()
def draw_all(
    model: LatentDiffusion,
    pairs: Pairs,
    sampler: Sampler | None,
    steps: int = MANY,
    share: float = 1.0,
    guidance: tuple[EPK, float] | None = None,
    count: int = SAMPLES,
) -> Tensor:
    """Samples [count, N, Z] of the latents after the steps of pairs [N]; guidance: the energy and its strength."""
    _, condition, given = model.prepare(pairs, None, share)
    key = keys.from_seed(TEST_SEED, len(given))
    guide = None if guidance is None else (guidance[0], pairs.predicted, guidance[1])
    every = [keys.fold(key, n) for n in range(count)]
    return torch.stack([model.sample(condition, given, k, sampler, steps, guide) for k in every])


def judged(bench: Bench, samples: Tensor, pairs: Pairs | None = None, beat: Tensor | None = None) -> dict[str, float]:
    """Scores and physics of samples for the test pairs, or others of the same patients."""
    pairs, beat = bench.test if pairs is None else pairs, bench.true_beat if beat is None else beat
    told = scores(samples, pairs.z_post, bench.model.units.scale)
    return told | physics(samples, pairs, beat, bench.epk.energy, bench.epk.decode, bench.worst)


def errors_of_patients(samples: Tensor, pairs: Pairs, scale: Tensor) -> dict[str, Tensor]:
    """What is set beside fifty evaluations, of each patient [N]: energy score, error of the median, and of two measures
    that the median's latent says."""
    drawn, seen = samples / scale, pairs.z_post / scale
    middle = samples.contiguous().median(0).values
    said, true = (latent.intervals_of(z[:, :COORDS]) for z in (middle, pairs.z_post))
    return {
        "energy_score": energy_score(drawn[:FEW], seen),
        "mae_of_median": (middle / scale - seen).abs().mean(-1),
        "qtcf_ms_mae": (said["qtcf_ms"] - true["qtcf_ms"]).abs(),
        "t_amplitude_uv_mae": (said["t_amplitude_uv"] - true["t_amplitude_uv"]).abs(),
    }
