"""A record of visits under usual care, made from the oracle: who was seen when, with what, on what.

Patients are seen by the clinician of `care`; the next ECG is days later in the same stay, or after a gap of
days to years, or earlier, because something acute began (`ProgressionCohort.event_visits`): then it is taken in the
month of the onset, as emergency ECGs are. How many ECGs a patient has does not depend on the disease: median 2, mean
about 4, at most 12 (the record it stands for, MIMIC-IV-ECG: median 2, mean 4.96, 36 % with one). Death ends the record.

`paper_pairs` picks consecutive pairs so that their label changes have the statistics of that record.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.oracles.progression import state as body
from world_models.oracles.progression.care import usual_care
from world_models.oracles.progression.conditions import ACUTE
from world_models.oracles.progression.entry import ProgressionCohort
from world_models.oracles.progression.months import months
from world_models.oracles.progression.state import ProgressionState
from world_models.oracles.progression.world import ProgressionOracle
from world_models.quantities.progression import CODES
from world_models.quantities.treated_columns import parted
from world_models.quantity import DAYS_PER_MONTH, DAYS_PER_YEAR

__all__ = ["PAPER_SHARES", "Visits", "consecutive", "make_visits", "paper_pairs", "statistics"]

MOST_VISITS = 12
_LONGEST_GAP_DAYS = 5.0 * DAYS_PER_YEAR
_BLOCK_MONTHS = 6  # after which those who are done are set aside
_CHUNK = 4096  # patients simulated side by side: what fits a cache

# Shares of consecutive pairs by how many labels change: none, one, two, three, more (the paper's appendix A: 72.9 %
# stable; of the others 32.6, 22.8 and 18.1 % with one, two and three).
PAPER_SHARES: tuple[float, ...] = (0.729, 0.271 * 0.326, 0.271 * 0.228, 0.271 * 0.181, 0.271 * 0.265)


class Visits(NamedTuple):
    """ECGs in rows, sorted by patient, then time."""

    patient: Tensor  # int64 [N], 0 to patients - 1
    days: Tensor  # float32 [N] since the patient's first visit
    age_years: Tensor  # [N]
    sex_female: Tensor  # [N]
    condition: Tensor  # bool [N, C]
    treated: Tensor  # bool [N, TREATMENTS]: drugs taken since the visit before, procedures ever
    key: Tensor  # int64 [N], of the patient
    t: Tensor  # int64 [N], visit number: with key, what the ECG is synthesised from


def make_visits(seed: int, patients: int, cohort: str | ProgressionCohort = "clinic") -> Visits:
    """The record of `patients` patients under usual care; patient i is the key of `keys.from_seed(seed + i)`.

    Raises:
        ValueError: no patients, or an unknown cohort.
    """
    if patients < 1:
        raise ValueError(f"patients={patients}; give at least 1")
    world = ProgressionOracle(cohort=cohort)
    parts = [_course(world, seed, first, min(_CHUNK, patients - first)) for first in range(0, patients, _CHUNK)]
    return tree.cat(parts)


def _course(world: ProgressionOracle, seed: int, first: int, count: int) -> Visits:
    key = keys.from_seed(seed + first, count)
    state = world.initial(key)
    planned = (keys.normal(key, 0, "progression visits/number") * 1.3 + 1.08).exp().to(torch.int64)
    planned = planned.clamp(1, MOST_VISITS)
    days = torch.zeros(count)
    rows, kept = [], []
    for visit in range(MOST_VISITS):
        seen = (visit < planned) & ~state.dead
        chart = world.observe(state)
        t = torch.full_like(key, visit)
        rows.append(
            Visits(
                patient=torch.arange(first, first + count),
                days=days,
                age_years=chart["age_years"],
                sex_female=state.sex_female,
                condition=state.present,
                treated=chart["treated"] > 0.5,
                key=key,
                t=t,
            )
        )
        kept.append(seen)
        if not bool((visit + 1 < planned).any()):
            break
        orders = usual_care(chart, key, t) > 0.5
        state, days = _until_next(world, state, orders, days, visit + 1 < planned)
    table = Visits(*(torch.stack(column, 1).flatten(0, 1) for column in zip(*rows, strict=True)))
    return tree.take(table, torch.stack(kept, 1).flatten().nonzero()[:, 0])


def _until_next(
    world: ProgressionOracle, state: ProgressionState, orders: Tensor, days: Tensor, wanted: Tensor
) -> tuple[ProgressionState, Tensor]:
    """The state and the day of the next ECG: in the same stay, at the planned gap, or at an acute onset before it."""
    cohort, key, visit = world.cohort, state.key, state.t
    u = keys.uniform(key, visit, "progression visits/gap", (3,))
    same = u[:, 0] < cohort.same_stay
    gap = (keys.to_normal(u[:, 1]) * cohort.gap_log_sd).exp() * cohort.gap_median_days
    gap = torch.where(same, 0.3 + 9.7 * u[:, 1], gap.clamp(10.0, _LONGEST_GAP_DAYS))
    # a stay is coded as one: its ECGs share their labels unless it runs over a month's edge
    next_day = days + gap
    last = (next_day / DAYS_PER_MONTH).to(torch.int64)
    acute = torch.tensor([c in ACUTE for c in CODES])
    procedures, drugs = parted(orders[:, :-1])
    after = body.at_once(state, procedures & wanted.unsqueeze(-1), drugs)
    came = torch.zeros_like(wanted)
    while True:
        rows = ((after.month < last) & ~came & wanted & ~after.dead).nonzero()[:, 0]
        if not len(rows):
            break
        part = tree.take(after, rows)
        target = torch.minimum(part.month + _BLOCK_MONTHS, last[rows])
        ahead = months(part, drugs[rows], target - part.month, acute, cohort.event_visits)
        came[rows] = (ahead.month < target) & ~ahead.dead
        after = tree.put(after, rows, ahead)
    jitter = after.month.to(torch.float32) * DAYS_PER_MONTH + u[:, 2] * 0.5
    day = torch.where(came & (after.month < last), torch.maximum(jitter, days + 0.3), next_day)
    moved = wanted & ~state.dead
    after = after._replace(
        t=state.t + 1,
        months_since_visit=(after.month - state.month).to(torch.float32),
        drugs=torch.where((moved & ~after.dead).unsqueeze(-1), drugs, after.drugs),
    )
    return after, torch.where(moved, day, days)


def consecutive(visits: Visits) -> Tensor:
    """Rows int64 [K, 2] of each two ECGs of a patient that follow each other."""
    earlier = (visits.patient[1:] == visits.patient[:-1]).nonzero()[:, 0]
    return torch.stack((earlier, earlier + 1), -1)


def _changes(visits: Visits, pairs: Tensor) -> Tensor:
    """int64 [K]: labels that differ between the two of a pair."""
    return (visits.condition[pairs[:, 0]] ^ visits.condition[pairs[:, 1]]).sum(-1)


def paper_pairs(
    visits: Visits, seed: int, count: int | None = None, shares: tuple[float, ...] = PAPER_SHARES
) -> Tensor:
    """Rows int64 [K, 2] of consecutive pairs, thinned so that none, one, two, ... labels change with these shares.

    Sampled without replacement, in the record's order. The last share is for that many changes or more. Without
    `count`, as many as the scarcest class allows, so the shares are met. With it, that many: what a class lacks is
    taken from the class with one change less, and `statistics(visits, pairs)` says what was reached.

    Raises:
        ValueError: a class of which the record has no pair, or fewer pairs than `count` asks for.
    """
    pairs = consecutive(visits)
    kind = _changes(visits, pairs).clamp_max(len(shares) - 1)
    found = torch.bincount(kind, minlength=len(shares)).tolist()
    more = "make more patients or take cohort='hospital'"
    if count is None:
        missing = [i for i, share in enumerate(shares) if share > 0 and found[i] == 0]
        if missing:
            raise ValueError(f"no pair with {missing[0]} label changes among {len(pairs)}; {more}")
        total = min(found[i] / share for i, share in enumerate(shares) if share > 0)
        wanted = [min(round(total * share), found[i]) for i, share in enumerate(shares)]
    else:
        wanted, lacking = [0] * len(shares), 0
        for i in reversed(range(len(shares))):
            asked = round(count * shares[i]) + lacking
            wanted[i] = min(asked, found[i])
            lacking = asked - wanted[i]
        if lacking:
            raise ValueError(f"count={count} asks for {lacking} stable pairs more than the record has; {more}")
    u = keys.uniform(keys.from_seed(seed), 0, "progression visits/pairs", (len(pairs),))[0]
    taken = torch.zeros(len(pairs), dtype=torch.bool)
    for i, number in enumerate(wanted):
        of_kind = (kind == i).nonzero()[:, 0]
        taken[of_kind[u[of_kind].argsort()[:number]]] = True
    return pairs[taken.nonzero()[:, 0]]


def statistics(visits: Visits, pairs: Tensor | None = None) -> dict[str, float]:
    """Counts and shares of the record in the terms of the paper's appendix, of `pairs` or all consecutive ones."""
    pairs = consecutive(visits) if pairs is None else pairs
    each = torch.bincount(visits.patient)
    each = each[each > 0].to(torch.float32)
    changed = _changes(visits, pairs)
    some = changed[changed > 0].to(torch.float32)
    gap = visits.days[pairs[:, 1]] - visits.days[pairs[:, 0]]
    return {
        "ecgs": float(len(visits.patient)),
        "patients": float(len(each)),
        "ecgs_per_patient_mean": float(each.mean()),
        "ecgs_per_patient_median": float(each.median()),
        "single_ecg_patients_share": float((each == 1).float().mean()),
        "labels_per_ecg": float(visits.condition.sum(-1).float().mean()),
        "pairs": float(len(pairs)),
        "stable_share": float((changed == 0).float().mean()),
        **{f"changed_{n}_share": float((some == n).float().mean()) for n in (1, 2, 3)},
        "changed_more_share": float((some > 3).float().mean()),
        "gap_days_median": float(gap.median()),
    }
