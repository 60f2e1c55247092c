"""One drug of a fitted trial as numbers to sample people from, and the small matrices that correlate them.

Matrices stay on the host and are applied as fixed chains of adds: a row's bits never depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.oracles.ecg_drug import kinetics as pk
from world_models.oracles.ecg_drug import tolerance
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.fit.kinetics import ALLOMETRY, names_of
from world_models.quantities.drugs import drug

__all__ = ["FittedDrug", "Matrix", "host", "root", "times", "wide"]

Matrix = tuple[tuple[float, ...], ...]  # on the host: zeros are skipped, and no element is fetched from a device


def host(matrix: Any) -> Matrix:
    """An array [P, Q] as a Matrix."""
    return tuple(tuple(float(value) for value in row) for row in np.asarray(matrix, dtype=float))


def times(matrix: Matrix, z: Tensor) -> Tensor:
    """matrix [P, P] @ z [..., P], as a fixed chain of adds: a matrix product's rounding may depend on the batch."""
    rows = []
    for weights in matrix:
        total: Tensor | None = None
        for j, weight in enumerate(weights):
            if weight != 0.0:
                part = z[..., j] * weight
                total = part if total is None else total + part
        rows.append(torch.zeros_like(z[..., 0]) if total is None else total)
    return torch.stack(rows, -1)


def root(covariance: Any) -> np.ndarray:
    """A lower-triangular root of a covariance that may be singular (parameters without spread)."""
    matrix = np.asarray(covariance, dtype=float)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    half = vectors * np.sqrt(np.clip(values, 0.0, None))
    lower = np.asarray(np.linalg.qr(half.T, mode="r")).T
    return np.where(np.abs(lower) < 1e-12, 0.0, lower)


def wide(values: Any, device: torch.device) -> Tensor:
    """Float64 on the device."""
    return torch.as_tensor(np.asarray(values, dtype=float), dtype=torch.float64, device=device)


class FittedDrug(NamedTuple):
    """One drug's entry of a fit. P parameters of `names_of`, E endpoints; tensors float64."""

    stages: int
    names: tuple[str, ...]  # of the P parameters
    log_typical: Tensor  # [P]
    root: Matrix  # [P, P], of the between-subject covariance of the logs
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
            names=names,
            log_typical=wide([math.log(kinetics["typical"][n]) for n in names], device),
            root=host(root(kinetics["between_subject_log_covariance"])),
            sex=float(kinetics["women_minus_men_log_clearance_and_volumes"]),
            ke0=tuple(float(x["ke0_per_h"]) for x in effects),
            slope=wide([x["slope_per_ng_per_ml"] for x in effects], device),
            slope_sex=wide([x["women_minus_men_per_ng_per_ml"] for x in effects], device),
            slope_sd=wide([x["between_subject_sd_per_ng_per_ml"] for x in effects], device),
            per_c50=wide([0.0 if x["c50_ng_per_ml"] is None else 1.0 / x["c50_ng_per_ml"] for x in effects], device),
            power=wide([x["power"] for x in effects], device),
            per_reference=wide([1.0 / entry["mean_peak_concentration_ng_per_ml"]] * len(ENDPOINTS), device),
            # the root of so small a covariance is taken in finer units: `root` calls what is below 1e-12 zero
            noise_root=host(root(noise * blur * blur[:, None] * 1e6) / 1e3),
        )

    def kinetics(self, z: Tensor, side: Tensor, log_weight: Tensor, log_clearance: Tensor) -> pk.Kinetics:
        """People's kinetics from standard normals z [B, P], sex (+-0.5), log weight and log clearance factor [B].

        The last of the effect sites, after those of the endpoints, is the slow one of `tolerance`.
        """
        eta = times(self.root, z)
        value: dict[str, Tensor] = {}
        for p, parameter in enumerate(self.names):
            log = self.log_typical[p] + eta[:, p]
            if parameter in ALLOMETRY:
                log = log + ALLOMETRY[parameter] * log_weight + self.sex * side
            if parameter == "clearance":
                log = log + log_clearance
            value[parameter] = torch.exp(log)
        sites = (*self.ke0, tolerance.PER_H)
        return pk.kinetics_of(value, self.stages, [torch.full_like(side, rate) for rate in sites])
