"""Starting a causal ward from a recorded course: the record is told to the model as the chart showed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from world_models.ehr_world.causal_lm.codec import last_steps
from world_models.ehr_world.causal_lm.text import STATUS, STATUSES, AskedItem, Narrative
from world_models.ehr_world.causal_lm.ward.narratives import step_of
from world_models.ehr_world.causal_lm.ward.state import CausalWardState
from world_models.ehr_world.causal_lm.ward_narratives import facts_of_static
from world_models.ehr_world.set_outcome.arrivals import static_context
from world_models.ehr_world.set_outcome.inference import Visits, grid_of, visits_of
from world_models.protocol import History
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, MAX_HOURS_SINCE, ORGANISMS

if TYPE_CHECKING:
    from world_models.ehr_world.causal_lm.ward.world import CausalWard

__all__ = ["infer"]

_SAME_HOUR = 1e-3  # hours: two times that differ by less are one, rounded


class _Record(NamedTuple):
    """A course of T visits on the ward's steps."""

    visits: Visits  # [B, T, I]
    fresh: Tensor  # bool [B, T, I] a result came since the visit before
    sent: Tensor  # bool [B, T, I] a specimen that is out was not out at the visit before
    place: Tensor  # int64 [B, T] the visits' steps, from 0
    given: Tensor  # [B, T, J] in the step after each visit
    first: Tensor  # [B, J] in the step before the first


def infer(world: CausalWard, history: History, key: Tensor, factors: dict[str, Tensor]) -> CausalWardState:
    """The state of B patients at the last visit of their history.

    Charts are those of a ward world. Values that are NaN were not measured; where a chart lacks `inquiry_seen`, every
    value that is not NaN counts as collected at its visit. The orders of a visit are those of the step that follows it;
    the last row of actions is not used: the next `transition` gives it. Visits lie whole steps apart; a step without a
    visit is one without orders. What is on its way comes back when the key says.

    Raises:
        ValueError: hours that run backwards or lie off the grid of steps, or charts without any inquiry.
    """
    key = key.to(world.device)
    charts = {n: x.to(world.device, torch.float32) for n, x in history.charts.items()}
    if not any(q.name in charts for q in INQUIRIES):
        raise ValueError("the history's charts hold no inquiry of the ward; name them as in ward_quantities.INQUIRIES")
    hours = history.hours.to(world.device, torch.float32)
    since_admission = charts.get("hours", hours)
    record = _record(world, charts, hours, since_admission, history.actions)
    static = static_context(world.read({n: x[:, 0] for n, x in charts.items()}) | factors, len(key), world.device)
    told = [_told(world, record, row, static[row]) for row in range(len(key))]
    state = world.unmeasured(key, static, told)
    return world.resent(_as_shown(state, record, charts, since_admission[:, 0], world.hours_per_step))


def _record(
    world: CausalWard, charts: dict[str, Tensor], hours: Tensor, since_admission: Tensor, actions: Tensor
) -> _Record:
    visits = visits_of(charts, since_admission)
    seen, drawn, pending = visits.seen, visits.drawn_h, visits.pending
    newer = seen[:, 1:] & (~seen[:, :-1] | (drawn[:, 1:] > drawn[:, :-1] + _SAME_HOUR))
    largest = torch.tensor([float(q.high) for q in INTERVENTIONS], device=world.device)
    given = actions.to(world.device, torch.float32).nan_to_num(0.0)[..., len(INQUIRIES) :].clamp_min(0.0)
    first = charts["treatment_share"][:, 0].nan_to_num(0.0) * largest if "treatment_share" in charts else None
    return _Record(
        visits,
        torch.cat([seen[:, :1], newer], 1),
        torch.cat([pending[:, :1], pending[:, 1:] & ~pending[:, :-1]], 1),
        grid_of(hours, world.hours_per_step).place,
        torch.minimum(given, largest),
        torch.zeros_like(given[:, 0]) if first is None else first,
    )


def _told(world: CausalWard, record: _Record, row: int, static: Tensor) -> Narrative:
    """One patient's stay, cut to the last steps that half a window holds."""
    place, steps = record.place[row].tolist(), []
    for number in range(place[-1] + 1):
        results: list[AskedItem] = []
        sent: list[str] = []
        if number in place:
            visit = place.index(number)
            value = record.visits.value[row, visit].tolist()
            results = [_result(i, value[i]) for i in record.fresh[row, visit].nonzero()[:, 0].tolist()]
            sent = [INQUIRIES[i].name for i in record.sent[row, visit].nonzero()[:, 0].tolist()]
        amounts = record.first[row] if number == 0 else torch.zeros_like(record.first[row])
        if number - 1 in place:
            amounts = record.given[row, place.index(number - 1)]
        ends = [AskedItem(STATUS, label=STATUSES[0])] if number else []
        steps.append(step_of(number, [*results, *ends], sent, amounts.tolist()))
    whole = Narrative(facts_of_static(static), (), world.hours_per_step, tuple(steps))
    return last_steps(world.lm.codec, world.lm.codec.known(whole)[0], world.config.window // 2)


def _result(item: int, value: float) -> AskedItem:
    inquiry = INQUIRIES[item]
    if inquiry.kind == "culture":
        return AskedItem(inquiry.name, label=ORGANISMS[round(value)])
    return AskedItem(inquiry.name, float(f"{value:.4g}"), None, inquiry.unit)


def _as_shown(
    state: CausalWardState, record: _Record, charts: dict[str, Tensor], start_h: Tensor, step_h: float
) -> CausalWardState:
    """The state, showing what the chart shows at the last visit."""
    visits, place, last = record.visits, record.place, record.place[:, -1]
    seen, pending = visits.seen[:, -1], visits.pending[:, -1]
    at = torch.where(record.sent, place.unsqueeze(-1), 0).amax(1)
    times = torch.where(record.given[:, :-1] > 0, place[:, :-1].unsqueeze(-1) + 1, -1)
    newest = times.amax(1) if times.shape[1] else torch.full_like(state.since_h, -1)
    since = torch.where(newest < 0, MAX_HOURS_SINCE, (last.unsqueeze(-1) - newest) * step_h).clamp_max(MAX_HOURS_SINCE)
    given = record.first
    if times.shape[1]:
        given = torch.where(newest == last.unsqueeze(-1), record.given[:, -2], 0.0)
    final = {name: x[:, -1] for name, x in charts.items()}
    if "treatment_share" in final:
        largest = torch.tensor([float(q.high) for q in INTERVENTIONS], device=given.device)
        given = final["treatment_share"].nan_to_num(0.0) * largest
    if "treatment_age_hours" in final:
        since = final["treatment_age_hours"].clamp(0.0, MAX_HOURS_SINCE)
    return state._replace(
        t=last,
        start_h=start_h,
        value=torch.where(seen, visits.value[:, -1].nan_to_num(0.0), state.value),
        drawn_h=torch.where(seen, visits.drawn_h[:, -1], 0.0),
        seen=seen,
        pending=pending,
        sent=torch.where(pending, at, 0),
        due=torch.where(pending, at, 0),
        given=given,
        since_h=since,
        alive=final["alive"] > 0.5 if "alive" in final else state.alive,
        home=final["discharged"] > 0.5 if "discharged" in final else state.home,
    )
