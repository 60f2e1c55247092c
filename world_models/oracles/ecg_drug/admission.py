"""Admission: a patient's factors become the state that the oracle starts from.

The admission ECG is one sample of the law of every later one: the patient's own levels are that ECG's less its time of
day and its variation, so that the chart at t = 0 shows exactly the baseline that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from world_models import keys
from world_models.constants import constant
from world_models.oracles.ecg_drug import (
    cohorts,
    electrolytes,
    fibrillation,
    harms,
    hepatic,
    interactions,
    rhythm,
    tolerance,
)
from world_models.oracles.ecg_drug.drawing import RESIDUAL
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.kinetics import Kinetics, paced
from world_models.oracles.ecg_drug.population import TrialModel
from world_models.oracles.ecg_drug.scales import to_scale
from world_models.oracles.ecg_drug.state import ECGDrugState
from world_models.quantities.ecg_drug import MAX_HOURS_SINCE_DOSE

__all__ = ["admitted"]

_MEASURED = tuple(f"baseline_{n}" for n in ENDPOINTS)
# Of the admission ECG, and of the patient: all random numbers at t = 0 in one pass, normals first.
_NORMALS = (("residual", len(ENDPOINTS)), fibrillation.NORMAL, harms.NORMALS, *harms.AT_ADMISSION)
_UNIFORMS = (fibrillation.UNIFORM, harms.UNIFORM)


def admitted(
    cohort: cohorts.ECGDrugCohort,
    trial: TrialModel,
    hours_per_step: float,
    key: Tensor,
    given: Mapping[str, Tensor],
    morphology: Tensor,
) -> ECGDrugState:
    """Patients [B] of the cohort at admission.

    Args:
        hours_per_step: the step they will take.
        given: factors that are known, checked; `residual_mv` [B, 8, 200] and `admission_fibrillation` [B] too.
        morphology: wave heights [B, 8, W] in mV.

    Raises:
        ValueError: see `cohorts.sample_factors`.
    """
    known = dict(given)
    residual, fibrillates = known.pop("residual_mv", None), known.pop("admission_fibrillation", None)
    if residual is None:
        residual = morphology.new_zeros(key.shape[0], RESIDUAL.shape[0], 0)  # nothing to carry through a plan
    u = keys.uniforms(key, 0, (*_NORMALS, *_UNIFORMS)).T
    z = keys.to_normal(u[: -len(_UNIFORMS)])
    variation, own_rate, personal = z[: len(ENDPOINTS)], z[len(ENDPOINTS)], z[len(ENDPOINTS) + 1 :].unbind(0)
    who = cohorts.sample_factors(cohort, key, known, trial)
    rate, qtcf = who["baseline_heart_rate_bpm"], who["baseline_qtcf_ms"]
    who["baseline_jt_peak_c_ms"] = cohorts.jt_peak_c(qtcf, who["baseline_qrs_ms"], who["baseline_tpeak_tend_ms"], rate)
    now = torch.stack([who[name] for name in _MEASURED])
    own = to_scale(now, 0) - trial.moment(variation, who["admission_clock_hour"])
    if cohort.from_trial:
        own = own - trial.before_dosing[:, None]
    # In the trial's people sensitivity goes with the drug-free level. That was seen between 20 and 35 years of age:
    # in older or sicker cohorts, whose levels lie outside the trial's, it is sampled apart from them.
    level = dict(zip(ENDPOINTS, own.unbind(0), strict=True)) if cohort.from_trial else None
    individual = trial.individual(
        keys.fold(key, "oracle/individual"),
        who["sex_female"],
        who["weight_kg"],
        who["age_years"],
        hepatic.clearances(who, trial.drugs, cohort.from_trial),
        level,
    )
    individual = individual._replace(slope=individual.slope * _strength(cohort, trial.drugs, who))
    nothing = torch.zeros(len(key), len(trial.drugs), device=key.device)
    burden, own_bpm = who["baseline_burden"], who["baseline_fibrillation_rate_bpm"]
    first_ecg = fibrillation.fibrillation_now(u[-2], own_rate, burden, own_bpm, rate, nothing, trial.drugs)
    if fibrillates is not None:  # then its rate is the one that was read
        first_ecg = fibrillation.Fibrillation(fibrillates, torch.where(fibrillates > 0, own_bpm, first_ecg.rate_bpm))
    kinetics = Kinetics(*individual[:4])
    risk = rhythm.torsades_risk(
        who["sex_female"], who["potassium_mmol_l"], who["magnesium_mmol_l"], cohort.torsades_risk
    )
    return ECGDrugState(
        key=key,
        t=torch.zeros_like(key),
        factors=torch.stack([who[q.name] for q in cohorts.FACTORS]).T,
        own=own.T,
        now=now.T,
        individual=individual,
        pace=paced(kinetics, hours_per_step, interactions.sped(trial.drugs)),
        level_per_mg=tolerance.area_per_mg(kinetics.rates, kinetics.plasma).to(torch.float32),
        amounts=trial.no_drug(len(key)),
        concentration=nothing,
        rhythm=rhythm.initial_rhythm(burden, qtcf, rate, risk),
        torsades_risk=risk,
        harms=harms.initial_harms(
            personal,
            u[-1],
            who["baseline_systolic_bp_mmhg"],
            who["admission_clock_hour"],
            cohort.sinus_disease_share,
        ),
        fibrillation=first_ecg,
        total_dose_mg=nothing,
        hours_since_dose=torch.full_like(nothing, MAX_HOURS_SINCE_DOSE),
        morphology=morphology,
        residual=residual,
    )


def _strength(cohort: cohorts.ECGDrugCohort, drugs: tuple[str, ...], who: Mapping[str, Tensor]) -> Tensor:
    """Multiplier [B, D, E] of the fitted slopes: electrolytes and the cohort's answers."""
    strength = electrolytes.block_strength(who["potassium_mmol_l"], who["magnesium_mmol_l"], drugs)
    strength = (strength * cohort.repolarisation_sensitivity).unsqueeze(-1)
    moves = constant(tuple(float(x) for x in tolerance.REPOLARISATION), strength.device) > 0
    factor = torch.where(moves, strength, torch.ones_like(strength))
    factor[..., ENDPOINTS.index("heart_rate_bpm")] = constant(
        tuple(cohort.verapamil_reflex if d == "verapamil" else 1.0 for d in drugs), strength.device
    )
    return factor
