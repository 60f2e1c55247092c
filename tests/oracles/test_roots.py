"""Roots of covariances are one and the same on every processor."""

from __future__ import annotations

import numpy as np
import pytest

from world_models.oracles.ecg_drug import fitted, population, roots
from world_models.oracles.ecg_drug.population import TrialModel


def test_the_shipped_fit_is_drawn_by_the_roots_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def unkept(matrix: np.ndarray) -> np.ndarray:
        raise AssertionError(f"no kept root of a {len(matrix)} x {len(matrix)} covariance of the shipped fit")

    asked = []

    def root(covariance: np.ndarray) -> np.ndarray:
        found = roots.root(covariance)
        asked.append(next(i for i, kept in enumerate(roots._shipped()) if np.array_equal(kept, found)))
        return found

    monkeypatch.setattr(roots, "_cholesky", unkept)
    monkeypatch.setattr(population, "root", root)
    monkeypatch.setattr(fitted, "root", root)
    TrialModel.load()
    assert sorted(asked) == list(range(12)), "each for one covariance"


@pytest.mark.parametrize("rank", [5, 3, 1, 0])
def test_of_a_covariance_there_is_one_root_without_a_negative_diagonal(rank: int) -> None:
    sample = np.random.default_rng(rank).normal(size=(5, rank)) * np.array([1.0, 1e-3, 2.0, 0.5, 30.0])[:, None]
    matrix = sample @ sample.T
    found = roots.root(matrix)
    np.testing.assert_allclose(found @ found.T, matrix, rtol=1e-7, atol=1e-12)
    assert (np.triu(found, 1) == 0).all() and (found.diagonal() >= 0).all()
    assert (found.any(0)).sum() == rank
    if rank == 5:
        np.testing.assert_allclose(found, np.linalg.cholesky(matrix), rtol=1e-6, atol=1e-12)


def test_what_no_covariance_can_be_is_brought_to_the_nearest() -> None:
    matrix = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    values, vectors = np.linalg.eigh(matrix)
    assert values[0] < -0.5
    found = roots.root(matrix)
    np.testing.assert_allclose(found @ found.T, (vectors * values.clip(0)) @ vectors.T, atol=1e-9)


def test_another_covariance_does_not_get_a_kept_root() -> None:
    kept = roots._shipped()[0]
    matrix = kept @ kept.T
    assert np.array_equal(roots.root(matrix), kept)
    matrix[1, 1] *= 1.001
    found = roots.root(matrix)
    assert not np.array_equal(found, kept)
    np.testing.assert_allclose(found @ found.T, matrix, rtol=1e-6, atol=1e-12)
