"""Scores of predicted outcomes of orders, the same for a learned ward, an oracle and the simple baselines.

S@k: share of |yhat - y| / |y| <= k %, values of zero left out and counted. SMAPE = mean 2|d| / (|y| + |yhat| + 1e-8).
status_f1: F1 of "outside the reference range". NLL (nats, density on the item's z scale), CRPS and energy score are on
that scale too, so that items can be averaged. High sensitivity: values that moved by more than 25 % against the last
one charted. A baseline without a distribution of its own is given a Laplace one around its point, its scale by item
the mean error on the validation stays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.common.intervals import RESAMPLES, percentile_interval, resamples_by_generator

__all__ = ["CLOSE", "LEVELS", "MOVED", "brier", "energy", "laplace_scores", "pinball_crps", "point_scores"]

LEVELS = torch.linspace(0.05, 0.95, 19)
CLOSE = 0.25  # S@25: relative error of a hit
MOVED = 0.25  # high sensitivity: relative change against the last value charted


def point_scores(y: Tensor, yhat: Tensor, last: Tensor, item: Tensor, low: Tensor, high: Tensor) -> dict[str, float]:
    """Scores of points yhat [N] for values y [N]; `last` [N] the value charted before (NaN: none); `low` and `high` [N]
    the reference range (NaN: none)."""
    known = y != 0
    error = ((yhat - y).abs() / y.abs())[known]
    out = {f"s{k}": float((error <= k / 100).float().mean()) for k in (10, 15, 25)}
    hit = ((error <= CLOSE).float(), item[known])
    count = torch.zeros(int(item.max()) + 1).index_add(0, hit[1], torch.ones_like(hit[0]))
    total = torch.zeros_like(count).index_add(0, hit[1], hit[0])
    out["s25_macro"] = float((total / count)[count > 0].mean())
    out["smape"] = float((2 * (yhat - y).abs() / (y.abs() + yhat.abs() + 1e-8)).mean())
    ranged = ~low.isnan()
    real, told = ((y < low) | (y > high))[ranged], ((yhat < low) | (yhat > high))[ranged]
    both = float((real & told).sum())
    out["status_f1"] = 2 * both / max(1.0, float(real.sum() + told.sum()))
    moved = ((y - last).abs() > MOVED * last.abs()) & known & (last != 0)
    out["high_sensitivity_s25"] = float((((yhat - y).abs() / y.abs())[moved] <= CLOSE).float().mean())
    return out | {"values": len(y), "zeros": int((~known).sum()), "moved": int(moved.sum())}


def laplace_scores(d: Tensor, scale: Tensor) -> dict[str, float]:
    """NLL, CRPS and cover of an 80 % interval for errors d [N] of Laplace distributions with these scales [N]."""
    a = d.abs()
    return {
        "nll": float(((2 * scale).log() + a / scale).mean()),
        "coverage80": float((a <= scale * math.log(5.0)).float().mean()),
        "crps": float((a + scale * (-a / scale).exp() - 0.75 * scale).mean()),
    }


def pinball_crps(quantiles: Tensor, y: Tensor) -> Tensor:
    """CRPS [N] from quantiles [N, 19] at LEVELS: twice the pinball loss, integrated over (0, 1) by trapezoids; at its
    ends it is 0."""
    d = y.unsqueeze(-1) - quantiles
    return 2 * torch.maximum(LEVELS * d, (LEVELS - 1) * d).sum(-1) / (len(LEVELS) + 1)


def energy(paths: Tensor, y: Tensor, group: Tensor, groups: int) -> Tensor:
    """Energy score of each group's set of slots: E|X - y| - E|X - X'| / 2, with X [P, N] drawn jointly within a
    group."""

    def norm(d: Tensor) -> Tensor:
        return torch.zeros(groups).index_add(0, group, d.square()).sqrt()

    near = torch.stack([norm(x - y) for x in paths]).mean(0)
    if len(paths) == 1:
        return near
    half = len(paths) // 2
    apart = torch.stack([norm(paths[i] - paths[i + half]) for i in range(half)]).mean(0)
    return near - apart / 2


def brier(chance: Tensor, died: Tensor, number: int = RESAMPLES, bins: int = 5) -> dict[str, float]:
    """Brier score beside the base rate's, with bootstrap intervals over patients, and reliability.

    Reliability: in each of `bins` equal groups by forecast, the observed share against the band that resampled
    patients show if each dies with the chance it was given (consistency resampling, Broecker & Smith 2007, doi
    10.1175/WAF993.1 (k)); the band is 95 % for all groups together. A band drawn around the observed share instead
    would have no width where nobody died."""
    died = died.float()
    generator = torch.Generator().manual_seed(0)
    score, plain = (chance - died).square(), (died.mean() - died).square()
    pick = resamples_by_generator(len(died), number, generator)
    rate = died[pick].mean(-1)
    skill = 1 - score[pick].mean(-1) / (rate * (1 - rate)).clamp_min(1e-9)
    tail = 0.025 / bins
    outside, worst = 0, 0.0
    for part in chance.argsort().chunk(bins):
        sample = chance[part][torch.randint(len(part), (number, len(part)), generator=generator)]
        share = (torch.rand(sample.shape, generator=generator) < sample).float().mean(-1)
        low, high = torch.quantile(share, torch.tensor([tail, 1 - tail])).tolist()
        seen = float(died[part].mean())
        outside += not low <= seen <= high
        worst = max(worst, abs(seen - float(chance[part].mean())))
    low, high = percentile_interval(skill)
    return {
        "brier": float(score.mean()),
        "brier_base_rate": float(plain.mean()),
        "skill": float(1 - score.mean() / plain.mean()),
        "skill_low": low,
        "skill_high": high,
        "base_rate": float(died.mean()),
        "mean_chance": float(chance.mean()),
        "groups_outside_band_of_5": outside,
        "largest_gap": worst,
    }
