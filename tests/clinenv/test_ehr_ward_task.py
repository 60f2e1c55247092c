"""The ward's reward, cost and end, on charts made by hand."""

from __future__ import annotations

import pytest
import torch

from clinenv.envs.ehr_ward.rewards import (
    DAY_DOLLARS,
    STABILITY,
    TEST_PRICE,
    TREATMENT_PRICE,
    UNIT_DOLLARS,
    RewardWeights,
    stability,
)
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.envs.ehr_ward.years_left import qalys_left
from clinenv.rewards import total
from clinenv.worth import DOLLARS_PER_QALY
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


def test_a_stable_patient_costs_the_bed_and_an_unknown_one_his_health_as_well() -> None:
    task = EHRWardTask()
    assert stability(quiet()).item() == pytest.approx(1.0)
    terms = task.reward(before(), nothing(), quiet())
    assert list(terms) == ["survival", "stay", "stability", "tests", "treatments"]
    assert terms.pop("stay").item() == pytest.approx(-DAY_DOLLARS * 4 / 24 / UNIT_DOLLARS)
    assert all(round(x.item(), 6) == 0.0 for x in terms.values())
    blind = quiet()
    blind["inquiry_seen"][:] = 0.0
    assert task.reward(before(), nothing(), blind)["stability"].item() == pytest.approx(
        -4 / 8766 * DOLLARS_PER_QALY / UNIT_DOLLARS, rel=1e-5
    ), "four hours of a year in no health"


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
    task, dead, home = EHRWardTask(weights=RewardWeights(survival=2.0)), quiet(), quiet()
    dead["alive"] = torch.zeros(1)
    home["discharged"] = torch.ones(1)
    lost = qalys_left(dead).item() * DOLLARS_PER_QALY / UNIT_DOLLARS
    assert task.reward(before(), nothing(), dead)["survival"].item() == pytest.approx(-2.0 * lost)
    assert task.reward(dead, nothing(), dead)["survival"].item() == 0.0
    assert task.reward(dead, nothing(), dead)["stay"].item() == 0.0 == task.reward(home, nothing(), home)["stay"].item()
    assert task.reward(before(), nothing(), home)["survival"].item() == 0.0
    assert task.reward(before(), nothing(), dead)["stability"].item() == 0.0
    assert [bool(task.terminated(c)) for c in (dead, home, quiet())] == [True, True, False]


def test_tests_amounts_and_rates_are_priced() -> None:
    task, action = EHRWardTask(), nothing()
    action[0, order_index("inquire_bnp")] = 1.0
    action[0, order_index("red_cells_units")] = 2.0
    action[0, order_index("ventilation_l_min")] = 8.0
    terms = task.reward(before(), action, quiet())
    assert terms["tests"].item() == pytest.approx(-39.0 / UNIT_DOLLARS)
    assert terms["treatments"].item() == pytest.approx(-(2 * 220.0 + 4 * 63.0) / UNIT_DOLLARS), (
        "a rate is paid by the hour"
    )


def patient(**known: float) -> dict[str, torch.Tensor]:
    names = ("sex_female", "chronic_kidney_disease", "diabetes", "chronic_heart_failure")
    who = {"age_years": 65.0, **dict.fromkeys(names, 0.0), **known}
    return {name: torch.tensor([value]) for name, value in who.items()}


def test_a_death_costs_the_years_that_the_patient_had_before_him() -> None:
    """Fewer with age and with each disease, more for women, none missing between whole years; sizes as by life table:
    a man of 65 has 18 years, which at 3 % and his quality of life are 9 to 12."""
    ages = [qalys_left(patient(age_years=a)).item() for a in (18.0, 30.0, 50.0, 65.0, 80.0, 95.0, 100.0)]
    assert all(a > b > 0 for a, b in zip(ages, ages[1:], strict=False)) and ages[0] < 28.0
    assert 9.0 < ages[3] < 12.0 and ages[5] < 2.5
    man = qalys_left(patient()).item()
    assert man < qalys_left(patient(sex_female=1.0)).item() < 1.3 * man
    ill = [qalys_left(patient(**{name: 1.0})).item() for name in ("chronic_kidney_disease", "diabetes")]
    failing = qalys_left(patient(chronic_heart_failure=1.0)).item()
    assert all(failing < x < man for x in ill) and failing > 0.4 * man
    assert qalys_left(patient(chronic_heart_failure=1.0, diabetes=1.0)).item() < failing
    between = [qalys_left(patient(age_years=65.0 + 0.25 * i)).item() for i in range(5)]
    steps = [a - b for a, b in zip(between, between[1:], strict=False)]
    assert max(steps) - min(steps) < 1e-4


def test_a_death_is_worth_more_than_any_stay_and_no_test_pays_for_it() -> None:
    """The issue of one scale: the death of somebody of 68 costs what 800,000 to 1,000,000 US dollars buy."""
    task, dead = EHRWardTask(), quiet() | {"alive": torch.zeros(1), "age_years": torch.tensor([68.0])}
    for name in ("sex_female", "chronic_kidney_disease", "diabetes", "chronic_heart_failure"):
        dead[name] = torch.zeros(1)
    dollars = -task.reward(before(), nothing(), dead)["survival"].item() * UNIT_DOLLARS
    assert 800_000 < dollars < 1_000_000
    everything = torch.ones(1, len(ORDERS))
    everything[:, len(INQUIRIES) :] = 0.0
    day = -6 * task.reward(before(), everything, quiet())["tests"].item() * UNIT_DOLLARS
    assert 0.0 < 14 * day < dollars


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
