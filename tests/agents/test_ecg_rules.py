"""The dofetilide label's rule, visit by visit."""

from __future__ import annotations

import pytest
import torch

from agents.baselines.constant import FixedRegimen
from agents.baselines.ecg_rules import DofetilideLabelRule, menu_row
from agents.protocol import Agent, to_orders

ORDERS = ("ranolazine_mg", "dofetilide_mg", "verapamil_mg", "quinidine_mg")
MENU = torch.tensor([[0, 0, 0, 0], [500, 0, 0, 0], [0, 0.25, 0, 0], [0, 0.5, 0, 0], [0, 0, 120, 0]])
NOTHING, HALF, FULL = 0, 2, 3


def visit(hour, qtc, baseline=400.0, qrs=90.0):
    """A chart of one patient, or of several where qtc is a list."""
    qtc = torch.as_tensor(qtc, dtype=torch.float32).reshape(-1)
    full = torch.full_like
    spread = torch.as_tensor(baseline, dtype=torch.float32).expand_as(qtc).clone()
    qrs = torch.as_tensor(qrs, dtype=torch.float32).expand_as(qtc).clone()
    return {"hours": full(qtc, hour), "qtcf_ms": qtc, "baseline_qtcf_ms": spread, "qrs_ms": qrs}


def course(rule, qtcs, **kw):
    return [int(rule.act(visit(2.0 * i, q, **kw))[0]) for i, q in enumerate(qtcs)]


@pytest.fixture
def rule():
    return DofetilideLabelRule(MENU, ORDERS)


def test_is_an_agent(rule):
    assert isinstance(rule, Agent)


def test_quiet_course_is_500_every_12_hours(rule):
    given = course(rule, [400.0] + [420.0] * 23)
    assert [i for i, g in enumerate(given) if g == FULL] == [0, 6, 12, 18]
    assert set(given) == {FULL, NOTHING}


def test_rise_over_15_percent_halves_from_the_second_dose(rule):
    given = course(rule, [400.0, 461.0] + [420.0] * 22)
    assert given[0] == FULL and [i for i, g in enumerate(given) if g == HALF] == [6, 12, 18]


def test_rise_of_15_percent_exactly_does_not_halve(rule):
    assert course(rule, [400.0, 460.0] + [420.0] * 6)[6] == FULL


def test_over_500_at_the_first_check_halves(rule):
    assert course(rule, [440.0, 501.0] + [420.0] * 6, baseline=440.0)[6] == HALF


def test_a_rise_later_than_the_first_check_does_not_halve(rule):
    assert course(rule, [400.0, 420.0, 470.0, 470.0, 470.0, 470.0, 470.0])[6] == FULL


def test_over_500_after_the_second_dose_stops_for_good(rule):
    given = course(rule, [400.0] + [420.0] * 6 + [505.0] + [420.0] * 16)
    assert [i for i, g in enumerate(given) if g != NOTHING] == [0, 6]


def test_over_500_between_first_check_and_second_dose_is_not_a_stop(rule):
    assert course(rule, [400.0, 420.0, 510.0, 420.0, 420.0, 420.0, 420.0])[6] == FULL


def test_long_baseline_is_contraindicated_unless_the_qrs_is_wide():
    narrow, wide = DofetilideLabelRule(MENU, ORDERS), DofetilideLabelRule(MENU, ORDERS)
    assert set(course(narrow, [441.0] * 24, baseline=441.0)) == {NOTHING}
    assert course(wide, [480.0] * 2, baseline=480.0, qrs=130.0)[0] == FULL


def test_wide_qrs_stops_at_550(rule):
    given = course(rule, [430.0] + [460.0] * 7 + [540.0] * 4 + [551.0] + [460.0] * 11, baseline=430.0, qrs=130.0)
    # At hour 24 the third dose is due and the QTc reads 551: it is not given, nor is the fourth.
    assert [i for i, g in enumerate(given) if g != NOTHING] == [0, 6]


