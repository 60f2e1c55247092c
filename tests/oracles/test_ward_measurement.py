"""Inquiries on the ward: when values come, how old they are, what is pending, what cultures tell."""

from __future__ import annotations

import torch

from world_models import keys
from world_models.oracles.ward.luck import Luck
from world_models.oracles.ward.measurement import LOST, collection_tick, noise_sd, true_values
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import INQUIRIES, MAX_AGE_HOURS, ORDERS, inquiry_index, order_index

HOURLY = WardOracle(hours_per_step=1)
SEEN, PENDING, AGE = "inquiry_seen", "inquiry_pending", "inquiry_age_hours"
LABS = [i for i, q in enumerate(INQUIRIES) if q.kind not in ("vital", "culture")]


def ask(count: int, *names: str, **amounts: float) -> torch.Tensor:
    action = torch.zeros(count, len(ORDERS))
    for name in names:
        action[:, order_index(f"inquire_{name}")] = 1.0
    for name, amount in amounts.items():
        action[:, order_index(name)] = amount
    return action


def alive(state):
    one = torch.ones_like(state.course.alive)
    return state._replace(course=state.course._replace(alive=one, discharged=one * 0))


def test_at_admission_only_vital_signs_are_known() -> None:
    chart = HOURLY.observe(HOURLY.initial(keys.from_seed(0, 4)))
    for i, q in enumerate(INQUIRIES):
        known = q.kind == "vital" and q.name != "urine_output_ml_h"
        assert bool((chart[SEEN][:, i] == float(known)).all()), q.name
        if not known:
            assert bool((chart[q.name] == q.typical).all()) and bool((chart[AGE][:, i] == MAX_AGE_HOURS).all())
    assert float(chart[PENDING].max()) == 0.0


def test_chemistry_is_pending_for_about_an_hour_and_then_keeps_its_draw_time() -> None:
    count = 64
    state = HOURLY.transition(HOURLY.initial(keys.from_seed(1, count)), ask(count, "sodium"))
    i = inquiry_index("sodium_mmol_l")
    first = HOURLY.observe(state)
    waiting = first[PENDING][:, i] > 0
    assert 0.1 < float(waiting.float().mean()) < 1.0 and not bool((first[SEEN][waiting, i] > 0).any())
    truth = true_values(state)[:, i]
    for _ in range(2):
        state = HOURLY.transition(state, ask(count))
    chart = HOURLY.observe(state)
    came = chart[SEEN][:, i] > 0
    assert float(came.float().mean()) > 1.0 - 4.0 * LOST and float(chart[PENDING][:, i].max()) == 0.0
    assert bool((chart[AGE][came, i] >= 2.5).all()) and bool((chart[AGE][came, i] <= 3.0).all())
    assert float((chart["sodium_mmol_l"][came] - truth[came]).abs().max()) < 6.0
    assert bool((chart["sodium_mmol_l"] == chart["sodium_mmol_l"].round()).all()), "reported as laboratories do"


def test_a_second_order_while_one_is_pending_is_refused() -> None:
    state = HOURLY.transition(HOURLY.initial(keys.from_seed(2, 32)), ask(32, "crp"))
    i = inquiry_index("crp_mg_l")
    waiting = state.records.pending[:, i]
    assert bool(waiting.any())
    again = HOURLY.transition(state, ask(32, "crp"))
    without = HOURLY.transition(state, ask(32))
    assert torch.equal(again.records.drawn_h[waiting, i], without.records.drawn_h[waiting, i])
    assert torch.equal(again.records.value[waiting, i], without.records.value[waiting, i])


def test_some_specimens_are_lost_and_never_come() -> None:
    count = 600
    state = HOURLY.transition(HOURLY.initial(keys.from_seed(3, count)), ask(count, "haemoglobin", "map"))
    for _ in range(2):
        state = HOURLY.transition(state, ask(count))
    seen = HOURLY.observe(alive(state))[SEEN]
    lost = 1.0 - float(seen[:, inquiry_index("haemoglobin_g_dl")].mean())
    assert 0.3 * LOST < lost < 2.5 * LOST and bool((seen[:, inquiry_index("map_mmhg")] == 1.0).all())


