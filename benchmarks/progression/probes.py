"""Do the oracle's patients fall ill and die as patients do? `python -m benchmarks.progression.probes [--quick]`.

Prevalence at the first visit, first onsets a year, deaths within a year by age and sex, what conditions add to dying,
ratios of treatments and risk factors recovered by simulation, the record's pairs, and patient-months a second on one
thread, each beside a range (`probe_table`), which is published or our own.
A ratio is that of two rates over up to 24 months in the same patients with the same random keys, once with and once
without: a paired difference, and a check that the cited effect survives everything else that happens to them.

Base rates, some ratios and the cohorts were set by looking at these very rows, so that they lie within their ranges is
calibration kept under watch, not independent evidence. (k) marks ranges from memory, not looked up. The speed rows tell
what the machine had to spare.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.progression.probe_table import (
    BETWEEN,
    EXCESS,
    ONSETS_PER_1000,
    OWN,
    PREVALENCE_PERCENT,
    PUBLISHED,
    RISKS,
    TREATED,
)
from world_models import keys, tree
from world_models.life_table import LIFE_TABLE
from world_models.oracles.progression import state as body
from world_models.oracles.progression.months import months
from world_models.oracles.progression.visits import make_visits, paper_pairs, statistics
from world_models.oracles.progression.world import ProgressionOracle, ProgressionState
from world_models.quantities.progression import CODES, CONDITIONS, DRUGS, PROCEDURES, TREATMENTS

__all__ = ["main"]

RESULT = RESULTS / "progression_probes.csv"
NO_RANGE = "no range"
NEAR_TABLE = 0.2  # of the life table: how near the old are to die to it
OLD_YEARS = 60  # from which that is asked


def _row(
    probe: str, found: float, low: float, high: float, unit: str, source: str, whose: str = ""
) -> dict[str, object]:
    return {
        "probe": probe,
        "simulated": found,
        "low": low,
        "high": high,
        "within": low <= found <= high,
        "unit": unit,
        "source": source,
        "range": whose,
    }


def _patients(count: int, age: float, sex: float | None = None, seed: int = 1, **has: Tensor) -> ProgressionState:
    world = ProgressionOracle(cohort="community")
    given = {"age_years": torch.full((count,), age), **has}
    if sex is not None:
        given["sex_female"] = torch.full((count,), sex)
    return world.initial(keys.from_seed(seed, count), given)


def _with(
    count: int,
    present: tuple[str, ...],
    before: tuple[str, ...] = (),
    age: float = 70.0,
    traits: tuple[str, ...] = (),
    told: tuple[str, ...] = body.TRAITS[2:],
) -> ProgressionState:
    """Untreated people of that age with these conditions only, and with these in their history.

    Of the traits that are `told`, everybody has those named and nobody the others, unless none is named: then they are
    as they are.
    """
    yes = torch.tensor([float(c in present) for c in CODES]).expand(count, -1)
    state = _patients(count, age, condition=yes)
    ever = state.present | torch.tensor([c in before for c in CODES])
    hold = state.traits.clone()
    for i, name in enumerate(body.TRAITS):
        if traits and name in (*told, *traits):
            hold[:, i] = name in traits
    none = {"procedures": torch.zeros_like(state.procedures), "drugs": torch.zeros_like(state.drugs)}
    return state._replace(ever=ever, traits=hold, **none)


def _rate(state: ProgressionState, outcome: str, drugs: Tensor | None = None, months: int = 24) -> float:
    """First events of that kind a year at risk."""
    drugs = torch.zeros_like(state.drugs) if drugs is None else drugs
    count = torch.full_like(state.month, months)
    if outcome == "death":
        after = months(state, drugs, count)
        events = after.dead.sum()
    elif outcome == "bleed":  # at most one a patient: few enough that time after it hardly counts
        after = months(state, drugs, count)
        events = after.bleeding.sum()
    else:
        state = state._replace(present=state.present, dead=state.dead | state.present[:, CODES.index(outcome)])
        stop = torch.tensor([c == outcome for c in CODES])
        after = months(state, drugs, count, stop)
        events = (after.present & ~state.present)[:, CODES.index(outcome)].sum()
    return 12.0 * float(events) / max(float((after.month - state.month).sum()), 1.0)


def treatments(count: int) -> Iterator[dict[str, object]]:
    """Ratio of an outcome's rates with and without each treatment."""
    for name, outcome, present, before, low, high, whose, source, traits, followed in TREATED:
        state = _with(count, present, before, traits=traits)
        drugs = torch.tensor([d == name for d in DRUGS]).expand(count, -1)
        done = state._replace(procedures=torch.tensor([p == name for p in PROCEDURES]).expand(count, -1))
        months = followed or (48 if outcome in ("I63", "I21", "I50", "I44") else 24)
        ratio = _rate(done, outcome, drugs, months) / _rate(state, outcome, months=months)
        whom = " and ".join((*present, *(f"a history of {c}" for c in before)))
        whom = ", ".join((whom or "all", *traits))
        yield _row(f"{name} in {whom}: rate of {outcome}", ratio, low, high, "ratio", source, whose)


