"""Oracle patients of every cohort in sinus rhythm, who have met no training, and their courses under a plan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ecg_wm.courses import oracle_of
from world_models.inputs import admit
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.oracles.ecg_drug.world import ECGDrugOracle, ECGDrugState
from world_models.protocol import Chart, History
from world_models.quantities.drugs import ANTIARRHYTHMICS

__all__ = ["course_of", "history_of", "one_dose", "particles_of", "sinus_patients"]

_CANDIDATES = 3  # admitted for each who is wanted: about half fibrillate


def sinus_patients(seed: int, count: int, hours_per_step: float) -> tuple[ECGDrugOracle, ECGDrugState]:
    """`count` patients whose admission ECG is in sinus rhythm, and the oracle that carries them on.

    Raises:
        ValueError: too few of the candidates are.
    """
    names = sorted(COHORTS)
    key = keys.from_seed(seed, _CANDIDATES * count + 8 * len(names))
    parts = zip(names, key.chunk(len(names)), strict=True)
    state = tree.cat([admit(oracle_of(n, hours_per_step), k, {}) for n, k in parts])
    oracle = oracle_of(names[0], hours_per_step)  # once admitted, all go through the same transition
    sinus = (oracle.observe(state)["atrial_fibrillation"] < 0.5).nonzero().flatten()
    if len(sinus) < count:
        raise ValueError(f"{len(sinus)} of {len(key)} patients are in sinus rhythm, fewer than the {count} wanted")
    order = keys.uniform(state.key[sinus], 0, "patients/order").argsort()
    return oracle, tree.take(state, sinus[order[:count]])


def one_dose(key: Tensor, steps: int, every: int | None = None) -> tuple[Tensor, Tensor]:
    """Drug [B] (1 + column) and doses [B, steps, D] mg: the trial's single dose at the first step, of a drug by chance.

    Args:
        every: give it again after so many steps, at half the dose; None: once.
    """
    full = torch.tensor([d.trial_dose_mg for d in ANTIARRHYTHMICS], device=key.device)
    drug = keys.categorical(key, 0, "patients/drug", torch.ones_like(full))
    doses = torch.zeros(len(key), steps, len(full), device=key.device)
    dose = torch.nn.functional.one_hot(drug, len(full)) * full
    if every is None:
        doses[:, 0] = dose
    else:
        doses[:, ::every] = 0.5 * dose.unsqueeze(1)
    return drug + 1, doses


def course_of(world: Any, state: Any, doses: Tensor) -> list[Chart]:
    """Charts at the start and after each step of doses [B, T, D]."""
    charts = [world.observe(state)]
    for i in range(doses.shape[1]):
        state = world.transition(state, doses[:, i])
        charts.append(world.observe(state))
    return charts


def history_of(chart: Chart) -> History:
    """A record of one visit: the admission chart [B]."""
    count, drugs = len(chart["hours"]), len(ANTIARRHYTHMICS)
    charts = {n: v.unsqueeze(1) for n, v in chart.items() if v.ndim == 1}
    return History(charts, torch.zeros(count, 1, drugs), torch.zeros(count, 1))


def particles_of(world: Any, chart: Chart, key: Tensor, samples: int, factors: dict[str, Tensor] | None = None) -> Any:
    """What a learned world holds possible of patients [B] of whom it has seen the admission chart (and `factors`, see
    `own_beats.beat_factors`): [B * samples], a patient's next to each other."""
    state = world.infer(history_of(chart), keys.fold(key, "model"), factors)
    many = tree.repeat(state, samples)
    number = torch.arange(samples, device=key.device).repeat(len(key))
    return world.rekey(many, keys.fold(keys.fold(many.key, "particle"), number))
