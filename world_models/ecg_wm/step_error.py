"""What the prior's fixed substeps cost: QTcF after one step beside the same step integrated exactly.

The rates were learned with these substeps, so a world at its own step may be right with them all the same; at another
`hours_per_step` the same rates give another course, off by about as much.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from world_models import keys
from world_models.ecg_wm import latent
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.start_rates import REFERENCE_MG
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["StepError", "step_errors"]

SEED = 2_500_000_000


class StepError(NamedTuple):
    """QTcF of `advance` minus that of `adaptive`, ms."""

    dose_mg: float
    mean_ms: float
    largest_ms: float  # absolute


@torch.no_grad()
def step_errors(model: ECGWorldModel, patients: int = 64) -> dict[str, StepError]:
    """Of each drug, one step after its reference dose at admission."""
    key = keys.from_seed(SEED, patients, model.device)
    found = {}
    for drug, mg in zip(DRUGS, REFERENCE_MG, strict=True):
        state = model.initial(key)
        prior, hours, start = model.prior, model.hours_per_step, state.start_hour
        dose = torch.tensor([mg * (name == drug) for name in DRUGS], device=model.device).expand(patients, -1)
        swallowed = prior.dose(state.amounts, dose)
        _, _, _, eta, patient, anchor = state.rates
        fast = prior.advance(state.rates, swallowed, state.deviation, start, start, hours).deviation
        _, exact = prior.adaptive(eta, patient, anchor, swallowed, state.deviation, start, start, hours)
        off = latent.intervals_of(anchor + fast)["qtcf_ms"] - latent.intervals_of(anchor + exact)["qtcf_ms"]
        found[drug] = StepError(mg, float(off.mean()), float(off.abs().max()))
    return found
