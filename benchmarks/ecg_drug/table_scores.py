"""What a rival's samples are worth beside what happened, figure by figure, with 95 % intervals over patients.

Point predictions are the samples' mean (beats, latents) and median (measures). A patient is one pair, so a bootstrap
over patients is one over rows; all models meet the same resamples.

Classes (`CLASSES`, ours: the paper tells none): QTcF > 450, 480, 500 ms and its change > 30, > 60 ms (ICH E14), PR >
200 ms, Tpeak-Tend > 100 ms. An interval is right where all its classes are; recall is the share of the classes that a
patient was in which are foretold (all together: of the patients in any class, those with every class right).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import columns
from benchmarks.ecg_drug.rivals.frame import Predicted
from world_models.bootstrap import Interval, percentile_interval, resamples
from world_models.ecg_wm.pairs import Pairs, time_beat
from world_models.protocol import Chart

__all__ = ["CLASSES", "MOVED", "Encode", "class_scores", "error_scores", "point_of", "risk_scores", "truths"]

Encode = Callable[[Tensor, Chart], Tensor]  # canonical beats [N, 8, 200] and their chart -> latents [N, Z]
Risk = Callable[[Chart], Tensor]  # chart [...] -> risk [...]
QTC_MS, RISE_MS, PR_MS, TPEAK_TEND_MS = (450.0, 480.0, 500.0), (30.0, 60.0), (200.0,), (100.0,)
CLASSES = ("qtc", "pr", "tpeak_tend")
MOVED = 0.005  # of the risk: the sign of a smaller true change is no one's to foretell
RESAMPLES = 1000
_WINDOW = slice(100, 700)  # samples of a beat in time that count: 400 ms before QRS onset to 800 ms after
_JUDGED = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qtcf_ms", "tpeak_tend_ms", "t_amplitude_uv", "t_asymmetry")
_JUDGED += ("t_flatness", "erd_30_ms", "lrd_30_ms")


def point_of(found: Predicted) -> tuple[Tensor, Chart]:
    """Mean beat [N, 8, 200] and median chart [N]."""
    return found.beat.mean(0), {n: v.nanquantile(0.5, 0) for n, v in found.chart.items()}


def _mean(values: Tensor, chosen: Tensor) -> Interval:
    """Mean of values [N] that are known, and its interval over the resamples [R, N]."""
    values = values.to(torch.float64)
    again = values[chosen].nanmean(-1)
    return Interval(float(values.nanmean()), *percentile_interval(again[~again.isnan()]))


def _ratio(above: Tensor, below: Tensor, chosen: Tensor) -> Interval:
    """Sum of above [N] over sum of below [N]; NaN where there is nothing below."""
    above, below = above.to(torch.float64), below.to(torch.float64)
    if not bool(below.sum() > 0):
        return Interval(float("nan"), float("nan"), float("nan"))
    again = above[chosen].sum(-1) / below[chosen].sum(-1)
    return Interval(float(above.sum() / below.sum()), *percentile_interval(again[torch.isfinite(again)]))


def _put(row: dict[str, Any], name: str, found: Interval) -> None:
    row.update(columns(name, found))


def error_scores(found: Predicted, pairs: Pairs, encode: Encode, seed: int = 0) -> dict[str, Any]:
    """Table 1: mean square and absolute error of latents, of canonical beats and of beats in time (mV), and the mean
    absolute errors of the measures; each with its interval."""
    chosen = resamples(pairs.size, RESAMPLES, seed)
    beat, chart = point_of(found)
    row: dict[str, Any] = {"patients": pairs.size}
    true, foretold = encode(pairs.post_beat, pairs.post), encode(beat, chart)
    parts = {
        "latent": foretold - true,
        "signal": (beat - pairs.post_beat).flatten(1),
        "time_signal": (time_beat(beat, chart) - time_beat(pairs.post_beat, pairs.post))[..., _WINDOW].flatten(1),
    }
    for name, off in parts.items():
        _put(row, f"{name}_mse", _mean(off.square().mean(-1), chosen))
        _put(row, f"{name}_mae", _mean(off.abs().mean(-1), chosen))
    for name in _JUDGED:
        _put(row, f"mae_{name}", _mean((chart[name] - pairs.post[name]).abs(), chosen))
    return row


def _classes(chart: Chart, before_qtcf_ms: Tensor) -> dict[str, Tensor]:
    """bool [N, classes] of each interval."""

    def over(value: Tensor, limits: tuple[float, ...]) -> Tensor:
        return value.unsqueeze(-1) > value.new_tensor(limits)

    qtcf = chart["qtcf_ms"]
    return {
        "qtc": torch.cat([over(qtcf, QTC_MS), over(qtcf - before_qtcf_ms, RISE_MS)], -1),
        "pr": over(chart["pr_ms"], PR_MS),
        "tpeak_tend": over(chart["tpeak_tend_ms"], TPEAK_TEND_MS),
    }


def class_scores(found: Predicted, pairs: Pairs, seed: int = 0) -> dict[str, Any]:
    """Table 2: accuracy, recall and macro recall (over classes that anyone was in) of each interval and of all."""
    chosen = resamples(pairs.size, RESAMPLES, seed)
    before = pairs.pre["qtcf_ms"]
    true, said = _classes(pairs.post, before), _classes(point_of(found)[1], before)
    row: dict[str, Any] = {"patients": pairs.size}
    right = {n: (true[n] == said[n]).all(-1) for n in CLASSES}
    for name in CLASSES:
        hit, were = (true[name] & said[name]).sum(-1), true[name].sum(-1)
        _put(row, f"accuracy_{name}", _mean(right[name].float(), chosen))
        _put(row, f"recall_{name}", _ratio(hit, were, chosen))
        there = true[name].any(0)
        share = (true[name] & said[name]).sum(0)[there] / true[name].sum(0)[there]
        row[f"macro_recall_{name}"] = float(share.mean()) if bool(there.any()) else float("nan")
        row[f"in_a_class_{name}"] = float(true[name].any(-1).float().mean())
    together = torch.stack([right[n] for n in CLASSES]).all(0)
    ill = torch.cat([true[n] for n in CLASSES], -1).any(-1)
    _put(row, "accuracy_all_three", _mean(together.float(), chosen))
    _put(row, "recall_all_three", _ratio(together & ill, ill, chosen))
    return row


def truths(pairs: Pairs, names: tuple[str, ...]) -> tuple[Chart, Chart]:
    """Pre- and post-dose charts with the measures `names` and what is fixed of a patient, for a risk predictor."""
    fixed = ("age_years", "sex_female", "potassium_mmol_l", "magnesium_mmol_l")
    both = []
    for chart in (pairs.pre, pairs.post):
        kept = {n: chart[n] for n in names} | {n: pairs.pre[n] for n in fixed if n in pairs.pre}
        both.append(kept | {"baseline_qtcf_ms": pairs.pre["qtcf_ms"]})
    return both[0], both[1]


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation [...] along the last axis; NaN where one does not vary."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    size = (x.square().sum(-1) * y.square().sum(-1)).sqrt()
    return torch.where(size > 1e-12, (x * y).sum(-1) / size, torch.nan)


def _ranks(values: Tensor) -> Tensor:
    """Ranks [N], equal values sharing their mean rank."""
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata(values.numpy()))


def risk_scores(found: Predicted, pairs: Pairs, risk: Risk, seed: int = 0) -> dict[str, Any]:
    """Table 3: change of the risk from the pre- to the post-dose chart, foretold (mean over samples) and true, through
    one frozen predictor: correlations, agreement of signs (where the true change is above MOVED), errors.

    Spearman's interval resamples the ranks of the whole.
    """
    chosen = resamples(pairs.size, RESAMPLES, seed)
    before, after = truths(pairs, tuple(found.chart))
    start = risk(before)
    true = (risk(after) - start).double()
    shared = {n: v for n, v in after.items() if n not in found.chart}
    samples = [risk({**shared, **{n: v[s] for n, v in found.chart.items()}}) for s in range(len(found.beat))]
    said = (torch.stack(samples).mean(0) - start).double()
    row: dict[str, Any] = {"patients": pairs.size, "mean_true": float(true.mean()), "mean_foretold": float(said.mean())}
    for name, (x, y) in {"pearson": (said, true), "spearman": (_ranks(said), _ranks(true))}.items():
        again = _correlation(x[chosen], y[chosen])
        _put(row, name, Interval(float(_correlation(x, y)), *percentile_interval(again[~again.isnan()])))
    moved = true.abs() > MOVED
    agree = (said.sign() == true.sign()) & moved
    _put(row, "sign_agreement", _ratio(agree, moved, chosen))
    row["moved"] = int(moved.sum())
    _put(row, "mae", _mean((said - true).abs(), chosen))
    square = _mean((said - true).square(), chosen)
    _put(row, "rmse", Interval(*(x**0.5 for x in square)))
    return row
