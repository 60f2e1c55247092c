"""The one table of drugs: what is derived from it is what it has always been, to the letter."""

from __future__ import annotations

import pytest

from clinenv.envs.ecg_drug.task import DAILY_DOSE_MG, MENU, SINGLE_DOSE_MG
from world_models.ecg_wm.start_rates import REFERENCE_MG, START_RATES
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.fit.kinetics import names_of
from world_models.oracles.ecg_drug.population import TrialModel
from world_models.quantities.drugs import ANTIARRHYTHMICS, drug
from world_models.quantities.ecg_drug import DRUGS, ORDERS


def test_menu_and_doses_to_the_letter() -> None:
    """Action numbers, labels and amounts are what trained policies and published results stand on."""
    assert MENU.entries == (
        ("nothing", {}),
        ("ranolazine 500 mg", {"ranolazine_mg": 500.0}),
        ("ranolazine 1000 mg", {"ranolazine_mg": 1000.0}),
        ("dofetilide 0.25 mg", {"dofetilide_mg": 0.25}),
        ("dofetilide 0.5 mg", {"dofetilide_mg": 0.5}),
        ("verapamil 80 mg", {"verapamil_mg": 80.0}),
        ("verapamil 120 mg", {"verapamil_mg": 120.0}),
        ("quinidine sulfate 200 mg", {"quinidine_mg": 200.0}),
        ("quinidine sulfate 400 mg", {"quinidine_mg": 400.0}),
    )
    assert SINGLE_DOSE_MG == {
        "ranolazine_mg": 1000.0, "dofetilide_mg": 0.5, "verapamil_mg": 120.0, "quinidine_mg": 400.0,
    }  # fmt: skip
    assert DAILY_DOSE_MG == {
        "ranolazine_mg": 2000.0, "dofetilide_mg": 1.0, "verapamil_mg": 480.0, "quinidine_mg": 1600.0,
    }  # fmt: skip


def test_orders_and_trial_doses_to_the_letter() -> None:
    assert DRUGS == ("ranolazine", "dofetilide", "verapamil", "quinidine")
    assert [(q.name, q.low, q.high) for q in ORDERS] == [
        ("ranolazine_mg", 0.0, 2000.0),
        ("dofetilide_mg", 0.0, 1.0),
        ("verapamil_mg", 0.0, 240.0),
        ("quinidine_mg", 0.0, 800.0),
    ]
    assert REFERENCE_MG == (1500.0, 0.5, 120.0, 400.0)
    assert START_RATES[0] == (1.0, 0.10, 0.02, 0.10, 3.0, 0.6, 0.03) and len(START_RATES) == len(DRUGS)


@pytest.mark.parametrize("item", ANTIARRHYTHMICS, ids=lambda d: d.name)
def test_a_row_is_consistent(item) -> None:
    """What a new row must satisfy."""
    assert drug(item.name) is item
    assert max(item.menu_mg) <= item.largest_single_mg <= item.largest_daily_mg
    assert item.order_limit_mg >= max(item.trial_dose_mg, item.largest_single_mg)
    assert {*item.saturating, *item.steepening} <= set(ENDPOINTS)
    assert (item.kinetics.q is None) == (item.kinetics.v2 is None)
    assert len(item.learning_rates_per_h) == 6


def test_the_shipped_fit_has_the_structure_of_the_table() -> None:
    fitted = TrialModel.load().parameters["drugs"]
    assert tuple(fitted) == DRUGS
    for item in ANTIARRHYTHMICS:
        assert tuple(fitted[item.name]["kinetics"]["parameter_order"]) == names_of(item)
        assert fitted[item.name]["dose_mg"] == item.trial_dose_mg
        for endpoint, law in fitted[item.name]["effects"].items():
            if endpoint in ENDPOINTS:
                assert (law["c50_ng_per_ml"] is not None) <= (endpoint in item.saturating)
                assert (law["power"] != 1.0) <= (endpoint in item.steepening)
