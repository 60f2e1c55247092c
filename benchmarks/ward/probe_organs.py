"""Clots, ventilators, discharge and severity on the ward: rows of `benchmarks.ward.probes`, which runs them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.ward.probe_cases import PUBLISHED, Row, action, kept_in, patients, run
from benchmarks.ward.sofa import auroc, sofa
from world_models import keys, tree
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.discharge import fit_for_home
from world_models.oracles.ward.state import Clots
from world_models.oracles.ward.world import WardOracle, WardState
from world_models.quantities.ward import DISEASES, order_index

__all__ = ["emboli", "homecoming", "severity", "thrombosis", "ventilators"]

HEPARIN = order_index("heparin_units_kg_h")
VENTILATION, OXYGEN = order_index("ventilation_l_min"), order_index("oxygen_fraction")
MEDENOX = "MEDENOX (Samama 1999, doi 10.1056/NEJM199909093411103)"
FERREIRA = "Ferreira 2001, doi 10.1001/jama.286.14.1754"


def thrombosis(count: int) -> Iterator[Row]:
    """Clots and bleeding within 14 days in hospital at three rates of heparin, the rest as the clinician orders."""
    rates = (0.0, 6.0, 18.0)
    world = WardOracle("ward")
    kinds = torch.tensor([float(DISEASES.index(d)) for d in ("sepsis", "pneumonia", "heart_failure")])
    disease = kinds.repeat(count // 3 + 1)[:count].repeat(len(rates))
    state = world.initial(keys.from_seed(7, count).repeat(len(rates)), {"disease": disease})
    rate = torch.tensor(rates).repeat_interleave(count)
    clotted, bled = torch.zeros(2, len(rate))
    for _ in range(84):
        orders = clinician(world.observe(state))
        orders[:, HEPARIN] = rate
        state = kept_in(world.transition(state, orders))
        clotted = torch.maximum(clotted, (state.clots.vein > 0.0).float())
        bled = torch.maximum(bled, (state.blood.lesion > 0.0).float())
    none, low, full = clotted.reshape(len(rates), count).mean(-1).tolist()
    bleeds = bled.reshape(len(rates), count).mean(-1).tolist()
    yield Row(
        "thrombosis within 14 days in hospital, no heparin", none, 0.112, 0.195, "1",
        f"{MEDENOX}: 43 of 288 by venography, 95 % interval", PUBLISHED,
    )  # fmt: skip
    yield Row(
        "heparin 6 U/kg/h: relative risk of thrombosis", low / none, 0.22, 0.63, "1",
        f"{MEDENOX}: 0.37, 97.6 % interval", PUBLISHED,
    )  # fmt: skip
    yield Row("heparin 18 U/kg/h: relative risk of thrombosis", full / none, 0.05, 0.4, "1", "below a low dose's (k)")
    yield Row("a bleeding begins within 14 days, no heparin", bleeds[0], 0.001, 0.015, "1", "below 1 % (k)")
    yield Row("a bleeding begins within 14 days, heparin 18 U/kg/h", bleeds[2], 0.015, 0.06, "1", "2 to 4 % (k)")


def emboli(count: int) -> Iterator[Row]:
    """What emboli in half of the lung's arteries do within four hours."""
    world, state = patients("diabetic_ketoacidosis", count, 4.0, severity=0.1, age_years=60.0)
    struck = state._replace(clots=Clots(state.clots.vein, torch.full_like(state.clots.lung, 0.5)))
    before, after = (world.truth(run(world, s, [{}])[-1]) for s in (state, struck))

    def moved(name: str) -> float:
        return float((after[name] - before[name]).double().mean())

    source = "by half the bed obstructed (k)"
    yield Row("embolism of half the bed: oxygen tension", moved("true_po2_mmhg"), -40.0, -10.0, "mmHg", source)
    yield Row("embolism of half the bed: heart rate", moved("circulation_heart_rate"), 4.0, 35.0, "bpm", source)
    flow = float((after["signals_flow"] / before["signals_flow"]).mean()) - 1.0
    yield Row("embolism of half the bed: cardiac output", flow, -0.35, -0.05, "1", source)


