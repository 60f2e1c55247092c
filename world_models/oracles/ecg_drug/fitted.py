"""One drug of a fitted trial as numbers to sample people from, and the small matrices that correlate them.

Matrices are applied as products and adds in a fixed order: a row's bits never depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.fit.kinetics import names_of
from world_models.oracles.ecg_drug.roots import root
from world_models.quantities.drugs import drug

__all__ = ["FittedDrug", "Matrix", "matrix_of", "times", "times_rows", "wide"]


_SMALL = 256  # numbers of a matrix whose products are made at once: fewer operations, which small batches are made of

_COLUMNS = 1024  # columns for which that is done at once: the products of more do not stay near the processor


class Matrix(NamedTuple):
    """A constant matrix [P, Q]: whole where it is small, else by its columns, of which zeros on top are left out."""

    whole: Tensor | None  # [Q, P, 1]
    columns: tuple[Tensor, ...]  # [P - first, 1] each, of those that are not all zero
    place: tuple[int, ...]  # which column each is
    first: tuple[int, ...]  # its first row that is not zero
    rows: int


def matrix_of(matrix: Any, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Matrix:
    """An array [P, Q] as a Matrix."""
    array = np.asarray(matrix, dtype=float)
    if array.size <= _SMALL:
        whole = torch.tensor(array.T[..., None].copy(), dtype=dtype, device=device)
        return Matrix(whole, (), (), (), array.shape[0])
    place = tuple(j for j in range(array.shape[1]) if array[:, j].any())
    first = tuple(int(np.flatnonzero(array[:, j])[0]) for j in place)
    columns = tuple(
        torch.tensor(array[i:, j : j + 1], dtype=dtype, device=device) for i, j in zip(first, place, strict=True)
    )
    return Matrix(None, columns, place, first, array.shape[0])


def times_rows(matrix: Matrix, z: Tensor) -> Tensor:
    """matrix [P, Q] @ z [Q, B] in a fixed order of adds: a matrix product's rounding may depend on the batch."""
    if matrix.whole is not None and z.shape[-1] > _COLUMNS:
        return torch.cat([times_rows(matrix, part) for part in z.split(_COLUMNS, -1)], -1)
    if matrix.whole is not None:
        parts = matrix.whole * z.unsqueeze(1)
        while parts.shape[0] > 1:  # halves onto each other
            half = parts.shape[0] // 2
            folded = parts[:half] + parts[half : 2 * half]
            if parts.shape[0] % 2:
                folded[0] += parts[-1]
            parts = folded
        return parts[0]
    total = torch.zeros(matrix.rows, *z.shape[1:], dtype=z.dtype, device=z.device)
    for column, j, first in zip(matrix.columns, matrix.place, matrix.first, strict=True):
        total[first:] += column * z[j]
    return total


def times(matrix: Matrix, z: Tensor) -> Tensor:
    """`times_rows` of z [B, Q]: [B, P]."""
    return times_rows(matrix, z.T.contiguous()).T


def wide(values: Any, device: torch.device) -> Tensor:
    """Float64 on the device."""
    return torch.as_tensor(np.asarray(values, dtype=float), dtype=torch.float64, device=device)


class FittedDrug(NamedTuple):
    """One drug's entry of a fit. P parameters of `names_of`, E endpoints; tensors float64."""

    stages: int
    compartments: int
    names: tuple[str, ...]  # of the P parameters
    log_typical: Tensor  # [P]
    root: np.ndarray  # [P, P], of the between-subject covariance of the logs
    sex: float  # women minus men, log clearance and volumes
    ke0: tuple[float, ...]  # E, per h
    slope: Tensor  # [E] ms (bpm) per ng/mL, as the rest
    slope_sex: Tensor  # [E] women minus men
    slope_sd: Tensor  # [E] between people
    per_c50: Tensor  # [E]
    power: Tensor  # [E]
    per_reference: Tensor  # [E]
    noise_root: Matrix  # [E, E] of the residual that the drug adds, per ng/mL

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any], device: torch.device) -> FittedDrug:
        """From the drug's entry in the fit's JSON."""
        names, kinetics = names_of(drug(name)), entry["kinetics"]
        effects = [entry["effects"][e] for e in ENDPOINTS]
        noise = np.asarray(entry["effects"]["residual_correlation"])
        blur = np.array([x["residual_sd_per_ng_per_ml"] for x in effects])
        return cls(
            stages=drug(name).kinetics.absorption_stages,
            compartments=drug(name).kinetics.compartments,
            names=names,
            log_typical=wide([math.log(kinetics["typical"][n]) for n in names], device),
            root=root(kinetics["between_subject_log_covariance"]),
            sex=float(kinetics["women_minus_men_log_clearance_and_volumes"]),
            ke0=tuple(float(x["ke0_per_h"]) for x in effects),
            slope=wide([x["slope_per_ng_per_ml"] for x in effects], device),
            slope_sex=wide([x["women_minus_men_per_ng_per_ml"] for x in effects], device),
            slope_sd=wide([x["between_subject_sd_per_ng_per_ml"] for x in effects], device),
            per_c50=wide([0.0 if x["c50_ng_per_ml"] is None else 1.0 / x["c50_ng_per_ml"] for x in effects], device),
            power=wide([x["power"] for x in effects], device),
            per_reference=wide([1.0 / entry["mean_peak_concentration_ng_per_ml"]] * len(ENDPOINTS), device),
            # in finer units, in which the kept root is
            noise_root=matrix_of(root(noise * blur * blur[:, None] * 1e6) / 1e3, device),
        )
