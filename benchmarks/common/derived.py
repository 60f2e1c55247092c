"""Figures of the pages that stand in no file as such, each computed from files that are committed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from agents.registry import EVERY_ID
from benchmarks.common import agent_tables, id_tables, people_tables, speed_tables
from benchmarks.common.figures import Load, Row, figure, select
from benchmarks.ecg_drug.cohort_strata import HALF_SD

__all__ = ["DERIVED"]


def _row(load: Load, name: str, **where: str) -> Row:
    """The only row of a file of which this is true."""
    (found,) = select(load(name), [f"{column}={text}" for column, text in where.items()])
    return found


def _effects(load: Load) -> list[Row]:
    """The orders' primary targets, judged in the oracle ward; of a training record without confounding."""
    return [row for row in load("effects_ehr_world.csv") if row["primary"] == "1" and row["dial"] == "0"]


def _near_truth(load: Load) -> int:
    return sum(row["within_25_percent"] == "1" and row["same_sign"] == "1" for row in _effects(load))


def _lower_pehe_than(load: Load, rival: str) -> int:
    return sum(float(row["pehe"]) < float(row[rival]) for row in _effects(load))


def _expected_over_seen(load: Load, setting: str) -> float:
    found = _row(load, "fidelity_ehr_world_death.csv", setting=setting, model="ehr-ward-small")
    return float(found["mean_chance"]) / float(found["base_rate"])


def _codes_foretold(load: Load, share: float) -> list[str]:
    """ICD-10 codes whose onset the probe reads in more than this share of the foretold latents."""
    rows = load("cardiac_jepa_actions_onset.csv")
    return [r["code"] for r in rows if not r["code"].startswith("all") and float(r["onset_read"] or 0) > share]


def _trial_ages(load: Load) -> str:
    youngest, oldest = load("oracles/ecg_drug/fitted_scr002.json")[0]["provenance"]["age_years_range"]
    return f"{youngest:.0f} to {oldest:.0f}"


def _test_patients(load: Load) -> float:
    """Patients of one fold of twenty, to the hundred."""
    simulated = figure(load("weights/cardiac-jepa-small/CARD.md"), "ECGs of # others")
    return round(int(simulated) / 20, -2)


def _fair_patients(load: Load) -> float:
    """Of whom eighteen folds of twenty are all training patients; to the hundred."""
    row = next(r for r in load("cardiac_jepa_fair_costs.csv") if r["share"] == "0.1")
    return round(int(row["train_patients"]) / 0.1 * 20 / 18, -2)


def _one_record(load: Load) -> float:
    """The share of one record among the delineator's test records."""
    rows = [r for r in load("delineation_ludb.csv") if r["half"] == "even (test)"]
    return 1 / max(int(r["records"]) for r in rows)


def _probes_with_a_range(load: Load) -> list[Row]:
    return [r for r in load("progression_probes.csv") if r["source"] != "no range"]


def _cohort_medians(load: Load) -> list[Row]:
    """Medians of the cohorts that are over half an SD from the real ones."""
    return [r for r in load("cohorts_chapman.csv") if r["over_half_sd"] == "1"]


def _surely_apart(load: Load) -> int:
    return sum(
        float(r["difference_sd_low"]) > HALF_SD or float(r["difference_sd_high"]) < -HALF_SD
        for r in _cohort_medians(load)
    )


def _probes_inside(load: Load, kind: str) -> str:
    """How many rows of the ward's probes with a range of this kind lie in it."""
    rows = [row for row in load("ward_probes.csv") if row["kind"] == kind]
    return f"{sum(row['inside'] == 'yes' for row in rows)} of {len(rows)}"


def _checks(load: Load, begins: str) -> int:
    """How many checks at the doors came out like this."""
    return sum(row["result"].startswith(begins) for row in load("doors.csv"))


DERIVED: dict[str, Callable[[Load], float | str]] = {
    **people_tables.TABLES,
    **{f"leaderboard, {i}": partial(agent_tables.board, env_id=i) for i in EVERY_ID},
    "leaderboard, best of each": agent_tables.board_overview,
    "environments on the board": lambda load: len({row["id"] for row in load("leaderboard.csv")}),
    "environments with a sure lead": agent_tables.sure_leads,
    "foresight by depth": agent_tables.foresight,
    "who cuts the tail": agent_tables.tail_cut,
    "pessimism, arms": agent_tables.pessimism,
    "where the gap is halved": agent_tables.gap_halved,
    "estimators": agent_tables.estimators,
    "best estimator, dial 0": lambda load: agent_tables.best_estimator(load, "0"),
    "best estimator, dial 1": lambda load: agent_tables.best_estimator(load, "1"),
    "doors": agent_tables.doors,
    "checks at doors": lambda load: len(load("doors.csv")),
    "checks passed": lambda load: _checks(load, "passed"),
    "checks that do not apply": lambda load: _checks(load, "does not apply"),
    "probes inside, published": lambda load: _probes_inside(load, "published"),
    "probes inside, own": lambda load: _probes_inside(load, "our own range"),
    "orders": lambda load: len(_effects(load)),
    "orders near truth": lambda load: _near_truth(load),
    "orders better than no effect": lambda load: _lower_pehe_than(load, "pehe_no_effect"),
    "orders better than the mean effect": lambda load: _lower_pehe_than(load, "pehe_population_effect"),
    "median unit correlation": lambda load: statistics.median(float(r["unit_correlation"]) for r in _effects(load)),
    "deaths expected over seen, 4 h": lambda load: _expected_over_seen(load, "death_72h_from_4h"),
    "deaths expected over seen, 24 h": lambda load: _expected_over_seen(load, "death_72h_from_24h"),
    "codes foretold": lambda load: len(_codes_foretold(load, 0.9)),
    "codes foretold, names": lambda load: " ".join(_codes_foretold(load, 0.9)),
    "ids": id_tables.ids,
    "weights": id_tables.weights,
    "matrix peak": lambda load: load("speed.json")[0]["matrix_peak"]["cpu"] / 1e9,
    "codes": lambda load: sum(not r["code"].startswith("all") for r in load("cardiac_jepa_actions_onset.csv")),
    "speeds": speed_tables.rates,
    "time of a step": speed_tables.splits,
    "team trainings": agent_tables.team_trainings,
    "team plateau": agent_tables.team_plateau,
    "trial ages": _trial_ages,
    "test patients of the JEPA": _test_patients,
    "patients of the fair arms": _fair_patients,
    "one record": _one_record,
    "cohort medians compared": lambda load: len(load("cohorts_chapman.csv")),
    "cohort medians apart": lambda load: len(_cohort_medians(load)),
    "cohort medians surely apart": _surely_apart,
    "progression probes with a range": lambda load: len(_probes_with_a_range(load)),
    "progression probes inside": lambda load: sum(r["within"] == "True" for r in _probes_with_a_range(load)),
}
