"""What a learned ward says of an order, asked at the very decision points where people got it.

The world is told the true history up to the decision, on steps of its own that are moved so that the decision lies on
a step's begin, and nothing measured afterwards. It then foretells the outcome twice in one pass each, with the order as
it was begun and without it: an infusion or a setting is held from there on at its new level or at its old one, an
amount is given in the first step or not. No chance is drawn: the effect is the difference of the two means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.people.oracle import oracle_name
from benchmarks.people.points import Points
from benchmarks.people.questions import Question
from world_models.data.ehr.episode import lay_out
from world_models.ehr_world.episode_tensors import from_episodes
from world_models.ehr_world.set_outcome.losses import forced
from world_models.ehr_world.set_outcome.stay_tensors import Stays, pad
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.vocabulary import from_z
from world_models.quantities.ward import INTERVENTIONS, intervention_index

if TYPE_CHECKING:
    from world_models.data.ehr.episode import PatientEpisode

__all__ = ["WORLD_POINTS", "until_decision", "world_effects"]

WORLD_POINTS = 240  # treated decision points of a question and source, at most
CHUNK = 12
LEVELS = torch.linspace(0.0125, 0.9875, 40)  # of the quantiles whose mean is the world's mean
ROOM_AIR = 0.21


def until_decision(e: PatientEpisode, hour: float, hours_per_step: float) -> tuple[PatientEpisode, int]:
    """What was collected and begun before `hour`, on steps one of which begins there; and that step's position in
    stay tensors. Up to a step of nothing is laid before the stay."""
    shift = (-hour) % hours_per_step
    started = e.started - timedelta(hours=shift)
    asked = (i for i in e.inquiries() if e.hours(i.collected) < hour)
    done = (i for i in e.interventions() if e.hours(i.start) < hour)
    steps = lay_out(started, hours_per_step, asked, done, f"stay {e.stay_id}")
    moved = replace(e, started=started, hours_per_step=hours_per_step, steps=steps)
    return moved, round((hour + shift) / hours_per_step) + 1


@torch.no_grad()
def world_effects(
    model: EHRWorldModel, q: Question, points: Points, episodes: Sequence[PatientEpisode], rows: np.ndarray
) -> np.ndarray:
    """[len(rows)] the world's effect at the decision points `rows`, all treated, of episodes as `points.stay` counts
    them. An amount that is not told is the ward's standard one."""
    item = [i.name for i in model.vocabulary.items].index(oracle_name(q.target))
    out = np.empty(len(rows))
    order = np.argsort(points.hour[rows], kind="stable")  # of like length together
    chunks = np.array_split(order, -(-len(order) // CHUNK))
    for part in tqdm(chunks, desc=f"{model.name}: {q.name}", mininterval=2, leave=False):
        out[part] = _chunk(model, q, points, episodes, rows[part], item)
    return out


def _chunk(
    model: EHRWorldModel, q: Question, points: Points, episodes: Sequence[PatientEpisode], rows: np.ndarray, item: int
) -> np.ndarray:
    width = model.hours_per_step
    cut = [
        until_decision(episodes[s], float(h), width) for s, h in zip(points.stay[rows], points.hour[rows], strict=True)
    ]
    stays = from_episodes(model.vocabulary, [e for e, _ in cut], most=max(p for _, p in cut) + int(q.to_h // width) + 1)
    place = torch.tensor([p for _, p in cut])
    slots = _slots(q, points.outcome_after_h[rows], width)
    stays = _asking(pad(stays, int(place.max()) + len(slots)), place, slots, item)
    column = [t.name for t in model.vocabulary.treatments].index(q.column)
    drug = INTERVENTIONS[intervention_index(q.column)]
    standard, high = float(drug.standard), float(drug.high)
    dose = torch.from_numpy(points.dose[rows]).float().nan_to_num(standard)
    before = torch.from_numpy(points.before[rows]).float().nan_to_num(0.0)
    means = []
    for extra in (torch.zeros_like(dose), dose):
        given = stays.given.clone()
        for b, p in enumerate(place.tolist()):
            if q.kind == "dose":
                given[b, p:, column] = 0.0
                given[b, p, column] = extra[b].clamp(0.0, high)
            else:
                floor = ROOM_AIR if q.kind == "setting" else 0.0
                given[b, p:, column] = (before[b].clamp_min(floor) + extra[b]).clamp(0.0, high)
        means.append(_mean(model, stays._replace(given=given), place, slots, item))
    return (means[1] - means[0]).numpy()


def _slots(q: Question, after_h: np.ndarray, width: float) -> Tensor:
    """[J, B] the weight of the steps from the decision on: the one with the outcome; of a window, by its hours."""
    steps = torch.arange(int(np.ceil(q.to_h / width + 1e-9)))
    if q.mean_of_window:
        share = (q.to_h - steps * width).clamp(0.0, width) / q.to_h
        share = share[share > 0]
        return share.unsqueeze(1).expand(-1, len(after_h))
    at = torch.from_numpy(after_h // width).long().clamp_max(len(steps) - 1)
    return (steps.unsqueeze(1) == at.unsqueeze(0)).float()


def _asking(stays: Stays, place: Tensor, slots: Tensor, item: int) -> Stays:
    """The same history, and after it nothing but the question."""
    count = stays.value.shape[1]
    later = (torch.arange(count).unsqueeze(0) >= place.unsqueeze(1)).unsqueeze(-1)
    asked = stays.asked & ~later
    for j in range(len(slots)):
        asked[torch.arange(len(place)), place + j, item] = slots[j] > 0
    return stays._replace(
        asked=asked, value=torch.where(later, float("nan"), stays.value), valid=torch.ones_like(stays.valid)
    )


def _mean(model: EHRWorldModel, stays: Stays, place: Tensor, slots: Tensor, item: int) -> Tensor:
    """[B] what is foretold, the mean of its distribution."""
    run = forced(model.net, stays, recorded=False)
    keep = (run.item == item) & (run.place >= place[run.row])
    row, step = run.row[keep], run.place[keep] - place[run.row[keep]]
    marginal = run.outcome.marginal.take(keep)
    z = marginal.quantile(LEVELS.expand(len(row), -1))
    value = from_z(z, model.net.scale[item]).mean(1).double()
    return torch.zeros(len(place), dtype=torch.float64).index_add(0, row, value * slots[step, row])
