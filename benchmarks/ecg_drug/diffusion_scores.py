"""What a sampler's samples are worth beside what was observed: proper scores, errors, coverage, physics, time."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common.intervals import put_mean
from world_models.ecg_wm import latent
from world_models.ecg_wm.diffusion.decoded import Decode
from world_models.ecg_wm.diffusion.energy import EnergyParts, EnergyWeights, PhysicsEnergy
from world_models.ecg_wm.diffusion.energy_score import energy_score
from world_models.ecg_wm.diffusion.latent_diffusion import Pairs

__all__ = ["SAMPLES", "physics", "scores", "sd_of_entries", "timed"]

SAMPLES = 40  # of each condition: between the second and the 39th of 40 lie 37/41 = 90.2 % of a calibrated forecast
FEW = 8  # of them for the energy score
AT_ONCE = 256  # beats decoded together


def scores(samples: Tensor, observed: Tensor, scale: Tensor) -> dict[str, float]:
    """Of samples [SAMPLES, B, Z] for observed [B, Z]; `scale` [Z] are the units of all entries.

    Energy score (joint plus mean single ones) and mean absolute error of the median, each with its interval over rows
    (patients); coverage of the 90 % band (mean over entries, and the lowest and highest), conditional SD (mean over
    entries) and the mean absolute difference between the correlations of the samples' deviations and those of the
    observed ones from the median.
    """
    drawn, seen = samples / scale, observed / scale
    ordered = drawn.sort(0).values
    middle = ordered[SAMPLES // 2 - 1 : SAMPLES // 2 + 1].mean(0)
    inside = ((seen >= ordered[1]) & (seen <= ordered[-2])).float().mean(0)
    own = torch.corrcoef((drawn[0] - middle).T)
    real = torch.corrcoef((seen - middle).T)
    row: dict[str, float] = {}
    put_mean(row, "energy_score", energy_score(drawn[:FEW], seen))
    put_mean(row, "mae_of_median", (middle - seen).abs().mean(-1))
    return row | {
        "coverage": float(inside.mean()),
        "coverage_lowest": float(inside.min()),
        "coverage_highest": float(inside.max()),
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
    `worst` (a true beat's 99th percentile), and the median's error: signal in uV on the beat, QTcF in ms, T amplitude
    in uV."""
    weights = EnergyWeights()
    first = [
        energy(decode(z), p) for z, p in zip(samples[0].split(AT_ONCE), pairs.predicted.split(AT_ONCE), strict=True)
    ]
    parts = EnergyParts(*(torch.cat(column) for column in zip(*first, strict=True)))
    # torch's median over an expanded dimension is wrong (2.13): rows are laid out first
    middle = samples.contiguous().median(0).values
    beat = torch.cat([decode(z).beat_mv for z in middle.split(AT_ONCE)])
    row: dict[str, float] = {}
    put_mean(row, "energy", parts.total(weights))
    row |= {f"energy_{name}": float(value.mean()) for name, value in parts._asdict().items()}
    row["beyond_true_99"] = float((parts.total(weights) > worst).float().mean())
    put_mean(row, "signal_mae_uv", (beat - true_beat).abs().mean((1, 2)) * 1000)
    found, seen = (latent.intervals_of(z[:, : latent.COORDS]) for z in (middle, pairs.z_post))
    for name in ("qtcf_ms", "t_amplitude_uv"):
        put_mean(row, f"{name}_mae", (found[name] - seen[name]).abs())
    return row


def timed(draw: Callable[[], Tensor], repeats: int = 5) -> float:
    """Milliseconds of one call, the least of some, after one to warm up."""
    draw()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        draw()
        spent.append(time.perf_counter() - start)
    return 1000 * min(spent)
