"""Probes of the drug oracle's kinetics: peaks, half-lives, kidneys, liver, interaction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.ecg_drug.probe_courses import Course, Regimen, mean, play, quotient, row

__all__ = ["kinetics"]

NG_PER_UG = 1000.0


def _half_life_h(course: Course, drug: str, start_h: float, end_h: float) -> Tensor:
    """Half-life [B] between two hours after a single dose."""
    first, last = course.at(start_h), course.at(end_h)
    level = course.of(drug)
    return math.log(2.0) * (end_h - start_h) / (level[first] / level[last]).log()


def _area(course: Course, drug: str, start_h: float = 0.0, end_h: float = math.inf) -> Tensor:
    """Area under the plasma curve [B] between two hours, ng/mL h, by trapezoids."""
    inside = (course.hours >= start_h) & (course.hours <= end_h)
    return torch.trapezoid(course.of(drug)[inside], course.hours[inside], dim=0)


def _single(drug: str, mg: float) -> tuple[Regimen, ...]:
    return (Regimen(drug, mg, doses=1),)


def single_doses(patients: int) -> Iterator[dict[str, Any]]:
    """Volunteers, one dose, by half-hours."""
    dofetilide = play("healthy", _single("dofetilide", 0.5), 48, patients, 0.5)
    level = dofetilide.of("dofetilide")
    yield row("kinetics", "dofetilide 500 ug, volunteers: Cmax", mean(level.amax(0)), 1.8, 3.2, "ng/mL",
              "trial SCR-002: 2.7; label: 1 to 3.5 at steady state")  # fmt: skip
    peak_h = dofetilide.hours[level.argmax(0)]
    yield row("kinetics", "dofetilide: time of Cmax", mean(peak_h), 1.8, 3.2, "h", "Tikosyn label: 2 to 3 h")
    half = mean(_half_life_h(dofetilide, "dofetilide", 12, 36))
    yield row("kinetics", "dofetilide: half-life", half, 7.0, 12.0, "h", "Tikosyn label: about 10 h")
    quinidine = play("healthy", _single("quinidine", 400), 36, patients, 0.5)
    yield row("kinetics", "quinidine sulfate 400 mg: Cmax", mean(quinidine.of("quinidine").amax(0) / NG_PER_UG), 1.2,
              2.6, "ug/mL", "trial SCR-002: 1.8; label: 2 to 6 ug/mL is therapeutic")  # fmt: skip
    half = mean(_half_life_h(quinidine, "quinidine", 10, 30))
    yield row("kinetics", "quinidine: half-life", half, 5.5, 8.5, "h", "quinidine label: 6 to 8 h in adults")
    ranolazine = play("healthy", _single("ranolazine", 1500), 36, patients, 0.5)
    half = mean(_half_life_h(ranolazine, "ranolazine", 10, 30))
    yield row("kinetics", "ranolazine: apparent half-life", half, 5.5, 9.0, "h", "Ranexa label: 7 h")
    verapamil = play("healthy", _single("verapamil", 120), 36, patients, 0.5)
    half = mean(_half_life_h(verapamil, "verapamil", 6, 24))
    yield row(
        "kinetics", "verapamil: half-life", half, 2.8, 12.0, "h", "Calan label: 2.8 to 7.4 h single, to 12 repeated"
    )


def kidneys_and_liver(patients: int) -> Iterator[dict[str, Any]]:
    """Exposure to one dose by creatinine clearance, sex, age and CYP3A4."""
    for clearance, low, high in ((50.0, 1.3, 2.2), (30.0, 1.6, 3.6)):
        exposed = [
            _area(play("typical", _single("dofetilide", 0.5), 96, patients, 1.0, {"creatinine_clearance_ml_min": c}),
                  "dofetilide")
            for c in (clearance, 110.0)
        ]  # fmt: skip
        said = "Tikosyn label: a half of the dose at 40 to 60, a quarter at 20 to 40 mL/min"
        yield row("kidneys", f"dofetilide: exposure at {clearance:g} against 110 mL/min", quotient(*exposed), low, high,
                  "1", said)  # fmt: skip
    alike = {"creatinine_clearance_ml_min": 110.0, "weight_kg": 75.0}
    women, men = (
        _area(
            play("typical", _single("dofetilide", 0.5), 72, patients, 1.0, {**alike, "sex_female": sex}), "dofetilide"
        )
        for sex in (1.0, 0.0)
    )
    yield row("kidneys", "dofetilide: women's exposure against men's, same weight and kidneys", quotient(women, men),
              1.12, 1.24, "1", "Tikosyn label: 14 to 22 % higher levels")  # fmt: skip
    old, young = (
        _area(play("typical", _single("quinidine", 400), 72, patients, 1.0, {"age_years": age}), "quinidine")
        for age in (65.0, 25.0)
    )
    yield row("liver", "quinidine: clearance at 65 against 25 years", quotient(young, old), 0.55, 0.85, "1",
              "Ochs 1978 (k): a third lower at 60 to 69")  # fmt: skip
    poor, typical = (
        _area(play(cohort, _single("ranolazine", 1000), 96, patients, 1.0), "ranolazine")
        for cohort in ("poor-metaboliser", "typical")
    )
    yield row("liver", "ranolazine: exposure of poor metabolisers against typical", quotient(poor, typical), 1.8, 3.5,
              "1", "Ranexa label: 1.8 to 2.3 with diltiazem, 3.2 with ketoconazole")  # fmt: skip


def interaction(patients: int) -> Iterator[dict[str, Any]]:
    """Dofetilide 500 ug after two days of verapamil 80 mg every 8 h, and without."""
    late = Regimen("dofetilide", 0.5, start_h=48, doses=1)
    alone, both = (
        play("healthy", regimens, 72, patients, 0.5) for regimens in ((late,), (Regimen("verapamil", 80, 8), late))
    )
    peaks = (both.of("dofetilide").amax(0), alone.of("dofetilide").amax(0))
    yield row("interaction", "verapamil: dofetilide's peak with it against without", quotient(*peaks), 1.3, 1.55, "1",
              "Tikosyn label: +42 %")  # fmt: skip
    early = [_area(c, "dofetilide", 48, 56) for c in (both, alone)]
    yield row("interaction", "verapamil: dofetilide's exposure over 8 h", quotient(*early), 1.15, 1.35, "1",
              "Johnson 2001 (k): +26 %")  # fmt: skip
    whole = [_area(c, "dofetilide", 48) for c in (both, alone)]
    yield row("interaction", "verapamil: dofetilide's exposure over 24 h", quotient(*whole), 0.95, 1.25, "1",
              "Tikosyn label: not significantly increased overall")  # fmt: skip


def kinetics(patients: int) -> Iterator[dict[str, Any]]:
    """All rows of this file."""
    yield from single_doses(patients)
    yield from kidneys_and_liver(patients)
    yield from interaction(patients)
