"""Ten years in a cardiology clinic on the page: `ECGProgression-v0`."""

from __future__ import annotations

from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.play.game import Fact, Game, Row
from world_models.oracles.progression.entry import COHORTS
from world_models.protocol import Chart
from world_models.quantities.progression import (
    CODES,
    CONDITIONS,
    PROCEDURES,
    SAMPLING_RATE_HZ,
    TREATMENTS,
)

__all__ = ["CLINIC", "ORDER_NAMES"]

_NAMES = {"icd": "ICD", "crt": "CRT", "ace_inhibitor": "ACE inhibitor", "sglt2_inhibitor": "SGLT2 inhibitor"}
_READ, _TAKEN = "What the probe reads off the ECG", "Treatment so far"
_INTERVAL = "months_to_next_visit"


def _name(treatment: str) -> str:
    words = _NAMES.get(treatment, treatment.replace("_", " "))
    return words[:1].upper() + words[1:]


def _rows() -> tuple[Row, ...]:
    read = (Row(f"probe_{code}", f"{code} {CONDITIONS[code]}", "%", _READ, 0, None, 50.0, 20.0) for code in CODES)
    taken = (Row(f"treated_{name}", f"{_name(name)} (1: yes)", "", _TAKEN, 0) for name in TREATMENTS)
    bleed = Row("bleeding", "Major bleed since the last visit (1: yes)", "", "Patient", 0)
    return (Row("age_years", "Age", "years", "Patient", 1), bleed, *read, *taken)


def _read(chart: Chart) -> dict[str, float | None]:
    values: dict[str, float | None] = {name: float(chart[name][0]) for name in ("age_years", "bleeding")}
    probe, treated = chart["probe"][0].tolist(), chart["treated"][0].tolist()
    values |= {f"probe_{code}": 100.0 * x for code, x in zip(CODES, probe, strict=True)}
    return values | {f"treated_{name}": x for name, x in zip(TREATMENTS, treated, strict=True)}


def _facts(chart: Chart) -> list[Fact]:
    return [
        Fact("Age", f"{float(chart['age_years'][0]):.0f} years"),
        Fact("Sex", "female" if float(chart["sex_female"][0]) > 0.5 else "male"),
        Fact("Diagnoses", "hidden until the end; the probe reads the ECG"),
    ]


def _truth(chart: Chart) -> list[Fact]:
    has = [
        f"{code} {CONDITIONS[code]}" for code, x in zip(CODES, chart["condition"][0].tolist(), strict=True) if x > 0.5
    ]
    end = "died" if float(chart["dead"][0]) > 0.5 else "alive"
    return [Fact("End", end), Fact("Conditions at the end", "; ".join(has) or "none")]


ORDER_NAMES = {
    name: (_name(name), "Done at this visit" if name in PROCEDURES else "Taken until the next visit")
    for name in TREATMENTS
}
ORDER_NAMES[_INTERVAL] = ("Next visit in", "Next visit")
_COHORTS = {"clinic": COHORTS["clinic"].meaning} | {name: cohort.meaning for name, cohort in COHORTS.items()}

CLINIC = Game(
    id="ECGProgression-v0",
    title="Ten years in a cardiology clinic",
    goal="Ten years: life, little disease, little treatment, few visits, no bleeding.",
    task=ECGProgressionTask,
    cohorts=_COHORTS,
    rows=_rows(),
    trend=(),
    read=_read,
    facts=_facts,
    clock="years",
    reward_unit="QALYs",
    ecg_rate_hz=SAMPLING_RATE_HZ,
    truth=_truth,
)
