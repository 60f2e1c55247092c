"""A recorded stay as the ward's chart would have shown it, visit by visit, up to the hour where a world takes over.

A result is charted when it came, not when it was drawn; of several the one drawn last counts, as in the ward worlds.
What the record does not say (weight, what was known before admission, why the patient came) is NaN. Discharge diagnoses
are left out: they tell the future.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from world_models.data.ehr.episode import InquiryEvent, PatientEpisode
from world_models.ehr_world.episode_tensors import from_episodes, ward_name, ward_organism
from world_models.ehr_world.vocabulary import StaticFeature, Treatment, Vocabulary
from world_models.protocol import History
from world_models.quantities.ward import (
    COMPLAINTS,
    INQUIRIES,
    INTERVENTIONS,
    MAX_AGE_HOURS,
    MAX_HOURS_SINCE,
    ORDERS,
    STATIC,
)

__all__ = ["history_of"]

_ITEM = {q.name: i for i, q in enumerate(INQUIRIES)}
_ASKED = (-math.inf, -1)


def history_of(episodes: Sequence[PatientEpisode], hour: float) -> History:
    """The first `hour` hours of N stays: visits [N, T] every step from 0 to `hour`, the last one without orders.

    Raises:
        ValueError: no stays, an hour that is no whole number of steps, a stay that ends before it or has steps of
            another width, or a value in a unit the ward does not know.
    """
    if not episodes:
        raise ValueError("there are no stays; check the folder and the hour")
    step_h = episodes[0].hours_per_step
    visits = hour / step_h
    if not (hour >= 0 and visits == int(visits)):
        raise ValueError(f"hour={hour:g} lies between two steps of {step_h:g} h; try {round(visits) * step_h:g}")
    for e in episodes:
        if e.hours_per_step != step_h:
            raise ValueError(f"stay {e.stay_id} has steps of {e.hours_per_step:g} h, others of {step_h:g} h: regrid it")
        if e.hours_alive < hour:
            raise ValueError(
                f"stay {e.stay_id} ends, or its patient dies, {e.hours_alive:.1f} h in, before hour={hour:g}"
            )
    count = int(visits) + 1
    given = _given(episodes, hour, step_h, count)
    parts = [_inquiries(e, step_h, count) for e in episodes]
    value, age, pending, asked = (torch.stack(column) for column in zip(*parts, strict=True))
    seen = ~value.isnan()
    largest = torch.tensor([float(q.high) for q in INTERVENTIONS])
    since = torch.full((len(episodes), len(INTERVENTIONS)), MAX_HOURS_SINCE)
    ages = []
    for t in range(count):
        since = torch.where(given[:, t] > 0, 0.0, (since + step_h).clamp_max(MAX_HOURS_SINCE))
        ages.append(since)
    hours = (torch.arange(count, dtype=torch.float32) * step_h).expand(len(episodes), count).contiguous()
    known = {
        "age_years": [e.age_years for e in episodes],
        "sex_female": [None if e.sex_female is None else float(e.sex_female) for e in episodes],
    }
    charts = {}
    for q in STATIC:
        column = [math.nan if x is None else min(max(x, q.low), q.high) for x in known.get(q.name, [None] * len(given))]
        charts[q.name] = torch.tensor(column).unsqueeze(1).expand(-1, count)
    charts |= {
        "complaint": torch.full((*hours.shape, len(COMPLAINTS)), math.nan),
        "hours": hours,
        "alive": torch.ones_like(hours),
        "discharged": torch.zeros_like(hours),
        **{q.name: value[..., i] for i, q in enumerate(INQUIRIES)},
        "inquiry_age_hours": age,
        "inquiry_seen": seen.to(torch.float32),
        "inquiry_pending": pending.to(torch.float32),
        "treatment_share": given / largest,
        "treatment_age_hours": torch.stack(ages, 1),
    }
    actions = torch.zeros(*hours.shape, len(ORDERS))
    actions[..., : len(INQUIRIES)] = asked.to(torch.float32)
    actions[:, :-1, len(INQUIRIES) :] = given[:, 1:]
    actions[:, -1] = 0.0
    return History(charts, actions, hours)


def _given(episodes: Sequence[PatientEpisode], hour: float, step_h: float, count: int) -> Tensor:
    """Amounts [N, T, J] given in the step that ends at each visit."""
    words = Vocabulary(
        (),  # inquiries are read by `_inquiries`, as they came to the chart
        tuple(Treatment(q.name, q.unit, float(q.high)) for q in INTERVENTIONS),
        tuple(StaticFeature(q.name, 0.0, 1.0, q.low, q.high) for q in STATIC),
        (),
        step_h,
    )
    if count == 1:
        return torch.zeros(len(episodes), 1, len(INTERVENTIONS))
    given = from_episodes(words, episodes, until_h=hour, most=count).given
    return torch.nn.functional.pad(given, (0, 0, 0, count - given.shape[1]))


def _inquiries(e: PatientEpisode, step_h: float, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one stay [T, I]: value (NaN: none came yet), age, whether one is out, whether the next step draws one."""
    last = (count - 1) * step_h
    value = torch.full((count, len(INQUIRIES)), math.nan)
    age = torch.full_like(value, MAX_AGE_HOURS)
    pending, asked = torch.zeros_like(value, dtype=torch.bool), torch.zeros_like(value, dtype=torch.bool)
    latest: list[dict[int, tuple[float, int]]] = [{} for _ in range(count)]  # when the charted value was drawn
    for order, (column, number, drawn, came) in enumerate(_read(e, step_h)):
        if drawn > last:
            continue
        first = max(math.ceil(drawn / step_h - 1e-9), 0)  # the visit at which it is drawn already
        if first > 0:
            asked[first - 1, column] = True
        for t in range(first, count):
            hour = t * step_h
            if came > hour + 1e-9:
                pending[t, column] = True
            elif number is not None and latest[t].get(column, _ASKED) <= (drawn, order):
                latest[t][column] = (drawn, order)
                value[t, column] = number
                age[t, column] = min(hour - drawn, MAX_AGE_HOURS)
    return value, age.clamp_min(0.0), pending, asked