def ventilators(count: int) -> Iterator[Row]:
    """Pressures, what PEEP gives and costs, and what pressure, volume and oxygen do to a lung."""
    world, state = patients("pneumonia", count, 4.0, severity=0.6)
    eight = {"ventilation_l_min": 8.0}
    clear = state._replace(lungs=state.lungs._replace(consolidation=torch.zeros_like(state.lungs.water)))
    healthy = run(world, clear._replace(person=clear.person._replace(lung_site=torch.zeros_like(clear.t).float())),
                  [eight | {"oxygen_fraction": 0.3}])[-1]  # fmt: skip
    stiff = run(world, state, [eight | {"oxygen_fraction": 0.6}])[-1]
    yield Row("driving pressure at 8 L/min, clear lungs", float(healthy.signals.driving.mean()), 5.0, 10.0, "cmH2O",
              "7 mL/kg over 50 to 100 mL/cmH2O (k)")  # fmt: skip
    yield Row("driving pressure at 8 L/min, pneumonia", float(stiff.signals.driving.mean()), 9.0, 17.0, "cmH2O",
              "10 to 16 (k)")  # fmt: skip
    low, high = (run(world, clear, [eight | {"oxygen_fraction": x}])[-1] for x in (0.3, 0.85))
    yield Row("PEEP of 15 against 5 cmH2O: cardiac output", float((high.signals.flow / low.signals.flow).mean()) - 1.0,
              -0.22, -0.05, "1", "a tenth to a fifth less (k)")  # fmt: skip
    free = run(world, state, [{"oxygen_fraction": 0.7}])[-1]
    held = run(world, state, [eight | {"oxygen_fraction": 0.7}])[-1]
    gain = float((held.signals.saturation - free.signals.saturation).mean()) * 100.0
    yield Row("ventilator at inspired oxygen 0.7 in pneumonia: saturation", gain, 0.5, 8.0, "%", "rises (k)")
    gentle, rough = _rough_against_gentle(count)
    yield Row("severe pneumonia, ventilated a week: deaths at 6 against 10 mL/kg", gentle / rough, 0.6, 0.97, "1",
              "ARDS Network 2000, doi 10.1056/NEJM200005043421801: 0.78 at 6 against 12 mL/kg")  # fmt: skip
    oxygen = run(world, clear, [{"oxygen_fraction": 1.0}] * 12)[-1]
    yield Row("injury by pure oxygen, two days", float(oxygen.lungs.injury.mean()), 0.05, 0.3, "1", "it leaks (k)")


def _rough_against_gentle(count: int) -> tuple[float, float]:
    """Deaths within 14 days of the same severe pneumonia, the first week at 6 or at 10 mL/kg."""
    world = WardOracle("pneumonia")
    some = 3 * count
    given = {"severity": torch.full((2 * some,), 0.85)}
    state = world.initial(keys.from_seed(8, some).repeat(2), given)
    tidal = torch.tensor([6.0, 10.0]).repeat_interleave(some) * state.person.predicted_kg * 0.001
    volume = (10.0 * tidal / (1.0 - tidal)).clamp(4.0, 20.0)  # the rate rises with it: see body.ventilation
    for step in range(84):
        orders = clinician(world.observe(state))
        if step < 42:
            orders[:, VENTILATION] = volume
            orders[:, OXYGEN] = orders[:, OXYGEN].clamp_min(0.4)
        state = world.transition(state, orders)
    dead = (state.course.alive < 0.5).reshape(2, some).float().mean(-1).tolist()
    return dead[0], dead[1]


