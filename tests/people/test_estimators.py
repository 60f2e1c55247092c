"""Effects of an order whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.people import estimators
from benchmarks.people.estimators import (
    ESTIMATORS,
    Nuisances,
    cluster_sums,
    estimates,
    nuisances,
    overlap,
    pooled,
)

EFFECT = 5.0


def confounded(points: int = 2500, patients: int = 250, seed: int = 1):
    """The sick get the order, and are worse whatever is done: history, treated, outcome, baseline, cluster, truth of m
    and e."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, patients, points)
    illness = rng.normal(size=patients)[cluster] * 0.7 + rng.normal(size=points) * 0.7
    other = rng.normal(size=points)
    chance = 1 / (1 + np.exp(2.0 - 1.5 * illness))
    treated = rng.random(points) < chance
    untreated = 70 - 8 * illness + 2 * other
    outcome = untreated + EFFECT * treated + rng.normal(size=points) * 3
    baseline = 70 - 6 * illness + rng.normal(size=points) * 2
    history = np.stack([illness + 0.05 * rng.normal(size=points), other, baseline], 1).astype(np.float32)
    history[rng.random(points) < 0.05, 1] = np.nan  # not always known
    return history, treated, outcome, baseline, cluster, untreated, chance


@pytest.fixture(scope="module")
def answered():
    history, treated, outcome, baseline, cluster, *_ = confounded()
    fitted = nuisances(history, treated, outcome, baseline, cluster, seed=0)
    return treated, outcome, baseline, cluster, fitted


def test_adjusted_where_naive_has_the_wrong_sign(answered):
    treated, outcome, baseline, cluster, fitted = answered
    found = estimates(cluster_sums(treated, outcome, baseline, cluster, fitted))
    assert tuple(found) == ESTIMATORS
    assert found["naive"].high < 0
    for name in ("doubly_robust", "doubly_robust_logistic"):
        assert found[name].low < EFFECT < found[name].high and found[name].error < 0.4
    assert abs(found["outcome_regression"].value - EFFECT) < 1.0
    seen = overlap(treated, baseline, fitted)
    assert abs(seen.imbalance) < 0.15 < abs(seen.imbalance_before)
    assert 0 <= seen.cut_share < 0.1 and 50 < seen.effective_untreated < (~treated).sum()


@pytest.mark.parametrize("wrong", ["m", "e"])
def test_one_of_the_two_models_may_be_wrong(wrong):
    _, treated, outcome, baseline, cluster, untreated, chance = confounded(points=12_000)
    m = np.full_like(untreated, 70.0) if wrong == "m" else untreated
    e = np.full_like(chance, 0.1) if wrong == "e" else chance.clip(estimators.LOW, estimators.HIGH)
    sums = cluster_sums(treated, outcome, baseline, cluster, Nuisances(m, e, e, np.zeros(len(e), bool)))
    found = estimates(sums)
    assert abs(found["doubly_robust"].value - EFFECT) < 0.6
    if wrong == "m":  # and alone it is off by far
        assert found["outcome_regression"].value < 0


def test_nobody_is_predicted_by_a_model_that_met_him():
    cluster, treated = np.repeat(np.arange(40), 10), np.arange(400) % 3 == 0
    met = np.zeros(400, dtype=int)
    for inside in estimators._folds(cluster, treated, seed=3):
        assert not set(cluster[inside]) & set(cluster[~inside])
        met += ~inside
    assert (met == 1).all()


def test_the_same_seed_gives_the_same_answer(answered):
    history, treated, outcome, baseline, cluster, *_ = confounded()
    again = nuisances(history, treated, outcome, baseline, cluster, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(again, answered[-1], strict=True))
    assert (again.propensity >= estimators.LOW).all() and (again.propensity <= estimators.HIGH).all()


def test_records_together_are_the_mean_over_all_treated():
    def record(effect: float, treated: int, untreated: int, level: float) -> np.ndarray:
        a = np.arange(treated + untreated) < treated
        y = level + effect * a
        m, e = np.full(len(a), level), np.full(len(a), 0.3)
        return cluster_sums(a, y, np.full(len(a), level), np.arange(len(a)), Nuisances(m, e, e, np.zeros(len(a), bool)))

    found = estimates(pooled([record(4.0, 30, 1000, 50.0), record(1.0, 10, 20, 90.0)]))
    for name in ESTIMATORS:  # 30 with 4 and 10 with 1, whatever their levels and however many untreated
        assert found[name].value == pytest.approx(3.25)


def test_too_few_to_adjust_is_said():
    history, treated, outcome, baseline, cluster, *_ = confounded(points=60, patients=6)
    with pytest.raises(ValueError, match=r"treated and .* untreated decision points are too few .* give more stays"):
        nuisances(history, treated & (np.arange(60) < 5), outcome, baseline, cluster, seed=0)
    with pytest.raises(ValueError, match="cannot be cross-fitted"):
        history, treated, outcome, baseline, cluster, *_ = confounded(points=400)
        nuisances(history, treated, outcome, baseline, cluster * 0, seed=0)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.ensemble", None)
    history, treated, outcome, baseline, cluster, *_ = confounded(points=400)
    with pytest.raises(ImportError, match=r"clinenv\[bench\]"):
        nuisances(history, treated, outcome, baseline, cluster, seed=0)
