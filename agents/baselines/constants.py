"""Courses that look at nothing but the clock, tried by the dozen: every usual dose at every usual interval.

The best is chosen on tuning patients that no judge draws: all are tried on some of them, the best few on others, so
that none wins by luck alone. In the learned world that is what anybody could do; in the oracle it is a reference: no
constant does better there, and a decider that does worse has looked at the patient in vain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.baselines.explain_sets import FixedSets, single_transitions
from agents.baselines.schedule import EVERY_VISIT, ONCE, Schedule, StoppedByQTc
from agents.making import Built, Making, seal_of
from agents.planning.explain_beam import SetFollower
from agents.planning.explain_pairs import sample_pairs
from agents.protocol import Agent
from agents.rollout import judge
from clinenv.simulator import Simulator
from clinenv.task import Levels, Menu
from world_models import keys, tree
from world_models.config_json import parse_json
from world_models.files import write_text
from world_models.protocol import Chart
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantities.progression import DRUGS
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS

__all__ = ["Candidates", "best", "candidates", "dofetilide", "tried"]

TUNING_SEED = 8_800_000_000
TUNING = "tuning"  # keys of tuning patients are folded by it
FINALISTS = 6
FEW, MANY = 24, 128  # patients that all are tried on, and that the finalists are: at most
AT_ONCE = 8192  # courses
_DRAWN_FOR_ONE = 6  # pairs of ECGs, most of which may be of somebody in whom nothing changed
EVERY_H = (6.0, 8.0, 12.0, 24.0, ONCE)
SHARES = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)  # of the largest single dose
PAIRED = ("ranolazine_mg", "dofetilide_mg")
START_BELOW_MS = (440.0, 470.0, 500.0)  # admission QTcF up to which a guarded course is begun
MONTHS = (3.0, 6.0, 12.0)


@dataclass(frozen=True)
class Candidates:
    """K constants: schedules, or in `ECGExplain-v0` sets of transitions."""

    names: list[str]
    amount: Tensor  # float32 [K, A]; or the sets [K, C]
    every_hours: Tensor | None = None  # float32 [K, A]; None: sets
    start_below_ms: Tensor | None = None  # [K]: guarded by the QTc

    def agent(self, simulator: Simulator, rows: Tensor, name: str = "constants") -> Agent:
        """The constants rows int64 [B], one a patient; or one int64 [] for all."""
        if self.every_hours is None:
            return SetFollower(FixedSets(self.amount[rows], name))
        course = Schedule(simulator.task, self.amount[rows], self.every_hours[rows], name)
        if self.start_below_ms is None:
            return course
        return StoppedByQTc(course, simulator, self.start_below_ms[rows])


def candidates(simulator: Simulator, env_id: str, guarded: bool = False) -> Candidates:
    """The sensible constants of an id; `guarded`: each with a QTc at which it is stopped.

    Raises:
        ValueError: there are none for this id.
    """
    if env_id == "ECGExplain-v0":
        names, sets = single_transitions(simulator)
        return Candidates(names, sets)
    makers = {"ECGDrug": _drug_courses, "EHRWard": _ward_bundles, "ECGProgression": _clinic_drugs}
    maker = makers.get(simulator.task.name)
    if maker is None:
        raise ValueError(f"no constants are known for {env_id}")
    columns = [q.name for q in simulator.world.orders]
    named = maker(simulator)
    amount, every = torch.zeros(len(named), len(columns)), torch.full((len(named), len(columns)), ONCE)
    for row, (_, course) in enumerate(named):
        for order, (given, hours) in course.items():
            amount[row, columns.index(order)], every[row, columns.index(order)] = given, hours
    names = [name for name, _ in named]
    if not guarded:
        return Candidates(names, amount, every)
    limits = torch.tensor(START_BELOW_MS).repeat_interleave(len(names))
    names = [f"{name}, begun up to {limit:g} ms" for limit in START_BELOW_MS for name in names]
    return Candidates(names, amount.repeat(len(START_BELOW_MS), 1), every.repeat(len(START_BELOW_MS), 1), limits)


Course = dict[str, tuple[float, float]]  # order -> (amount, hours between two)


def _every(hours: float) -> str:
    return "once" if hours == ONCE else f"every {hours:g} h"


def _drug_courses(simulator: Simulator) -> list[tuple[str, Course]]:
    """Each dose at each interval, as far as the label's largest daily dose allows it."""
    actions = simulator.task.actions
    if isinstance(actions, Menu):
        doses = [(label, dict(amounts)) for label, amounts in actions.entries if amounts]
    else:
        largest = {f"{d.name}_mg": d.largest_single_mg for d in ANTIARRHYTHMICS}
        doses = [
            (f"{name.removesuffix('_mg')} {share * mg:g} mg", {name: share * mg})
            for name, mg in largest.items()
            for share in SHARES
        ]
        for shares in product(SHARES[1::2], repeat=2):
            both = {name: share * largest[name] for name, share in zip(PAIRED, shares, strict=True)}
            doses.append((" and ".join(f"{n.removesuffix('_mg')} {mg:g} mg" for n, mg in both.items()), both))
    daily = {f"{d.name}_mg": d.largest_daily_mg for d in ANTIARRHYTHMICS}
    return [
        (f"{label} {_every(hours)}", {name: (mg, hours) for name, mg in amounts.items()})
        for label, amounts in doses
        for hours in EVERY_H
        if all(mg * 24.0 / hours <= daily[name] for name, mg in amounts.items())
    ]