def risks(count: int) -> Iterator[dict[str, object]]:
    """Ratio of an outcome's rates with and without each condition, and over ten years of age."""
    for present, outcome, low, high, whose, source in RISKS:
        ratio = _rate(_with(count, (present,)), outcome, months=12) / _rate(_with(count, ()), outcome, months=36)
        yield _row(f"{present} present: rate of {outcome}", ratio, low, high, "ratio", source, whose)
    old, young = (_rate(_patients(count, age), "I48") for age in (75.0, 65.0))
    source = "Benjamin 1994 PMID 8114238: 2.1 to 2.2"
    yield _row("ten years older: rate of I48", old / young, 1.6, 3.2, "ratio", source, OWN)


def excesses(count: int) -> Iterator[dict[str, object]]:
    """Ratio of the rates of death at 65 with and without each condition or risk, and how heart failure ends."""
    world = ProgressionOracle(cohort="community")

    def dying(state: ProgressionState) -> float:
        return float(world.truth(state)["death_per_year"].mean())

    for what, present, before, traits, low, high, whose, source in EXCESS:
        # the risk that is asked for apart, nobody has it in the comparison
        without = _with(count, (), age=65.0)
        state = _with(count, present, before, 65.0)
        for name in traits:
            i = body.TRAITS.index(name)
            without.traits[:, i], state.traits[:, i] = False, True
        yield _row(f"{what}: rate of death at 65", dying(state) / dying(without), low, high, "ratio", source, whose)
    old = _patients(count, 76.0)
    state = tree.take(old, old.present[:, CODES.index("I50")].nonzero()[:, 0])
    died = float(months(state, state.drugs, torch.full_like(state.month, 60)).dead.float().mean())
    source = "0.53 five years after the onset: Gerber 2015 doi 10.1001/jamainternmed.2015.0924 (k)"
    yield _row("I50 at 76, as they live: died within five years", died, 0.35, 0.60, "1", source, OWN)


def prevalence(count: int) -> Iterator[dict[str, object]]:
    """Share of the patients of each cohort who have a condition at entry, per cent."""
    for cohort in ("clinic", "hospital", "community"):
        share = ProgressionOracle(cohort=cohort).initial(keys.from_seed(1, count)).present.float().mean(0) * 100.0
        for code, found in zip(CODES, share.tolist(), strict=True):
            low, high = PREVALENCE_PERCENT.get(code, (0.0, 100.0)) if cohort == "clinic" else (0.0, 100.0)
            known = cohort == "clinic" and code in PREVALENCE_PERCENT
            source, whose = ("registries (k)", OWN) if known else (NO_RANGE, "")
            yield _row(f"{cohort}: {code} {CONDITIONS[code]} at entry", found, low, high, "%", source, whose)


def onsets(count: int) -> Iterator[dict[str, object]]:
    """First onsets a year at 65, per 1,000."""
    state = _patients(count, 65.0)
    for code in CODES:
        low, high = ONSETS_PER_1000.get(code, (0.0, 1000.0))
        never = state._replace(dead=state.dead | state.ever[:, CODES.index(code)])
        found = 1000.0 * _rate(never, code, state.drugs)
        source, whose = ("general population (k)", OWN) if code in ONSETS_PER_1000 else (NO_RANGE, "")
        yield _row(f"first {code} at 65, under usual drugs", found, low, high, "per 1,000 a year", source, whose)