def test_blood_is_drawn_once_a_step_in_its_first_three_fifths() -> None:
    world = WardOracle(hours_per_step=4)
    key = keys.from_seed(5, 200)
    ticks = collection_tick(Luck(key, torch.ones_like(key), 4), 8)
    assert ticks.unique().tolist() == [0, 1, 2, 3]
    state = world.transition(world.initial(key), ask(200, "sodium", "creatinine", "map"))
    drawn = state.records.drawn_h
    sodium, creatinine = (inquiry_index(n) for n in ("sodium_mmol_l", "creatinine_mg_dl"))
    both = state.records.seen[:, sodium] & state.records.seen[:, creatinine]
    assert torch.equal(drawn[both, sodium], drawn[both, creatinine])
    torch.testing.assert_close(drawn[both, sodium], ticks[both] * 0.5)
    assert bool((drawn[:, inquiry_index("map_mmhg")] == 4.0).all())


def test_the_anion_gap_is_the_arithmetic_of_its_specimen() -> None:
    world = WardOracle(hours_per_step=4)
    state = world.transition(
        world.initial(keys.from_seed(6, 60)), ask(60, "sodium", "chloride", "bicarbonate", "anion_gap")
    )
    chart = world.observe(state)
    places = [inquiry_index(n) for n in ("sodium_mmol_l", "chloride_mmol_l", "bicarbonate_mmol_l", "anion_gap_mmol_l")]
    complete = (chart[SEEN][:, places] > 0).all(-1)
    gap = chart["sodium_mmol_l"] - chart["chloride_mmol_l"] - chart["bicarbonate_mmol_l"]
    assert torch.equal(chart["anion_gap_mmol_l"][complete], gap[complete]) and int(complete.sum()) > 40


def test_noise_has_its_size_and_is_shared_by_what_is_measured_together() -> None:
    count = 1500
    world = WardOracle("gi-bleed", hours_per_step=1)
    state = world.initial(keys.from_seed(7, 1).repeat(count), {"severity": torch.zeros(count)})
    state = state._replace(key=keys.from_seed(7, count))
    state = state._replace(records=state.records._replace(biological=keys.normal(state.key, 0, "b", (len(INQUIRIES),))))
    after = world.transition(state, ask(count, "haemoglobin", "haematocrit", "creatinine"))
    after = world.transition(alive(after), ask(count))
    i, j, k = (inquiry_index(n) for n in ("haemoglobin_g_dl", "haematocrit_percent", "creatinine_mg_dl"))
    seen = after.records.seen[:, i] & after.records.seen[:, j] & after.records.seen[:, k]
    value = after.records.value[seen]
    spread = value.log().std(0)
    wanted = (noise_sd(value) / value).mean(0)
    assert 0.8 < float(spread[i] / wanted[i]) < 1.25 and 0.8 < float(spread[k] / wanted[k]) < 1.25
    together = torch.corrcoef(value[:, [i, j, k]].log().T)
    assert float(together[0, 1]) > 0.8 and abs(float(together[0, 2])) < 0.15


def test_cultures_take_a_day_or_two_and_turn_negative_on_the_right_antibiotic() -> None:
    """MRSA sepsis, three arms of the same patients: untreated, vancomycin, ceftriaxone for a day before the culture."""
    count = 120
    world = WardOracle("sepsis", hours_per_step=12)
    factors = {"organism": torch.full((count,), 2.0), "severity": torch.full((count,), 0.4)}
    start = world.initial(keys.from_seed(11, count).repeat(3), {n: v.repeat(3) for n, v in factors.items()})
    arm = torch.arange(3).repeat_interleave(count)
    dose = ask(3 * count)
    dose[:, order_index("vancomycin_mg")] = (arm == 1) * 1250.0
    dose[:, order_index("ceftriaxone_g")] = (arm == 2) * 1.0
    state = start
    for _ in range(2):
        state = alive(world.transition(state, dose))
    drawn_h = float(state.t[0]) * 12.0
    i = inquiry_index("blood_culture")
    state = alive(world.transition(state, ask(3 * count, "blood_culture")))
    assert (
        float(state.records.seen[:, i].float().max()) == 0.0 and float(state.records.pending[:, i].float().mean()) > 0.9
    )
    came_h = torch.full((3 * count,), float("nan"))
    for _ in range(4):
        before = state.records.seen[:, i]
        state = alive(world.transition(state, ask(3 * count)))
        came_h = torch.where(state.records.seen[:, i] & ~before, state.t * 12.0 - drawn_h, came_h)
    result = state.records.value[:, i]
    came = state.records.seen[:, i]
    grew = [float((result[came & (arm == a)] > 0).float().mean()) for a in range(3)]
    assert grew[0] > 0.3 and grew[1] < 0.05 and grew[2] > 0.3, grew
    assert bool((result[came & (result > 0)] == 2.0).all()), "it names the organism"
    assert float(came_h[came & (result > 0)].max()) <= 36.0 and float(came_h[came & (result > 0)].min()) >= 24.0
    assert float(came_h[came & (result == 0)].min()) == 48.0
