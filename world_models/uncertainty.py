"""How unsure a forecast is: the risk-averse score, and the part of the spread that more knowledge would take away.

`risk_score` is S(a) = mu + lambda sigma of ECG-WM (Chen et al. 2026, arXiv 2605.17580) over samples of a risk, lower
being better. `decompose` splits the variance of a forecast by the law of total variance: what comes of not knowing the
patient (epistemic: it shrinks as ECGs are seen) and what comes of chance from moment to moment (aleatoric: it stays).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.protocol import Parts, WorldModel

__all__ = ["Parts", "RiskScore", "as_info", "decompose", "parts_of", "risk_score"]

_LEAST = 2  # samples of each kind: of one there is no variance


class RiskScore(NamedTuple):
    """A risk over samples; lower is better."""

    mu: Tensor  # [...] mean
    sigma: Tensor  # [...] standard deviation
    score: Tensor  # [...] mu + lambda sigma


def risk_score(samples: Tensor, risk_aversion: float = 1.0) -> RiskScore:
    """S = mu + lambda sigma of samples [..., P] of a risk.

    `agents.planning.risk.MeanMinusSigma` is the same order on a return, where higher is better.

    Raises:
        ValueError: fewer than two samples, or a lambda that is negative or not finite.
    """
    if samples.ndim < 1 or samples.shape[-1] < _LEAST:
        raise ValueError(f"samples have shape {tuple(samples.shape)}; give at least {_LEAST} on the last axis")
    if not (math.isfinite(risk_aversion) and risk_aversion >= 0):
        raise ValueError(f"lambda={risk_aversion} must be a finite number of at least 0; 0 ignores the spread")
    mu, sigma = samples.mean(-1), samples.std(-1)
    return RiskScore(mu, sigma, mu + risk_aversion * sigma)


@torch.no_grad()
def decompose(
    world: WorldModel[Any],
    state: Any,
    actions: Tensor,
    key: Tensor,
    measures: Sequence[str] = ("qtcf_ms", "pr_ms", "heart_rate_bpm", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms"),
    patients: int = 16,
    chances: int = 4,
) -> dict[str, Parts]:
    """Where the spread of a forecast comes from, by nested particles.

    `world.rekey` samples what the world does not know of each patient anew, `patients` times; each of these then lives
    through `chances` futures that differ in their key alone. The between-patients variance is freed of what the chance
    adds to it (one-way analysis of variance with random effects: Var(means) - within / chances, at least 0). An oracle
    knows its patients, so its epistemic part is 0 but for the estimate's own noise.

    Args:
        world: one whose state changes its future by its `key` leaf alone, as those of ECGs do.
        state: of B patients.
        actions: [T, A] the same for all, or [B, T, A], in the orders' units.
        key: int64 [B]; the particles follow from it.
        patients, chances: particles are their product.

    Returns:
        Measure -> Parts [B, T] of its value after each of the T steps: epistemic, of the mean over chance, between
        patients that the belief holds possible; aleatoric, by chance alone, the mean over those patients.

    Raises:
        ValueError: fewer than two particles of a kind, an unknown measure, or actions of another shape.
    """
    batch = tree.batch_size(state)
    if patients < _LEAST or chances < _LEAST:
        raise ValueError(f"patients={patients} and chances={chances} must be at least {_LEAST} each")
    if actions.ndim == 2:
        actions = actions.expand(batch, -1, -1)
    if actions.ndim != 3 or len(actions) != batch or not actions.shape[1]:
        raise ValueError(f"actions have shape {tuple(actions.shape)}; give [T, A] or [{batch}, T, A], T at least 1")
    unknown = [n for n in measures if n not in {q.name for q in world.measures}]
    if unknown:
        raise ValueError(f"world {world.name} has no measure {', '.join(unknown)}")
    many = patients * chances
    who = torch.arange(patients, device=key.device).repeat_interleave(chances).repeat(batch)
    chance = torch.arange(chances, device=key.device).repeat(patients * batch)
    own = keys.fold(keys.fold(key.repeat_interleave(many), "uncertainty/patient"), who)
    particles = world.rekey(tree.repeat(state, many), own)
    particles = particles._replace(key=keys.fold(keys.fold(own, "uncertainty/chance"), chance))
    found: dict[str, list[Tensor]] = {name: [] for name in measures}
    for i in range(actions.shape[1]):
        particles = world.transition(particles, actions[:, i].repeat_interleave(many, 0))
        chart = world.observe(particles)
        for name in measures:
            found[name].append(chart[name].reshape(batch, patients, chances))
    return {name: parts_of(torch.stack(values, 1)) for name, values in found.items()}


def parts_of(values: Tensor) -> Parts:
    """Parts [...] of values [..., patients, chances], NaN where a particle does not have the measure (PR in
    fibrillation)."""
    seen = ~values.isnan()
    count = seen.sum(-1)
    mean, within = _mean_and_variance(values, seen)
    within = torch.where(count >= _LEAST, within, torch.nan).nanmean(-1)
    _, between = _mean_and_variance(torch.where(count > 0, mean, torch.nan), count > 0)
    noise = within * torch.where(count > 0, 1.0 / count, torch.nan).nanmean(-1)
    between = (between - noise).clamp_min(0.0)
    return Parts((within + between).sqrt(), between.sqrt(), within.sqrt())


def _mean_and_variance(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Of the seen values along the last axis; NaN where there are none, or only one for the variance."""
    count = seen.sum(-1)
    mean = torch.where(seen, values, 0.0).sum(-1) / count
    off = torch.where(seen, values - mean.unsqueeze(-1), 0.0)
    return mean, off.square().sum(-1) / (count - 1).clamp_min(0)


def as_info(parts: Mapping[str, Parts]) -> dict[str, Tensor]:
    """`spread_<measure>`, `epistemic_<measure>` and `aleatoric_<measure>`, as info has them."""
    return {f"{kind}_{name}": value for name, each in parts.items() for kind, value in each._asdict().items()}