def deaths(count: int) -> Iterator[dict[str, object]]:
    """Deaths within a year of a birthday by age and sex, per 1,000, beside the life table."""
    table = {age: both for age, both in (LIFE_TABLE | BETWEEN).items() if OLD_YEARS <= age <= 90}
    for age, both in sorted(table.items()):
        for sex, expected in enumerate(both):
            # rarer deaths need more people: 100 are expected in the fewest
            people = max(count, round(count * 30.0 / expected))
            state = _patients(people, float(age), float(sex), seed=7)
            after = months(state, state.drugs, torch.full_like(state.month, 12))
            found = 1000.0 * float(after.dead.float().mean())
            low, high = expected * (1.0 - NEAR_TABLE), expected * (1.0 + NEAR_TABLE)
            source = f"US Social Security Administration, period life table 2017: {expected:g}, within a fifth"
            who = "women" if sex else "men"
            yield _row(f"deaths, {who} of {age}", found, low, high, "per 1,000 within a year", source, OWN)


def record(count: int) -> Iterator[dict[str, object]]:
    """Shares of changed pairs and ECGs a patient in the records of two cohorts."""
    paper = {"stable_share": 0.729, "changed_1_share": 0.326, "changed_2_share": 0.228, "changed_3_share": 0.181}
    paper |= {"changed_more_share": 0.265, "ecgs_per_patient_mean": 4.96, "ecgs_per_patient_median": 2.0}
    paper |= {"single_ecg_patients_share": 0.355}
    for cohort in ("clinic", "hospital"):
        visits = make_visits(1, count, cohort)
        pairs = paper_pairs(visits, 1)
        many = paper_pairs(visits, 1, round(statistics(visits)["pairs"] * 0.5))
        for what, found in (
            ("all pairs", statistics(visits)),
            (f"paper_pairs, {len(pairs)}", statistics(visits, pairs)),
            (f"paper_pairs with count={len(many)}", statistics(visits, many)),
        ):
            for name, value in found.items():
                near = paper.get(name)
                low, high = (near * 0.9, near * 1.1) if near else (0.0, float("inf"))
                source, whose = (f"cardiac-jepa, appendix A: {near}, within a tenth", OWN) if near else (NO_RANGE, "")
                yield _row(f"{cohort}, {count} patients, {what}: {name}", value, low, high, "1", source, whose)


def speed() -> Iterator[dict[str, object]]:
    """Patient-months a second, the best of five."""
    world = ProgressionOracle()
    for batch in (1, 64, 4096):
        state = world.initial(keys.from_seed(1, batch))
        action = torch.zeros(batch, len(TREATMENTS) + 1)
        action[:, -1] = 12.0
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            world.transition(state, action)
            best = min(best, time.perf_counter() - start)
        yield _row(f"patient-months a second, batch {batch}", batch * 12 / best, 0.0, float("inf"), "1/s", "one thread")


def main(argv: list[str] | None = None) -> int:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT, help="CSV to write")
    parser.add_argument("--quick", action="store_true", help="a tenth of the patients: figures are then noise")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    part = 0.1 if options.quick else 1.0
    rows: list[dict[str, object]] = []
    for probe, count in (
        (prevalence, 6000),
        (onsets, 12000),
        (deaths, 4000),
        (excesses, 6000),
        (treatments, 6000),
        (risks, 8000),
        (record, 3000),
    ):
        rows += probe(round(count * part))
    rows += speed()
    for row in rows:
        mark = " " if row["within"] else "!"
        print(f"{mark} {row['probe']:<75} {row['simulated']:>10.3g}  {row['low']:g}..{row['high']:g} {row['unit']}")
    made = made_by("benchmarks.progression.probes", argv, {"patients": 1, "patients of the life table": 7})
    write_csv(options.out, rows, made)
    for whose in (PUBLISHED, OWN):
        ranged = [r for r in rows if r["range"] == whose]
        print(f"{sum(bool(r['within']) for r in ranged)} of {len(ranged)} within a range that is {whose}")
    print(f"wrote {options.out.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