_VITALS: Course = {q.order: (1.0, EVERY_VISIT) for q in INQUIRIES if q.kind == "vital"}
_DAILY: Course = {q.order: (1.0, 24.0) for q in INQUIRIES if q.kind in ("chemistry", "haematology")}
_CULTURES: Course = {q.order: (1.0, ONCE) for q in INQUIRIES if q.kind == "culture" or q.name == "lactate_mmol_l"}
_STANDARD = {q.name: float(q.standard) for q in INTERVENTIONS}
# Of a general ward, at standard amounts: what anybody might be given. The sepsis bundle is the Surviving Sepsis
# Campaign's first hour (Evans 2021, doi 10.1007/s00134-021-06506-y): cultures, lactate, broad antibiotics, fluid.
_TESTS: dict[str, Course] = {
    "no tests": {},
    "vital signs": _VITALS,
    "vital signs and daily bloods": {**_VITALS, **_DAILY},
}
_ANTIBIOTIC: dict[str, tuple[str, float] | None] = {
    "": None,
    "ceftriaxone": ("ceftriaxone_g", 24.0),
    "piperacillin": ("piperacillin_tazobactam_g", 8.0),
}
_FLUID: dict[str, tuple[str, float] | None] = {
    "": None,
    "a litre at once": ("ringers_lactate_ml", ONCE),
    "a litre a day": ("ringers_lactate_ml", 24.0),
}
_BREATH: dict[str, tuple[str, float] | None] = {"": None, "oxygen": ("oxygen_fraction", EVERY_VISIT)}
_STOMACH: dict[str, tuple[str, float] | None] = {"": None, "pantoprazole": ("pantoprazole_mg", 24.0)}


def _ward_bundles(simulator: Simulator) -> list[tuple[str, Course]]:
    found: list[tuple[str, Course]] = []
    for tests, asked in _TESTS.items():
        for chosen in product(*(kind.items() for kind in (_ANTIBIOTIC, _FLUID, _BREATH, _STOMACH))):
            course, words = dict(asked), [tests]
            for label, how in chosen:
                if how is not None:
                    course[how[0]] = (_STANDARD[how[0]], how[1])
                    words.append(label)
            found.append((", ".join(words), course))
    sepsis = {n: (_STANDARD[n], h) for n, h in (("piperacillin_tazobactam_g", 8.0), ("ringers_lactate_ml", ONCE))}
    found.append(("sepsis bundle for everyone", {**_VITALS, **_CULTURES, **sepsis}))
    return found


