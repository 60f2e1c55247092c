"""The 95 % intervals of every benchmark: percentile bootstraps over patients, paired differences, AUROC, a share's.

A resample is a row of N indices drawn with replacement from N cases. Figures that are compared share the resamples, so
that their difference is paired. There are several `resamples_*`, because each committed figure keeps the random stream
it was first drawn from; a new benchmark takes `resamples`, which is that of `world_models.bootstrap`, as in
`agents.rollout`. AUROC intervals are those of `world_models.cardiac_jepa.auroc`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from world_models import keys
from world_models.bootstrap import RESAMPLES, TAILS, Interval, percentile_interval, resamples
from world_models.cardiac_jepa.auroc import Bootstrap, bootstrap_macro, difference

__all__ = [
    "RESAMPLES",
    "Bootstrap",
    "Interval",
    "bootstrap_macro",
    "columns",
    "difference",
    "mean_interval",
    "numpy_mean_interval",
    "numpy_median_interval",
    "paired_difference",
    "percentile_interval",
    "put_mean",
    "ratio_interval",
    "resamples",
    "resamples_by_generator",
    "resamples_by_uniform",
    "share_over_patients",
    "wilson",
]

Z_95 = 1.959964  # standard normal quantile at 0.975
AT_ONCE = 256  # resamples held in memory together, where cases are many

# ---- resamples


def resamples_by_uniform(count: int, number: int) -> Tensor:
    """int64 [number, count] from one key's uniform numbers, as the effects of orders on the ward are resampled."""
    drawn = keys.uniform(keys.from_seed(31, 1), 0, "bootstrap", (number, count))[0]
    return (drawn * count).long().clamp_max(count - 1)


def resamples_by_generator(count: int, number: int, generator: torch.Generator) -> Tensor:
    """int64 [number, count] from a torch generator, which moves on."""
    return torch.randint(count, (number, count), generator=generator)


def _resamples_in_parts(count: int, number: int, seed: int) -> Iterator[Tensor]:
    """int64 [<= AT_ONCE, count] at a time: those of `bootstrap_macro`, so AUROC and ratios meet the same patients."""
    for some in torch.arange(number).split(AT_ONCE):
        key = keys.fold(keys.from_seed(seed).expand(len(some)), some)
        yield keys.bits(key, 0, "bootstrap patients", (count,)) % count


# ---- intervals


def mean_interval(values: Tensor, chosen: Tensor | None = None) -> Interval:
    """Mean of values [N] over cases, with its interval over `chosen` int64 [R, N] (default `resamples`)."""
    values = values.to(torch.float64)
    chosen = resamples(len(values)) if chosen is None else chosen
    return Interval(float(values.mean()), *percentile_interval(values[chosen].mean(-1)))


def ratio_interval(above: Tensor, below: Tensor, patient: Tensor, number: int, seed: int) -> Interval:
    """Mean of `above` [N] over mean of `below` [N], whole patients (`patient` int64 [N]) resampled."""
    owner = patient.unique(return_inverse=True)[1]
    count = int(owner.max()) + 1
    sums = torch.zeros(2, count, dtype=torch.float64)
    sums.index_add_(1, owner, torch.stack([above, below]).double())
    found = []
    for chosen in _resamples_in_parts(count, number, seed):
        top, bottom = sums[:, chosen].sum(-1)
        found.append(top / bottom)
    ratios = torch.cat(found)
    low, high = percentile_interval(ratios[torch.isfinite(ratios)])
    return Interval(float(above.double().sum() / below.double().sum()), low, high)


def paired_difference(one: Tensor, other: Tensor, cases: Tensor, number: int = RESAMPLES, seed: int = 0) -> Interval:
    """Difference of two pooled means, the same patients resampled in both.

    Args:
        one, other: [P] float64, each patient's sum of the score under either predictor.
        cases: [P] float64, each patient's number of scored values.
    """
    count = len(cases)
    drawn = resamples_by_generator(count, number, torch.Generator().manual_seed(seed))
    times = torch.zeros(number, count, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones(number, count, dtype=torch.float64))  # how often a resample has a patient
    apart = ((times @ one) - (times @ other)) / (times @ cases).clamp_min(1.0)
    return Interval(float((one.sum() - other.sum()) / cases.sum().clamp_min(1)), *percentile_interval(apart))


def numpy_mean_interval(values: np.ndarray, rng: np.random.Generator, number: int = 1000) -> tuple[float, float]:
    """Interval of the mean of values [N] that are known (not NaN); `rng` moves on."""
    index = rng.integers(0, len(values), (number, len(values)))
    low, high = np.quantile(np.nanmean(values[index], axis=1), TAILS)
    return float(low), float(high)


def numpy_median_interval(values: np.ndarray, seed: int = 7, number: int = RESAMPLES) -> tuple[float, float]:
    """Interval of the median of values [N], one a record."""
    index = np.random.default_rng(seed).integers(0, len(values), (number, len(values)))
    low, high = np.quantile(np.median(values[index], axis=1), TAILS)
    return float(low), float(high)


def share_over_patients(inside: np.ndarray, cases: np.ndarray, number: int = RESAMPLES) -> tuple[float, float]:
    """Interval of a pooled share, whole patients resampled: `inside` [P] of `cases` [P] of each are in it."""
    counts = np.stack([inside, cases], 1)
    drawn = counts[np.random.default_rng(0).integers(0, len(counts), (number, len(counts)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], TAILS)
    return float(low), float(high)


def wilson(hits: float, cases: int) -> tuple[float, float]:
    """Interval of a share, `hits` of `cases`, without resampling (Wilson 1927, doi 10.1080/01621459.1927.10502953)."""
    if cases < 1:
        return 0.0, 1.0
    z2 = Z_95**2
    share, size = hits / cases, cases + z2
    middle = (hits + 0.5 * z2) / size
    half = float(np.sqrt(z2 * (cases * share * (1 - share) + 0.25 * z2))) / size
    return max(0.0, middle - half), min(1.0, middle + half)


# ---- columns of a table


def columns(name: str, found: Interval) -> dict[str, float]:
    """The columns name, name_low, name_high."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def put_mean(row: dict[str, Any], name: str, values: Tensor) -> None:
    """Add to a row the mean of values [N], one a patient, and its interval: the columns name, name_low, name_high."""
    row.update(columns(name, mean_interval(values.to(torch.float32))))
