"""Courses gone through again: a record, to belief and state after its last visit, and a state's log of doses."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from world_models.ecg_wm import latent
from world_models.ecg_wm.belief import visit_features
from world_models.ecg_wm.latent_ode import HOURS_PER_DAY
from world_models.ecg_wm.patients import COVARIATES, baseline_chart
from world_models.ecg_wm.state import Belief, ECGWorldState
from world_models.inputs import admit, checked_orders
from world_models.oracles.ecg_drug.cohorts import FACTORS, sample_factors
from world_models.protocol import Chart, History
from world_models.quantities.ecg_drug import MAX_HOURS_SINCE_DOSE
from world_models.quantity import by_name

if TYPE_CHECKING:
    from world_models.ecg_wm.model import ECGWorldModel

__all__ = ["Lived", "course", "infer", "rekey", "relive"]

BASELINE = {  # factor -> the measure that gives it at the first visit; a belief starts from all of them
    "baseline_heart_rate_bpm": "heart_rate_bpm",
    "baseline_pr_ms": "pr_ms",
    "baseline_qrs_ms": "qrs_ms",
    "baseline_qtcf_ms": "qtcf_ms",
    "baseline_tpeak_tend_ms": "tpeak_tend_ms",
}
FIRST_VISIT = {  # what else a first visit may say; whatever it does not is sampled from the cohort
    **BASELINE,
    "baseline_burden": "arrhythmia_burden",
    "baseline_systolic_bp_mmhg": "systolic_bp_mmhg",
    **{f"baseline_{name}": name for name in latent.T_WAVE},
    **{name: name for name in COVARIATES},
}

_FIBRILLATION_RATE = by_name(FACTORS, "baseline_fibrillation_rate_bpm")


class Lived(NamedTuple):
    """A course as the prior has it, at each of T visits."""

    amounts: Tensor  # [B, T, D, MODES] of drugs
    relaxed: Tensor  # [B, T, COORDS]
    deviation: Tensor  # [B, T, COORDS]


def course(model: ECGWorldModel, state: ECGWorldState, eta: Tensor, actions: Tensor, gaps: Tensor) -> Lived:
    """The course of patients with random effects [B, eta].

    `gaps` [B, T] are the hours since the visit before (the first is 0); `actions` [B, T, D] are given right after each.
    """
    visits = [(torch.zeros_like(state.amounts), torch.zeros_like(state.relaxed), torch.zeros_like(state.deviation))]
    anchor = model.anchor(state.measured, state.unknown)
    rates = model.prior.individual(eta, state.rates.patient, anchor)
    clock = state.start_hour
    for i in range(1, gaps.shape[1]):
        gap = gaps[:, i]
        same = bool((gap == gap[0]).all())
        swallowed = model.prior.dose(rates, visits[-1][0], actions[:, i - 1])
        hours = float(gap[0]) if same else gap
        prior = model.prior.advance(rates, swallowed, visits[-1][1], clock, state.start_hour, hours)
        visits.append((prior.amounts, prior.relaxed, prior.deviation))
        clock = clock + gap
    return Lived(*(torch.stack(part, dim=1) for part in zip(*visits, strict=True)))


def relive(model: ECGWorldModel, state: ECGWorldState, unknown: Tensor) -> ECGWorldState:
    """The state now, had the patients always had these unknowns [B, eta + COORDS]: logged doses are gone through again.

    `present` is not renewed.
    """
    fresh = model.live_by(state, unknown)
    steps = int(state.t.max()) if state.t.numel() else 0
    window, hours = state.dose_log_mg.shape[1], model.hours_per_step
    for i in range(max(0, steps - window), steps):
        running = state.t > i
        dose = torch.where(running.unsqueeze(-1), state.dose_log_mg[:, i % window], 0.0)
        swallowed, clock = model.prior.dose(fresh.rates, fresh.amounts, dose), state.start_hour + i * hours
        prior = model.prior.advance(fresh.rates, swallowed, fresh.relaxed, clock, state.start_hour, hours)
        fresh = fresh._replace(
            amounts=torch.where(running[:, None, None], prior.amounts, fresh.amounts),
            relaxed=torch.where(running[:, None], prior.relaxed, fresh.relaxed),
            deviation=torch.where(running[:, None], prior.deviation, fresh.deviation),
        )
    return fresh


def rekey(model: ECGWorldModel, state: ECGWorldState, key: Tensor) -> ECGWorldState:
    """See `ECGWorldModel.rekey`."""
    hidden = latent.shown_in(state.seen).logical_not()
    # at admission, of other patients of the cohort with the same covariates
    others = sample_factors(model.cohort, key, dict(zip(COVARIATES, state.covariates.unbind(-1), strict=True)))
    measured = torch.where(hidden, latent.standardise(baseline_chart(others)), state.measured)
    who = model.residual.who(state.rates.patient, measured, state.first_shape)
    fresh = state._replace(key=key, measured=measured, who=who)
    fresh = relive(model, fresh, model.sample_unknown(state.belief, key))
    # What the chart showed is known: the residual makes up the difference between the new prior and it.
    prior = fresh.rates.anchor + fresh.deviation
    residual = torch.where(hidden, state.residual, state.present.u - prior)
    u = torch.where(hidden, prior + residual, state.present.u)
    present = state.present._replace(u=u, effect=model.prior.effect(fresh.rates, fresh.amounts))
    return fresh._replace(residual=residual, present=present)


def infer(model: ECGWorldModel, history: History, key: Tensor, factors: dict[str, Tensor]) -> ECGWorldState:
    """See `ECGWorldModel.infer`."""
    device = model.device
    charts = {name: value.to(device) for name, value in history.charts.items()}
    actions = history.actions.flatten(0, 1)
    actions = checked_orders(model.orders, actions, len(actions), device).unflatten(0, history.actions.shape[:2])
    hours = history.hours.to(device, torch.float32)
    batch, visits = hours.shape
    key = key.to(device)
    state = admit(model, key, _with_first_visit(factors, charts, hours))

    gaps = torch.diff(hours, dim=1, prepend=hours[:, :1])
    if bool((gaps < 0).any()):
        raise ValueError(f"visit hours must not decrease; the smallest gap is {gaps.min().item():g} h: sort the visits")
    u = latent.standardise({"hours": hours, **charts})
    # What the first visit lacks (an arrhythmia burden, say) was sampled from the cohort: the encoder has never met a
    # first visit with a hole in it, so it is shown the sample.
    u = torch.cat([torch.where(u[:, :1].isnan(), state.measured.unsqueeze(1), u[:, :1]), u[:, 1:]], dim=1)
    typical = course(model, state, torch.zeros_like(state.rates.eta), actions, gaps).amounts
    before = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], dim=1) / model.prior.reference_mg
    known = (state.rates.patient, state.measured, state.start_hour)
    ordinary = model.prior.individual(
        torch.zeros_like(state.rates.eta), state.rates.patient, model.anchor(state.measured, state.unknown)
    )
    effect = model.prior.effects(ordinary, typical.transpose(1, 2))
    mean, spread = model.believe(visit_features(*known, u, effect, before, hours - hours[:, :1], gaps))
    belief = Belief(mean[:, -1], spread[:, -1])
    state = state._replace(belief=belief, unknown=model.sample_unknown(belief, key))
    eta = state.unknown[:, : model.config.eta]
    lived = course(model, state, eta, actions, gaps)
    state = model.live_by(state, state.unknown)

    t = torch.round((hours[:, -1] - hours[:, 0]) / model.hours_per_step).to(torch.int64)
    log, since, total = _doses(model, state, actions, hours)
    residual = u[:, -1] - state.rates.anchor - lived.deviation[:, -1]
    amounts = model.prior.dose(state.rates, lived.amounts[:, -1], actions[:, -1])
    torsades = charts["torsades"][:, -1] if "torsades" in charts else state.torsades
    rhythms = charts.get("atrial_fibrillation", torch.zeros_like(hours)) > 0.5
    now = state._replace(
        t=t,
        seen=torch.stack([~rhythms.all(1), rhythms.any(1)], dim=-1),
        hours=hours[:, -1] - hours[:, 0],
        amounts=amounts,
        relaxed=lived.relaxed[:, -1],
        deviation=lived.deviation[:, -1],
        residual=torch.where(residual.isnan(), torch.zeros_like(residual), residual),
        torsades=torsades,
        total_dose_mg=total,
        hours_since_dose=since,
        dose_log_mg=log,
    )
    return model.settled(now, charts["atrial_fibrillation"][:, -1] if "atrial_fibrillation" in charts else None)


def _with_first_visit(factors: dict[str, Tensor], charts: Chart, hours: Tensor) -> dict[str, Tensor]:
    """The factors, and what the first of the visits [B, T] says of those that are not among them.

    Raises:
        ValueError: neither gives a baseline interval.
    """
    first = {name: value[:, 0] for name, value in charts.items()}
    said = {factor: first[name] for factor, name in FIRST_VISIT.items() if name in first}
    if "atrial_fibrillation" in first and "heart_rate_bpm" in first:
        # Of a first ECG in fibrillation only the rate in it is known: sinus rate and PR are sampled from the cohort.
        fibrillating = first["atrial_fibrillation"] > 0.5
        unknown = torch.full_like(hours[:, 0], torch.nan)
        # one ECG's rate lies about the patient's own, and may lie beyond what that can be
        rate = first["heart_rate_bpm"].clamp(_FIBRILLATION_RATE.low, _FIBRILLATION_RATE.high)
        said["baseline_fibrillation_rate_bpm"] = torch.where(fibrillating, rate, unknown)
        for name in ("baseline_heart_rate_bpm", "baseline_pr_ms"):
            said[name] = torch.where(fibrillating, unknown, said.get(name, unknown))
        # what is no error to lack
        hidden = fibrillating
    else:
        hidden = torch.zeros_like(hours[:, 0], dtype=torch.bool)
    if "clock_hour" in first:
        said["admission_clock_hour"] = torch.remainder(first["clock_hour"] - hours[:, 0], HOURS_PER_DAY)
    known = {**said, **factors}
    missing = [name for name in BASELINE if name not in known]
    unread = [name for name in BASELINE if name in known and bool((known[name].isnan() & ~hidden).any())]
    if missing or unread:
        raise ValueError(
            f"the first visit must give every baseline interval; missing: {', '.join(missing + unread)}. "
            "Measure it, or pass it in factors"
        )
    return known


def _doses(model: ECGWorldModel, state: ECGWorldState, actions: Tensor, hours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dose log [B, W, D] (each dose at the step nearest to its hour), hours since the last dose and totals [B, D]."""
    log = torch.zeros_like(state.dose_log_mg)
    window = log.shape[1]
    steps = torch.round((hours - hours[:, :1]) / model.hours_per_step).to(torch.int64)
    # Older than the ring remembers: left out, as the doses of a running state are.
    recent = (steps > steps[:, -1:] - window).unsqueeze(-1)
    place = torch.remainder(steps, window).unsqueeze(-1).expand_as(actions)
    log = log.scatter_add(1, place, torch.where(recent, actions, 0.0))
    age = (hours[:, -1:] - hours).unsqueeze(-1)
    since = torch.where(actions > 0, age, MAX_HOURS_SINCE_DOSE).amin(1).clamp_max(MAX_HOURS_SINCE_DOSE)
    return log, since, actions.sum(1)
