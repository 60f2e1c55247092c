"""Starting a learned ward from a recorded course: the chart at the branching point, and a belief behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from world_models.ehr_world.set_outcome.arrivals import blank, static_context
from world_models.ehr_world.set_outcome.network import StepInputs
from world_models.ehr_world.set_outcome.state import LOG, EHRState
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, Stays, charted, from_charts, previous
from world_models.protocol import History
from world_models.quantities.ward import INQUIRIES, MAX_AGE_HOURS, MAX_HOURS_SINCE

if TYPE_CHECKING:
    from world_models.data.ehr.episode import PatientEpisode
    from world_models.ehr_world.set_outcome.world import EHRWorldModel

__all__ = ["Grid", "Visits", "believe", "grid_of", "infer", "infer_stay", "visits_of"]

OFF_GRID_H = 0.25  # hours a visit may lie off a whole step
LONG_AGO = -1000  # a step from which on MAX_HOURS_SINCE have passed


class Grid(NamedTuple):
    """Visits [B, V] laid on every step [B, T] from the first to the last of anyone's."""

    place: Tensor  # int64 [B, V] the visits' steps, from 0
    source: Tensor  # int64 [B, T] the last visit by then
    exact: Tensor  # bool [B, T] there is a visit in this very step

    def spread(self, x: Tensor) -> Tensor:
        """x [B, V, ...] of the visits on the grid [B, T, ...], each until the next."""
        batch, count = self.source.shape
        index = self.source.view(batch, count, *[1] * (x.ndim - 2)).expand(batch, count, *x.shape[2:])
        return torch.gather(x, 1, index)


class Visits(NamedTuple):
    """What the charts of the visits show, [B, V, I]."""

    value: Tensor
    drawn_h: Tensor  # hours since admission when the value's specimen was collected
    seen: Tensor  # bool
    pending: Tensor  # bool


def infer(model: EHRWorldModel, history: History, key: Tensor, factors: dict[str, Tensor]) -> EHRState:
    """The state of B patients at the last visit of their history.

    Charts are those of a ward world. Values that are NaN were not measured; where a chart lacks `inquiry_seen`, every
    value that is not NaN counts as collected at its visit. The orders of a visit are those of the step that follows it;
    the last row of actions is not used: the next `transition` gives it. Visits lie whole steps apart; a step without a
    visit is one without orders. Results on their way are sampled from the model.

    Raises:
        ValueError: hours that run backwards or lie off the grid of steps, or charts without any inquiry.
    """
    device = model.device
    charts = {n: x.to(device, torch.float32) for n, x in history.charts.items()}
    hours = history.hours.to(device, torch.float32)
    if not any(q.name in charts for q in INQUIRIES):
        raise ValueError("the history's charts hold no inquiry of the ward; name them as in ward_quantities.INQUIRIES")
    grid = grid_of(hours, model.hours_per_step)
    since_admission = charts.get("hours", hours)
    visits = visits_of(charts, since_admission)
    action = history.actions.to(device, torch.float32).nan_to_num(0.0)
    state = believe(
        model,
        _stays(model, charts, factors, grid, visits, action, since_admission),
        key.to(device),
        since_admission[:, 0],
    )
    return model.resample_pending(_as_shown(model, state, charts, visits))


def grid_of(hours: Tensor, step_h: float) -> Grid:
    """Visits at hours [B, V] on steps of `step_h` hours.

    Raises:
        ValueError: visits that do not lie whole steps apart, or not in order.
    """
    place = ((hours - hours[:, :1]) / step_h).round().to(torch.int64)
    off = (hours - hours[:, :1] - place * step_h).abs()
    if bool((off > OFF_GRID_H).any()):
        raise ValueError(
            f"visits must lie whole steps of {step_h:g} h apart; one is {float(off.max()):g} h off: regrid"
        )
    if bool((place[:, 1:] <= place[:, :-1]).any()):
        raise ValueError("visit hours must grow by a step at least from visit to visit: sort the visits, merge doubles")
    batch, visits = hours.shape
    count = int(place[:, -1].amax()) + 1
    steps = torch.arange(count, device=hours.device).expand(batch, count).contiguous()
    source = (torch.searchsorted(place.contiguous(), steps, right=True) - 1).clamp(0, visits - 1)
    return Grid(place, source, torch.gather(place, 1, source) == steps)


