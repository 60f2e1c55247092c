"""Do the oracle's patients fall ill and die as patients do? `python -m benchmarks.progression.probes [--quick]`.

Prevalence at the first visit, first onsets a year, deaths a year by age and sex, ratios of treatments and risk factors
recovered by simulation, the record's pairs, and patient-months a second on one thread, each beside a published range.
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
from world_models import keys
from world_models.oracles.progression import state as body
from world_models.oracles.progression.visits import make_visits, paper_pairs, statistics
from world_models.oracles.progression.world import ProgressionOracle, ProgressionState
from world_models.quantities.progression import CODES, CONDITIONS, DRUGS, PROCEDURES, TREATMENTS

__all__ = ["main"]

RESULT = RESULTS / "progression_probes.csv"

PREVALENCE_PERCENT = {  # cardiology outpatients, mean age 64: registries in round figures (k)
    "I10": (45, 65), "I25": (18, 35), "I48": (10, 20), "I50": (8, 20), "I20": (3, 12), "I34": (5, 15), "I35": (3, 10),
    "I44": (3, 10), "I45": (3, 9), "I49": (5, 12), "I70": (5, 15), "I73": (4, 12), "I42": (2, 6),
}  # fmt: skip
ONSETS_PER_1000 = {  # first ones, general population of 65 (k)
    "I10": (25, 60), "I21": (2.5, 8), "I25": (4, 14), "I26": (0.6, 2), "I30": (0.2, 0.6), "I48": (5, 12),
    "I50": (4, 12), "I63": (2.5, 7), "I73": (3, 10), "I82": (1, 3), "I35": (2, 6), "I44": (2, 7), "I45": (2, 6),
    "I47": (1, 5),
}  # fmt: skip
LIFE_TABLE = {  # deaths per 1,000 a year, men and women, United States 2019 (k)
    50: (4.9, 3.0), 60: (11.5, 6.9), 70: (22.9, 15.2), 80: (56.7, 41.8), 90: (162.0, 129.0),
}  # fmt: skip
# treatment, outcome, conditions they have, had before, ratio's range, source
TREATED = (
    ("anticoagulant", "I63", ("I48",), (), 0.26, 0.51, "Hart 2007 PMID 17577005: 0.36"),
    ("anticoagulant", "bleed", ("I48",), (), 1.5, 2.6, "ARISTOTLE against no drug (k): about 2"),
    ("anticoagulant", "I82", (), ("I82",), 0.09, 0.39, "EINSTEIN-Extension PMID 21128814 (k): 0.18"),
    ("antiarrhythmic", "I48", (), ("I48",), 0.35, 0.70, "Cochrane PMID 25820938 (k): odds 0.19 to 0.70"),
    ("antiarrhythmic", "death", ("I25",), (), 1.1, 2.5, "CAST PMID 1900101 (k): class I 2.5; amiodarone about 1"),
    ("ablation", "I48", (), ("I48",), 0.35, 0.60, "CABANA PMID 30874766: 0.52 (k) against drugs"),
    ("beta_blocker", "death", ("I50",), (), 0.53, 0.81, "MERIT-HF PMID 10376614 (k): 0.66"),
    ("beta_blocker", "I21", ("I25",), (), 0.55, 0.95, "CAPRICORN doi 10.1016/S0140-6736(00)04560-8: 0.59"),
    ("beta_blocker", "I44", ("I10",), (), 1.1, 2.0, "clinical knowledge (k)"),
    ("ace_inhibitor", "death", ("I50",), (), 0.74, 0.95, "SOLVD treatment PMID 2057034 (k): 0.84"),
    ("ace_inhibitor", "I50", ("I25",), (), 0.56, 0.87, "SOLVD prevention 0.63, HOPE 0.77 (k)"),
    ("ace_inhibitor", "I63", ("I10",), (), 0.56, 0.84, "HOPE PMID 10639539 (k): 0.68"),
    ("ace_inhibitor", "I95", ("I10",), (), 1.2, 2.2, "SPRINT PMID 26551272 (k): 1.7"),
    ("diuretic", "I50", ("I10",), (), 0.42, 0.66, "Psaty 2003 doi 10.1001/jama.289.19.2534: 0.51"),
    ("revascularisation", "I21", ("I25",), (), 0.67, 1.0, "ISCHEMIA (k): 0.67 spontaneous; COURAGE (k): 1.1 all"),
    ("pacemaker", "death", ("I44",), (), 0.6, 0.95, "clinical knowledge (k)"),
)
# condition present, outcome, ratio's range, source
RISKS = (
    ("I48", "I63", 3.5, 6.5, "Wolf 1991 PMID 1866765 (k): 5"),
    ("I10", "I48", 1.2, 2.0, "Benjamin 1994 PMID 8114238: 1.4 to 1.5"),
    ("I50", "I48", 3.0, 6.0, "Benjamin 1994 PMID 8114238: 4.5 to 5.9"),
    ("I10", "I50", 1.6, 3.4, "Levy 1996 PMID 8622246 (k): 2.0 to 3.3"),
    ("I48", "I50", 1.8, 4.0, "Wang 2003 PMID 12771006 (k)"),
    ("I25", "I21", 2.0, 5.0, "clinical knowledge (k)"),
    ("I48", "death", 1.3, 2.2, "Benjamin 1998 PMID 9737513 (k): 1.5 to 1.9"),
    ("I50", "death", 1.8, 4.0, "clinical knowledge (k)"),
)


def _row(probe: str, found: float, low: float, high: float, unit: str, source: str) -> dict[str, object]:
    return {
        "probe": probe,
        "simulated": found,
        "low": low,
        "high": high,
        "within": low <= found <= high,
        "unit": unit,
        "source": source,
    }


def _patients(count: int, age: float, sex: float | None = None, seed: int = 1, **has: Tensor) -> ProgressionState:
    world = ProgressionOracle(cohort="community")
    given = {"age_years": torch.full((count,), age), **has}
    if sex is not None:
        given["sex_female"] = torch.full((count,), sex)
    return world.initial(keys.from_seed(seed, count), given)


def _with(count: int, present: tuple[str, ...], before: tuple[str, ...] = (), age: float = 70.0) -> ProgressionState:
    """Untreated people of that age with these conditions only, and with these in their history."""
    yes = torch.tensor([float(c in present) for c in CODES]).expand(count, -1)
    state = _patients(count, age, condition=yes)
    ever = state.present | torch.tensor([c in before for c in CODES])
    return state._replace(ever=ever, procedures=torch.zeros_like(state.procedures), drugs=torch.zeros_like(state.drugs))


def _rate(state: ProgressionState, outcome: str, drugs: Tensor | None = None, months: int = 24) -> float:
    """First events of that kind a year at risk."""
    drugs = torch.zeros_like(state.drugs) if drugs is None else drugs
    count = torch.full_like(state.month, months)
    if outcome == "death":
        after = body.months(state, drugs, count)
        events = after.dead.sum()
    elif outcome == "bleed":  # at most one a patient: few enough that time after it hardly counts
        after = body.months(state, drugs, count)
        events = after.bleeding.sum()
    else:
        state = state._replace(present=state.present, dead=state.dead | state.present[:, CODES.index(outcome)])
        stop = torch.tensor([c == outcome for c in CODES])
        after = body.months(state, drugs, count, stop)
        events = (after.present & ~state.present)[:, CODES.index(outcome)].sum()
    return 12.0 * float(events) / max(float((after.month - state.month).sum()), 1.0)


def treatments(count: int) -> Iterator[dict[str, object]]:
    """Ratio of an outcome's rates with and without each treatment."""
    for name, outcome, present, before, low, high, source in TREATED:
        state = _with(count, present, before)
        drugs = torch.tensor([d == name for d in DRUGS]).expand(count, -1)
        done = state._replace(procedures=torch.tensor([p == name for p in PROCEDURES]).expand(count, -1))
        months = 48 if outcome in ("I63", "I21", "I50", "I44") else 24
        ratio = _rate(done, outcome, drugs, months) / _rate(state, outcome, months=months)
        whom = " and ".join((*present, *(f"a history of {c}" for c in before)))
        yield _row(f"{name} in {whom}: rate of {outcome}", ratio, low, high, "ratio", source)


