"""What the dynamics are trained on: one loss over recorded courses, three parts.

- Evidence: the log-likelihood of the whole course under the prior with random effects sampled from the belief after its
  last visit, residuals autoregressive and normal, less the belief's divergence from the unit normal.
- Belief: every earlier visit's belief should give that sample a high density (neural posterior estimation).
- Spread: normal log-likelihood of what an early belief's mean left unexplained.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.constants import constant
from world_models.ecg_wm import latent
from world_models.ecg_wm.admission import start
from world_models.ecg_wm.belief import visit_features
from world_models.ecg_wm.courses import Courses
from world_models.ecg_wm.inference import course
from world_models.ecg_wm.latent import BURDEN
from world_models.ecg_wm.model import SPREAD_OF, SPREAD_UNITS, ECGWorldModel
from world_models.ecg_wm.patients import CLEARANCES, patient_features
from world_models.ecg_wm.state import Belief, ECGWorldState

__all__ = ["DynamicsLoss", "dynamics_loss", "events_loss", "foresight_loss"]

HISTORIES_WITH_HOLES, VISITS_HIDDEN = 0.5, 0.33  # shares of patients, and of such a patient's later visits
FROM_BASELINE = 0.7  # share of patients whose spread is judged from the first visit's belief
VARIANCE_FLOOR = 1e-6  # under the root: a residual that is remembered whole still has a gradient
MOST_LOG_HAZARD = 5.0  # per h: beyond, an event is certain within minutes


class DynamicsLoss(NamedTuple):
    """The parts of the loss, scalars, each a mean over patients and visits."""

    evidence: Tensor  # nats a visit
    divergence: Tensor  # nats a visit
    belief: Tensor  # nats
    spread: Tensor  # nats


def begin(model: ECGWorldModel, data: Courses, key: Tensor) -> ECGWorldState:
    """States at the first visit of the courses."""
    first = {n: v[:, 0] for n, v in data.charts.items()}
    told = dict(zip(CLEARANCES, data.clearance.unbind(-1), strict=True))
    factors = {**first, **told, "admission_clock_hour": first["clock_hour"]}
    shape = data.u.new_zeros(data.u.shape[0], model.config.morphology)
    return start(model, key, factors, shape, data.measured)


def ordinary_levels(model: ECGWorldModel, state: ECGWorldState, actions: Tensor, gaps: Tensor) -> Tensor:
    """Effect-site levels [B, T, D * SITES] that patients without random effects would have."""
    nobody = torch.zeros_like(state.rates.eta)
    amounts = course(model, state, nobody, actions, gaps).amounts
    rates = model.prior.individual(nobody, state.rates.patient, model.anchor(state.measured, state.unknown))
    return model.prior.effects(rates, amounts.transpose(1, 2))


def surprise(residual: Tensor, log_memory: Tensor, log_noise: Tensor, hours_per_step: float) -> Tensor:
    """Minus the log-likelihood [B] (less a constant) of residuals [B, T, COORDS], NaN where a visit does not show one.

    Autoregressive and normal: the last visit that showed a coordinate foretells it, the less the longer it is ago.
    """
    scale = log_noise.exp()
    memory = torch.exp(-hours_per_step / log_memory.exp())
    last, share = torch.zeros_like(residual[:, 0]), torch.zeros_like(residual[:, 0])  # nothing is known yet
    total = residual.new_zeros(residual.shape[0])
    for now in residual.unbind(1):
        seen = ~now.isnan()
        variance = scale.square() * (1 - share.square() + VARIANCE_FLOOR)
        miss = torch.where(seen, now, 0.0) - share * last
        each = 0.5 * miss.square() / variance + 0.5 * variance.log()
        total = total + torch.where(seen, each, 0.0).sum(-1)
        last = torch.where(seen, torch.where(seen, now, 0.0), last)
        share = torch.where(seen, torch.ones_like(share), share) * memory
    return total


def posterior(
    model: ECGWorldModel, data: Courses, state: ECGWorldState, gaps: Tensor, key: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the belief: [B, eta + COORDS] after the last visit; with keys [B], some of whose
    visits are hidden, [B, T, eta + COORDS] after each."""
    shown = data.u.clone()
    if key is not None:
        # Some visits, never the first, are not charted: histories with holes must be read too.
        with_holes = keys.uniform(key, 1, "loss/hidden") < HISTORIES_WITH_HOLES
        hidden = keys.uniform(key, 0, "loss/hidden", (data.u.shape[1],)) < VISITS_HIDDEN * with_holes.unsqueeze(-1)
        shown = torch.where(hidden.unsqueeze(-1), torch.nan, shown)
    shown[:, 0] = state.measured  # what the admission reading does not show was told
    with torch.no_grad():
        typical = ordinary_levels(model, state, data.actions, gaps)
    before = torch.cat([torch.zeros_like(data.actions[:, :1]), data.actions[:, :-1]], dim=1) / model.prior.reference_mg
    known = (state.rates.patient, state.measured, state.start_hour)
    mean, sd = model.believe(visit_features(*known, shown, typical, before, gaps.cumsum(1), gaps))
    return (mean, sd) if key is not None else (mean[:, -1], sd[:, -1])


