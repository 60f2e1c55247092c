"""The ward as a world: the contract, rows, balances, bounds, endings, and the recorded program."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from world_models import catalog, keys, tree
from world_models.oracles.ward import world as ward_module
from world_models.oracles.ward.cohorts import COHORTS, FACTORS
from world_models.oracles.ward.dynamics import TICK_H, tick
from world_models.oracles.ward.half_hours import looped
from world_models.oracles.ward.prescribing import Prescription, parted
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import DISEASES, INQUIRIES, INTERVENTIONS, MEASURES, ORDERS, order_index
from world_models.testing import check_world, random_orders

BOUNDS = {q.name: (q.low, q.high) for q in MEASURES}
HOURLY = WardOracle(hours_per_step=1)
BALANCES = ("water_balance_l", "sodium_balance_mmol", "potassium_balance_mmol", "haemoglobin_balance_g")


def assert_in_bounds(chart: dict) -> None:
    for name, value in chart.items():
        low, high = BOUNDS[name]
        assert low <= float(value.min()) and float(value.max()) <= high, name  # NaN fails both


def immortal(state):
    one = torch.ones_like(state.course.alive)
    course = state.course._replace(alive=one, discharged=one * 0)
    return state._replace(course=course)


@pytest.fixture(scope="module")
def fortnight():
    """14 days of random orders, half of them gentle, in people whom nothing kills: (world, first, last, charts)."""
    world = WardOracle(hours_per_step=12)
    first = state = world.initial(keys.from_seed(70, 48))
    charts = [world.observe(state)]
    mild = (torch.arange(48) % 2 == 0).unsqueeze(-1)
    for step in range(28):
        wild = random_orders(world, state.key, step, share=1.0, given=0.3)
        calm = random_orders(world, state.key, step, share=0.06, given=0.4)
        state = immortal(world.transition(state, torch.where(mild, calm, wild)))
        charts.append(world.observe(state, ("diagnosis",)))
    return world, first, state, charts


def test_the_contract() -> None:
    check_world(HOURLY, batch=4, steps=2, also=("diagnosis",))


def test_it_is_in_the_catalogue() -> None:
    assert isinstance(catalog.load("ward-oracle"), WardOracle)
    assert catalog.load("ward-oracle", cohort="gi-bleed").cohort is COHORTS["gi-bleed"]


def test_fourteen_days_of_any_orders_stay_finite_and_in_bounds(fortnight) -> None:
    _, _, last, charts = fortnight
    for chart in charts:
        assert_in_bounds(chart)
    for leaf in tree.leaves(last):
        assert not leaf.is_inference(), "a learner must be able to use it"
        assert not leaf.is_floating_point() or bool(leaf.isfinite().all())
    for pool in (last.fluids.plasma_l, last.fluids.interstitial_l, last.fluids.cell_l, last.salts.potassium):
        assert float(pool.min()) > 0


def test_water_sodium_potassium_and_haemoglobin_are_conserved(fortnight) -> None:
    world, first, last, _ = fortnight
    before, after = world.truth(first), world.truth(last)
    for name in BALANCES:
        assert float(((after[name] - before[name]) / before[name]).abs().max()) < 1e-6, name
    moved = last.fluids.in_l
    assert float(moved.min()) > 3.0, "two weeks without water prove nothing"
    assert float((last.fluids.plasma_l - first.fluids.plasma_l).abs().max()) > 0.3


def test_a_course_does_not_depend_on_who_lies_beside() -> None:
    """Every leaf of every row of an odd-sized batch, bit for bit, after eight hours under orders."""
    key = keys.from_seed(3, 67)
    together, alone = HOURLY.initial(key), HOURLY.initial(key[41:42])
    for step in range(8):
        orders = random_orders(HOURLY, key, step, share=0.2)
        together, alone = HOURLY.transition(together, orders), HOURLY.transition(alone, orders[41:42])
    for a, b in zip(tree.leaves(tree.take(together, slice(41, 42))), tree.leaves(alone), strict=True):
        assert torch.equal(a, b)


def test_the_recorded_program_is_the_written_physiology_bit_for_bit() -> None:
    state = HOURLY.initial(keys.from_seed(9, 33))
    _, given = parted(random_orders(HOURLY, state.key, 0, share=0.3))
    rates = Prescription.of(given, 1.0).during(0.0, TICK_H)
    recorded, written = ward_module._program(HOURLY.device)(state, rates), tick(state, rates)
    for a, b in zip(tree.leaves(recorded), tree.leaves(written), strict=True):
        assert torch.equal(a, b)


def test_the_loops_that_a_compiler_is_given_are_the_half_hours_bit_for_bit(monkeypatch) -> None:
    world = WardOracle(hours_per_step=2)
    state = world.initial(keys.from_seed(9, 33))
    orders = random_orders(world, state.key, 0, share=0.3)
    plain = world.transition(state, orders)
    monkeypatch.setattr(ward_module, "through", lambda *arguments: looped(*arguments[:-1]))
    for a, b in zip(tree.leaves(world.transition(state, orders)), tree.leaves(plain), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    orders=st.lists(st.tuples(st.sampled_from(ORDERS), st.floats(0.0, 1.0)), max_size=12), seed=st.integers(0, 10**6)
)
def test_any_orders_leave_the_chart_in_bounds(orders, seed) -> None:
    action = torch.zeros(2, len(ORDERS))
    for order, share in orders:
        action[:, order_index(order.name)] = order.high * share
    state = HOURLY.initial(keys.from_seed(seed, 2))
    for _ in range(2):
        state = HOURLY.transition(state, action)
        chart = HOURLY.observe(state)
        assert_in_bounds(chart)
        assert (chart["treatment_share"] <= 1.0).all()


def test_an_amount_is_given_exactly_within_its_step() -> None:
    given = torch.zeros(1, len(INTERVENTIONS))
    names = [q.name for q in INTERVENTIONS]
    for name, amount in (("saline_ml", 700.0), ("potassium_chloride_mmol", 80.0), ("norepinephrine_ug_kg_min", 0.3)):
        given[0, names.index(name)] = amount
    plan = Prescription.of(given, 2.0)
    halves = [plan.during(half * TICK_H, TICK_H) for half in range(4)]
    assert sum(float(h["saline_ml"]) * TICK_H for h in halves) == pytest.approx(700.0)
    assert float(halves[0]["saline_ml"]) == pytest.approx(1000.0) and float(halves[3]["saline_ml"]) == 0.0
    # 20 mmol/h would take four hours: it is spread over the two there are
    assert [float(h["potassium_chloride_mmol"]) for h in halves] == pytest.approx([40.0] * 4)
    assert all(float(h["norepinephrine_ug_kg_min"]) == pytest.approx(0.3) for h in halves)


def test_the_dead_and_the_discharged_stand_still() -> None:
    state = HOURLY.initial(keys.from_seed(1, 3))
    state = state._replace(
        course=state.course._replace(alive=torch.tensor([1.0, 0.0, 1.0]), discharged=torch.tensor([0.0, 0.0, 1.0]))
    )
    everything = torch.tensor([[q.high for q in ORDERS]]).expand(3, -1)
    later = HOURLY.transition(state, everything)
    before, after = HOURLY.observe(state), HOURLY.observe(later)
    assert torch.equal(later.t, state.t + 1) and bool((after["hours"] == 1.0).all())
    for name in (*[q.name for q in INQUIRIES], "treatment_share", "inquiry_seen", "alive", "discharged"):
        assert torch.equal(after[name][1:], before[name][1:]), name
    assert not torch.equal(after["inquiry_seen"][:1], before["inquiry_seen"][:1])
    assert float(after["inquiry_age_hours"][1].max()) > 0


def test_factors_are_kept_and_bad_ones_refused() -> None:
    key = keys.from_seed(4, 3)
    given = {"age_years": torch.tensor([30.0, 45.0, 80.0]), "disease": torch.tensor([1.0, 1.0, 4.0])}
    truth = HOURLY.truth(HOURLY.initial(key, given))
    chart = HOURLY.observe(HOURLY.initial(key, given), ("diagnosis",))
    assert torch.equal(chart["age_years"], given["age_years"])
    assert chart["diagnosis"].argmax(-1).tolist() == [1, 1, 4] == truth["person_disease"].int().tolist()
    assert bool((truth["person_organism"][:2] > 0).all()) and truth["person_organism"][2] == 0
    assert HOURLY.read(chart).keys() == {q.name for q in FACTORS[:6]}
    for bad in ({"age_years": torch.full((3,), 130.0)}, {"disease": torch.full((3,), 1.5)}, {"colour": torch.ones(3)}):
        with pytest.raises(ValueError):
            HOURLY.initial(key, bad)
    for arguments in ({"cohort": "surgery"}, {"hours_per_step": 0.5}, {"hours_per_step": 24}, {"hours_per_step": 2.5}):
        with pytest.raises(ValueError):
            WardOracle(**arguments)
    with pytest.raises(ValueError, match="no measure potasium"):
        HOURLY.observe(HOURLY.initial(key), ("potasium",))


def test_the_mix_is_that_of_the_cohort() -> None:
    disease = WardOracle().initial(keys.from_seed(0, 2000)).person.disease
    shares = torch.stack([(disease == i).float().mean() for i in range(len(DISEASES))])
    wanted = torch.tensor(COHORTS["ward"].mix)
    torch.testing.assert_close(shares, wanted / wanted.sum(), atol=0.03, rtol=0)
    severity = WardOracle("icu").initial(keys.from_seed(0, 200)).person.severity
    assert float(severity.min()) >= 0.5