@pytest.mark.parametrize(
    ("clearance", "doses"),
    [
        (61.0, {0: FULL, 6: FULL, 12: FULL, 18: FULL}),
        (60.0, {0: HALF, 6: HALF, 12: HALF, 18: HALF}),
        (40.0, {0: HALF, 6: HALF, 12: HALF, 18: HALF}),
        (39.0, {0: HALF, 12: HALF}),  # 125 micrograms twice a day, which this menu lacks
        (19.0, {}),
    ],
)
def test_the_kidneys_set_the_dose(rule, clearance, doses):
    given = [int(rule.act(visit(2.0 * i, 420.0) | _kidneys(clearance))[0]) for i in range(24)]
    assert {i: g for i, g in enumerate(given) if g != NOTHING} == doses


def _kidneys(clearance):
    return {"creatinine_clearance_ml_min": torch.tensor([clearance])}


def test_a_menu_with_125_micrograms_gives_them_twice_then_once_a_day():
    menu = torch.cat([MENU, torch.tensor([[0, 0.125, 0, 0]])])
    quiet, steep = DofetilideLabelRule(menu, ORDERS), DofetilideLabelRule(menu, ORDERS)
    given = [int(quiet.act(visit(2.0 * i, 420.0) | _kidneys(30.0))[0]) for i in range(24)]
    assert [i for i, g in enumerate(given) if g == 5] == [0, 6, 12, 18]
    qtcs = [400.0, 470.0] + [420.0] * 22
    given = [int(steep.act(visit(2.0 * i, q) | _kidneys(30.0))[0]) for i, q in enumerate(qtcs)]
    assert [i for i, g in enumerate(given) if g == 5] == [0, 12]


def test_nothing_is_given_on_verapamil(rule):
    since = torch.tensor([[96.0, 96.0, 2.0, 96.0]])
    given = []
    for i in range(16):
        given.append(int(rule.act(visit(2.0 * i, 420.0) | {"hours_since_dose": since})[0]))
        since = (since + 2.0).clamp_max(96.0)
    assert [i for i, g in enumerate(given) if g != NOTHING] == [11]  # a day after the last verapamil


def test_rows_are_independent_and_single_rows_reset(rule):
    many = DofetilideLabelRule(MENU, ORDERS)
    left = [400.0, 470.0, 420.0, 420.0, 420.0, 420.0, 420.0, 420.0]
    right = [400.0, 420.0, 420.0, 420.0, 420.0, 420.0, 420.0, 510.0]
    both = [many.act(visit(2.0 * i, [a, b])).tolist() for i, (a, b) in enumerate(zip(left, right, strict=True))]
    assert [b[0] for b in both] == course(rule, left)
    rule.reset()
    assert [b[1] for b in both] == course(rule, right)
    many.reset(torch.tensor([False, True]))
    chart = visit(0.0, [420.0, 430.0])
    chart["hours"] = torch.tensor([16.0, 0.0])
    assert many.act(chart).tolist() == [NOTHING, FULL]


def test_menu_row_says_what_there_is():
    assert menu_row(MENU, ORDERS, verapamil_mg=120) == 4
    with pytest.raises(ValueError, match="no order named"):
        menu_row(MENU, ORDERS, amiodarone_mg=200)
    with pytest.raises(ValueError, match="no row of the menu"):
        menu_row(MENU, ORDERS, dofetilide_mg=5.0)


def test_orders_of_an_index_and_of_milligrams():
    assert to_orders(torch.tensor([3]), MENU).tolist() == [[0.0, 0.5, 0.0, 0.0]]
    direct = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert to_orders(direct, None) is direct
    with pytest.raises(ValueError, match="outside 0..4"):
        to_orders(torch.tensor([5]), MENU)
    with pytest.raises(ValueError, match="no menu"):
        to_orders(torch.tensor([0]), None)


def test_a_regimen_gives_its_dose_by_the_clock_alone():
    blind = FixedRegimen(HALF, 12.0)
    assert isinstance(blind, Agent)
    assert [i for i, g in enumerate(course(blind, [400.0, 900.0] * 12)) if g == HALF] == [0, 6, 12, 18]
    hour = sum(torch.full((24,), 0.1)) * 5  # a float32 sum that is not quite twelve
    assert hour != 12.0 and blind.act(visit(float(hour), [400.0] * 3)).tolist() == [HALF] * 3
    for index, hours in ((-1, 12.0), (1, 0.0), (1, float("nan"))):
        with pytest.raises(ValueError, match="above 0"):
            FixedRegimen(index, hours)