def dynamics_loss(model: ECGWorldModel, data: Courses, key: Tensor) -> DynamicsLoss:
    """The parts, each a mean over patients and visits."""
    u, actions = data.u, data.actions
    batch, visits = u.shape[:2]
    gaps = torch.full((batch, visits), data.hours_per_step, device=u.device)
    gaps[:, 0] = 0
    state = begin(model, data, key)
    eta_size = model.config.eta
    mean, sd = posterior(model, data, state, gaps, key)

    unknown = mean[:, -1] + sd[:, -1] * keys.normal(key, 0, "loss/unknown", (mean.shape[-1],))
    lived = state._replace(unknown=unknown)
    deviation = course(model, lived, unknown[:, :eta_size], actions, gaps).deviation
    anchor = model.anchor(state.measured, unknown)
    seen = torch.cat([state.measured.unsqueeze(1), u[:, 1:]], dim=1)
    residual = seen - anchor.unsqueeze(1) - deviation

    evidence = surprise(residual, model.log_memory, model.log_noise, data.hours_per_step) / visits
    divergence = (0.5 * (mean[:, -1].square() + sd[:, -1].square() - 1) - sd[:, -1].log()).sum(-1) / visits
    target = unknown.detach().unsqueeze(1)
    density = 0.5 * ((target - mean) / sd).square() + sd.log()
    spread = _spread_loss(model, data, state, mean.detach(), sd.detach(), actions, gaps, gaps.cumsum(1), key)
    return DynamicsLoss(evidence.mean(), divergence.mean(), density[:, :-1].sum(-1).mean(), spread)


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
    """How far two later charts lie from what the belief after some visit expected, in units of SPREAD_UNITS."""
    batch, visits = hours.shape
    early = keys.uniform(key, 0, "loss/early") < FROM_BASELINE
    last = torch.where(early, 0, torch.floor(keys.uniform(key, 0, "loss/last") * (visits - 1)).long())
    row = torch.arange(batch, device=last.device)
    belief = Belief(mean[row, last], sd[row, last])
    lived = state._replace(belief=belief, unknown=belief.mean)
    with torch.no_grad():
        amounts, _, deviation = course(model, lived, belief.mean[:, : model.config.eta], actions, gaps)
        middle = model.anchor(state.measured, belief.mean).unsqueeze(1) + deviation
        expected, real = latent.intervals_of(middle, data.charts["atrial_fibrillation"] > 0.5), data.charts
    loss = hours.new_zeros(())
    unit = constant(SPREAD_UNITS, hours.device)
    for n in range(2):
        at = last + 1 + torch.floor(keys.uniform(key, n, "loss/spread_at") * (visits - 1 - last)).long()
        moment = model.settled(lived._replace(amounts=amounts[row, at], hours=hours[row, at]))
        width = model.spread_of(moment, scaled=False) / unit
        error = torch.stack([(real[name] - expected[name])[row, at] for name in SPREAD_OF], dim=-1) / unit
        shown = ~error.isnan()  # in fibrillation there is no PR
        each = 0.5 * (error.nan_to_num() / width).square() + width.log()
        loss = loss + torch.where(shown, each, 0.0).sum() / shown.sum() / 2
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
        data.measured.repeat(2, 1),
        data.clearance.repeat(2, 1),
        data.morphology.repeat(2, 1, 1),
        data.hours_per_step,
    )
    each = torch.cat([keys.fold(key, 1), keys.fold(key, 2)])
    state = begin(model, twice, each)
    batch, visits = twice.u.shape[:2]
    gaps = torch.full((batch, visits), data.hours_per_step, device=each.device)
    gaps[:, 0] = 0
    deviation = course(model, state, state.unknown[:, : model.config.eta], twice.actions, gaps).deviation
    scale = model.log_noise.exp().detach()
    fade = torch.exp(-gaps.cumsum(1).unsqueeze(-1) / model.log_memory.detach().exp())
    normals = keys.normal(each, 0, "loss/foresight", (visits, data.u.shape[-1]))
    noise = scale * torch.sqrt(1 - fade.square() + VARIANCE_FLOOR) * normals
    first = (state.measured - state.rates.anchor).unsqueeze(1)
    foreseen = (state.rates.anchor.unsqueeze(1) + deviation + fade * first + noise) / scale
    one, other = foreseen[: batch // 2, 1:], foreseen[batch // 2 :, 1:]
    shown = ~data.u[:, 1:].isnan()
    seen = data.u[:, 1:].nan_to_num() / scale
    score = 0.5 * ((one - seen).abs() + (other - seen).abs()) - 0.5 * (one - other).abs()
    return torch.where(shown, score, 0.0).sum() / shown.sum()


def events_loss(model: ECGWorldModel, data: Courses) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods: of torsades in each step, up to and including the first, per patient-step; of block."""
    torsades = data.charts["torsades"]
    at_risk = torsades[:, :-1] < 0.5
    chart = {name: data.charts[name][:, 1:] for name in ("qtcf_ms", "heart_rate_bpm")}
    who = {n: v[:, 0] for n, v in data.charts.items()} | dict(zip(CLEARANCES, data.clearance.unbind(-1), strict=True))
    patient = patient_features(who)
    visits = torsades.shape[1] - 1
    baseline = latent.intervals_of(data.measured)["qtcf_ms"].unsqueeze(1)
    log_hazard = model.torsades_hazard(chart, baseline, patient.unsqueeze(1))
    cumulative = torch.exp(log_hazard.clamp(max=MOST_LOG_HAZARD)) * data.hours_per_step
    struck = torsades[:, 1:] > 0.5
    # log(1 - exp(-x)) for an event, -x otherwise
    log_event = torch.log(-torch.expm1(-cumulative.clamp_min(1e-12)))
    likelihood = torch.where(struck, log_event, -cumulative)
    fatal = -(likelihood * at_risk).sum() / at_risk.sum().clamp_min(1)

    # An ECG in fibrillation shows no block. Levels are those of a patient without random effects: nobody else's are
    # known here.
    u = data.u[:, 1:]
    shown = ~u.isnan().any(-1) | ~u[..., : BURDEN - 1].isnan().any(-1)
    level = data_levels(model, data)[:, 1:]
    limit = model.av_block.limit(u.nan_to_num(), level, patient.unsqueeze(1).expand(-1, visits, -1))
    blocked = data.charts["av_block"][:, 1:] > 0.5
    log_block = torch.special.log_ndtr(torch.where(blocked, limit, -limit))
    return fatal, -(log_block * shown).sum() / shown.sum().clamp_min(1)


@torch.no_grad()
def data_levels(model: ECGWorldModel, data: Courses) -> Tensor:
    """`ordinary_levels` of courses, [B, T + 1, D * SITES]."""
    key = keys.from_seed(0, data.u.shape[0], data.u.device)  # no sample enters
    gaps = torch.full(data.u.shape[:2], data.hours_per_step, device=data.u.device)
    gaps[:, 0] = 0
    return ordinary_levels(model, begin(model, data, key), data.actions, gaps)
