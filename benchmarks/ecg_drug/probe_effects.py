"""Probes of what drugs do to QTc, to the risk of torsades, to the node and the pressure, and to the arrhythmia."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.intervals import Interval, wilson
from benchmarks.ecg_drug.calibrate_rhythm import REGIMENS, simulate
from benchmarks.ecg_drug.probe_courses import Course, Regimen, mean, play, quotient, row, slope
from world_models.oracles.ecg_drug.rhythm import torsades_hazard, torsades_risk

__all__ = ["burden", "harms", "repolarisation", "torsades"]

PERCENT = 100.0
LONG_RUN_H = 120.0  # five days, as long as tolerance was studied
BID = Regimen("dofetilide", 0.5)


@lru_cache(maxsize=32)
def _played(cohort: str, regimens: tuple[Regimen, ...], hours: float, patients: int, potassium: float = 0.0) -> Course:
    fixed = {"potassium_mmol_l": potassium} if potassium else None
    return play(cohort, regimens, hours, patients, 2.0, fixed)


def _change(cohort: str, regimens: tuple[Regimen, ...], hours: float, patients: int, potassium: float = 0.0) -> Tensor:
    """What the drug makes of QTcF, [T + 1, B] ms: with it less without, the same patients and luck."""
    with_it, without = (_played(cohort, r, hours, patients, potassium) for r in (regimens, ()))
    return with_it.chart["qtcf_ms"] - without.chart["qtcf_ms"]


def repolarisation(patients: int) -> Iterator[dict[str, Any]]:
    """QTc under single and repeated doses."""
    once = (Regimen("dofetilide", 0.5, doses=1),)
    with_it, without = (play("healthy", r, 24, patients, 0.5).chart["qtcf_ms"] for r in (once, ()))
    peak = mean((with_it - without).amax(0))
    yield row("QTc", "dofetilide 500 ug once, volunteers: highest change", peak, 65, 100, "ms",
              "trial SCR-002: mean +75 to +80 at Cmax; the highest of each is above")  # fmt: skip
    first, days = _change("typical", once, 24, patients), _change("typical", (BID,), LONG_RUN_H, patients)
    level_first = _played("typical", once, 24, patients).of("dofetilide")
    level_days = _played("typical", (BID,), LONG_RUN_H, patients).of("dofetilide")
    last = slice(len(days) - 7, None)  # the last dosing interval
    early, late = slope(first[1:7], level_first[1:7]), slope(days[last], level_days[last])
    said = "Tikosyn label: 15 to 25 after the first dose (volunteers); Allen 2000: 13 to 14"
    yield row("QTc", "dofetilide, typical: slope after the first dose", early, 13, 25, "ms per ng/mL", said)
    said = "Tikosyn label: 10 to 15 on day 23; Allen 2000: 10 to 13 on day 5"
    yield row("QTc", "dofetilide 500 ug bid, typical: slope on day 5", late, 10, 15, "ms per ng/mL", said)
    left = Interval(*(x / early.value for x in late))
    yield row("QTc", "dofetilide: slope on day 5 against the first dose", left, 0.6, 0.92, "1",
              "label: 0.63 on day 23; Allen 2000: 0.75 to 0.95 on day 5")  # fmt: skip
    yield row("QTc", "dofetilide 500 ug bid, typical: mean change over day 5", mean(days[-13:].mean(0)), 10, 40, "ms",
              "placebo-controlled trials at steady state: roughly 10 to 25 with doses by the kidneys (k)")  # fmt: skip
    yield row("kinetics", "dofetilide 500 ug bid, typical: mean level over day 5", mean(level_days[-13:].mean(0)), 1.0,
              3.5, "ng/mL", "Tikosyn label: 1 to 3.5 with doses by the kidneys")  # fmt: skip
    quinidine = _change("typical", (Regimen("quinidine", 400, 6),), 72, patients)
    yield row("QTc", "quinidine 400 mg every 6 h, typical: mean change over day 3", mean(quinidine[-13:].mean(0)), 30,
              90, "ms", "QTc 10 to 25 % longer at 2 to 5 ug/mL (k)")  # fmt: skip
    ranolazine = _change("typical", (Regimen("ranolazine", 1000),), 72, patients)
    yield row("QTc", "ranolazine 1000 mg bid: mean change over day 3", mean(ranolazine[-13:].mean(0)), 2, 15, "ms",
              "Ranexa label: 6 ms, 15 ms in the upper 5 %")  # fmt: skip
    low, normal = (_change("typical", once, 24, patients, k)[1:7].mean(0) for k in (3.2, 4.2))
    yield row("QTc", "dofetilide: effect at a potassium of 3.2 against 4.2 mmol/L", quotient(low, normal), 1.1, 1.5,
              "1", "Yang & Roden 1996: more in vitro; Choy 1997 (k): a third taken back by 0.7 mmol/L")  # fmt: skip
    verapamil, none = (_played("healthy", r, 24, patients) for r in ((Regimen("verapamil", 120, doses=1),), ()))
    # an ECG that happens to show fibrillation has no PR
    longer = torch.nan_to_num(verapamil.chart["pr_ms"] - none.chart["pr_ms"], nan=-torch.inf).amax(0)
    yield row("PR", "verapamil 120 mg once, volunteers: highest change", mean(longer), 20, 45, "ms",
              "trial SCR-002: about +30 ms")  # fmt: skip


def _share(hits: float, of: int) -> Interval:
    """An expected share of people with its Wilson interval."""
    low, high = wilson(hits, of)
    return Interval(hits / of, low, high)


def torsades(patients: int) -> Iterator[dict[str, Any]]:
    """Torsades in the first three days of published regimens, and the law's parts."""
    published = {
        ("typical", None, 0.0, False): (0.0, 0.1, "placebo arms: none (DIAMOND: 0 of 756)"),
        ("typical", "dofetilide", 0.5, True): (0.3, 1.9, "label 0.8 % (k); 1.2 % of 1404 loadings; 1.0 % of 308"),
        ("typical", "quinidine", 400.0, True): (0.2, 2.5, "Potpara: 0.9 % of 342 loadings"),
        ("typical", "quinidine", 200.0, True): (0.0, 0.73, "Schwaab 2009: 0 of 501, upper 95 % bound"),
        ("heart-failure", "dofetilide", 0.5, True): (2.2, 4.8, "DIAMOND: 25 of 762"),
        ("typical", "ranolazine", 750.0, False): (0.0, 0.2, "none reported (RAFFAELLO)"),
        ("typical", "verapamil", 80.0, False): (0.0, 0.1, "none reported"),
    }
    for regimen in REGIMENS:
        place = (regimen.cohort, regimen.drug, regimen.dose_mg, regimen.label)
        if place not in published:
            continue
        low, high, source = published[place]
        found = simulate(regimen, patients, 72.0)
        started = round(found["started_share"] * patients)
        dose = f"{regimen.drug} {regimen.dose_mg:g} mg every {regimen.every_h:g} h" if regimen.drug else "no drug"
        name = f"{regimen.cohort}, {dose}"
        share = _share(found["torsades_share"] * started, started)
        yield row("torsades", f"{name}: torsades in 72 h", share, low, high, "%", source, PERCENT)
        if place == ("typical", "dofetilide", 0.5, True):
            over, stopped = (_share(found[n] * started, started) for n in ("over_500_share", "stopped_share"))
            yield row("QTc", f"{name}, label's rule: QTcF over 500 ms at any visit", over, 2, 15, "%",
                      "7.8 % of 308 loadings were given up for QTc", PERCENT)  # fmt: skip
            yield row("QTc", f"{name}, label's rule: stopped for QTc", stopped, 2, 12, "%",
                      "7.8 % of 308 loadings were given up for QTc", PERCENT)  # fmt: skip
            sexes = [_share(found[f"torsades_{n}_share"] * started, started) for n in ("women", "men")]
            ratio = sexes[0].value / sexes[1].value
            yield row("torsades", f"{name}: women against men", Interval(ratio, ratio, ratio), 1.5, 5.0, "1",
                      "two thirds of 332 cases were women's (Makkar 1993); QTc differs too")  # fmt: skip
    yield from _law()


