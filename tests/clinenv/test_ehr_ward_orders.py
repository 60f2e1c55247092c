"""Which orders the ward does not carry out, and why; switches and doses as orders."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401 - registers the ids
from clinenv.envs.ehr_ward.orders import DOSES, LIMITS, SWITCHES, admissible, reasons, refused
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from clinenv.task import Menu
from clinenv.testing import check_simulator
from tests.toy_ward import ToyWard
from world_models import keys
from world_models.quantities.ward import (
    COMPLAINTS,
    INQUIRIES,
    INTERVENTIONS,
    MAX_HOURS_SINCE,
    ORDERS,
    inquiry_index,
    intervention_index,
    order_index,
)


def refused_on(chart, action):
    return refused(chart, action, admissible(chart))


def chart_with(**values: float) -> dict[str, torch.Tensor]:
    """One patient on air, awake, with these values charted and no others."""
    world = ToyWard()
    chart = {n: x.clone() for n, x in world.observe(world.initial(keys.from_seed(3, 1))).items()}
    chart["inquiry_seen"][:] = 0.0
    chart["complaint"][:] = 0.0
    for name, value in values.items():
        chart[name] = torch.tensor([float(value)])
        chart["inquiry_seen"][:, inquiry_index(name)] = 1.0
    return chart


def orders(**amounts: float) -> torch.Tensor:
    action = torch.zeros(1, len(ORDERS))
    for name, amount in amounts.items():
        action[0, order_index(name)] = amount
    return action


def test_the_menu_is_every_test_and_treatment_at_its_standard_amount() -> None:
    assert list(SWITCHES.names) == [q.name for q in ORDERS] == list(DOSES.names) and len(SWITCHES) == 69
    assert SWITCHES.standard["furosemide_mg"] == 40 and SWITCHES.standard[INQUIRIES[0].order] == 1
    assert all(0 < SWITCHES.standard[q.name] <= q.high for q in INTERVENTIONS)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.order}-{limit.measure}")
def test_each_limit_forbids_beyond_it_and_only_once_charted(limit) -> None:
    nudge = 1e-3 if limit.side == "above" else -1e-3
    beyond, within = (
        chart_with(**{limit.measure: limit.limit + nudge}),
        chart_with(**{limit.measure: limit.limit - nudge}),
    )
    action = orders(**{limit.order: 1.0})
    column = order_index(limit.order)
    assert not admissible(beyond)[0, column] and refused_on(beyond, action)[0, column]
    assert (limit.order, limit.reason) in reasons(beyond, action)[0]
    assert admissible(within)[0, column] and not any(why == limit.reason for _, why in reasons(within, action)[0])
    beyond["inquiry_seen"][:] = 0.0
    assert admissible(beyond)[0, column], "a value nobody charted forbids nothing"


@pytest.mark.parametrize(
    ("set_of_orders", "out", "words"),
    [
        ({"metoprolol_mg": 5, "norepinephrine_ug_kg_min": 0.1}, "metoprolol_mg", "vasopressor"),
        ({"metoprolol_mg": 5, "vasopressin_units_min": 0.03}, "metoprolol_mg", "vasopressor"),
        ({"ceftriaxone_g": 2, "meropenem_g": 1}, "ceftriaxone_g", "broader"),
        ({"piperacillin_tazobactam_g": 4.5, "meropenem_g": 1}, "piperacillin_tazobactam_g", "broader"),
        ({"ultrafiltration_ml_h": 100}, "ultrafiltration_ml_h", "renal replacement"),
        ({"ventilation_l_min": 2}, "ventilation_l_min", "3 L/min"),
        ({"sodium_phosphate_mmol": 15, "calcium_gluconate_g": 2}, "sodium_phosphate_mmol", "precipitates"),
    ],
)
def test_contradictions_within_a_set(set_of_orders: dict, out: str, words: str) -> None:
    chart = chart_with()
    action = orders(**set_of_orders)
    gone = refused_on(chart, action)
    assert [ORDERS[i].name for i in gone[0].nonzero().flatten().tolist()] == [out]
    assert bool(admissible(chart)[0, order_index(out)]), "no matter of one order, so not in the mask"
    assert words in reasons(chart, action)[0][0][1] and len(reasons(chart, action)[0]) == 1


def test_what_is_no_contradiction_is_carried_out() -> None:
    fine = orders(
        ultrafiltration_ml_h=100, renal_replacement_ml_kg_h=25, ceftriaxone_g=2, vancomycin_mg=1250, dextrose_g=25
    )
    assert not bool(refused_on(chart_with(), fine).any())
    sugar = chart_with(glucose_mg_dl=400)
    assert bool(refused_on(sugar, orders(dextrose_g=25)).any())
    assert not bool(refused_on(sugar, orders(dextrose_g=25, insulin_units_h=7)).any())
    # an order that the chart forbids contradicts nothing any more: insulin is out, so the sugar has none beside it
    low = chart_with(glucose_mg_dl=400, potassium_mmol_l=3.0)
    assert refused_on(low, orders(dextrose_g=25, insulin_units_h=7))[0].sum() == 2


def test_bleeding_breathing_and_waiting() -> None:
    chart = chart_with()
    chart["complaint"][:, COMPLAINTS.index("bleeding")] = 1.0
    heparin = order_index("heparin_units_kg_h")
    assert not admissible(chart)[0, heparin]
    age = chart["treatment_age_hours"] = torch.full((1, len(INTERVENTIONS)), MAX_HOURS_SINCE)
    for hours, allowed in ((MAX_HOURS_SINCE, False), (8.0, False), (30.0, True)):
        age[:, intervention_index("endoscopy")] = hours
        assert bool(admissible(chart)[0, heparin]) is allowed
    awake = chart_with(gcs=15, spo2_percent=97)
    assert not admissible(awake)[0, order_index("ventilation_l_min")]
    awake["treatment_share"][:, intervention_index("oxygen_fraction")] = 0.5
    assert admissible(awake)[0, order_index("ventilation_l_min")]
    awake["inquiry_pending"][:, 3] = 1.0
    assert not admissible(awake)[0, 3] and "has not come" in reasons(awake, orders(**{INQUIRIES[3].order: 1}))[0][0][1]


@pytest.mark.parametrize("task", [EHRWardTask(), EHRWardTask(actions=DOSES)], ids=["switches", "doses"])
def test_task_and_simulator_keep_the_contract(task: EHRWardTask) -> None:
    check_simulator(Simulator(ToyWard(), task))


def make(env_id: str = "EHRWard-v0", **kwargs) -> gymnasium.Env:
    return gymnasium.make(env_id, **{"world": ToyWard(hazard=0.0, leaves=0.0), **kwargs}).unwrapped


def test_refused_orders_are_counted_said_and_not_paid_for() -> None:
    env, other = make(), make()
    for each in (env, other):
        each.reset(seed=0)
    action = np.zeros(69, dtype=np.int8)
    plain = other.step(action)
    action[order_index("ultrafiltration_ml_h")] = 1
    told = env.step(action)
    assert told[4]["refused_orders"] == 1.0 and plain[4]["refused_orders"] == 0.0
    assert (
        env.refusals() == [("ultrafiltration_ml_h", "no renal replacement runs in this step")] and not other.refusals()
    )
    assert np.array_equal(told[0], plain[0]) and told[1] == plain[1], "as if it had not been ordered"


def test_the_mask_is_what_one_step_refuses() -> None:
    env = make()
    _, info = env.reset(seed=5)
    rng = np.random.default_rng(0)
    env.action_space.seed(1)
    met = 0
    for _ in range(12):
        mask = info["action_mask"]
        assert mask.dtype == np.int8 and mask.shape == (69,) and set(mask.tolist()) <= {0, 1}
        met += int((mask == 0).sum())
        barred = np.flatnonzero(mask == 0)
        action = env.action_space.sample(mask=2 * mask)
        assert not action[barred].any()
        wanted = action.copy()
        wanted[barred] = 1
        kept = env.snapshot()
        env.step(wanted)
        said = {order for order, _ in env.refusals()}
        assert {ORDERS[i].name for i in barred} <= said
        env.restore(kept)
        info = env.step(action if rng.random() < 0.8 else np.zeros_like(action))[4]
    assert met > 20, "no order was ever barred, so nothing was tested"


def test_a_menu_entry_is_masked_by_any_of_its_orders() -> None:
    menu = Menu(
        (
            ("nothing", {}),
            ("furosemide", {"furosemide_mg": 40.0}),
            ("potassium and furosemide", {"furosemide_mg": 40.0, "potassium_chloride_mmol": 20.0}),
        )
    )
    env = make(task=EHRWardTask(actions=menu))
    assert env.reset(seed=0)[1]["action_mask"].tolist() == [1, 1, 1]
    chart = chart_with(potassium_mmol_l=6.0)
    assert env.episodes.interface.codec.mask(admissible(chart)).tolist() == [[1, 1, 0]]
    assert env.step(1)[4]["refused_orders"] == 0.0


def test_switches_and_doses_say_what_is_wrong() -> None:
    env, dose = make(), make("EHRWardDose-v0", action_unit="units")
    env.reset(seed=0)
    dose.reset(seed=0)
    with pytest.raises(ValueError, match="neither 0 .* nor 1"):
        env.step(np.full(69, 0.5))
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(30))
    amounts = np.zeros(69, dtype=np.float32)
    amounts[order_index("furosemide_mg")] = 500.0
    with pytest.raises(ValueError, match=r"500.*furosemide_mg.*240"):
        dose.step(amounts)
    assert dose.action_space.high[order_index("furosemide_mg")] == 240.0


def test_a_yes_or_no_order_is_given_from_a_half() -> None:
    dose = make("EHRWardDose-v0")
    dose.reset(seed=0)
    action = -np.ones(69, dtype=np.float32)
    vital = next(i for i, q in enumerate(INQUIRIES) if q.name == "sodium_mmol_l")
    action[[vital, order_index("furosemide_mg"), order_index("endoscopy")]] = 0.49
    dose.step(action)
    given = dose.episodes.given[0]
    assert given[vital] == 0 and given[order_index("endoscopy")] == 0
    assert float(given[order_index("furosemide_mg")]) == pytest.approx(0.49 * 240)
    action[[vital, order_index("endoscopy")]] = 0.5
    dose.step(action)
    given = dose.episodes.given[0]
    assert given[vital] == 1 and given[order_index("endoscopy")] == 1
