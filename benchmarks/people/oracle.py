"""What the oracle ward says of the same order, and the doubly robust estimate drawn towards it.

The oracle's patients live twelve hours under the plain clinician; those whose target lies in the question's range
then get the order or not, all else and all chance equal (the same keys in both arms). The prior on people's effect is
normal, its mean the oracle's effect of the mean dose given, its standard deviation PRIOR_SHARE of that mean: an oracle
that is wrong by half is no surprise. The posterior mean weighs prior and estimate by their inverse variances (Efron &
Morris 1973, doi 10.1080/01621459.1973.10481350 (k), with a prior that is stated, not fitted: six effects are too few).
"""

from __future__ import annotations

import math
from functools import cache

import torch

from benchmarks.people.estimators import Estimate
from benchmarks.people.questions import Question
from world_models import keys, tree
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.world import WardOracle, WardState
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, intervention_index

__all__ = ["PRIOR_SHARE", "oracle_effect", "oracle_name", "regularised"]

PRIOR_SHARE = 0.5
LIVED_H = 12
PATIENTS = 3000
FEWEST = 30
SEED = 7_300_000  # of the first patient; keys of their own
Z = 1.959964
ROOM_AIR = 0.21


def oracle_name(target: str) -> str:
    """The ward's name of a target."""
    return "urine_output_ml_h" if target == "urine_output_ml" else target


@cache
def _lived() -> tuple[WardOracle, WardState, torch.Tensor]:
    """Patients after LIVED_H hours under the plain clinician, and the settings that run [B, J]."""
    world = WardOracle(hours_per_step=1.0)
    state = world.initial(keys.from_seed(SEED, PATIENTS))
    for _ in range(LIVED_H):
        state = world.transition(state, clinician(world.observe(state)))
    chart = world.observe(state)
    here = (chart["alive"] > 0.5) & (chart["discharged"] < 0.5)
    high = torch.tensor([float(i.high) for i in INTERVENTIONS])
    setting = torch.tensor([i.per_hour is None for i in INTERVENTIONS])
    return world, tree.take(state, here), (chart["treatment_share"] * high * setting)[here]


@torch.no_grad()
def oracle_effect(q: Question, dose: float, after_h: float) -> tuple[float, int] | None:
    """Mean effect of `dose` on the true target `after_h` hours later, and on how many patients; None: on too few."""
    world, state, running = _lived()
    name = f"true_{oracle_name(q.target)}"
    now = world.truth(state)[name]
    rows = ((now >= q.baseline[0]) & (now <= q.baseline[1])).nonzero()[:, 0]
    if len(rows) < FEWEST:
        return None
    state, running = tree.take(state, rows), running[rows]
    column = intervention_index(q.column)
    high = float(INTERVENTIONS[column].high)
    held = q.kind != "dose"
    if q.kind == "setting":
        running[:, column] = running[:, column].clamp_min(ROOM_AIR)
    steps = max(1, round(after_h))
    sums = []
    for extra in (0.0, dose):
        arm, total = state, torch.zeros(len(rows), dtype=torch.float64)
        for step in range(steps):
            given = running.clone()
            given[:, column] += extra if held or step == 0 else 0.0
            given[:, column].clamp_(max=high)
            arm = world.transition(arm, torch.cat([torch.zeros(len(rows), len(INQUIRIES)), given], -1))
            course = arm.course
            on = torch.ones_like(course.alive)
            arm = arm._replace(course=course._replace(alive=on, discharged=torch.zeros_like(on)))
            if q.mean_of_window:
                total += world.truth(arm)[name].double()
        sums.append(total / steps if q.mean_of_window else world.truth(arm)[name].double())
    return float((sums[1] - sums[0]).mean()), len(rows)


def regularised(found: Estimate, prior: float, share: float = PRIOR_SHARE) -> Estimate:
    """An estimate drawn towards the oracle's; as it is where either has no spread."""
    spread = share * abs(prior)
    if not (found.error > 0 and spread > 0 and math.isfinite(found.value)):
        return found
    mine, theirs = found.error**-2, spread**-2
    error = (mine + theirs) ** -0.5
    value = (mine * found.value + theirs * prior) / (mine + theirs)
    return Estimate(value, value - Z * error, value + Z * error, error)