def _clinic_drugs(simulator: Simulator) -> list[tuple[str, Course]]:
    assert isinstance(simulator.task.actions, Levels)
    interval = simulator.task.actions.interval
    found: list[tuple[str, Course]] = []
    for months, *yes in product(MONTHS, *((False, True) for _ in DRUGS)):
        drugs = [drug for drug, given in zip(DRUGS, yes, strict=True) if given]
        label = f"{' and '.join(drugs).replace('_', ' ') or 'no drug'}, every {months:g} months"
        found.append((label, {**{d: (1.0, EVERY_VISIT) for d in drugs}, interval: (months, EVERY_VISIT)}))
    return found


# ---- the choice


def tried(making: Making, guarded: bool = False) -> dict[str, Any]:
    """What every constant earned in the world of `making` on tuning patients: plain JSON, kept in its `runs`.

    "names" and "returns" of all on few patients, "finalists" and "final_returns" of the best of them on others.
    """
    simulator, few, many = making.simulator, FEW, MANY
    if making.quick:
        few, many = 6, 24
    world = Path(making.world).name
    about = {"id": making.env_id, "world": world, "steps": making.steps, "guarded": guarded, "patients": [few, many]}
    about["weights"] = seal_of(simulator.world)
    path = making.runs / f"constants-{making.env_id}-{world}-{making.steps}{'-guarded' if guarded else ''}.json"
    if path.exists():
        old = parse_json(path.read_bytes(), str(path))
        if old.get("about") == about:
            return old
    offered = candidates(simulator, making.env_id, guarded)
    every = torch.arange(len(offered.names))
    first = _returns(simulator, offered, every, few, TUNING_SEED, making.steps)
    last = first.topk(min(FINALISTS, len(every))).indices
    second = _returns(simulator, offered, last, many, TUNING_SEED + few, making.steps)
    found = {
        "about": about,
        "names": offered.names,
        "returns": [round(x, 5) for x in first.tolist()],
        "finalists": [offered.names[i] for i in last.tolist()],
        "final_returns": [round(x, 5) for x in second.tolist()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(found) + "\n")
    return found


def _returns(simulator: Simulator, offered: Candidates, which: Tensor, patients: int, seed: int, steps: int) -> Tensor:
    """Mean return [K] of the constants which int64 [K], all on the same patients."""
    begun = _tuning_patients(simulator, offered, patients, seed)
    found = []
    for some in which.split(max(1, AT_ONCE // patients)):
        agent = offered.agent(simulator, some.repeat(tree.batch_size(begun)))
        many = tree.repeat(begun, len(some))  # each patient's run of constants
        results = judge(agent, simulator, many[0].key, steps, begun=many)
        found.append(results.returns.view(-1, len(some)).mean(0))
    return torch.cat(found)


def _tuning_patients(simulator: Simulator, offered: Candidates, patients: int, seed: int) -> tuple[Any, Chart]:
    """State and chart of patients, or of problems that have an answer, whom no judge draws."""
    if offered.every_hours is None:
        pairs = sample_pairs(simulator, seed, _DRAWN_FOR_ONE * patients)
        return tree.take((pairs.state, pairs.chart), slice(patients))
    return simulator.reset(keys.fold(keys.from_seed(seed, patients, simulator.device), TUNING))


def best(making: Making, guarded: bool = False) -> Built:
    """The best constant of the world that it is made in."""
    found = tried(making, guarded)
    offered = candidates(making.simulator, making.env_id, guarded)
    returns = found["final_returns"]
    chosen = found["finalists"][returns.index(max(returns))]
    row = torch.tensor(offered.names.index(chosen))
    few, many = found["about"]["patients"]
    budget = f"{len(offered.names)} constants on {few} tuning patients, the best {len(returns)} on {many} others"
    return Built(offered.agent(making.simulator, row, chosen), {"chosen": chosen, **found["about"]}, budget)


def dofetilide(making: Making) -> Agent:
    """Dofetilide 0.25 mg every 12 h for everyone: half the label's dose."""
    columns = [q.name for q in making.simulator.world.orders]
    amount, every = torch.zeros(len(columns)), torch.full((len(columns),), ONCE)
    place = columns.index("dofetilide_mg")
    amount[place], every[place] = 0.25, 12.0
    return Schedule(making.simulator.task, amount, every, "dofetilide 0.25 mg every 12 h")
