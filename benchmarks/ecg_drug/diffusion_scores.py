"""What a sampler's samples are worth beside what was observed: proper scores, errors, coverage, physics, time."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from world_models.ecg_wm import latent
from world_models.ecg_wm.diffusion.decoded import Decode
from world_models.ecg_wm.diffusion.energy import EnergyWeights, PhysicsEnergy
from world_models.ecg_wm.diffusion.latent_diffusion import Pairs
from world_models.ecg_wm.flow import energy_score

__all__ = ["SAMPLES", "physics", "scores", "timed"]

SAMPLES = 40  # of each condition: between the second and the 39th of 40 lie 37/41 = 90.2 % of a calibrated forecast
FEW = 8  # of them for the energy score


def scores(samples: Tensor, observed: Tensor, scale: Tensor) -> dict[str, float]:
    """Of samples [SAMPLES, B, Z] for observed [B, Z]; `scale` [Z] are the units of all entries.

    Energy score (joint plus mean single ones), mean absolute error of the median, coverage of the 90 % band (mean over
    entries, and the lowest and highest), conditional SD (mean over entries) and the mean absolute difference between
    the correlations of the samples' deviations and those of the observed ones from the median.
    """
    drawn, seen = samples / scale, observed / scale
    ordered = drawn.sort(0).values
    middle = ordered[SAMPLES // 2 - 1 : SAMPLES // 2 + 1].mean(0)
    inside = ((seen >= ordered[1]) & (seen <= ordered[-2])).float().mean(0)
    own = torch.corrcoef((drawn[0] - middle).T)
    real = torch.corrcoef((seen - middle).T)
    return {
        "energy_score": float(energy_score(drawn[:FEW], seen).mean()),
        "mae_of_median": float((middle - seen).abs().mean()),
        "coverage": float(inside.mean()),
        "coverage_low": float(inside.min()),
        "coverage_high": float(inside.max()),
        "sd": float(drawn.std(0).mean()),
        "correlation_error": float((own - real).abs().mean()),
    }


def sd_of_entries(samples: Tensor) -> Tensor:
    """Conditional SD [Z] of samples [M, B, Z], a mean over conditions."""
    return samples.std(0).mean(0)


@torch.no_grad()
def physics(
    samples: Tensor, pairs: Pairs, true_beat: Tensor, energy: PhysicsEnergy, decode: Decode, worst: float
) -> dict[str, float]:
    """Physics of samples [M, B, Z]: mean energy of the first in all and by parts (1 on true beats), the share beyond
    `worst` (a true beat's 99th percentile), and the median's error: signal in uV on the beat, QTcF in ms."""
    weights = EnergyWeights()
    parts = energy(decode(samples[0]), pairs.predicted)
    # torch's median over an expanded dimension is wrong (2.13): rows are laid out first
    middle = samples.contiguous().median(0).values
    beat = decode(middle).beat_mv
    qtcf, seen = (latent.intervals_of(z[:, :6])["qtcf_ms"] for z in (middle, pairs.z_post))
    total = parts.total(weights)
    return {
        "energy": float(total.mean()),
        "energy_measures": float(parts.measures.mean()),
        "energy_dipole": float(parts.dipole.mean()),
        "energy_mcsharry": float(parts.mcsharry.mean()),
        "beyond_true_99": float((total > worst).float().mean()),
        "signal_mae_uv": float((beat - true_beat).abs().mean() * 1000),
        "qtcf_mae_ms": float((qtcf - seen).abs().mean()),
    }


def timed(draw: Callable[[], Tensor], repeats: int = 5) -> float:
    """Milliseconds of one call, the least of some, after one to warm up."""
    draw()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        draw()
        spent.append(time.perf_counter() - start)
    return 1000 * min(spent)
