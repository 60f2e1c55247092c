"""Training courses: oracle patients of every cohort under many ways of dosing, as a clinic would record them.

Only charts and orders are kept: the oracle's hidden state is for judging, never for training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ecg_wm import latent
from world_models.ecg_wm.patients import CLEARANCES, COVARIATES, baseline_chart
from world_models.ecg_wm.start_rates import REFERENCE_MG
from world_models.inputs import admit
from world_models.oracles.ecg_drug.cohorts import COHORTS, FACTORS
from world_models.oracles.ecg_drug.population import TrialModel
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.protocol import Chart
from world_models.quantities.ecg_drug import DRUGS, ORDERS

__all__ = ["Courses", "DrawCourses", "dosing", "sample_courses", "oracle_of"]

KEPT: tuple[str, ...] = (*COVARIATES, "clock_hour", "heart_rate_bpm", "pr_ms", "qrs_ms", "qtcf_ms", "jt_peak_c_ms")
KEPT += ("tpeak_tend_ms", *latent.T_WAVE, "systolic_bp_mmhg", "arrhythmia_burden", "torsades")
KEPT += ("atrial_fibrillation", "av_block")
NOTHING, SINGLE, REGIMEN, TWO_DRUGS, RANDOM = range(5)  # kinds of plan
KIND_SHARES = (0.1, 0.3, 0.3, 0.15, 0.15)
DOSE_INTERVALS_H = (6.0, 8.0, 12.0, 24.0)  # of regimens: as labels have them (k)
LATEST_START_H, STARTS_AT_ONCE = 4.0, 0.6  # a regimen's first dose; the share given at admission
RANDOM_DOSES_PER_H = 0.1  # a dose of some drug in a fifth of the two-hour steps
CLEARANCE_LOG_SD, CLEARANCE_RANGE = 0.5, (0.2, 3.0)  # clearance multipliers that are told to the model


class Courses(NamedTuple):
    """B patients over T + 1 visits, `hours_per_step` apart."""

    u: Tensor  # [B, T + 1, COORDS] coordinates as charted, NaN where the rhythm does not have them
    charts: Chart  # the KEPT measures, each [B, T + 1]
    actions: Tensor  # [B, T + 1, D] mg given right after each visit
    measured: Tensor  # [B, COORDS] coordinates of the admission reading, in both rhythms
    clearance: Tensor  # [B, 3] `patients.CLEARANCES` where the patient's are known, else NaN
    morphology: Tensor  # [B, 8, W] wave heights in mV of the patient's beat, from which ECGs are drawn
    hours_per_step: float


# keys [B], steps, hours a step -> their courses
DrawCourses = Callable[[Tensor, int, float], Courses]


@lru_cache(maxsize=256)
def oracle_of(
    cohort: str, hours_per_step: float, device: str = "cpu", trial: TrialModel | None = None
) -> ECGDrugOracle:
    """The oracle of a cohort, of the shipped fit or another, made once."""
    return ECGDrugOracle(cohort=cohort, hours_per_step=hours_per_step, device=device, trial=trial)


def dosing(key: Tensor, steps: int, hours_per_step: float, withheld: Sequence[str] = ()) -> Tensor:
    """Doses [B, steps + 1, 4] mg, one plan a patient: none, one dose, a regimen, regimens of two drugs, or random.

    The drugs `withheld` are never given: whoever's plan was one of them takes nothing of it.

    Raises:
        ValueError: a drug withheld that there is not.
    """
    unknown = [name for name in withheld if name not in DRUGS]
    if unknown:
        raise ValueError(f"no drug {', '.join(unknown)} to withhold; there are: {', '.join(DRUGS)}")
    batch, drugs = key.shape[0], len(REFERENCE_MG)
    full = torch.tensor(REFERENCE_MG, device=key.device)
    kind = keys.categorical(key, 0, "plan/kind", torch.tensor(KIND_SHARES, device=key.device))
    step = torch.arange(steps + 1, device=key.device)
    plan = torch.zeros(batch, steps + 1, drugs, device=key.device)
    equal = torch.ones(drugs, device=key.device)
    for n in range(2):
        drug = torch.nn.functional.one_hot(keys.categorical(key, n, "plan/drug", equal), drugs)
        level = 0.25 * (1 + keys.categorical(key, n, "plan/level", torch.ones(4, device=key.device)))
        first = torch.floor(keys.uniform(key, n, "plan/first") * LATEST_START_H / hours_per_step)
        first = torch.where((kind == SINGLE) | (keys.uniform(key, n, "plan/late") < STARTS_AT_ONCE), 0.0, first)
        hours = torch.tensor(DOSE_INTERVALS_H, device=key.device)
        every = hours[keys.categorical(key, n, "plan/every", torch.ones_like(hours))] / hours_per_step
        since = step - first.unsqueeze(-1)
        regular = (since >= 0) & (torch.remainder(since, every.unsqueeze(-1)) == 0)
        single = since == 0
        due = torch.where((kind == SINGLE).unsqueeze(-1), single, regular)
        takes = (kind == TWO_DRUGS) | (((kind == SINGLE) | (kind == REGIMEN)) & (n == 0))
        due = due & takes.unsqueeze(-1)
        plan = plan + due.unsqueeze(-1) * (drug * full * level.unsqueeze(-1)).unsqueeze(1)
    # At random: what a policy that explores would do.
    some = keys.uniform(key, 0, "plan/some", (steps + 1,)) < RANDOM_DOSES_PER_H * hours_per_step
    which = torch.floor(keys.uniform(key, 0, "plan/which", (steps + 1,)) * drugs).long()
    level = 0.5 * (1 + (keys.uniform(key, 0, "plan/much", (steps + 1,)) < 0.5))
    random = (some * level).unsqueeze(-1) * torch.nn.functional.one_hot(which, drugs) * full
    plan = torch.where((kind == RANDOM)[:, None, None], random, plan)
    plan = plan.minimum(torch.tensor([order.high for order in ORDERS], device=key.device))  # two regimens of one drug
    return plan * torch.tensor([float(name not in withheld) for name in DRUGS], device=key.device)


@torch.no_grad()
def sample_courses(
    key: Tensor,
    steps: int,
    hours_per_step: float,
    cohort: str | Sequence[str] | None = None,
    known: float = 0.3,
    trial: TrialModel | None = None,
    withheld: Sequence[str] = (),
) -> Courses:
    """Courses of the patients with these keys, an equal share of every cohort.

    In a share `known` of them the hepatic clearances are told; the others' come from their cohort, and nobody is told.

    Args:
        cohort: one, or several with equal shares (one named twice has two); None: all.
        trial: the fit behind the oracle; None: the shipped one.
        withheld: drugs that nobody takes.

    Raises:
        ValueError: an unknown cohort, or a drug withheld that there is not.
    """
    names = sorted(COHORTS) if cohort is None else [cohort] if isinstance(cohort, str) else list(cohort)
    device = str(key.device)
    tell = (keys.uniform(key, 0, "courses/known") < known).unsqueeze(-1)
    own = keys.normal(key, 0, "courses/clearance", (len(CLEARANCES),))
    sampled = torch.exp(CLEARANCE_LOG_SD * own).clamp(*CLEARANCE_RANGE)
    clearance = torch.where(tell, sampled, torch.nan)
    shares = zip(names, key.chunk(len(names)), clearance.chunk(len(names)), strict=False)
    # Cohorts differ in whom they admit only: once admitted, all patients go through the same transition together.
    oracle = oracle_of(names[0], hours_per_step, device, trial)
    state = tree.cat(
        [
            admit(oracle_of(n, hours_per_step, device, trial), k, dict(zip(CLEARANCES, c.unbind(-1), strict=True)))
            for n, k, c in shares
        ]
    )
    factors = {q.name: state.factors[:, i] for i, q in enumerate(FACTORS)}
    actions = dosing(keys.fold(key, "plan"), steps, hours_per_step, withheld)
    charts = [oracle.observe(state)]
    for i in range(steps):
        state = oracle.transition(state, actions[:, i])
        charts.append(oracle.observe(state))
    u = torch.stack([latent.standardise(chart) for chart in charts], dim=1)
    kept = {n: torch.stack([c[n] for c in charts], dim=1) for n in KEPT}
    measured = latent.standardise(baseline_chart(factors))
    return Courses(u, kept, actions, measured, clearance, state.morphology, hours_per_step)
