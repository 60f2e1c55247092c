"""Directions and dose-response on the ward: the same patients with the same luck under more of one order."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from world_models import keys
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import ORDERS, order_index

COUNT = 24
FLUIDS = ("saline_ml", "ringers_lactate_ml")


def alive(state):
    one = torch.ones_like(state.course.alive)
    return state._replace(course=state.course._replace(alive=one, discharged=one * 0))


CASES = [
    ("sepsis", 0.6, "norepinephrine_ug_kg_min", [0.0, 0.05, 0.2, 0.8], "signals_map", True),
    ("sepsis", 0.6, "vasopressin_units_min", [0.0, 0.02, 0.04, 0.08], "signals_map", True),
    ("sepsis", 0.6, "saline_ml", [0.0, 250.0, 1000.0], "signals_filling", True),
    ("sepsis", 0.6, "acetaminophen_mg", [0.0, 500.0, 2000.0], "metabolism_temperature", False),
    ("sepsis", 0.6, "renal_replacement_ml_kg_h", [0.0, 20.0, 40.0], "kidney_urea", False),
    ("pneumonia", 0.6, "oxygen_fraction", [0.21, 0.4, 0.6, 1.0], "signals_saturation", True),
    ("pneumonia", 0.6, "heparin_units_kg_h", [0.0, 9.0, 18.0, 30.0], "true_ptt_s", True),
    ("pneumonia", 0.6, "hydrocortisone_mg", [0.0, 25.0, 100.0], "metabolism_glucose_mmol", True),
    ("heart-failure", 0.6, "furosemide_mg", [0.0, 20.0, 60.0, 200.0], "fluids_urine_l", True),
    ("heart-failure", 0.6, "furosemide_mg", [0.0, 20.0, 60.0, 200.0], "signals_wedge", False),
    ("heart-failure", 0.6, "metoprolol_mg", [0.0, 2.0, 8.0, 15.0], "circulation_heart_rate", False),
    ("diabetic-ketoacidosis", 0.6, "insulin_units_h", [0.0, 2.0, 5.0, 10.0], "true_glucose_mg_dl", False),
    ("diabetic-ketoacidosis", 0.6, "insulin_units_h", [0.0, 2.0, 5.0, 10.0], "true_potassium_mmol_l", False),
    ("diabetic-ketoacidosis", 0.6, "potassium_chloride_mmol", [0.0, 10.0, 40.0], "true_potassium_mmol_l", True),
    ("diabetic-ketoacidosis", 0.6, "saline_ml", [0.0, 500.0, 1500.0], "true_haemoglobin_g_dl", False),
    ("diabetic-ketoacidosis", 0.6, "bicarbonate_mmol", [0.0, 50.0, 150.0], "signals_ph", True),
    ("gi-bleed", 0.6, "red_cells_units", [0.0, 1.0, 3.0], "true_haemoglobin_g_dl", True),
    ("gi-bleed", 0.6, "plasma_units", [0.0, 1.0, 4.0], "true_inr", False),
    ("gi-bleed", 0.6, "platelets_units", [0.0, 1.0, 3.0], "true_platelets_k_ul", True),
    ("gi-bleed", 0.6, "pantoprazole_mg", [0.0, 40.0, 160.0], "signals_bleed_l_h", False),
    ("gi-bleed", 0.6, "endoscopy", [0.0, 1.0], "blood_lesion", False),
    ("gi-bleed", 0.6, "heparin_units_kg_h", [0.0, 18.0, 36.0], "signals_bleed_l_h", True),
    ("gi-bleed", 0.6, "water_ml", [0.0, 250.0, 1000.0], "true_sodium_mmol_l", False),
    ("acute-kidney-injury", 0.8, "renal_replacement_ml_kg_h", [0.0, 20.0, 40.0], "true_potassium_mmol_l", False),
    ("acute-kidney-injury", 0.8, "dextrose_g", [0.0, 10.0, 40.0], "true_glucose_mg_dl", True),
    ("acute-kidney-injury", 0.8, "magnesium_sulfate_g", [0.0, 1.0, 4.0], "true_magnesium_mg_dl", True),
    ("acute-kidney-injury", 0.8, "sodium_phosphate_mmol", [0.0, 5.0, 20.0], "true_phosphate_mg_dl", True),
    ("acute-kidney-injury", 0.8, "calcium_gluconate_g", [0.0, 1.0, 4.0], "true_calcium_mg_dl", True),
    ("heart-failure", 0.6, "ventilation_l_min", [4.0, 8.0, 14.0], "lungs_pco2", False),
]


@cache
def arms(disease: str, severity: float) -> dict[tuple[str, float], dict[str, float]]:
    """Mean hidden quantities after three hourly orders, for every (order, amount) of this disease in one batch."""
    wanted = {(order, a) for d, s, order, amounts, _, _ in CASES if (d, s) == (disease, severity) for a in amounts}
    wanted |= {(fluid, a) for fluid in FLUIDS for a in (0.0, 1000.0)}
    pairs = sorted(wanted)
    world = WardOracle(disease, hours_per_step=1)
    count = COUNT * len(pairs)
    state = world.initial(keys.from_seed(17, COUNT).repeat(len(pairs)), {"severity": torch.full((count,), severity)})
    action = torch.zeros(count, len(ORDERS))
    for arm, (order, amount) in enumerate(pairs):
        action[arm * COUNT : (arm + 1) * COUNT, order_index(order)] = amount
    for _ in range(3):
        state = alive(world.transition(state, action))
    means = {n: v.double().reshape(len(pairs), COUNT).mean(-1).tolist() for n, v in world.truth(state).items()}
    return {pair: {n: v[arm] for n, v in means.items()} for arm, pair in enumerate(pairs)}


@pytest.mark.parametrize(("disease", "severity", "order", "amounts", "truth", "rises"), CASES)
def test_more_of_an_order_does_more(disease, severity, order, amounts, truth, rises) -> None:
    found = [arms(disease, severity)[order, amount][truth] for amount in amounts]
    steps = [b - a if rises else a - b for a, b in zip(found, found[1:], strict=False)]
    assert min(steps) > 0, found


def test_ventilation_at_a_usual_volume_brings_a_usual_carbon_dioxide() -> None:
    assert 25.0 < arms("heart-failure", 0.6)["ventilation_l_min", 8.0]["lungs_pco2"] < 55.0


def test_ringers_lactate_acidifies_less_than_saline() -> None:
    by = {order: [arms("gi-bleed", 0.6)[order, a]["signals_bicarbonate"] for a in (0.0, 1000.0)] for order in FLUIDS}
    assert by["saline_ml"][1] - by["saline_ml"][0] < by["ringers_lactate_ml"][1] - by["ringers_lactate_ml"][0] - 0.5


@pytest.mark.parametrize(
    ("organism", "right", "wrong"),
    [
        (1.0, "ceftriaxone_g", None),
        (2.0, "vancomycin_mg", "piperacillin_tazobactam_g"),
        (3.0, "piperacillin_tazobactam_g", "vancomycin_mg"),
        (4.0, "meropenem_g", "ceftriaxone_g"),
    ],
)
def test_each_organism_has_its_antibiotic(organism, right, wrong) -> None:
    """The load after 12 h at a severity that the host does not master alone."""
    world = WardOracle("sepsis", hours_per_step=12)
    drugs = [None, right, wrong]
    state = world.initial(
        keys.from_seed(23, COUNT).repeat(3),
        {"organism": torch.full((3 * COUNT,), organism), "severity": torch.full((3 * COUNT,), 0.7)},
    )
    action = torch.zeros(3 * COUNT, len(ORDERS))
    for arm, drug in enumerate(drugs):
        if drug is not None:
            amount = 2000.0 if drug.endswith("mg") else 4.0
            action[arm * COUNT : (arm + 1) * COUNT, order_index(drug)] = amount
    state = alive(world.transition(state, action))
    untreated, treated, other = state.infection.pathogen.reshape(3, COUNT).mean(-1).tolist()
    assert treated < 0.4 * untreated
    assert wrong is None or other > 0.85 * untreated


def test_a_day_without_antibiotics_kills() -> None:
    """Hazard after a day of sepsis: untreated far above treated; and worse kidneys, lactate and pressure."""
    world = WardOracle("sepsis", hours_per_step=12)
    state = world.initial(keys.from_seed(29, COUNT).repeat(2), {"severity": torch.full((2 * COUNT,), 0.5)})
    action = torch.zeros(2 * COUNT, len(ORDERS))
    action[COUNT:, order_index("meropenem_g")] = 2.0
    action[COUNT:, order_index("vancomycin_mg")] = 1500.0
    for _ in range(2):
        state = alive(world.transition(state, action))
    truth = world.truth(state)
    left, treated = (truth["course_hazard_per_h"].reshape(2, COUNT).median(-1).values).tolist()
    assert left > 4.0 * treated
    for name, worse in (
        ("metabolism_lactate", 1),
        ("kidney_tubular_injury", 1),
        ("signals_map", -1),
        ("organs_brain", 1),
    ):
        a, b = truth[name].double().reshape(2, COUNT).mean(-1).tolist()
        assert (a - b) * worse > 0, name


def test_compensation_of_an_acidosis_and_fever() -> None:
    world = WardOracle("diabetic-ketoacidosis", hours_per_step=1)
    truth = world.truth(world.initial(keys.from_seed(31, 60), {"severity": torch.full((60,), 0.7)}))
    assert float(truth["signals_ph"].median()) < 7.34 and float(truth["true_pco2_mmhg"].median()) < 34.0
    assert float(truth["true_anion_gap_mmol_l"].median()) > 20.0 and float(truth["true_glucose_mg_dl"].median()) > 300.0
    truth = WardOracle("sepsis").truth(WardOracle("sepsis").initial(keys.from_seed(31, 60)))
    assert float(truth["metabolism_temperature"].median()) > 38.0
    assert float(truth["circulation_heart_rate"].median()) > 95.0
