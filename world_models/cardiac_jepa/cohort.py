"""Training data of the progression oracle: ECGs with labels for the JEPA, visits with orders for the labels' process.

Of the oracle only what a clinic would have is used: charts, orders, ECGs; never `truth`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from world_models import keys
from world_models.cardiac_jepa.labels import Followed
from world_models.data.ecg.monolith import MonolithWriter
from world_models.oracles.progression.care import usual_care
from world_models.oracles.progression.ecg.synthesis import synthesise_progression_ecg
from world_models.oracles.progression.visits import make_visits
from world_models.oracles.progression.world import ProgressionOracle
from world_models.quantities.progression import (
    CODES,
    INTERVALS_MONTHS,
    ORDERS,
    SAMPLES,
    SAMPLING_RATE_HZ,
    TREATMENTS,
)
from world_models.quantities.treated_columns import parted

__all__ = ["FOLDS", "follow_ups", "progression_monolith"]

FOLDS = 20  # 0 to 17 train, 18 validation, 19 test, as in MIMIC-IV-ECG-Ext-ICD
STAY_DAYS = 30.0  # an ECG later than this after the one before begins a new stay
SOURCE = (
    "progression oracle (world_models/oracles/progression/), "
    "cohort {cohort}, seed {seed}, {patients} patients: simulated"
)
WILD, RANDOM_ORDERS = 1 / 3, 0.2  # share of patients under random orders; chance of each order at a visit of theirs


def progression_monolith(
    path: str | Path, seed: int, patients: int, cohort: str = "hospital", chunk: int = 2048, samples: int = SAMPLES
) -> Path:
    """Write the ECGs of so many simulated patients to an HDF5 monolith.

    One that is there is kept, one broken off goes on.

    Patients are dealt into `FOLDS` folds by their key; every ECG has so many samples at 100 Hz. Returns the path.

    Raises:
        ValueError: fewer than one patient, or a file of another layout is in the way.
    """
    path = Path(path)
    if path.exists():
        return path
    visits = make_visits(seed, patients, cohort)
    fold = (keys.uniform(visits.key, 0, "fold") * FOLDS).to(torch.int8)
    new = torch.ones(len(visits.key), dtype=torch.bool)
    new[1:] = (visits.patient[1:] != visits.patient[:-1]) | (visits.days[1:] - visits.days[:-1] > STAY_DAYS)
    source = SOURCE.format(cohort=cohort, seed=seed, patients=patients)
    with MonolithWriter(
        path, CODES, SAMPLING_RATE_HZ, samples, source, treatments=TREATMENTS, most=len(visits.key)
    ) as out:
        starts = range(out.rows, len(visits.key), chunk)
        for start in tqdm(starts, desc="ECGs", mininterval=1):
            at = slice(start, start + chunk)
            ecg = synthesise_progression_ecg(
                visits.key[at],
                visits.t[at],
                visits.condition[at],
                visits.age_years[at],
                visits.sex_female[at],
                visits.treated[at],
                samples,
            )
            out.append(
                ecg=ecg,
                label=visits.condition[at],
                patient=visits.patient[at],
                days=visits.days[at],
                age_years=visits.age_years[at],
                sex_female=visits.sex_female[at],
                fold=fold[at],
                first=new[at],
                treated=visits.treated[at],
            )
    return path


@torch.no_grad()
def follow_ups(seed: int, patients: int, visits: int = 8, cohort: str = "clinic", chunk: int = 4096) -> Followed:
    """What charts and orders tell of so many patients' visits.

    Two of three are under usual care at intervals of their own, one of three under orders that nobody reasoned about,
    without which a treatment's effect and its reason look alike.
    """
    oracle = ProgressionOracle(cohort=cohort)
    intervals = torch.tensor(INTERVALS_MONTHS)
    rows: list[Followed] = []
    for key in tqdm(keys.from_seed(seed, patients).split(chunk), desc="follow-up", mininterval=1):
        state = oracle.initial(key)
        chart = oracle.observe(state)
        wild = keys.uniform(key, 0, "wild patient") < WILD
        for t in range(visits):
            order = usual_care(chart, key, t)
            at_random = (keys.uniform(key, t, "wild orders", (len(ORDERS) - 1,)) < RANDOM_ORDERS).to(torch.float32)
            which = (keys.uniform(key, t, "interval") * len(intervals)).to(torch.int64)
            order = torch.where(wild.unsqueeze(-1), torch.cat([at_random, order[:, -1:]], -1), order)
            order = torch.cat([order[:, :-1], intervals[which].unsqueeze(-1)], -1)
            state = oracle.transition(state, order)
            after = oracle.observe(state)
            rows.append(_followed(chart, order, after, chart["dead"] < 0.5))
            chart = after
    return Followed(*(torch.cat(column) for column in zip(*rows, strict=True)))


def _followed(before: dict[str, Tensor], order: Tensor, after: dict[str, Tensor], alive: Tensor) -> Followed:
    done, taken = parted(order[:, :-1])
    row = Followed(
        before["condition"],
        before["age_years"],
        before["sex_female"],
        parted(before["treated"])[0],
        done,
        taken,
        order[:, -1],
        after["condition"],
        after["dead"],
        after["bleeding"],
    )
    return Followed(*(x[alive] for x in row))
