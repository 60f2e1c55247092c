"""What the prior's fixed nodes miss: QTcF and T amplitude after one step beside the same step integrated exactly."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch

from world_models import keys, tree
from world_models.ecg_wm import latent
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.start_rates import REFERENCE_MG
from world_models.quantities.ecg_drug import DOSE_LIMIT_MG, DRUGS

__all__ = ["STEPS_H", "StepError", "step_errors"]

SEED = 2_500_000_000
STEPS_H = (0.25, 0.5, 1.0, 2.0, 6.0, 12.0)
TOLERANCE = 1e-6  # of dopri5


class StepError(NamedTuple):
    """`advance` against `adaptive`: the largest absolute difference over patients."""

    drug: str
    dose_mg: float
    hours: float
    qtcf_ms: float
    t_amplitude_percent: float


@torch.no_grad()
def step_errors(
    model: ECGWorldModel, patients: int = 64, steps_h: tuple[float, ...] = STEPS_H, highest: bool = True
) -> list[StepError]:
    """Of each drug and step, one step after a dose at admission: the highest that may be ordered, or the trial's."""
    key = keys.from_seed(SEED, patients, model.device)
    state = model.initial(key)
    exact = copy.deepcopy(model.prior).double()
    wide = tree.map_leaves(lambda x: x.double(), state.rates)
    found = []
    for drug, mg in zip(DRUGS, REFERENCE_MG, strict=True):
        given = DOSE_LIMIT_MG[drug] if highest else mg
        dose = torch.tensor([given * (name == drug) for name in DRUGS], device=model.device).expand(patients, -1)
        swallowed = model.prior.dose(state.rates, state.amounts, dose)
        for hours in steps_h:
            start, anchor = state.start_hour, state.rates.anchor
            fast = model.prior.advance(state.rates, swallowed, state.relaxed, start, start, hours).deviation
            moment = (swallowed.double(), state.relaxed.double(), start.double(), start.double())
            _, right = exact.adaptive(wide, *moment, hours, TOLERANCE)
            ours, theirs = latent.intervals_of(anchor + fast), latent.intervals_of(anchor + right.to(anchor.dtype))
            off = (ours["qtcf_ms"] - theirs["qtcf_ms"]).abs().max()
            share = (ours["t_amplitude_uv"] / theirs["t_amplitude_uv"] - 1).abs().max()
            found.append(StepError(drug, given, hours, float(off), 100 * float(share)))
    return found