def _read(e: PatientEpisode, step_h: float) -> list[tuple[int, float | None, float, float]]:
    """(column, number or None, hour drawn, hour it came) of what the ward knows, by draw; urine as each step's rate."""
    found: list[tuple[int, float | None, float, float]] = []
    urine: dict[int, float] = {}
    for event in e.inquiries():
        drawn = e.hours(event.collected)
        if event.item == "urine_output_ml" and event.value is not None:
            urine[int(drawn // step_h)] = urine.get(int(drawn // step_h), 0.0) + event.value
            continue
        column = _ITEM.get(ward_name(event.item, event.label))
        if column is not None:
            came = drawn if event.resulted is None else max(e.hours(event.resulted), drawn)
            found.append((column, _number(e, event, column), drawn, came))
    column, q = _ITEM["urine_output_ml_h"], INQUIRIES[_ITEM["urine_output_ml_h"]]
    for step, volume in urine.items():
        end = (step + 1) * step_h
        found.append((column, min(max(volume / step_h, q.low), q.high), end, end))
    return sorted(found, key=lambda event: (event[2], event[3]))


def _number(e: PatientEpisode, event: InquiryEvent, column: int) -> float | None:
    q = INQUIRIES[column]
    if q.kind == "culture":
        return ward_organism(event.label)
    if event.value is None:
        return None
    if event.unit != q.unit:
        raise ValueError(
            f"stay {e.stay_id}: {event.item} is in {event.unit!r}, the ward's is {q.unit!r}; read it through "
            "world_models.data, which converts units"
        )
    return min(max(event.value, float(q.low)), float(q.high))
