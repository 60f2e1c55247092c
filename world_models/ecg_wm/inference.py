"""Starting a learned world from a recorded course: the belief after the last visit, and the state that goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from world_models.ecg_wm import latent
from world_models.ecg_wm.latent_ode import Rates
from world_models.ecg_wm.state import Belief, ECGWorldState
from world_models.inputs import admit, checked_orders
from world_models.protocol import History
from world_models.quantities.ecg_drug import MAX_HOURS_SINCE_DOSE

if TYPE_CHECKING:
    from world_models.ecg_wm.model import ECGWorldModel

__all__ = ["course", "infer"]

NAMES = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms", "arrhythmia_burden")


def course(
    model: ECGWorldModel, state: ECGWorldState, eta: Tensor, actions: Tensor, gaps: Tensor
) -> tuple[Tensor, Tensor]:
    """Drug amounts [B, T, D, 6] and deviation [B, T, 6] at each visit for given random effects [B, eta].

    `gaps` [B, T] are the hours since the visit before (the first is 0); `actions` [B, T, D] are given right after each.
    """
    amounts, deviation = torch.zeros_like(state.amounts), torch.zeros_like(state.deviation)
    all_amounts, all_deviations = [amounts], [deviation]
    patient, anchor = state.rates.patient, model.anchor(state.measured, state.unknown)
    rates: Rates | None = None
    made_for = gaps[:, 0]
    clock = state.start_hour
    for i in range(1, gaps.shape[1]):
        gap = gaps[:, i]
        if rates is None or not torch.equal(gap, made_for):
            rates, made_for = model.prior.individual(eta, patient, anchor, gap[:, None, None, None]), gap
        amounts = model.prior.dose(amounts, actions[:, i - 1])
        prior = model.prior.advance(rates, amounts, deviation, clock, state.start_hour, gap.unsqueeze(-1))
        amounts, deviation, clock = prior.amounts, prior.deviation, clock + gap
        all_amounts.append(amounts)
        all_deviations.append(deviation)
    return torch.stack(all_amounts, dim=1), torch.stack(all_deviations, dim=1)


def infer(model: ECGWorldModel, history: History, key: Tensor, factors: dict[str, Tensor]) -> ECGWorldState:
    """See `ECGWorldModel.infer`."""
    device = model.device
    charts = {name: value.to(device) for name, value in history.charts.items()}
    actions = history.actions.flatten(0, 1)
    actions = checked_orders(model.orders, actions, len(actions), device).unflatten(0, history.actions.shape[:2])
    hours = history.hours.to(device, torch.float32)
    batch, visits = hours.shape
    first = {name: value[:, 0] for name, value in charts.items()}
    if "clock_hour" in first:
        factors.setdefault("admission_clock_hour", torch.remainder(first["clock_hour"] - hours[:, 0], 24.0))
    for name in ("age_years", "sex_female", "weight_kg"):
        if name in first:
            factors.setdefault(name, first[name])
    baseline = {
        "baseline_heart_rate_bpm": "heart_rate_bpm", "baseline_pr_ms": "pr_ms", "baseline_qrs_ms": "qrs_ms",
        "baseline_qtcf_ms": "qtcf_ms", "baseline_tpeak_tend_ms": "tpeak_tend_ms", "baseline_burden": "arrhythmia_burden",
    }  # fmt: skip
    for factor, name in baseline.items():
        if name in first:
            factors.setdefault(factor, first[name])
    missing = [f for f in baseline if f not in factors and f != "baseline_burden"]
    unread = [f for f in baseline if f in factors and f != "baseline_burden" and bool(factors[f].isnan().any())]
    if missing or unread:
        raise ValueError(
            f"the first visit must give every baseline interval; missing: {', '.join(missing + unread)}. "
            "Measure it, or pass it in factors"
        )
    key = key.to(device)
    state = admit(model, key, factors)

    gaps = torch.diff(hours, dim=1, prepend=hours[:, :1])
    if bool((gaps < 0).any()):
        raise ValueError(f"visit hours must not decrease; the smallest gap is {gaps.min().item():g} h: sort the visits")
    u = latent.standardise({name: charts.get(name, torch.full_like(hours, float("nan"))) for name in NAMES})
    # What the first visit lacks (an arrhythmia burden, say) was drawn from the cohort: the encoder has never met a first
    # visit with a hole in it, so it is shown the draw.
    u = torch.cat([torch.where(u[:, :1].isnan(), state.measured.unsqueeze(1), u[:, :1]), u[:, 1:]], dim=1)
    typical, _ = course(model, state, torch.zeros_like(state.unknown[:, : model.config.eta]), actions, gaps)
    before = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], dim=1)
    known = (state.rates.patient, state.measured, state.start_hour)
    mean, spread = model.believe(model.visit_features(*known, u, typical, before, hours - hours[:, :1], gaps))
    belief = Belief(mean[:, -1], spread[:, -1])
    state = state._replace(belief=belief, unknown=model.draw_unknown(belief, key))
    eta = state.unknown[:, : model.config.eta]
    amounts, deviation = course(model, state, eta, actions, gaps)
    state = model.live_by(state, state.unknown)

    t = torch.round((hours[:, -1] - hours[:, 0]) / model.hours_per_step).to(torch.int64)
    log, since, total = _doses(model, state, actions, hours)
    residual = u[:, -1] - state.rates.anchor - deviation[:, -1]
    amounts = model.prior.dose(amounts[:, -1], actions[:, -1])
    torsades = charts["torsades"][:, -1] if "torsades" in charts else state.torsades
    return model.settled(
        state._replace(
            t=t,
            hours=hours[:, -1] - hours[:, 0],
            amounts=amounts,
            deviation=deviation[:, -1],
            residual=torch.where(residual.isnan(), torch.zeros_like(residual), residual),
            torsades=torsades,
            total_dose_mg=total,
            hours_since_dose=since,
            dose_log_mg=log,
        )
    )


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
