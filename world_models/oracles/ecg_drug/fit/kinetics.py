"""Population kinetics of one drug from the trial's concentrations: structure, covariates, starting values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.fit.nonlinear_mixed import MixedFit, fit_mixed
from world_models.oracles.ecg_drug.kinetics import MAX_LAG_H, Kinetics, kernel, kinetics_of
from world_models.quantities.drugs import Drug

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ALLOMETRY", "REFERENCE_WEIGHT_KG", "fit_kinetics", "individual_kinetics", "names_of"]

REFERENCE_WEIGHT_KG = 70.0
ALLOMETRY = {"clearance": 0.75, "v1": 1.0, "q": 0.75, "v2": 1.0}  # Anderson & Holford 2008, PMID 17914927

# between-subject log SD where the search starts; 0: everyone has the typical value. The lag's stands with the drug.
_SPREAD = {"clearance": 0.3, "v1": 0.3, "ka": 0.5, "q": 0.0, "v2": 0.0}
# priors on the log scale for what a single dose over 24 h barely shows
_PRIOR_SD = {"q": 0.5, "v2": 0.5, "lag": 0.5}
_SEX_PRIOR_SD = 0.15


def names_of(drug: Drug) -> tuple[str, ...]:
    """The drug's parameters, in the order of the fit's log vector."""
    return (
        ("clearance", "v1", "ka", "lag")
        if drug.kinetics.compartments == 1
        else ("clearance", "v1", "ka", "lag", "q", "v2")
    )


def individual_kinetics(drug: Drug, log_parameters: Tensor, ke0: list[Tensor]) -> Kinetics:
    """Modes and coefficients from log parameters [..., P] in the order of `names_of`."""
    value = {name: log_parameters[..., i].exp() for i, name in enumerate(names_of(drug))}
    return kinetics_of(value, drug.kinetics.absorption_stages, ke0)


def fit_kinetics(frame: pd.DataFrame, drug: Drug, sex_effect: bool = False) -> tuple[MixedFit, list]:
    """Fit one drug from its arm of the tidy frame (`load_trial`).

    Weight enters by allometry with fixed exponents; sex, where it is asked for, as one effect on the apparent clearance
    and volumes together, that is on the bioavailability (log scale, female minus male). It is off by default: on the
    trial women do have more quinidine and verapamil on board (-2 log L falls by 9 and 6), but left-out subjects' QTcF
    and Tpeak-Tend were predicted no better with it.

    Returns the fit and the subjects in its row order.

    Raises:
        ValueError: the arm holds no concentrations.
    """
    arm = frame[(frame["drug"] == drug.name) & (frame["hour"] > 0)]
    table = arm.pivot_table(index="randid", columns="hour", values="conc_ng_per_ml", aggfunc="mean")
    if table.empty:
        raise ValueError(f"no concentrations of {drug.name} in the table; a fit needs its arm with PCSTRESN filled")
    first = arm.groupby("randid").first().loc[table.index]
    hours = torch.tensor(table.columns.to_numpy(dtype=float))
    y = torch.tensor(table.to_numpy(dtype=float))
    dose = torch.tensor(first["dose_mg"].to_numpy(dtype=float))
    names = names_of(drug)
    log_weight = torch.tensor(first["weight_kg"].to_numpy(dtype=float) / REFERENCE_WEIGHT_KG).log()
    offsets = torch.stack([ALLOMETRY.get(name, 0.0) * log_weight for name in names], -1)
    female = torch.tensor(first["sex_female"].to_numpy(dtype=float)) - 0.5
    design = torch.zeros(len(table), len(names), 1 if sex_effect else 0, dtype=torch.float64)
    if sex_effect:
        for i, name in enumerate(names):
            if name in ALLOMETRY:
                design[:, i, 0] = female
    lag_at = names.index("lag")

    def predict(phi: Tensor) -> Tensor:
        # a lag beyond its cap has no gradient; the cap itself is applied in `kinetics`
        phi = torch.cat(
            [
                phi[:, :lag_at],
                phi[:, lag_at : lag_at + 1].clamp_max(torch.tensor(MAX_LAG_H).log().item()),
                phi[:, lag_at + 1 :],
            ],
            1,
        )
        plasma, _ = kernel(individual_kinetics(drug, phi, []), hours)
        return plasma * dose.repeat(len(phi) // len(dose)).unsqueeze(-1)

    start = torch.tensor([getattr(drug.kinetics, name) for name in names], dtype=torch.float64).log()
    spread = torch.tensor(
        [drug.kinetics.lag_log_sd if name == "lag" else _SPREAD[name] for name in names], dtype=torch.float64
    )
    floor = 0.002 * float(torch.nan_to_num(y).max())
    prior_sd = torch.tensor(
        [_PRIOR_SD.get(name, torch.inf) for name in names] + [_SEX_PRIOR_SD] * design.shape[-1], dtype=torch.float64
    )
    return fit_mixed(predict, y, start, spread, offsets, design, floor, prior_sd), list(table.index)
