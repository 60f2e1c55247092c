"""What an order did to those who got it, by five estimators on the same decision points.

With A the order, Y the outcome, L the target's last value and X the history, the estimand is the mean effect on the
treated, E[Y(1) - Y(0) | A = 1]: it needs a model of the untreated alone, of whom there are many.

- raw: E[Y - L | A = 1]. Counts as an effect what would have happened anyway.
- naive: E[Y | A = 1] - E[Y | A = 0]. Sick patients get orders, so this may have the wrong sign.
- outcome_regression: E[Y - m(X) | A = 1], m by gradient boosting on untreated patients.
- doubly_robust: that, less the mean residual Y - m(X) of the untreated under weights e(X) / (1 - e(X)) that sum to one;
  right if m or the propensity e is (Robins, Rotnitzky & Zhao 1994, doi 10.1080/01621459.1994.10476818; on the treated:
  Hahn 1998, doi 10.2307/2998560). e by gradient boosting, cut to [LOW, HIGH].
- doubly_robust_logistic: the same with e by logistic regression under a ridge penalty.

m and e are cross-fitted: nobody is predicted by a model that met his patient, or his hospital where a source has
several (Chernozhukov 2018, doi 10.1111/ectj.12097). Intervals resample those clusters and hold m and e fixed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from world_models.bootstrap import RESAMPLES, percentile_interval, resamples

__all__ = ["ESTIMATORS", "HIGH", "LOW", "Estimate", "Nuisances", "Overlap", "cluster_sums", "estimates", "nuisances"]
__all__ += ["overlap", "pooled"]

ESTIMATORS = ("raw", "naive", "outcome_regression", "doubly_robust", "doubly_robust_logistic")
FOLDS = 5
LOW, HIGH = 0.001, 0.9  # of a propensity: one treated patient in ten could have been spared at least
FEWEST = 20  # treated and untreated rows that a fold's models are fitted to
TREES = {"max_iter": 60, "learning_rate": 0.1, "max_leaf_nodes": 12, "min_samples_leaf": 30, "l2_regularization": 5.0}
TREES |= {"max_bins": 63, "early_stopping": False}
# Of the propensity: smaller trees, chosen because they left the treated and the weighted untreated most alike.
PROPENSITY_TREES = TREES | {"max_leaf_nodes": 6, "min_samples_leaf": 10}


class Nuisances(NamedTuple):
    """Cross-fitted predictions [N] of each decision point."""

    untreated: np.ndarray  # m(X), of the outcome
    propensity: np.ndarray  # e(X) by gradient boosting, cut
    propensity_logistic: np.ndarray
    cut: np.ndarray  # bool: the boosted one lay outside [LOW, HIGH]


class Estimate(NamedTuple):
    """An effect with its 95 % interval and standard error."""

    value: float
    low: float
    high: float
    error: float


class Overlap(NamedTuple):
    """Whether the untreated can stand for the treated."""

    cut_share: float  # of the treated whose propensity was cut at HIGH
    effective_untreated: float  # their number after weighting (Kish 1965)
    imbalance: float  # of the target's last value after weighting, in its standard deviations
    imbalance_before: float


def nuisances(
    history: np.ndarray, treated: np.ndarray, outcome: np.ndarray, baseline: np.ndarray, cluster: np.ndarray, seed: int
) -> Nuisances:
    """Cross-fitted models of points [N], history [N, F]; the outcome's change from `baseline` is what is learned.

    Raises:
        ValueError: fewer than two clusters, or too few treated or untreated points to fit anything.
    """
    if min(treated.sum(), (~treated).sum()) < FEWEST:
        raise ValueError(
            f"{int(treated.sum())} treated and {int((~treated).sum())} untreated decision points are too few to adjust "
            f"anything; {FEWEST} of each are needed: give more stays"
        )
    untreated, boosted, logistic = (np.full(len(treated), np.nan) for _ in range(3))
    change = outcome - baseline
    with _one_thread():
        for inside in _folds(cluster, treated, seed):
            out = ~inside
            spared = inside & ~treated
            untreated[out] = baseline[out] + _boosted(history[spared], change[spared], seed).predict(history[out])
            boosted[out] = _boosted(history[inside], treated[inside], seed).predict_proba(history[out])[:, 1]
            logistic[out] = _logistic(history[inside], treated[inside]).predict_proba(history[out])[:, 1]
    cut = (boosted < LOW) | (boosted > HIGH)
    return Nuisances(untreated, boosted.clip(LOW, HIGH), logistic.clip(LOW, HIGH), cut)


def cluster_sums(
    treated: np.ndarray, outcome: np.ndarray, baseline: np.ndarray, cluster: np.ndarray, n: Nuisances
) -> np.ndarray:
    """[C, 10] of each cluster: what every estimator is a ratio of."""
    _, owner = np.unique(cluster, return_inverse=True)
    a, b = treated.astype(float), (~treated).astype(float)
    left = outcome - n.untreated
    weights = [b * e / (1 - e) for e in (n.propensity, n.propensity_logistic)]
    columns = [a, a * outcome, a * baseline, a * left, b, b * outcome]
    columns += [x for w in weights for x in (w, w * left)]
    return np.stack([np.bincount(owner, c) for c in columns], 1)


def estimates(sums: np.ndarray, seed: int = 0) -> dict[str, Estimate]:
    """Every estimator's effect and interval from the sums [C, 10] of clusters; `pooled` ones do as well."""
    chosen = resamples(len(sums), RESAMPLES, seed).numpy()
    drawn_sums = np.stack([np.bincount(row, minlength=len(sums)) @ sums for row in chosen])
    middle, spread = _effects(sums.sum(0, keepdims=True)), _effects(drawn_sums)
    out = {}
    for i, name in enumerate(ESTIMATORS):
        drawn = spread[np.isfinite(spread[:, i]), i]
        low, high = percentile_interval(torch.from_numpy(drawn))
        error = float(drawn.std()) if len(drawn) else float("nan")
        out[name] = Estimate(float(middle[0, i]), low, high, error)
    return out