def _law() -> Iterator[dict[str, Any]]:
    """Ratios of the hazard at given QTcF: exact, no patients are sampled."""

    def hazard(qtcf: float, sex: float = 0.0, potassium: float = 4.2) -> float:
        at, rate, base = torch.tensor([qtcf]), torch.tensor([70.0]), torch.tensor([400.0])
        risk = torsades_risk(torch.tensor([sex]), torch.tensor([potassium]), torch.tensor([0.85]), 1.0)
        return float(torsades_hazard(at, rate, base, risk))

    for name, ratio, low, high, source in (
        ("women against men at the same QTcF", hazard(480, 1.0) / hazard(480), 2.0, 3.0, "two- to threefold (k)"),
        ("10 ms of QTcF, at 550 ms", hazard(555) / hazard(545), 1.05, 1.07, "long-QT registry: 5 to 7 % (Drew 2010)"),
        ("QTcF 520 against 480 ms", hazard(520) / hazard(480), 2.0, 3.5, "two- to threefold over 500 ms (Drew 2010)"),
        ("potassium 3.2 against 4.2 mmol/L", hazard(480, 0.0, 3.2) / hazard(480), 1.5, 4.0, "Tisdale: 2 points (k)"),
    ):
        yield row("torsades", f"hazard ratio: {name}", Interval(ratio, ratio, ratio), low, high, "1", source)