def risks(count: int) -> Iterator[dict[str, object]]:
    """Ratio of an outcome's rates with and without each condition, and over ten years of age."""
    for present, outcome, low, high, source in RISKS:
        ratio = _rate(_with(count, (present,)), outcome, months=12) / _rate(_with(count, ()), outcome, months=36)
        yield _row(f"{present} present: rate of {outcome}", ratio, low, high, "ratio", source)
    old, young = (_rate(_patients(count, age), "I48") for age in (75.0, 65.0))
    yield _row("ten years older: rate of I48", old / young, 1.6, 3.2, "ratio", "Benjamin 1994 PMID 8114238: 2.1 to 2.2")


def prevalence(count: int) -> Iterator[dict[str, object]]:
    """Share of the patients of each cohort who have a condition at entry, per cent."""
    for cohort in ("clinic", "hospital", "community"):
        share = ProgressionOracle(cohort=cohort).initial(keys.from_seed(1, count)).present.float().mean(0) * 100.0
        for code, found in zip(CODES, share.tolist(), strict=True):
            low, high = PREVALENCE_PERCENT.get(code, (0.0, 100.0)) if cohort == "clinic" else (0.0, 100.0)
            source = "registries (k)" if cohort == "clinic" and code in PREVALENCE_PERCENT else "no range"
            yield _row(f"{cohort}: {code} {CONDITIONS[code]} at entry", found, low, high, "%", source)


def onsets(count: int) -> Iterator[dict[str, object]]:
    """First onsets a year at 65, per 1,000."""
    state = _patients(count, 65.0)
    for code in CODES:
        low, high = ONSETS_PER_1000.get(code, (0.0, 1000.0))
        never = state._replace(dead=state.dead | state.ever[:, CODES.index(code)])
        found = 1000.0 * _rate(never, code, state.drugs)
        source = "general population (k)" if code in ONSETS_PER_1000 else "no range"
        yield _row(f"first {code} at 65, under usual drugs", found, low, high, "per 1,000 a year", source)


def deaths(count: int) -> Iterator[dict[str, object]]:
    """Deaths a year by age and sex, per 1,000, beside a life table."""
    for age, both in LIFE_TABLE.items():
        for sex, expected in enumerate(both):
            state = _patients(count, float(age), float(sex), seed=7)
            found = 1000.0 * _rate(state, "death", state.drugs, 12)
            who = "women" if sex else "men"
            source = f"life table, United States 2019 (k): {expected:g}; 0.6 to 1.6 of it"
            yield _row(f"deaths, {who} of {age}", found, expected * 0.6, expected * 1.6, "per 1,000 a year", source)


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
                source = f"cardiac-jepa, appendix A: {near}" if near else "no range"
                yield _row(f"{cohort}, {count} patients, {what}: {name}", value, low, high, "1", source)


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
        (onsets, 4000),
        (deaths, 3000),
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
    ranged = [r for r in rows if r["high"] != float("inf") and r["source"] != "no range"]
    print(f"{sum(bool(r['within']) for r in ranged)} of {len(ranged)} within their range; wrote {options.out.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
