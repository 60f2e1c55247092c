"""Does the ward answer orders as patients do? `python -m benchmarks.ward.probes [--out FILE] [--quick]`.

Every probe gives an order to simulated patients and the same patients, with the same random keys, nothing (or something
else), and puts the mean difference beside a range. Then clots, ventilators, who goes home, deaths by SOFA; then the
course: odds of death by the delay of antibiotics, mortality and stay by disease under `clinician` and with nothing
done. Then the balances of water, sodium, potassium and haemoglobin over 14 days of random orders, and patient-hours a
second on one core.

Each row says whose its range is: "published" if its ends are the source's, else "our own range". (k) marks what is
common clinical knowledge and was not looked up.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ward.probe_cases import OWN, PUBLISHED, Row, change, effect, patients, run
from benchmarks.ward.probe_courses import balances, courses, cultures, delay, speed
from benchmarks.ward.probe_organs import emboli, homecoming, severity, thrombosis, ventilators
from world_models import tree
from world_models.oracles.ward.world import WardState

__all__ = ["main"]

RESULT = RESULTS / "ward_probes.csv"
# of the first patient of each table
SEEDS = {
    "orders": 11, "courses": 1, "balances": 2, "delay": 3, "speed": 4, "cultures": 5, "severity": 6, "thrombosis": 7,
    "ventilators": 8, "homecoming": 9, "unexamined": 10,
}  # fmt: skip


def potassium(count: int) -> Iterator[Row]:
    """What potassium chloride does to the level."""
    world, state = patients("gi_bleed", count, severity=0.05, chronic_kidney_disease=0.0, chronic_heart_failure=0.0)
    low = state.salts.cell_potassium - 250.0  # a deficit that brings the level to about 3.2
    state = run(world, state._replace(salts=state.salts._replace(cell_potassium=low)), [{}] * 3)[-1]
    kcl = {"potassium_chloride_mmol": 20.0}
    name = "true_potassium_mmol_l"
    single, _ = effect(world, state, [kcl, {}, {}], [{}] * 3, name)
    yield Row(
        "KCl 20 mmol in 1 h: K at its end", single[0], 0.4, 0.6, "mmol/L", "Hamill 1994 PMID 7876399: 0.48, peak 0.6"
    )
    yield Row(
        "KCl 20 mmol in 1 h: K an hour later", single[1], 0.2, 0.4, "mmol/L", "Hamill 1994 PMID 7876399: 3.2 from 2.9"
    )
    series, _ = effect(world, state, [kcl] * 3 + [{}], [{}] * 4, name)
    per = series[3] / 3.0
    yield Row(
        "KCl 3 x 20 mmol: K for each, 1 h later",
        per,
        0.2,
        0.3,
        "mmol/L",
        "Kruse 1990 PMID 2310280: 0.25 (after 0-12 h)",
    )


def red_cells(count: int) -> Iterator[Row]:
    """What a unit of red cells does to haemoglobin."""
    world, state = patients("gi_bleed", count, severity=0.6, weight_kg=72.0)
    state = state._replace(blood=state.blood._replace(lesion=torch.zeros_like(state.blood.lesion)))
    found, _ = effect(world, state, [{"red_cells_units": 1.0}] + [{}] * 11, [{}] * 12, "true_haemoglobin_g_dl")
    yield Row("one unit of red cells: Hgb after 12 h", found[-1], 0.8, 1.2, "g/dL", "1 g/dL a unit (k)")


def pressors(count: int) -> Iterator[Row]:
    """What norepinephrine and vasopressin do to the pressure in septic shock, and how fast it goes."""
    world, state = patients("sepsis", count, severity=0.55)
    shock = state.signals.map < 65.0
    rows = shock.nonzero()[:, 0]
    state = tree.take(state, rows)
    ne = "norepinephrine_ug_kg_min"
    found, treated = effect(world, state, [{ne: 0.1}], [{}], "signals_map")
    yield Row(
        "norepinephrine 0.1 ug/kg/min in septic shock: MAP",
        found[0],
        10.0,
        20.0,
        "mmHg",
        "Oualha 2014, Beloeil 2005",
        PUBLISHED,
    )
    mild, _ = effect(world, _damage(state, 0.0), [{ne: 1.0}], [{}], "signals_map")
    severe, _ = effect(world, _damage(state, 2.0), [{ne: 0.3}], [{}], "signals_map")
    least, _ = effect(world, _damage(state, 0.0), [{ne: 0.3}], [{}], "signals_map")
    yield Row("norepinephrine 1 ug/kg/min, few failing organs: MAP", mild[0], 25.0, 40.0, "mmHg", "Oualha 2014 Emax 32")
    share = severe[0] / least[0]
    yield Row("norepinephrine 0.3: many against few failing organs", share, 0.25, 0.6, "1", "Oualha 2014: 12 / 32")
    for organs, damage in (("few", 0.0), ("many", 2.0)):
        on = run(world, _damage(state, damage), [{ne: 0.5}])[-1]
        on = _damage(on, damage)
        off = run(world, on, [{}])[-1]
        # exponential washout over the hour, from the effect site
        ratio = (off.circulation.norepinephrine / on.circulation.norepinephrine).double().log()
        half = float((-60.0 * 0.6931472 / ratio).mean())
        low, high = (2.0, 4.0) if organs == "few" else (4.0, 6.8)
        yield Row(
            f"norepinephrine half-life, {organs} failing organs", half, low, high, "min", "Beloeil 2005: 2 to 6.8"
        )
    found, _ = effect(world, state, [{"vasopressin_units_min": 0.03}] * 2, [{}] * 2, "signals_map")
    yield Row("vasopressin 0.03 U/min in septic shock: MAP", found[-1], 5.0, 12.0, "mmHg", "5 to 12 (k)")


def _damage(state: WardState, level: float) -> WardState:
    damage = torch.full_like(state.infection.damage, level) / state.person.systemic
    return state._replace(infection=state.infection._replace(damage=damage))


def fluid(count: int) -> Iterator[Row]:
    """How much of a litre of saline stays in the plasma."""
    world, state = patients("gi_bleed", count, severity=0.0, weight_kg=75.0, chronic_heart_failure=0.0)
    state = state._replace(blood=state.blood._replace(lesion=torch.zeros_like(state.blood.lesion)))
    state = run(world, state, [{}] * 6)[-1]
    saline = [{"saline_ml": 1000.0}, {}, {}]
    found, _ = effect(world, state, saline, [{}] * 3, "fluids_plasma_l")
    yield Row(
        "saline 1 L in 1 h: share in the plasma at its end",
        found[0],
        0.5,
        0.6,
        "1",
        "Hahn 2020: 0.5-0.6 while it runs",
        PUBLISHED,
    )
    yield Row(
        "saline 1 L: share in the plasma an hour later",
        found[1],
        0.15,
        0.2,
        "1",
        "Hahn 2020: 0.15-0.20 after 0.5 h",
        PUBLISHED,
    )
    found, _ = effect(world, state, saline, [{}] * 3, "true_haemoglobin_g_dl")
    yield Row("saline 1 L in 1 h: Hgb at its end", found[0], -1.5, -0.7, "g/dL", "-1 (Hahn 2010, by plasma dilution)")


def ketoacidosis(count: int) -> Iterator[Row]:
    """What insulin does to glucose, potassium and ketones."""
    world, state = patients("diabetic_ketoacidosis", count, severity=0.5)
    treatment = {"insulin_units_h": 7.0, "saline_ml": 500.0}
    states = run(world, state, [treatment] * 4)
    drop = float(change(world, state, states[-1], "true_glucose_mg_dl").mean()) / 4.0
    yield Row("insulin 7 U/h in ketoacidosis: glucose an hour", drop, -75.0, -50.0, "mg/dL/h", "-50 to -75 (k)")
    fall = float(change(world, state, states[-1], "true_potassium_mmol_l").mean())
    yield Row("insulin 7 U/h in ketoacidosis: K in 4 h", fall, -1.3, -0.7, "mmol/L", "about -1 (k)")
    fall = float(change(world, state, states[-1], "metabolism_ketones").mean()) / 4.0
    yield Row("insulin 7 U/h in ketoacidosis: ketones an hour", fall, -1.5, -0.5, "mmol/L/h", "at least -0.5 (k)")


def kidney(count: int) -> Iterator[Row]:
    """What furosemide does, and how creatinine rises when the kidneys fail."""
    world, state = patients("gi_bleed", count, severity=0.0, chronic_kidney_disease=0.0, chronic_heart_failure=0.0)
    state = tree.take(state, (state.signals.gfr > 80.0).nonzero()[:, 0])
    states = run(world, state, [{"furosemide_mg": 40.0}] + [{}] * 7)
    first, second = states[0], states[1]
    rate = (first.kidney.furosemide / second.kidney.furosemide).double().log()
    clearance = float((rate * 0.15 / 0.06 / state.person.drug_clearance).mean())
    yield Row(
        "furosemide clearance, healthy kidneys",
        clearance,
        3.7,
        5.5,
        "mL/min/kg",
        "4.6, within a fifth, at a volume of 0.15 L/kg (k)",
    )
    found, _ = effect(world, state, [{"furosemide_mg": 40.0}] + [{}] * 5, [{}] * 6, "fluids_urine_l")
    yield Row("furosemide 40 mg: urine in 6 h", found[-1], 1.0, 1.5, "L", "1 to 1.5 (k)")
    tubules = torch.full_like(state.kidney.tubular_injury, 0.95)
    hurt = state._replace(kidney=state.kidney._replace(tubular_injury=tubules))
    later = run(world, hurt, [{}] * 6)[-1]
    water = hurt.fluids.plasma_l + hurt.fluids.interstitial_l + hurt.fluids.cell_l
    cleared = 0.5 * (hurt.person.gfr_ml_min * 0.05 + later.signals.gfr) * 0.06
    mean = 0.5 * (hurt.kidney.creatinine + later.kidney.creatinine)
    expected = 6.0 * (hurt.person.creatinine_mg_h / (10.0 * water) - (cleared + 0.04) * mean / water)
    ratio = float(((later.kidney.creatinine - hurt.kidney.creatinine) / expected).mean())
    yield Row("creatinine rise in 6 h against V dCr/dt = G - CL Cr", ratio, 0.95, 1.05, "1", "Chen 2013 JASN 24:877")


def drugs(count: int) -> Iterator[Row]:
    """What single doses of other drugs do."""
    world, state = patients("pneumonia", count, severity=0.2)
    on = run(world, state, [{"heparin_units_kg_h": 18.0}] * 12)[-1]
    yield Row("heparin 18 U/kg/h: PTT", float(world.truth(on)["true_ptt_s"].mean()), 60.0, 80.0, "s", "60 to 80 (k)")
    found, _ = effect(world, state, [{"acetaminophen_mg": 1000.0}, {}, {}], [{}] * 3, "metabolism_temperature")
    yield Row("acetaminophen 1 g in fever: temperature after 3 h", found[-1], -1.0, -0.5, "Cel", "-0.5 to -1 (k)")
    found, _ = effect(world, state, [{"metoprolol_mg": 5.0}], [{}], "circulation_heart_rate")
    yield Row("metoprolol 5 mg: heart rate after 1 h", found[0], -20.0, -10.0, "bpm", "-10 to -20 (k)")
    found, _ = effect(world, state, [{"oxygen_fraction": 0.4}], [{}], "true_spo2_percent")
    yield Row("oxygen 0.4 in pneumonia: SpO2", found[0], 1.0, 8.0, "%", "1 to 8 by severity (k)")
    found, _ = effect(world, state, [{"bicarbonate_mmol": 100.0}] + [{}] * 3, [{}] * 4, "true_bicarbonate_mmol_l")
    yield Row(
        "bicarbonate 100 mmol: bicarbonate after 4 h",
        found[-1],
        2.5,
        4.0,
        "mmol/L",
        "half the weight as volume: 2.8 (k)",
    )
    found, _ = effect(world, state, [{"magnesium_sulfate_g": 2.0}] + [{}] * 3, [{}] * 4, "true_magnesium_mg_dl")
    yield Row("magnesium sulfate 2 g: Mg after 4 h", found[-1], 0.3, 0.6, "mg/dL", "0.3 to 0.6 (k)")
    found, _ = effect(world, state, [{"platelets_units": 1.0}], [{}], "true_platelets_k_ul")
    yield Row("apheresis platelets: count after 1 h", found[0], 30.0, 60.0, "10*3/uL", "30 to 60 (k)")
    found, _ = effect(world, state, [{"dextrose_g": 25.0}], [{}], "true_glucose_mg_dl")
    yield Row("dextrose 25 g: glucose after 1 h", found[0], 60.0, 140.0, "mg/dL", "9 mmol/L if none were taken up (k)")
    world, state = patients("acute_kidney_injury", count, severity=0.7)
    rrt = {"renal_replacement_ml_kg_h": 25.0}
    later = run(world, state, [rrt] * 24)[-1]
    share = float((later.kidney.urea / state.kidney.urea - 1.0).mean())
    yield Row("renal replacement 25 mL/kg/h: urea in 24 h", share, -0.65, -0.5, "1", "-50 to -65 % (k)")


PROBES: tuple[tuple[Callable[[int], Iterator[Row]], int, int], ...] = (  # probe, patients, patients with --quick
    (potassium, 256, 32),
    (red_cells, 256, 32),
    (pressors, 512, 128),
    (fluid, 256, 32),
    (ketoacidosis, 256, 32),
    (kidney, 256, 48),
    (drugs, 256, 32),
    (thrombosis, 1200, 48),
    (emboli, 128, 32),
    (ventilators, 256, 32),
    (homecoming, 1500, 48),
    (severity, 1500, 200),
    (cultures, 512, 64),
    (balances, 256, 16),
    (speed, 8192, 64),
    (delay, 2000, 50),
    (courses, 500, 24),
)


def main(argv: list[str] | None = None) -> int:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT, help="CSV to write; default %(default)s")
    parser.add_argument("--quick", action="store_true", help="few patients: to see that it runs, not to conclude")
    parser.add_argument("--only", nargs="*", help="names of probes: " + ", ".join(p.__name__ for p, _, _ in PROBES))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows: list[Row] = []
    for probe, count, few in PROBES:
        if args.only and probe.__name__ not in args.only:
            continue
        for row in probe(few if args.quick else count):
            rows.append(row)
            print(
                f"{row.probe:62s}{row.measured:12.4g} {row.unit:10s}[{row.low:g}, {row.high:g}] "
                f"{row.inside:4s}{row.kind}: {row.source}"
            )
    if not args.quick and not args.only:
        made = made_by("benchmarks.ward.probes", argv, SEEDS)
        write_csv(args.out, [asdict(row) | {"inside": row.inside} for row in rows], made)
    for kind in (PUBLISHED, OWN):
        of_kind = [row for row in rows if row.kind == kind]
        print(f"{kind}: {sum(row.inside == 'yes' for row in of_kind)} of {len(of_kind)} inside")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
