"""A step of an ECG world: of the model that draws what comes, and of one that follows what another has drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.latent_ode import PriorStep
from world_models.ecg_wm.residual import Sampling, Told, length_told
from world_models.ecg_wm.state import ECGWorldState, with_dose
from world_models.quantities.ecg_drug import MAX_HOURS_SINCE_DOSE

if TYPE_CHECKING:
    from world_models.ecg_wm.model import ECGWorldModel

__all__ = ["follow", "step"]


def step(model: ECGWorldModel, state: ECGWorldState, dose: Tensor) -> ECGWorldState:
    """See `ECGWorldModel.transition`; `dose` [B, D] mg is within its bounds."""
    hours, t = model.hours_per_step, state.t + 1
    prior = _prior(model, state, dose)

    uniforms = keys.uniforms(state.key, t, model.streams)
    normals = keys.to_normal(uniforms[:, :-2])
    foreseen = state.rates.anchor + prior.deviation
    memory = torch.exp(-hours / model.log_memory.exp())
    given = model.residual.given(foreseen + memory * state.residual, state.first_shape, prior.deviation)
    before = torch.cat([state.present.u, state.shape], dim=-1)
    told = Told(
        residual=state.residual,
        deviation=prior.deviation,
        effect=prior.effect,
        patient=state.rates.patient,
        length=length_told(state.residual, hours),
        dose=dose / model.prior.reference_mg,
        measured=state.measured,
        first_shape=state.first_shape,
    )
    if model.sampling == Sampling():
        z = model.residual(state.who, told, before, given, normals[:, :-1])
    else:
        z = model.residual.sampled(told, before, given, keys.fold(state.key, t), model.sampling)
    u, shape = z.split([COORDS, model.config.morphology], dim=-1)
    u, shape = u.contiguous(), shape.contiguous()
    conduction = model.av_block.conduct(state.conduction, normals[:, -1], hours)
    present = model.present(state, u, prior.effect, prior.clock, uniforms[:, -1], conduction)
    risk = model.torsades_hazard.chance(present.intervals, state.baseline_qtcf_ms, state.rates.patient, hours)
    struck = (uniforms[:, -2] < risk).to(torch.float32)
    since = (state.hours_since_dose + hours).clamp_max(MAX_HOURS_SINCE_DOSE)
    return state._replace(
        t=t,
        hours=state.hours + hours,
        amounts=prior.amounts,
        relaxed=prior.relaxed,
        deviation=prior.deviation,
        residual=u - foreseen,
        shape=shape,
        seen=state.seen | torch.stack([~present.fibrillating, present.fibrillating], dim=-1),
        torsades=torch.maximum(state.torsades, struck),
        conduction=conduction,
        total_dose_mg=state.total_dose_mg + dose,
        hours_since_dose=torch.where(dose > 0, hours, since),
        dose_log_mg=with_dose(state.dose_log_mg, state.t, dose),
        present=present,
    )


def follow(model: ECGWorldModel, state: ECGWorldState, dose: Tensor, shown: ECGWorldState) -> ECGWorldState:
    """The patients a step later, of whom then was charted what `shown`, another model's state, shows.

    The prior of this model moves on under the dose; what lies between it and what was shown is the residual.
    """
    prior = _prior(model, state, dose)
    u = shown.present.u
    return shown._replace(
        belief=state.belief,
        unknown=state.unknown,
        rates=state.rates,
        who=state.who,
        amounts=prior.amounts,
        relaxed=prior.relaxed,
        deviation=prior.deviation,
        residual=u - state.rates.anchor - prior.deviation,
        present=shown.present._replace(effect=prior.effect, clock=prior.clock),
    )


def _prior(model: ECGWorldModel, state: ECGWorldState, dose: Tensor) -> PriorStep:
    """Where the prior stands a step after the dose."""
    now, effect = state.start_hour + state.hours, state.present.effect
    swallowed = model.prior.dose(state.rates, state.amounts, dose, effect)
    hours = model.hours_per_step
    return model.prior.advance(state.rates, swallowed, state.relaxed, now, state.start_hour, hours, effect)
