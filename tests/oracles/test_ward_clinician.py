"""The ward's clinician: what it reads, what the dial of confounding does, and that it helps."""

from __future__ import annotations

import pytest
import torch

from world_models import keys
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import DISEASES, INTERVENTIONS, ORDERS, order_index

WORLD = WardOracle(hours_per_step=12)
DOSES = slice(len(ORDERS) - len(INTERVENTIONS), len(ORDERS))


@pytest.fixture(scope="module")
def met():
    """States of the first two days under its care: [(state, chart, severity), ...]."""
    state = WORLD.initial(keys.from_seed(40, 96))
    seen = []
    for _ in range(4):
        chart = WORLD.observe(state)
        seen.append((state, chart, WORLD.truth(state)["severity"]))
        state = WORLD.transition(state, clinician(chart, 12.0))
    return seen


def test_orders_are_within_bounds_and_a_function_of_the_chart(met) -> None:
    high = torch.tensor([q.high for q in ORDERS])
    for _, chart, _ in met:
        orders = clinician(chart, 12.0)
        assert orders.shape == (96, len(ORDERS)) and bool((orders >= 0).all()) and bool((orders <= high).all())
        assert torch.equal(orders, clinician({n: v.clone() for n, v in chart.items()}, 12.0))
        row = clinician({n: v[7:8] for n, v in chart.items()}, 12.0)
        assert torch.equal(row, orders[7:8])


def test_without_confounding_the_hidden_severity_changes_nothing_and_with_it_the_sicker_get_more(met) -> None:
    more = 0
    for _, chart, severity in met:
        calm = clinician(chart, 12.0, confounding=0.0, severity=severity)
        assert torch.equal(calm, clinician(chart, 12.0, confounding=0.0, severity=1.0 - severity))
        low, high = (clinician(chart, 12.0, 1.0, torch.full_like(severity, s)) for s in (0.0, 1.0))
        assert torch.equal(low, clinician(chart, 12.0))
        extra = (high - low)[:, [order_index(n) for n in ("ringers_lactate_ml", "norepinephrine_ug_kg_min")]]
        assert float(extra.min()) >= -1e-6
        more += int((extra > 0).sum()) + int((high[:, : DOSES.start] > low[:, : DOSES.start]).sum())
    assert more > 50


def test_it_asks_for_what_it_needs(met) -> None:
    _, chart, severity = met[0]
    with pytest.raises(ValueError, match="severity"):
        clinician(chart, 12.0, confounding=0.5)
    with pytest.raises(ValueError, match="key"):
        clinician(chart, 12.0, variation=0.5)


def test_colleagues_differ_and_keep_their_luck(met) -> None:
    state, chart, _ = met[1]
    one = clinician(chart, 12.0, key=state.key, t=state.t, variation=1.0)
    assert torch.equal(one, clinician(chart, 12.0, key=state.key, t=state.t, variation=1.0))
    other = clinician(chart, 12.0, key=keys.fold(state.key, "other"), t=state.t, variation=1.0)
    plain = clinician(chart, 12.0)
    assert not torch.equal(one, other) and not torch.equal(one, plain)
    given = plain[:, DOSES] > 0
    assert float(((one[:, DOSES] > 0) == given).float().mean()) > 0.9, "colleagues vary the dose more than the drug"


def test_rules_that_a_chart_calls_for() -> None:
    state = WORLD.initial(keys.from_seed(41, 1))
    chart = {n: v.clone() for n, v in WORLD.observe(state).items()}
    chart["inquiry_seen"][:], chart["inquiry_age_hours"][:], chart["hours"][:] = 1.0, 2.0, 24.0
    normal = {"map_mmhg": 85.0, "spo2_percent": 97.0, "temperature_c": 36.9, "heart_rate_bpm": 80.0, "gcs": 15.0}
    chart |= {n: torch.full((1,), v) for n, v in normal.items()}
    chart["complaint"] = torch.zeros_like(chart["complaint"])
    chart["chronic_heart_failure"][:] = 0.0

    def gets(order: str, **findings: float) -> float:
        found = chart | {n: torch.full((1,), v) for n, v in findings.items()}
        return float(clinician(found, 4.0)[0, order_index(order)])

    assert gets("norepinephrine_ug_kg_min") == 0.0 and gets("norepinephrine_ug_kg_min", map_mmhg=52.0) > 0.05
    assert gets("potassium_chloride_mmol") == 0.0 and gets("potassium_chloride_mmol", potassium_mmol_l=3.0) >= 40.0
    assert (
        gets("calcium_gluconate_g", potassium_mmol_l=7.0) > 0.0 and gets("red_cells_units", haemoglobin_g_dl=6.4) == 1.0
    )
    assert gets("dextrose_g", glucose_mg_dl=45.0) > 0.0 and gets("insulin_units_h", glucose_mg_dl=290.0) > 0.0
    assert gets("oxygen_fraction", spo2_percent=85.0) > 0.3 and gets("oxygen_fraction") == 0.0
    assert gets("vancomycin_mg", blood_culture=2.0) > 0.0 and gets("meropenem_g", blood_culture=4.0) == 1.0
    assert gets("ceftriaxone_g", blood_culture=3.0) == 2.0 and gets("vancomycin_mg", blood_culture=3.0) == 0.0
    ill = {"temperature_c": 38.6, "age_years": 78.0, "gcs": 12.0}
    assert gets("heparin_units_kg_h", **ill) == 6.0 and gets("heparin_units_kg_h", temperature_c=38.6) == 0.0
    assert gets("heparin_units_kg_h", **ill, platelets_k_ul=30.0) == 0.0, "not to whom it would make bleed"
    embolus = {"spo2_percent": 89.0, "heart_rate_bpm": 118.0, "pco2_mmhg": 28.0, "bnp_pg_ml": 300.0, "hours": 48.0}
    assert gets("heparin_units_kg_h", **embolus, troponin_ng_l=60.0) == 18.0
    assert gets("heparin_units_kg_h", **embolus, troponin_ng_l=60.0, crp_mg_l=200.0) < 18.0
    assert gets("inquire_lactate", map_mmhg=52.0, hours=48.0) >= gets("inquire_lactate", hours=48.0)


def test_nobody_treats_the_dead_or_the_discharged(met) -> None:
    _, chart, _ = met[0]
    gone = chart | {"alive": torch.zeros(96)}
    assert float(clinician(gone, 12.0).abs().max()) == 0.0
    assert float(clinician(chart | {"discharged": torch.ones(96)}, 12.0).abs().max()) == 0.0


def test_its_patients_fare_better_than_the_untreated() -> None:
    """Three and a half days of the same patients, every disease in equal parts."""
    count = 30 * len(DISEASES)
    factors = {
        "disease": torch.arange(len(DISEASES)).repeat_interleave(30).float(),
        "severity": torch.full((count,), 0.6),
    }
    both = {n: v.repeat(2) for n, v in factors.items()}
    state = WORLD.initial(keys.from_seed(43, count).repeat(2), both)
    untreated = torch.arange(2 * count) >= count
    for _ in range(7):
        orders = clinician(WORLD.observe(state), 12.0)
        state = WORLD.transition(state, torch.where(untreated.unsqueeze(-1), 0.0, orders))
    died, died_untreated = (1.0 - state.course.alive).reshape(2, -1, 30).mean(-1)
    assert float(died.mean()) < 0.25 and float(died_untreated.mean()) > 2.0 * float(died.mean())
    assert bool((died <= died_untreated + 0.10).all()), (died, died_untreated)
    assert float(state.course.discharged[:count].mean()) > 0.15
