"""The ward's reward, cost and end, on charts made by hand."""

from __future__ import annotations

import pytest
import torch

from clinenv.envs.ehr_ward.rewards import STABILITY, TEST_PRICE, TREATMENT_PRICE, RewardWeights, stability
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.rewards import total
from tests.toy_ward import ToyWard
from world_models import keys
from world_models.quantities.ward import (
    INQUIRIES,
    INTERVENTIONS,
    ORDERS,
    inquiry_index,
    intervention_index,
    order_index,
)


def quiet(hours: float = 4.0) -> dict[str, torch.Tensor]:
    """A patient of whom every watched value was just read in the middle of its range."""
    world = ToyWard()
    chart = {n: x.clone() for n, x in world.observe(world.initial(keys.from_seed(3, 1))).items()}
    chart["hours"] = torch.tensor([hours])
    for q in INQUIRIES:
        chart[q.name] = torch.tensor([sum(q.normal) / 2.0])
    chart["inquiry_seen"][:] = 1.0
    chart["inquiry_age_hours"][:] = 0.0
    return chart


def before() -> dict[str, torch.Tensor]:
    chart = quiet(0.0)
    chart["inquiry_age_hours"][:] = 1.0
    return chart


def nothing() -> torch.Tensor:
    return torch.zeros(1, len(ORDERS))


def test_every_test_and_treatment_has_a_price() -> None:
    assert set(TEST_PRICE) == {q.name for q in INQUIRIES} and set(TREATMENT_PRICE) == {q.name for q in INTERVENTIONS}
    assert all(x > 0 for x in (*TEST_PRICE.values(), *TREATMENT_PRICE.values()))


def test_a_stable_patient_costs_nothing_and_an_unknown_one_is_unstable() -> None:
    task = EHRWardTask()
    assert stability(quiet()).item() == pytest.approx(1.0)
    terms = task.reward(before(), nothing(), quiet())
    assert {name: round(x.item(), 6) for name, x in terms.items()} == dict.fromkeys(
        ("survival", "discharge", "stability", "tests", "treatments"), 0.0
    )
    blind = quiet()
    blind["inquiry_seen"][:] = 0.0
    assert task.reward(before(), nothing(), blind)["stability"].item() == pytest.approx(-30.0 * 4 / 336)


@pytest.mark.parametrize("watched", STABILITY, ids=lambda w: w.name)
def test_half_a_width_outside_halves_and_to_look_never_hurts(watched) -> None:
    q = INQUIRIES[inquiry_index(watched.name)]
    weight = watched.weight / sum(w.weight for w in STABILITY)
    low, unknown, old = quiet(), quiet(), quiet()
    low[watched.name] = torch.tensor([float(q.normal[0]) - watched.half])
    assert stability(low).item() == pytest.approx(1.0 - weight / 2, abs=1e-5)
    unknown["inquiry_seen"][:, inquiry_index(watched.name)] = 0.0
    old["inquiry_age_hours"][:, inquiry_index(watched.name)] = watched.lasts_hours + 1.0
    assert stability(unknown).item() == pytest.approx(1.0 - weight, abs=1e-5) == stability(old).item()
    low[watched.name] = torch.tensor([float(q.low)])
    assert stability(low).item() > stability(unknown).item()


def test_death_and_going_home_are_paid_once_and_end_it() -> None:
    task, dead, home = EHRWardTask(weights=RewardWeights(survival=7.0)), quiet(), quiet()
    dead["alive"] = torch.zeros(1)
    home["discharged"] = torch.ones(1)
    assert task.reward(before(), nothing(), dead)["survival"].item() == -7.0
    assert task.reward(dead, nothing(), dead)["survival"].item() == 0.0
    assert task.reward(before(), nothing(), home)["discharge"].item() == 10.0
    assert task.reward(before(), nothing(), dead)["stability"].item() == 0.0
    assert [bool(task.terminated(c)) for c in (dead, home, quiet())] == [True, True, False]


def test_tests_amounts_and_rates_are_priced() -> None:
    task, action = EHRWardTask(), nothing()
    action[0, order_index("inquire_bnp")] = 1.0
    action[0, order_index("red_cells_units")] = 2.0
    action[0, order_index("ventilation_l_min")] = 8.0
    terms = task.reward(before(), action, quiet())
    assert terms["tests"].item() == pytest.approx(-0.039)
    assert terms["treatments"].item() == pytest.approx(-(2 * 0.220 + 4 * 0.040)), "a rate is paid by the hour"


def test_harm_is_counted_when_it_is_charted() -> None:
    task = EHRWardTask()

    def cost(at: dict[str, float], given: dict[str, float] | None = None, fresh: bool = True) -> float:
        after = quiet()
        after["treatment_age_hours"][:] = 96.0
        for name, value in at.items():
            after[name] = torch.tensor([value])
        for name, hours in (given or {}).items():
            after["treatment_age_hours"][:, intervention_index(name)] = hours
        if not fresh:
            after["inquiry_age_hours"][:] = 5.0  # an hour old before the step of four: nothing new
        return task.cost(before(), nothing(), after).item()

    assert cost({}) == 0.0
    assert cost({"glucose_mg_dl": 69.0}) == 1.0 and cost({"glucose_mg_dl": 53.0}) == 2.0
    assert cost({"glucose_mg_dl": 53.0}, fresh=False) == 0.0, "a result is counted once"
    assert cost({"potassium_mmol_l": 6.1}) == 1.0 and cost({"potassium_mmol_l": 6.0}) == 0.0
    assert cost({"map_mmhg": 60.0}) == 0.0, "a low pressure that no order caused is illness, not harm"
    for order in ("metoprolol_mg", "furosemide_mg", "ultrafiltration_ml_h"):
        assert cost({"map_mmhg": 60.0}, {order: 0.0}) == 1.0 and cost({"map_mmhg": 60.0}, {order: 12.0}) == 0.0
    assert cost({"map_mmhg": 60.0, "glucose_mg_dl": 50.0}, {"furosemide_mg": 4.0}) == 3.0


def test_total_adds_up_whatever_the_batch() -> None:
    values = keys.normal(keys.from_seed(1, 300), 0, "test", (39,))
    torch.testing.assert_close(total(values), values.sum(-1), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(total(values)[i : i + 1], total(values[i : i + 1])) for i in (0, 7, 299))
