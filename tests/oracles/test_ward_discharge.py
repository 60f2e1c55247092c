"""Who goes home from the ward: what the chart says and chance, and nothing that no chart shows."""

from __future__ import annotations

import math

import pytest
import torch

from world_models import keys, tree
from world_models.oracles.ward.discharge import CRITERIA, FREE_HOURS, ROUND_HOURS, chance_of_discharge, fit_for_home
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import (
    COMPLAINTS,
    INQUIRIES,
    ORDERS,
    inquiry_index,
    intervention_index,
    order_index,
)

COUNT = 24


def well() -> dict[str, torch.Tensor]:
    """A chart of somebody whom nothing keeps in hospital."""
    world = WardOracle("pneumonia")
    chart = {n: x.clone() for n, x in world.observe(world.initial(keys.from_seed(3, 1))).items()}
    for q in INQUIRIES:
        chart[q.name] = torch.tensor([sum(q.normal) / 2.0])
    chart["hours"], chart["complaint"][:] = torch.tensor([72.0]), 0.0
    chart["inquiry_seen"][:], chart["inquiry_age_hours"][:] = 1.0, 2.0
    chart["treatment_age_hours"][:], chart["treatment_share"][:] = 96.0, 0.0
    return chart


def test_a_well_patient_goes_by_chance_and_an_early_one_stays() -> None:
    chart = well()
    assert chance_of_discharge(chart, 4.0).item() == pytest.approx(1.0 - math.exp(-4.0 / ROUND_HOURS))
    whole, half = chance_of_discharge(chart, 4.0).item(), chance_of_discharge(chart, 2.0).item()
    assert 1.0 - (1.0 - half) ** 2 == pytest.approx(whole), "two short steps are one long one"
    assert chance_of_discharge(chart | {"hours": torch.tensor([20.0])}, 4.0).item() == 0.0


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda c: c.measure)
def test_each_value_can_keep_a_patient(criterion) -> None:
    place = inquiry_index(criterion.measure)
    assert bool(fit_for_home(well()))
    for bound, beyond in ((criterion.low, -0.01), (criterion.high, 0.01)):
        if math.isfinite(bound):
            bad = well()
            bad["chronic_kidney_disease"][:] = 1.0
            bad[criterion.measure] = torch.tensor([bound])
            assert bool(fit_for_home(bad))
            bad[criterion.measure] = torch.tensor([bound + beyond * max(abs(bound), 1.0)])
            assert not bool(fit_for_home(bad))
            bad["inquiry_age_hours"][:, place] = criterion.lasts_hours + 1.0
            assert bool(fit_for_home(bad)) is not criterion.needed, "an old value is not known"
    unseen = well()
    unseen["inquiry_seen"][:, place] = 0.0
    assert bool(fit_for_home(unseen)) is not criterion.needed


@pytest.mark.parametrize("order", FREE_HOURS)
def test_support_keeps_a_patient_for_its_time(order) -> None:
    chart = well()
    chart["treatment_age_hours"][:, intervention_index(order)] = FREE_HOURS[order] - 1.0
    assert not bool(fit_for_home(chart))
    chart["treatment_age_hours"][:, intervention_index(order)] = FREE_HOURS[order]
    assert bool(fit_for_home(chart))


def test_oxygen_insulin_kidneys_fever_and_bleeding() -> None:
    def fits(**changes) -> bool:
        chart = well()
        for name, (place, value) in changes.items():
            chart[name][:, place] = value
        return bool(fit_for_home(chart))

    oxygen, insulin = map(intervention_index, ("oxygen_fraction", "insulin_units_h"))
    assert fits(treatment_share=(oxygen, 0.21)) and not fits(treatment_share=(oxygen, 0.28))
    assert fits(treatment_share=(insulin, 0.1)) and not fits(treatment_share=(insulin, 0.3))
    crp, haemoglobin = map(inquiry_index, ("crp_mg_l", "haemoglobin_g_dl"))
    for complaint, place in (("fever", crp), ("bleeding", haemoglobin)):
        who = {"complaint": (COMPLAINTS.index(complaint), 1.0)}
        assert fits(**who) and fits(inquiry_age_hours=(place, 40.0))
        assert not fits(**who, inquiry_age_hours=(place, 40.0)), complaint
    chart = well() | {"creatinine_mg_dl": torch.tensor([4.2])}
    assert not bool(fit_for_home(chart))
    assert bool(fit_for_home(chart | {"chronic_kidney_disease": torch.ones(1)}))


