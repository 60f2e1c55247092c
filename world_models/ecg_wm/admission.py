"""Patients as they are admitted: the state before any dose, from factors and the reading of the admission ECG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm import latent
from world_models.ecg_wm.belief import visit_features
from world_models.ecg_wm.latent import BURDEN
from world_models.ecg_wm.latent_ode import MODES, SITES, clock_waves
from world_models.ecg_wm.patients import CLEARANCES, COVARIATES, patient_features
from world_models.ecg_wm.recorded import Recorded
from world_models.ecg_wm.state import Belief, ECGWorldState, Present
from world_models.quantities.ecg_drug import DRUGS, MAX_HOURS_SINCE_DOSE

if TYPE_CHECKING:
    from world_models.ecg_wm.model import ECGWorldModel

__all__ = ["CONDUCTION", "FIBRILLATION", "start"]

# Streams of random numbers: what an ECG's rhythm hangs on (the oracle's own), and the atrioventricular node.
FIBRILLATION, CONDUCTION = "fibrillation/shown", "ecg_wm/conduction"


def start(model: ECGWorldModel, key: Tensor, f: Mapping[str, Tensor], shape: Tensor, measured: Tensor) -> ECGWorldState:
    """A state at t = 0 whose belief comes from the baseline `measured` [B, COORDS] alone.

    Of the factors f: `patients.COVARIATES`, `patients.CLEARANCES` (NaN: not known), admission_clock_hour and, where it
    is known what the admission ECG shows, admission_fibrillation; `shape` [B, morphology] is that of its beat.
    """
    batch, drugs = key.shape[0], len(DRUGS)
    zero, start_hour = torch.zeros_like(f["age_years"]), f["admission_clock_hour"]
    patient = patient_features(f)
    amounts, none = measured.new_zeros(batch, drugs, MODES), measured.new_zeros(batch, drugs)
    effect = measured.new_zeros(batch, drugs * SITES)
    visit = (part.unsqueeze(1) for part in (measured, effect, none, zero, zero))
    mean, deviation = model.believe(visit_features(patient, measured, start_hour, *visit))
    belief = Belief(mean[:, -1], deviation[:, -1])
    unknown = model.sample_unknown(belief, key)
    rates = model.rates_of(patient, measured, unknown)
    burden = torch.sigmoid(measured[:, BURDEN] * latent.SCALE[BURDEN] + latent.CENTRE[BURDEN])
    fibrillating = keys.uniform(key, 0, FIBRILLATION) < burden
    if "admission_fibrillation" in f:
        fibrillating = f["admission_fibrillation"] > 0.5
    intervals = latent.intervals_of(measured, fibrillating)
    return ECGWorldState(
        key=key,
        t=torch.zeros_like(key),
        covariates=torch.stack([f[name] for name in COVARIATES], dim=-1),
        clearance=torch.stack([f[name] for name in CLEARANCES], dim=-1),
        start_hour=start_hour,
        hours=zero,
        measured=measured,
        baseline_qtcf_ms=latent.intervals_of(measured)["qtcf_ms"],
        belief=belief,
        unknown=unknown,
        rates=rates,
        who=model.residual.who(patient, measured, shape),
        amounts=amounts,
        relaxed=torch.zeros_like(measured),
        deviation=torch.zeros_like(measured),
        residual=measured - rates.anchor,  # what the admission reading shows is known
        shape=shape,
        first_shape=shape,
        recorded=Recorded.nothing(shape),
        seen=torch.stack([~fibrillating, fibrillating], dim=-1),
        torsades=zero,
        conduction=keys.normal(key, 0, CONDUCTION),
        total_dose_mg=none,
        hours_since_dose=measured.new_full((batch, drugs), MAX_HOURS_SINCE_DOSE),
        dose_log_mg=measured.new_zeros(batch, model.config.dose_log, drugs),
        # nobody is admitted in block
        present=Present(measured, intervals, effect, clock_waves(start_hour), fibrillating, zero),
    )
