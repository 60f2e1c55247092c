"""What the dynamics are trained on: one loss over recorded courses, four parts.

- Evidence: the log-likelihood of the whole course under the prior with random effects sampled from the belief after its
  last visit, residuals autoregressive and normal, less the belief's divergence from the unit normal.
- Belief: every earlier visit's belief should give that sample a high density (neural posterior estimation).
- Flow: energy score of the few-step residual.
- Spread: normal log-likelihood of what an early belief's mean left unexplained.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg_wm import latent
from world_models.ecg_wm.belief import visit_features
from world_models.ecg_wm.courses import Courses
from world_models.ecg_wm.flow import VARIANCE_FLOOR, autoregression, energy_score, flow_condition
from world_models.ecg_wm.inference import course
from world_models.ecg_wm.model import SPREAD_OF, ECGWorldModel
from world_models.ecg_wm.state import Belief, ECGWorldState

__all__ = ["DynamicsLoss", "dynamics_loss", "foresight_loss", "hazard_loss"]

HISTORIES_WITH_HOLES, VISITS_HIDDEN = 0.5, 0.33  # shares of patients, and of such a patient's later visits
FROM_BASELINE = 0.7  # share of patients whose spread is judged from the first visit's belief
SPREAD_UNIT = 10.0  # ms or bpm
MOST_LOG_HAZARD = 5.0  # per h: beyond, an event is certain within minutes


class DynamicsLoss(NamedTuple):
    """The parts of the loss, scalars, each a mean over patients and visits."""

    evidence: Tensor  # nats a visit
    divergence: Tensor  # nats a visit
    belief: Tensor  # nats
    flow: Tensor  # energy score, in units of the residual's scale
    spread: Tensor  # nats


def begin(model: ECGWorldModel, data: Courses, key: Tensor) -> ECGWorldState:
    """States at the first visit of the courses."""
    first = {n: v[:, 0] for n, v in data.charts.items()}
    factors = {
        **{n: first[n] for n in ("age_years", "sex_female", "weight_kg")},
        "admission_clock_hour": first["clock_hour"],
    }
    shape = data.u.new_zeros(data.u.shape[0], model.config.morphology)
    return model.start(key, factors, data.metaboliser, shape, data.u[:, 0])


def dynamics_loss(model: ECGWorldModel, data: Courses, key: Tensor, samples: int = 6) -> DynamicsLoss:
    """The parts, each a mean over patients and visits."""
    u, actions = data.u, data.actions
    batch, visits = u.shape[:2]
    hours = (torch.arange(visits, device=u.device) * data.hours_per_step).expand(batch, -1)
    gaps = torch.full_like(hours, data.hours_per_step)
    gaps[:, 0] = 0
    state = begin(model, data, key)
    eta_size = model.config.eta

    with torch.no_grad():
        typical, _ = course(model, state, torch.zeros_like(state.unknown[:, :eta_size]), actions, gaps)
    before = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], dim=1) / model.prior.reference_mg
    # Some visits, never the first, are not charted: histories with holes must be read too.
    with_holes = keys.uniform(key, 1, "loss/hidden") < HISTORIES_WITH_HOLES
    hidden = keys.uniform(key, 0, "loss/hidden", (visits,)) < VISITS_HIDDEN * with_holes.unsqueeze(-1)
    hidden[:, 0] = False
    shown = torch.where(hidden.unsqueeze(-1), float("nan"), u)
    known = (state.rates.patient, state.measured, state.start_hour)
    mean, sd = model.believe(visit_features(*known, shown, model.prior.effect(typical), before, hours, gaps))

    unknown = mean[:, -1] + sd[:, -1] * keys.normal(key, 0, "loss/unknown", (mean.shape[-1],))
    lived = state._replace(unknown=unknown)
    amounts, deviation = course(model, lived, unknown[:, :eta_size], actions, gaps)
    residual = u - model.anchor(state.measured, unknown).unsqueeze(1) - deviation

    memory, step_scale = autoregression(model.log_memory, model.log_noise, data.hours_per_step)
    innovation = torch.cat([residual[:, :1], residual[:, 1:] - memory * residual[:, :-1]], dim=1)
    scale = torch.cat([model.log_noise.exp().expand(1, -1), step_scale.expand(visits - 1, -1)])
    evidence = (0.5 * (innovation / scale).square() + scale.log()).sum((1, 2)) / visits
    divergence = (0.5 * (mean[:, -1].square() + sd[:, -1].square() - 1) - sd[:, -1].log()).sum(-1) / visits
    target = unknown.detach().unsqueeze(1)
    density = 0.5 * ((target - mean) / sd).square() + sd.log()

    flow = _flow_loss(model, data, lived, amounts.detach(), deviation.detach(), residual.detach(), key, samples)
    spread = _spread_loss(model, data, state, mean.detach(), sd.detach(), actions, gaps, hours, key)
    return DynamicsLoss(evidence.mean(), divergence.mean(), density[:, :-1].sum(-1).mean(), flow, spread)


def _flow_loss(
    model: ECGWorldModel,
    data: Courses,
    state: ECGWorldState,
    amounts: Tensor,
    deviation: Tensor,
    residual: Tensor,
    key: Tensor,
    samples: int,
) -> Tensor:
    """Energy score of the next residual given the last, at four visits of each patient."""
    batch, visits = residual.shape[:2]
    at = 1 + torch.floor(keys.uniform(key, 0, "loss/flow_at", (4,)) * (visits - 1)).long()
    row = torch.arange(batch, device=at.device).unsqueeze(-1)
    condition = flow_condition(
        residual[row, at - 1].flatten(0, 1),
        deviation[row, at].flatten(0, 1),
        data.hours_per_step,
        model.prior.effect(amounts[row, at].flatten(0, 1)),
        state.rates.patient.repeat_interleave(4, 0),
    ).detach()
    memory, scale = (x.detach() for x in autoregression(model.log_memory, model.log_noise, data.hours_per_step))
    observed = ((residual[row, at] - memory * residual[row, at - 1]) / scale).flatten(0, 1)
    noise = keys.normal(key, 0, "loss/flow", (samples, 4, residual.shape[-1])).permute(1, 0, 2, 3).flatten(1, 2)
    sampled = model.flow(noise, condition.unsqueeze(0).expand(samples, -1, -1))
    return energy_score(sampled, observed).mean()


def _spread_loss(
    model: ECGWorldModel,
    data: Courses,
    state: ECGWorldState,
    mean: Tensor,
    sd: Tensor,
    actions: Tensor,
    gaps: Tensor,
    hours: Tensor,
    key: Tensor,
) -> Tensor:
    """How far two later charts lie from what the belief after some visit expected, in units of 10 ms or bpm."""
    batch, visits = hours.shape
    early = keys.uniform(key, 0, "loss/early") < FROM_BASELINE
    last = torch.where(early, 0, torch.floor(keys.uniform(key, 0, "loss/last") * (visits - 1)).long())
    row = torch.arange(batch, device=last.device)
    belief = Belief(mean[row, last], sd[row, last])
    lived = state._replace(belief=belief, unknown=belief.mean)
    with torch.no_grad():
        amounts, deviation = course(model, lived, belief.mean[:, : model.config.eta], actions, gaps)
        expected = latent.intervals_of(model.anchor(state.measured, belief.mean).unsqueeze(1) + deviation)
        real = latent.intervals_of(data.u)
    loss = hours.new_zeros(())
    for n in range(2):
        at = last + 1 + torch.floor(keys.uniform(key, n, "loss/spread_at") * (visits - 1 - last)).long()
        moment = model.settled(lived._replace(amounts=amounts[row, at], hours=hours[row, at]))
        width = model.spread_of(moment, scaled=False) / SPREAD_UNIT
        error = torch.stack([(real[name] - expected[name])[row, at] for name in SPREAD_OF], dim=-1) / SPREAD_UNIT
        loss = loss + (0.5 * (error / width).square() + width.log()).mean() / 2
    return loss


def foresight_loss(model: ECGWorldModel, data: Courses, key: Tensor) -> Tensor:
    """CRPS of the course as foreseen from the baseline alone, in units of the residual's SD; two samples a patient.

    The evidence leaves room for beliefs whose average over patients is not the prior: patients who seldom get a drug
    are then foreseen to respond as the prior does, not as its takers do. This closes the gap in the forecast itself.
    """
    twice = Courses(
        data.u.repeat(2, 1, 1),
        {n: v.repeat(2, 1) for n, v in data.charts.items()},
        data.actions.repeat(2, 1, 1),
        data.metaboliser.repeat(2),
        data.hours_per_step,
    )
    each = torch.cat([keys.fold(key, 1), keys.fold(key, 2)])
    state = begin(model, twice, each)
    batch, visits = twice.u.shape[:2]
    gaps = torch.full((batch, visits), data.hours_per_step, device=each.device)
    gaps[:, 0] = 0
    _, deviation = course(model, state, state.unknown[:, : model.config.eta], twice.actions, gaps)
    scale = model.log_noise.exp().detach()
    fade = torch.exp(-gaps.cumsum(1).unsqueeze(-1) / model.log_memory.detach().exp())
    normals = keys.normal(each, 0, "loss/foresight", (visits, data.u.shape[-1]))
    noise = scale * torch.sqrt(1 - fade.square() + VARIANCE_FLOOR) * normals
    first = (state.measured - state.rates.anchor).unsqueeze(1)
    foreseen = (state.rates.anchor.unsqueeze(1) + deviation + fade * first + noise) / scale
    one, other = foreseen[: batch // 2, 1:], foreseen[batch // 2 :, 1:]
    seen = data.u[:, 1:] / scale
    return (0.5 * ((one - seen).abs() + (other - seen).abs()) - 0.5 * (one - other).abs()).mean()


def hazard_loss(model: ECGWorldModel, data: Courses) -> Tensor:
    """Negative log-likelihood per patient-hour of torsades in each step, up to and including the first."""
    torsades = data.charts["torsades"]
    at_risk = torsades[:, :-1] < 0.5
    qtcf, rate = (data.charts[name] for name in ("qtcf_ms", "heart_rate_bpm"))
    log_hazard = model.log_hazard(qtcf[:, 1:], qtcf[:, :1], rate[:, 1:])
    cumulative = torch.exp(log_hazard.clamp(max=MOST_LOG_HAZARD)) * data.hours_per_step
    struck = torsades[:, 1:] > 0.5
    # log(1 - exp(-x)) for an event, -x otherwise
    log_event = torch.log(-torch.expm1(-cumulative.clamp_min(1e-12)))
    likelihood = torch.where(struck, log_event, -cumulative)
    return -(likelihood * at_risk).sum() / at_risk.sum().clamp_min(1)