def _effects(total: np.ndarray) -> np.ndarray:
    """[R, 5] from totals [R, 10]."""
    n1, y1, l1, left1, n0, y0, w, left, w_logistic, left_logistic = total.T
    with np.errstate(divide="ignore", invalid="ignore"):
        adjusted = left1 / n1
        return np.stack(
            [(y1 - l1) / n1, y1 / n1 - y0 / n0, adjusted, adjusted - left / w, adjusted - left_logistic / w_logistic], 1
        )


def overlap(treated: np.ndarray, baseline: np.ndarray, n: Nuisances) -> Overlap:
    """How far the untreated, weighted, are like the treated."""
    e = n.propensity[~treated]
    weight = e / (1 - e)
    spread = baseline.std() or 1.0
    mean = baseline[treated].mean()
    after = (weight * baseline[~treated]).sum() / weight.sum()
    return Overlap(
        cut_share=float((n.cut & (n.propensity >= HIGH))[treated].mean()),
        effective_untreated=float(weight.sum() ** 2 / (weight**2).sum()),
        imbalance=float((mean - after) / spread),
        imbalance_before=float((mean - baseline[~treated].mean()) / spread),
    )


def pooled(parts: list[np.ndarray]) -> np.ndarray:
    """The sums of several sources, whose models were fitted apart: a weight is one of its own source, so each source's
    are first brought to its number of treated."""
    out = []
    for part in parts:
        part = part.copy()
        for first in (4, 6, 8):  # the untreated of each source stand for its own treated
            part[:, first : first + 2] *= part[:, 0].sum() / max(part[:, first].sum(), 1e-12)
        out.append(part)
    return np.concatenate(out)


# ---- models


def _folds(cluster: np.ndarray, treated: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """bool [N] of the points to fit to, for each part of the clusters. Clusters with treated points are dealt out by
    themselves, so that every part has some."""
    names, owner = np.unique(cluster, return_inverse=True)
    if len(names) < 2:
        raise ValueError("one patient or hospital alone cannot be cross-fitted; give more stays")
    rank = np.random.default_rng(seed).permutation(len(names))
    has = np.bincount(owner, treated) > 0
    order = np.lexsort((rank, ~has))
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % min(FOLDS, len(names))
    for k in range(int(fold.max()) + 1):
        inside = fold[owner] != k
        if min((inside & treated).sum(), (inside & ~treated).sum()) < FEWEST // 2:
            raise ValueError(
                f"without one fold {int((inside & treated).sum())} treated and {int((inside & ~treated).sum())} "
                "untreated decision points are left: too few patients have them; give more stays"
            )
        yield inside


def _boosted(x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    _, HistGradientBoostingClassifier, HistGradientBoostingRegressor = _sklearn()
    if y.dtype == bool:
        return HistGradientBoostingClassifier(**PROPENSITY_TREES, random_state=seed).fit(_splittable(x), y)
    return HistGradientBoostingRegressor(**TREES, random_state=seed).fit(_splittable(x), y)


def _splittable(x: np.ndarray) -> np.ndarray:
    """A column that is never known would leave the trees without a bin to lay."""
    empty = np.isnan(x).all(0)
    return np.where(empty, np.float32(0.0), x) if empty.any() else x


def _logistic(x: np.ndarray, y: np.ndarray) -> Any:
    pipeline, *_ = _sklearn()
    return pipeline().fit(_splittable(x), y)


def _sklearn() -> tuple[Any, Any, Any]:
    """A maker of the penalised logistic regression, and the two kinds of trees.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise ImportError('effects on people need scikit-learn: pip install "clinenv[bench]"') from None

    def logistic() -> Any:
        impute = SimpleImputer(strategy="median", keep_empty_features=True)
        return make_pipeline(impute, StandardScaler(), LogisticRegression(C=0.02, max_iter=300))

    return logistic, HistGradientBoostingClassifier, HistGradientBoostingRegressor


@contextmanager
def _one_thread() -> Iterator[None]:
    """scikit-learn's own threads held to torch's number, and no warning for a penalised fit that stops early."""
    _sklearn()
    from threadpoolctl import threadpool_limits

    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