def visits_of(charts: dict[str, Tensor], hours: Tensor) -> Visits:
    """What charts [B, V, ...] show; `hours` [B, V] are those since admission."""
    raw = torch.stack([charts.get(q.name, torch.full_like(hours, float("nan"))) for q in INQUIRIES], -1)
    if "inquiry_seen" in charts:
        seen = (charts["inquiry_seen"] > 0.5) & ~raw.isnan()
        ages = charts.get("inquiry_age_hours", torch.zeros_like(raw))
        drawn_h = hours.unsqueeze(-1) - ages.nan_to_num(MAX_AGE_HOURS)
        value = raw
    else:
        now = torch.where(raw.isnan(), -1, torch.arange(hours.shape[1], device=hours.device).view(1, -1, 1))
        last = torch.cummax(now, 1).values
        seen = last >= 0
        value = torch.gather(raw, 1, last.clamp_min(0))
        drawn_h = torch.gather(hours.unsqueeze(-1).expand_as(raw), 1, last.clamp_min(0))
    pending = charts["inquiry_pending"] > 0.5 if "inquiry_pending" in charts else torch.zeros_like(seen)
    return Visits(value, drawn_h, seen, pending)


def _stays(
    model: EHRWorldModel,
    charts: dict[str, Tensor],
    factors: dict[str, Tensor],
    grid: Grid,
    visits: Visits,
    action: Tensor,
    hours: Tensor,
) -> Stays:
    """The courses as stays [B, T]; `action` [B, V, A], `hours` [B, V] since admission."""
    batch, items, step_h = len(hours), len(INQUIRIES), model.hours_per_step
    # a step's orders stand at its own place
    ordered = previous(grid.spread(action) * grid.exact.unsqueeze(-1))
    given = torch.minimum(ordered[..., items:].clamp_min(0.0), model.net.largest)
    if "treatment_share" in charts:
        given[:, 0] = charts["treatment_share"][:, 0].nan_to_num(0.0) * model.net.largest
    steps = torch.arange(grid.source.shape[1], device=hours.device)
    clock = grid.spread(hours.unsqueeze(-1)).squeeze(-1) + (steps - torch.gather(grid.place, 1, grid.source)) * step_h
    slots = from_charts(
        value=grid.spread(visits.value),
        drawn_h=grid.spread(visits.drawn_h),
        seen=grid.spread(visits.seen),
        pending=grid.spread(visits.pending),
        hours=clock,
        asked=ordered[..., :items] >= 0.5,
        offset_h=model.offset_h,
        hours_per_step=step_h,
    )
    told = model.read({n: x[:, 0] for n, x in charts.items()}) | factors
    static = static_context(told, batch, model.device, len(model.vocabulary.static))
    if "diagnosis" in charts:
        diagnosis = charts["diagnosis"][:, 0]
    else:
        diagnosis = torch.full((batch, len(model.vocabulary.diagnoses)), float("nan"), device=hours.device)
    valid = steps <= grid.place[:, -1:]
    there = valid.clone()
    asked = slots.asked & valid.unsqueeze(-1)
    return Stays(static, diagnosis, asked, slots.value, slots.delay, given, there, ~there, valid)


def _as_shown(model: EHRWorldModel, state: EHRState, charts: dict[str, Tensor], visits: Visits) -> EHRState:
    """The state, showing what the chart showed at the branching point."""
    seen = visits.seen[:, -1]
    state = state._replace(
        value=torch.where(seen, visits.value[:, -1].nan_to_num(0.0), model.typical),
        drawn_h=torch.where(seen, visits.drawn_h[:, -1], 0.0),
        seen=seen,
        pending=visits.pending[:, -1],
    )
    final = {n: x[:, -1] for n, x in charts.items()}
    if "treatment_age_hours" in final:
        state = state._replace(since_h=final["treatment_age_hours"].clamp(0.0, MAX_HOURS_SINCE))
    if "treatment_share" in final:
        state = state._replace(given=final["treatment_share"] * model.net.largest)
    if "alive" in final:
        state = state._replace(alive=final["alive"] > 0.5)
    if "discharged" in final:
        state = state._replace(home=final["discharged"] > 0.5)
    return state


