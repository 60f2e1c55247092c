"""What `ExplainPosterior` needs of known pairs: how often what happens, what the dynamics miss, the weights.

Everything comes from the pairs given, and how far to smooth and to temper is settled by cross-validation among them;
the pairs that are judged later are never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from agents.planning.explain_posterior import (
    TransitionPrior,
    explain_world_of,
    missed_by_sets,
    singles_and_pairs,
    whitening,
)
from clinenv.simulator import Simulator
from world_models import tree
from world_models.protocol import Chart

__all__ = ["SHRINKAGES", "SMOOTHINGS", "TAUS", "Fitted", "distances", "fit", "fit_metric", "fit_prior", "missed"]

SMOOTHINGS = (3.0, 10.0, 30.0)  # pairs that each rate is pulled to its neighbours with
SHRINKAGES = (0.05, 0.2, 0.5, 1.0)
TAUS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)
DAYS_GROUPS = 3


class Fitted(NamedTuple):
    """What cross-validation chose, refitted to all pairs given."""

    prior: TransitionPrior
    metric: Tensor  # [Z, Z]
    tau: float
    smoothing: float
    shrinkage: float
    reciprocal_rank: float  # mean over pairs left out in turn; 0 for sets of three and more
    prior_alone: TransitionPrior  # as smooth as serves it best without the latents
    prior_reciprocal_rank: float


def fit_prior(
    condition: Tensor, action: Tensor, days: Tensor, smoothing: float = 10.0, groups: int = DAYS_GROUPS
) -> TransitionPrior:
    """From known pairs: condition [N, C] at the first ECG, action [N, C] in {-1, 0, 1}, days [N].

    Each condition's rate is that among those at risk, pulled to the rate of all conditions, and within each of `groups`
    equal parts of the pairs by days pulled to the condition's own. Rates among pairs that changed are rates among pairs
    that changed: where the pairs given are those alone, so must be the ones explained.

    Raises:
        ValueError: no pairs, a smoothing not above 0 (a rate of 0 has no log odds), or no group.
    """
    if not len(days) or not smoothing > 0 or groups < 1:
        raise ValueError(
            f"a prior needs at least one pair and group and a smoothing above 0, got {len(days)}, {groups}, {smoothing}"
        )
    present = (condition > 0.5).to(torch.float64)
    changed = (action != 0).to(torch.float64)
    inner = torch.arange(1, groups, device=days.device) / groups
    edges = days.to(torch.float32).quantile(inner)
    group = torch.bucketize(days.to(torch.float32).contiguous(), edges)
    rates = []
    for at_risk in (1.0 - present, present):
        happened = changed * at_risk
        overall = (happened.sum() + 0.5) / (at_risk.sum() + 1.0)  # never 0 nor 1
        own = (happened.sum(0) + smoothing * overall) / (at_risk.sum(0) + smoothing)
        count = [(happened[group == k].sum(0), at_risk[group == k].sum(0)) for k in range(groups)]
        rates.append(torch.stack([(h + smoothing * own) / (n + smoothing) for h, n in count]))
    onset, resolution = (torch.logit(rate).to(torch.float32) for rate in rates)
    return TransitionPrior(edges, onset, resolution)


@torch.no_grad()
def missed(simulator: Simulator, chart: Chart, sought: Tensor) -> Tensor:
    """[N, Z]: the second latent less the one that the true transitions [N, C] lead to."""
    return chart["z_goal"] - explain_world_of(simulator).lead(chart["z_before"], sought, chart["days"])


def fit_metric(errors: Tensor, shrinkage: float = 0.2) -> Tensor:
    """Lower triangle [Z, Z] of the covariance of errors [N, Z], pulled to the sphere of the same trace.

    Linear shrinkage as of Ledoit & Wolf 2004 (k): fewer pairs than a covariance has entries leave its smallest
    directions far too small, and a distance lives on those. The mean is not taken off: a bias is an error too.

    Raises:
        ValueError: no error, a shrinkage outside (0, 1].
    """
    if not len(errors) or not 0 < shrinkage <= 1:
        raise ValueError(f"a metric needs errors and a shrinkage above 0 and up to 1, got {len(errors)}, {shrinkage}")
    errors = errors.to(torch.float64)
    covariance = errors.T @ errors / len(errors)
    size = covariance.diagonal().mean().clamp_min(1e-8)
    sphere = size * torch.eye(len(covariance), dtype=torch.float64, device=errors.device)
    return torch.linalg.cholesky((1.0 - shrinkage) * covariance + shrinkage * sphere).to(torch.float32)


@torch.no_grad()
def fit(
    simulator: Simulator,
    chart: Chart,
    sought: Tensor,
    folds: int = 4,
    smoothings: Sequence[float] = SMOOTHINGS,
    shrinkages: Sequence[float] = SHRINKAGES,
    taus: Sequence[float] = TAUS,
) -> Fitted:
    """From known pairs at their start, chart and their true transitions sought [N, C].

    The choice is by the mean reciprocal rank of the true set among all sets of one and two, which is less a matter of
    chance than how often it comes first.

    Raises:
        ValueError: fewer pairs than folds, or fewer than two folds.
    """
    count = len(sought)
    if folds < 2 or count < folds:
        raise ValueError(f"cross-validation needs two folds and a pair in each, got {count} pairs and {folds} folds")
    condition, days = chart["condition_before"], chart["days"]
    errors = missed(simulator, chart, sought)
    sets = singles_and_pairs(sought.shape[1], 2, sought.device)
    fold = torch.arange(count, device=sought.device) % folds
    gain = torch.zeros(len(smoothings), len(shrinkages), len(taus))
    alone = torch.zeros(len(smoothings))
    for k in range(folds):
        inside, outside = fold != k, fold == k
        left, truth = tree.take(chart, outside), sought[outside] != 0
        priors = [fit_prior(condition[inside], sought[inside], days[inside], s) for s in smoothings]
        odds = [p.log_odds(left["condition_before"], left["days"]) @ sets.to(torch.float32).T for p in priors]
        apart = distances(simulator, left, sets, [fit_metric(errors[inside], s) for s in shrinkages])
        for i, prior in enumerate(odds):
            alone[i] += _reciprocal_ranks(prior, sets, truth).sum() / count
            for j, distance in enumerate(apart):
                for t, tau in enumerate(taus):
                    gain[i, j, t] += _reciprocal_ranks(prior - 0.5 * tau * distance, sets, truth).sum() / count
    best = int(gain.argmax())
    i, j, t = best // (len(shrinkages) * len(taus)), best // len(taus) % len(shrinkages), best % len(taus)
    return Fitted(
        prior=fit_prior(condition, sought, days, smoothings[i]),
        metric=fit_metric(errors, shrinkages[j]),
        tau=taus[t],
        smoothing=smoothings[i],
        shrinkage=shrinkages[j],
        reciprocal_rank=float(gain.flatten()[best]),
        prior_alone=fit_prior(condition, sought, days, smoothings[int(alone.argmax())]),
        prior_reciprocal_rank=float(alone.max()),
    )


def distances(
    simulator: Simulator, chart: Chart, sets: Tensor, metrics: Sequence[Tensor], max_rows: int = 8192
) -> list[Tensor]:
    """[B, M] for each metric: squared distance of the goal to where each set leads; the latents are foretold once."""
    whiten = [whitening(m) for m in metrics]
    found: list[list[Tensor]] = [[] for _ in metrics]
    rows = torch.arange(len(chart["days"]), device=sets.device)
    for part in rows.split(max(1, max_rows // len(sets))):
        error = missed_by_sets(simulator, tree.take(chart, part), sets)
        for kept, w in zip(found, whiten, strict=True):
            kept.append((error @ w.T).square().sum(-1))
    return [torch.cat(parts) for parts in found]


def _reciprocal_ranks(score: Tensor, sets: Tensor, truth: Tensor) -> Tensor:
    """[B] of the true set truth bool [B, C] among sets [M, C] by score [B, M]; 0 where it is not among them."""
    same = (truth.unsqueeze(1) == sets).all(-1)
    own = score.masked_fill(~same, -torch.inf).amax(-1, keepdim=True)
    rank = (score > own).sum(-1) + 1
    return torch.where(same.any(-1), 1.0 / rank, 0.0)
