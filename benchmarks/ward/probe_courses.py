"""Whole stays on the ward: cultures, the delay of antibiotics, mortality and stay by disease, balances, speed.

Rows of `benchmarks.ward.probes`, which runs them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks.ward.probe_cases import PUBLISHED, Row, run
from world_models import keys
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import DISEASES, ORDERS, order_index
from world_models.testing import random_orders

__all__ = ["balances", "courses", "cultures", "delay", "speed"]

ANTIBIOTICS = ("piperacillin_tazobactam_g", "vancomycin_mg", "ceftriaxone_g", "meropenem_g")


def cultures(count: int) -> Iterator[Row]:
    """Share of blood cultures that grow: before treatment, after a day of the right and of the wrong antibiotic."""
    world = WardOracle("sepsis", hours_per_step=4.0)
    state = world.initial(
        keys.from_seed(5, count), {"organism": torch.full((count,), 2.0), "severity": torch.full((count,), 0.4)}
    )
    for name, orders, low, high in (
        ("before any drug", {}, 0.3, 0.9),
        ("after 24 h of vancomycin", {"vancomycin_mg": 625.0}, 0.0, 0.08),
        ("after 24 h of ceftriaxone", {"ceftriaxone_g": 0.5}, 0.3, 1.0),
    ):
        now = run(world, state, [orders] * 6)[-1] if orders else state
        later = run(world, now, [{"inquire_blood_culture": 1.0}] + [{}] * 13)[-1]
        chart = world.observe(later)
        grew = float((chart["blood_culture"] > 0).float().mean())
        yield Row(
            f"MRSA sepsis: blood cultures that grow, {name}", grew, low, high, "1", "positive, negative on cover (k)"
        )


def delay(count: int) -> Iterator[Row]:
    """Odds ratio of death for each hour that effective antibiotics come later, the same patients at each delay."""
    delays = (0.0, 2.0, 4.0, 6.0)
    world = WardOracle("sepsis", hours_per_step=2.0)
    state = world.initial(keys.from_seed(3, count).repeat(len(delays)))
    wait = torch.tensor(delays).repeat_interleave(count)
    columns = [order_index(n) for n in ANTIBIOTICS]
    meropenem, vancomycin = order_index("meropenem_g"), order_index("vancomycin_mg")
    for step in range(120):
        orders = clinician(world.observe(state), 2.0)
        orders[:, columns] = 0.0
        since = step * 2.0 - wait
        orders[:, meropenem] = ((since >= 0) & (since % 8.0 == 0)).float()
        orders[:, vancomycin] = ((since >= 0) & (since % 12.0 == 0)).float() * 15.0 * state.person.weight_kg
        state = world.transition(state, orders)
    dead = (1.0 - state.course.alive).reshape(len(delays), count).mean(-1).double()
    logit = (dead / (1.0 - dead)).log()
    hours = torch.tensor(delays, dtype=torch.float64)
    slope = ((hours - hours.mean()) * (logit - logit.mean())).sum() / ((hours - hours.mean()) ** 2).sum()
    said = ", ".join(f"{100 * float(d):.1f} % at {h:g} h" for d, h in zip(dead, delays, strict=True))
    source = f"Liu 2017 1.09 (1.05-1.13); Kumar 2006 1.12. Died: {said}"
    yield Row("antibiotic delay: odds of death, each hour", float(slope.exp()), 1.05, 1.13, "1", source, PUBLISHED)


# disease -> (treated low, high, untreated low, high, source)
_MORTALITY = {
    "sepsis": (0.08, 0.17, 0.5, 0.95, "NIS 2009-12 14-16 % (doi 10.1016/j.jcrc.2017.01.014 (k)), Liu 2017 9 %"),
    "pneumonia": (0.04, 0.12, 0.25, 0.6, "5-10 % in hospital; 30 % before antibiotics (k)"),
    "diabetic_ketoacidosis": (0.0, 0.03, 0.8, 1.0, "below 1-2 %; fatal before insulin (k)"),
    "heart_failure": (0.03, 0.09, 0.10, 0.5, "ADHERE 4 % (k)"),
    "gi_bleed": (0.015, 0.10, 0.15, 0.5, "2-10 % (k)"),
    "acute_kidney_injury": (0.03, 0.15, 0.08, 0.5, "5-20 % (k)"),
}


def courses(count: int) -> Iterator[Row]:
    """14 days under the clinician of `clinician`, and 7 days with nothing done, by disease."""
    world = WardOracle("ward")
    kinds = torch.arange(len(DISEASES)).repeat_interleave(count).float()
    start = world.initial(keys.from_seed(1, count).repeat(len(DISEASES)), {"disease": kinds})
    left = start
    for _ in range(42):
        left = world.transition(left, torch.zeros(len(kinds), len(ORDERS)))
    state, stay = start, torch.zeros(len(kinds))
    for _ in range(84):
        stay += ((state.course.alive > 0.5) & (state.course.discharged < 0.5)).float() * 4.0 / 24.0
        state = world.transition(state, clinician(world.observe(state)))
    for index, disease in enumerate(DISEASES):
        rows = slice(index * count, (index + 1) * count)
        low, high, low_left, high_left, source = _MORTALITY[disease]
        dead, home = 1.0 - state.course.alive[rows], state.course.discharged[rows]
        yield Row(f"{disease}: died within 14 days, treated", float(dead.mean()), low, high, "1", source)
        untreated = float(1.0 - left.course.alive[rows].mean())
        yield Row(f"{disease}: died within 7 days, untreated", untreated, low_left, high_left, "1", source)
        yield Row(f"{disease}: gone home within 14 days, treated", float(home.mean()), 0.75, 1.0, "1", "(k)")
        median = float(stay[rows][home > 0.5].median())
        yield Row(f"{disease}: median days in hospital, of those gone home", median, 1.7, 9.0, "d", "2 to 7 (k)")


def balances(count: int) -> Iterator[Row]:
    """Largest relative error of each balance over 14 days of random orders at a tenth of the largest doses."""
    world = WardOracle("ward")
    state = world.initial(keys.from_seed(2, count))
    names = ("water_balance_l", "sodium_balance_mmol", "potassium_balance_mmol", "haemoglobin_balance_g")
    before = world.truth(state)
    for step in range(84):
        state = world.transition(state, random_orders(world, state.key, step, share=0.1))
    after = world.truth(state)
    for name in names:
        error = float(((after[name] - before[name]) / before[name]).abs().max())
        yield Row(f"balance of {name.split('_')[0]} over 14 days, relative", error, 0.0, 1e-6, "1", "conservation")


def speed(count: int) -> Iterator[Row]:
    """Patient-hours a second of processor time, one thread, clinician and chart not included."""
    world = WardOracle("ward")
    state = world.initial(keys.from_seed(4, count))
    orders = random_orders(world, state.key, 0, share=0.1)
    world.transition(state, orders)
    rates = []
    for _ in range(5):
        begun = time.process_time()
        world.transition(state, orders)
        rates.append(count * world.hours_per_step / (time.process_time() - begun))
    name = f"patient-hours a second on one core, batch {count}"
    yield Row(name, statistics.median(rates), 50_000.0, float("inf"), "1/s", "target")