def test_two_bodies_with_one_chart_have_one_chance() -> None:
    """The hidden body made deadly ill a moment before the step's end: the chart stands, and so does who goes home."""
    world = WardOracle("gi-bleed", hours_per_step=6)
    state = world.initial(keys.from_seed(8, COUNT), {"severity": torch.zeros(COUNT)})
    asked = torch.zeros(COUNT, len(ORDERS))
    asked[:, : len(INQUIRIES)] = 1.0
    for _ in range(5):
        state = world.transition(state, asked)
    here = (state.course.alive > 0.5) & (state.course.discharged < 0.5)
    state = tree.take(state, here.nonzero()[:, 0])
    ill = state._replace(
        infection=state.infection._replace(
            pathogen=state.infection.pathogen + 20.0, damage=state.infection.damage + 2.0
        ),
        lungs=state.lungs._replace(water=state.lungs.water + 0.8),
        blood=state.blood._replace(lesion=torch.ones_like(state.blood.lesion)),
        clots=state.clots._replace(lung=torch.full_like(state.clots.lung, 0.6)),
        organs=state.organs._replace(brain=torch.full_like(state.organs.brain, 0.7)),
    )
    charts = world.observe(state), world.observe(ill)
    assert all(torch.equal(charts[0][name], charts[1][name]) for name in charts[0])
    chances = [chance_of_discharge(chart, 6.0) for chart in charts]
    assert torch.equal(*chances) and float(chances[0].max()) > 0.0


def test_the_stable_go_home_after_a_day_and_no_sooner_and_nobody_unexamined() -> None:
    world = WardOracle("gi-bleed", hours_per_step=6)
    state = world.initial(keys.from_seed(8, COUNT).repeat(3), {"severity": torch.zeros(3 * COUNT)})
    orders = torch.zeros(3 * COUNT, len(ORDERS))
    orders[: 2 * COUNT, : len(INQUIRIES)] = 1.0
    orders[COUNT : 2 * COUNT, order_index("oxygen_fraction")] = 0.4  # who stays on oxygen stays in hospital
    left = torch.zeros(3 * COUNT)
    for _ in range(9):
        state = world.transition(state, orders)
        left = torch.where((state.course.discharged > 0) & (left == 0), state.t * 6.0, left)
    assert float((left[:COUNT] > 0).float().mean()) > 0.5
    assert float(left[left > 0].min()) >= 24.0
    assert float(left[COUNT:].max()) == 0.0


def test_who_goes_is_drawn_at_the_chance_that_the_chart_gives() -> None:
    """Of 600 patients whose charts allow it, as many go as the chance says: no other body decides."""
    world = WardOracle("gi-bleed", hours_per_step=6)
    count = 600
    state = world.initial(keys.from_seed(80, count), {"severity": torch.zeros(count)})
    asked = torch.zeros(count, len(ORDERS))
    asked[:, : len(INQUIRIES)] = 1.0
    went = expected = 0.0
    for _ in range(6):
        before = (state.course.alive > 0.5) & (state.course.discharged < 0.5)
        state = world.transition(state, asked)
        stayed = state._replace(course=state.course._replace(discharged=torch.zeros(count), alive=torch.ones(count)))
        chance = chance_of_discharge(world.observe(stayed), 6.0) * before
        went += float((state.course.discharged * before).sum())
        expected += float(chance.sum())
    assert expected > 50 and abs(went - expected) < 4.0 * math.sqrt(expected)
