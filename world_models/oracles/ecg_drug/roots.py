"""Lower-triangular roots of covariances, by which people are drawn: the same on every processor.

A covariance has many roots, and which one an eigendecomposition leads to depends on the kernels that LAPACK chooses for
the processor: a sign turned round, and the same key is another person. So a root is made unique here (no diagonal entry
is negative, as Cholesky's), and those of the shipped fit are kept in a file, as they were when its people were first
drawn: what was measured on them can be measured again.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

__all__ = ["root"]

_SAME = 1e-9  # of the standard deviations: two covariances whose entries differ by less are one
_ROUNDING = 1e-13  # of the largest variance
_NOTHING = 1e-9  # of a variance: what is left of it below this is rounding


def root(covariance: Any) -> np.ndarray:
    """A lower-triangular root [P, P] of a covariance [P, P] that may be singular (parameters without spread), or of the
    nearest one where rounding or estimation left a negative eigenvalue."""
    matrix = _nearest(np.asarray(covariance, dtype=float))
    sd = np.sqrt(matrix.diagonal().clip(0.0))
    near = _SAME * np.outer(sd, sd) + _ROUNDING * sd.max(initial=0.0) ** 2
    for kept in _shipped():
        if kept.shape == matrix.shape and (np.abs(kept @ kept.T - matrix) <= near).all():
            return kept.copy()
    return _cholesky(matrix)


def _nearest(matrix: np.ndarray) -> np.ndarray:
    """The nearest symmetric matrix without a negative eigenvalue: most often itself."""
    matrix = (matrix + matrix.T) / 2
    values, vectors = np.linalg.eigh(matrix)
    if values.min(initial=0.0) >= -_ROUNDING * values.max(initial=0.0):
        return matrix
    half = vectors * np.sqrt(np.clip(values, 0.0, None))
    return half @ half.T


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    """Column by column, of a matrix that may be singular: a column that nothing is left for is zero."""
    lower = np.zeros_like(matrix)
    for j in range(len(matrix)):
        left = matrix[j:, j] - (lower[j:, :j] * lower[j, :j]).sum(1)
        if left[0] > _NOTHING * matrix[j, j]:
            lower[j:, j] = left / left[0] ** 0.5
    return lower


@lru_cache(maxsize=1)
def _shipped() -> tuple[np.ndarray, ...]:
    """Roots of the covariances of `fitted_scr002.json`, of which the file holds the rows up to the diagonal."""
    text = (files("world_models.oracles.ecg_drug") / "roots_scr002.json").read_text(encoding="utf-8")
    found = []
    for rows in json.loads(text).values():
        lower = np.zeros((len(rows), len(rows)))
        for i, row in enumerate(rows):
            lower[i, : i + 1] = row
        found.append(lower)
    return tuple(found)