def homecoming(count: int) -> Iterator[Row]:
    """Who is sent home, under the clinician: chart and body of those who went."""
    world = WardOracle("ward")
    state = world.initial(keys.from_seed(9, count))
    forbidden = went = 0.0
    for _ in range(84):
        before = state.course.discharged
        state = world.transition(state, clinician(world.observe(state)))
        leaves = state.course.discharged > before
        went += float(leaves.sum())
        forbidden += float((leaves & ~fit_for_home(world.observe(state))).sum())
    home = tree.take(state, (state.course.discharged > 0.5).nonzero()[:, 0])
    yield Row("gone home on a chart that forbids it", forbidden / went, 0.0, 0.0, "1", "none, by construction")
    infected = float((home.infection.pathogen > 0.1).float().mean())
    yield Row("gone home with an infection that no chart shows", infected, 0.0, 0.10, "1", "few")
    left = world.initial(keys.from_seed(10, count), {"severity": torch.zeros(count)})
    for _ in range(30):
        left = world.transition(left, action(count, {}))
    yield Row("gone home without a look within five days", float(left.course.discharged.mean()), 0.0, 0.0, "1",
              "none, by construction")  # fmt: skip


def severity(count: int) -> Iterator[Row]:
    """Deaths by SOFA score under the clinician: of people with sepsis at admission, and in intensive care."""
    world = WardOracle("sepsis")
    state = world.initial(keys.from_seed(6, count))
    first = sofa(world, state)
    day = first
    for _ in range(6):
        state = world.transition(state, clinician(world.observe(state)))
        day = torch.maximum(day, sofa(world, state))
    died = _course(world, state, 78).course.alive < 0.5
    abdullah, kovach = "Abdullah 2021, doi 10.2147/IDR.S304952", "Kovach 2019, doi 10.1371/journal.pone.0222563"
    yield Row("sepsis, SOFA 2 or more on arrival: died", float(died[first >= 2].float().mean()), 0.112, 0.163, "1",
              f"{abdullah}: 13.6 %, 95 % interval", PUBLISHED)  # fmt: skip
    of_dead = float((first[died] >= 2).float().mean())
    yield Row("sepsis, of who died: SOFA 2 or more on arrival", of_dead, 0.533, 0.90, "1",
              f"above {abdullah}'s 61.4 % (from 53.3)")  # fmt: skip
    yield Row("sepsis: AUROC of a day's worst SOFA for death", auroc(day, died), 0.87, 0.93, "1",
              f"{kovach}: 0.90 by the worst at inclusion")  # fmt: skip
    world = WardOracle("icu")
    state = world.initial(keys.from_seed(6, count))
    highest = sofa(world, state)
    for _ in range(84):
        state = world.transition(state, clinician(world.observe(state)))
        highest = torch.maximum(highest, sofa(world, state))
    died = state.course.alive < 0.5
    yield Row("severe half: died within 14 days", float(died.float().mean()), 0.08, 0.20, "1",
              "Pölkki 2022, PMC9322581: 10.7 % of 63,756 in intensive care")  # fmt: skip
    yield Row("severe half: AUROC of the stay's highest SOFA for death", auroc(highest, died), 0.86, 0.94, "1",
              f"{FERREIRA}: 0.90, SE 0.02", PUBLISHED)  # fmt: skip
    for least, most, low, high, said, kind in (
        (0, 5, 0.0, 0.10, "few (k)", ""),
        (6, 11, 0.05, 0.40, "a fifth to a third (k)", ""),
        (12, 24, 0.80, 1.0, f"{FERREIRA}: more than 80 %, in 1999", PUBLISHED),
    ):
        among = (highest >= least) & (highest <= most)
        share = float(died[among].float().mean())
        rest = (kind,) if kind else ()
        yield Row(f"severe half, highest SOFA {least} to {most}: died", share, low, high, "1", said, *rest)


def _course(world: WardOracle, state: WardState, steps: int) -> WardState:
    """So many steps under the clinician."""
    for _ in range(steps):
        state = world.transition(state, clinician(world.observe(state)))
    return state