def believe(model: EHRWorldModel, stays: Stays, key: Tensor, start_h: Tensor) -> EHRState:
    """The state after the last valid position of each stay: one parallel pass over the record."""
    net, step_h = model.net, model.hours_per_step
    batch, count, _ = stays.value.shape
    chart = charted(stays)
    step = torch.arange(count, device=model.device, dtype=torch.float32) + (start_h / step_h).unsqueeze(-1)
    static, diagnosis = (x.unsqueeze(1).expand(-1, count, -1) for x in (stays.static, stays.diagnosis))
    fixed = net.fixed(static, diagnosis, step)
    after = net.charted(chart)
    x = net.digest(chart.fresh.to(torch.float32), StepInputs(after, net.doses(stays.given), fixed))
    last = stays.valid.sum(1) - 1
    state = blank(model, key, stays.static, stays.diagnosis)
    rows = torch.arange(batch, device=model.device)
    place = torch.arange(count, device=model.device).view(1, -1, 1)
    shown, age = chart.seen[rows, last], chart.age[rows, last].to(torch.int64)
    drawn_step = torch.where(shown, last.unsqueeze(-1) - age, 0)
    out = stays.asked & (stays.delay == CENSORED)
    sent = torch.where(out, place, -1).amax(1)
    sent = torch.where(sent < 0, last.unsqueeze(-1), sent)
    total = (stays.given / net.largest).cumsum(1)
    ring = torch.arange(LOG, device=model.device)
    # the newest step that each row of the log holds
    steps = last.unsqueeze(-1) - (last.unsqueeze(-1) - ring).remainder(LOG)
    log = total[rows.unsqueeze(-1), steps.clamp_min(0)] * (steps >= 0).unsqueeze(-1)
    times = torch.where(stays.given > 0, place, LONG_AGO).amax(1)
    since = ((last.unsqueeze(-1) - times).to(torch.float32) * step_h).clamp_max(MAX_HOURS_SINCE)

    def hour(at: Tensor) -> Tensor:
        into = torch.where(at > 0, (at - 1).to(torch.float32) * step_h + model.offset_h, 0.0)
        return start_h.unsqueeze(-1) + into

    return state._replace(
        t=last,
        start_h=start_h,
        hidden=net.backbone.recall(x, net.begin(fixed[:, 0]), last),
        value=torch.where(shown, chart.value[rows, last], model.typical),
        drawn_h=hour(drawn_step),
        drawn_step=drawn_step,
        seen=shown,
        trend=after.trend[rows, last],
        pending=out.any(1),
        pending_drawn_step=sent,
        pending_drawn_h=hour(sent),
        pending_due_step=sent,
        given=stays.given[rows, last],
        since_h=since,
        total_log=log,
        alive=stays.alive[rows, last],
        home=stays.home[rows, last],
    )


def infer_stay(model: EHRWorldModel, episode: PatientEpisode, key: Tensor, hours: float | None) -> EHRState:
    """One recorded stay, for each of the keys [B].

    Raises:
        ValueError: the episode's steps are not the model's, or `hours` lies before its start.
    """
    from world_models.ehr_world.episode_tensors import from_episodes

    if episode.hours_per_step != model.hours_per_step:
        raise ValueError(
            f"the stay has steps of {episode.hours_per_step:g} h, the model of {model.hours_per_step:g} h: "
            "episode.regrid(model.hours_per_step)"
        )
    if hours is not None and hours < 0:
        raise ValueError(f"hours={hours} lies before the stay's start; give 0 or more")
    key = key.to(model.device)
    stays = from_episodes(model.vocabulary, [episode], until_h=hours)
    rows = torch.zeros(len(key), dtype=torch.int64)
    many = Stays(*(x[rows].to(model.device) for x in stays))
    state = believe(model, many, key, torch.zeros(len(key), device=model.device))
    return model.resample_pending(state)