def harms(patients: int) -> Iterator[dict[str, Any]]:
    """Block, rate and pressure in three days of verapamil, typical cohort, against none in the same patients."""
    none = _played("typical", (), 72, patients)
    some, more = (_played("typical", (Regimen("verapamil", mg, 8),), 72, patients) for mg in (80.0, 120.0))

    def ever(course: Course, measure: str, below: float | None = None) -> Tensor:
        values = course.chart[measure][1:]
        return (values > 0.5 if below is None else values < below).any(0)

    def newly(course: Course, measure: str, below: float | None = None, of: Tensor | None = None) -> Interval:
        hit = ever(course, measure, below) & ~ever(none, measure, below)
        hit = hit if of is None else hit[of]
        return _share(float(hit.sum()), len(hit))

    alone = _share(float(ever(none, "av_block").sum()), patients)
    yield row("harm", "no drug: second- or third-degree block in 72 h", alone, 0.0, 0.1, "%", "rare (k)", PERCENT)
    label = "Calan label, 4,954 patients on usual doses"
    for mg, course in ((80, some), (120, more)):
        name = f"verapamil {mg} mg every 8 h, typical, by the drug: "
        found = newly(course, "av_block")
        yield row("harm", name + "second- or third-degree block", found, 0.3, 1.8, "%", f"{label}: 0.8 %", PERCENT)
        found = newly(course, "systolic_bp_mmhg", 90.0)
        yield row("harm", name + "systolic pressure < 90 mmHg", found, 1.0, 5.0, "%", f"{label}: 2.5 %", PERCENT)
        fast = none.chart["heart_rate_bpm"][0] >= 55.0
        found = newly(course, "heart_rate_bpm", 50.0, fast)
        yield row("harm", name + "rate < 50 bpm", found, 0.5, 3.0, "%", f"{label}: 1.4 %", PERCENT)
    once, before = (_played("typical", r, 24, patients) for r in ((Regimen("verapamil", 120, doses=1),), ()))
    fall = (once.chart["systolic_bp_mmhg"] - before.chart["systolic_bp_mmhg"]).amin(0)
    yield row("harm", "verapamil 120 mg once, typical: largest fall of systolic pressure", mean(fall), -16, -5, "mmHg",
              "about 10 mmHg (k)")  # fmt: skip
    failing = [_played("heart-failure", r, 72, patients) for r in ((Regimen("verapamil", 80, 8),), ())]
    hits = [ever(course, "av_block").double() for course in (failing[0], some)]
    yield row("harm", "verapamil 80 mg every 8 h: block in heart failure against typical", quotient(*hits), 1.2, 10.0,
              "1", "longer PR, slower clearance: labels warn (k)")  # fmt: skip


def burden(patients: int) -> Iterator[dict[str, Any]]:
    """The arrhythmia before and under drugs: mean shift of the logit over the last 12 h of three days."""
    admitted = _played("paroxysmal", (), 24, patients).chart["arrhythmia_burden"][0]
    yield row("arrhythmia", "paroxysmal: burden at admission", mean(admitted), 15, 20, "%", "HARMONY: 17.4 %", PERCENT)
    for drug, mg, every, low, high, source in (
        ("dofetilide", 0.5, 12.0, 1.5, 2.7, "DIAMOND: conversion and maintenance give 2.1"),
        ("quinidine", 400.0, 6.0, 1.3, 2.6, "Coplen 1990 and Hohnloser 1995 give 2.0"),
        ("ranolazine", 750.0, 12.0, 0.2, 0.8, "RAFFAELLO gives 0.5"),
        ("verapamil", 80.0, 8.0, 0.0, 0.4, "0.15 (assumption)"),
    ):
        with_it, without = (
            _played("typical", regimens, 72, patients).chart["arrhythmia_burden"][-6:].clamp(1e-4, 1 - 1e-4).logit()
            for regimens in ((Regimen(drug, mg, every),), ())
        )
        yield row("arrhythmia", f"typical, {drug} {mg:g} mg every {every:g} h: shift of the burden's logit on day 3",
                  mean((without - with_it).mean(0)), low, high, "1", source)  # fmt: skip
