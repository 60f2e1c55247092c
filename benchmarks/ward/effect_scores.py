"""Figures of merit of an effect: from unit effects in the oracle and in a learned ward to one row of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import percentile_interval, resamples_by_uniform

__all__ = ["correlation", "effects", "reliability", "row_of", "summary"]


def effects(values: Tensor) -> Tensor:
    """Unit effects [B] from both arms [2, B, streams]: the mean over the random streams in which both have a value."""
    return (values[1] - values[0]).nanmean(-1)


def reliability(values: Tensor) -> float:
    """Share of the variance of unit effects that is between patients: split halves of the random streams,
    Spearman-Brown."""
    single = values[1] - values[0]
    r = correlation(single[:, ::2].nanmean(-1), single[:, 1::2].nanmean(-1))
    return 2 * r / (1 + r) if r > 0 else 0.0


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, over what both know; NaN where one does not vary."""
    both = ~(a.isnan() | b.isnan())
    if int(both.sum()) < 3:
        return float("nan")
    x, y = a[both].double(), b[both].double()
    x, y = x - x.mean(), y - y.mean()
    scale = float((x.square().sum() * y.square().sum()).sqrt())
    return float((x * y).sum()) / scale if scale > 1e-12 else float("nan")


def row_of(truth: Tensor, learned: Tensor, others_mean: float, number: int = 1000) -> dict[str, Any]:
    """Figures of a row from unit effects [B] of the oracle and of the learned ward, in the target's unit.

    Confidence intervals: 95 %, bootstrap over patients.

    Raises:
        ValueError: no patient has both effects.
    """
    both = ~(truth.isnan() | learned.isnan())
    if not bool(both.any()):
        raise ValueError("no patient has an effect in both worlds; take more patients or more --streams")
    truth, learned = truth[both].double(), learned[both].double()
    count = len(truth)
    pick = resamples_by_uniform(count, number)
    means, theirs = truth[pick].mean(1), learned[pick].mean(1)
    low, high = percentile_interval(means)
    low_m, high_m = percentile_interval(theirs)
    low_r, high_r = percentile_interval(theirs / means)
    mean, mine = float(truth.mean()), float(learned.mean())
    ratio = mine / mean if mean else float("nan")
    return {
        "patients": count,
        "effect_oracle": mean,
        "oracle_low": low,
        "oracle_high": high,
        "effect_learned": mine,
        "learned_low": low_m,
        "learned_high": high_m,
        "ratio": ratio,
        "ratio_low": low_r,
        "ratio_high": high_r,
        "within_25_percent": int(abs(ratio - 1) <= 0.25),
        "same_sign": int(mine * mean > 0),
        "unit_sd_oracle": float(truth.std()) if count > 1 else 0.0,
        "unit_correlation": correlation(truth, learned),
        "pehe": float((learned - truth).square().mean().sqrt()),
        "pehe_no_effect": float(truth.square().mean().sqrt()),
        "pehe_population_effect": float((truth - others_mean).square().mean().sqrt()),
    }


def summary(rows: Sequence[dict[str, Any]], dial: float) -> dict[str, Any]:
    """Of the primary rows of one dial: how many are within 25 % with the right sign, and medians."""
    primary = [r for r in rows if r["primary"] and r["dial"] == dial]
    fine = sum(r["within_25_percent"] and r["same_sign"] for r in primary)
    units = torch.tensor([r["unit_correlation"] for r in primary]).nanmedian()
    better = sum(r["pehe"] < r["pehe_no_effect"] for r in primary)
    best = sum(r["pehe"] < r["pehe_population_effect"] for r in primary)
    return {
        "intervention": "SUMMARY",
        "model": primary[0]["model"],
        "dial": dial,
        "primary": 0,
        "population": f"{fine} of {len(primary)} primary rows within 25 % and right sign; PEHE below no effect in "
        f"{better}, below the population effect in {best}",
        "within_25_percent": fine,
        "same_sign": sum(r["same_sign"] for r in primary),
        "unit_correlation": float(units),
    }
