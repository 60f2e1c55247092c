"""Decision points of stays made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from benchmarks.people.points import decision_points, found_in
from benchmarks.people.questions import QUESTIONS, by_name
from benchmarks.people.stays import Order, Stay, doses_begun, rates_begun, settings_begun, stay_of
from world_models.data.ehr import inquiry_items, intervention_items
from world_models.data.ehr.episode import InquiryEvent, InterventionEvent, build_episode
from world_models.quantities.ward import INTERVENTIONS, intervention_index

NAN = float("nan")
PRESSOR, POTASSIUM, OXYGEN = by_name("norepinephrine"), by_name("potassium_chloride"), by_name("oxygen_fraction")


def infusion(start: float, end: float, rate: float, unit: str = "ug/kg/min") -> Order:
    return Order(start, end, NAN, "", rate, unit, "", True)


def dose(start: float, amount: float, unit: str = "mmol", route: str = "IV") -> Order:
    return Order(start, NAN, amount, unit, NAN, "", route, False)


def series(*pairs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=float)
    return table[:, 0], table[:, 1]


def stay(values, orders, length_h: float = 24.0, lag_h: float = 0.0, stay_id: int = 1) -> Stay:
    return Stay(stay_id, stay_id, "", length_h, 60.0, 1.0, 8.0, lag_h, values, orders)


def pressed(**changes) -> Stay:
    """MAP 60 every hour on the hour, 72 once norepinephrine runs: begun at 5.5, raised at 10.5, ended at 15."""
    maps = series(*[(float(h), 72.0 if 6 <= h < 16 else 60.0) for h in range(24)])
    orders = {"norepinephrine": (infusion(5.5, 10.5, 0.1), infusion(10.5, 15.0, 0.16))}
    return replace(stay({"map_mmhg": maps}, orders), **changes)


def test_the_questions_name_what_there_is():
    assert len({q.name for q in QUESTIONS}) == len(QUESTIONS)
    for q in QUESTIONS:
        assert INTERVENTIONS[intervention_index(q.column)].high >= q.usual_dose > 0
        assert inquiry_items.find(q.target) and inquiry_items.find(q.control) and q.target != q.control
        assert q.order == "" or q.order in intervention_items.by_name()
        assert q.low * q.high > 0 and q.low < q.high and q.from_h < q.to_h and q.literature
        assert (q.kind == "setting") == (q.order == "") and q.kind in ("rate", "dose", "setting")
    with pytest.raises(ValueError, match="no question 'aspirin'; there are: norepinephrine on pressure"):
        by_name("aspirin")


def test_a_start_and_a_rise_are_begun_a_new_bag_and_a_fall_are_not():
    rows = (
        infusion(1, 3, 0.1),
        infusion(3.2, 5, 0.1),  # a new bag
        infusion(5, 6, 0.2),  # a rise
        infusion(6, 7, 0.15),
        infusion(9, 10, 0.15),  # two hours later: a start
        infusion(10, 11, 5.0, "mL/h"),  # cannot be compared
        Order(20, NAN, 1.0, "mg", NAN, "", "", False),  # a push
    )
    begun = rates_begun(rows, {"ug/kg/min": 1.0}, 0.02)
    assert begun.hour.tolist() == [1, 5, 9, 20]
    assert begun.dose[:3] == pytest.approx([0.1, 0.1, 0.15]) and begun.before[:3] == pytest.approx([0, 0.1, 0])
    assert begun.clear.tolist() == [True, True, True, False]
    alone = rates_begun((infusion(2, 4, 6.0, "mL/h"),), {"ug/kg/min": 1.0}, 0.02)
    assert alone.clear.all() and np.isnan(alone.dose).all()  # it was begun; how much is not told


def test_doses_within_an_hour_are_one_and_other_routes_are_not_clear():
    rows = (dose(2, 20), dose(2.5, 10), dose(8, 40, route="PO/NG"), dose(12, 20), dose(13.5, NAN), dose(20, 1))
    begun = doses_begun(rows, {"mmol": 1.0}, 5.0, ("PO",))
    assert begun.hour.tolist() == [2, 8, 12, 13.5, 20]
    assert begun.dose[0] == 30 and np.isnan(begun.dose[3])
    assert begun.clear.tolist() == [True, False, True, True, False]  # 1 mmol is no dose


def test_a_setting_is_raised_against_its_last_charting():
    begun = settings_begun(*series((1, 0.4), (3, 0.6), (4, 0.6), (5, 0.5), (30, 0.8)), 0.1)
    assert begun.hour.tolist() == [3, 30] and begun.before == pytest.approx([0.4, 0.5])
    assert begun.clear.tolist() == [True, False]  # the last charting was a day ago


def test_points_of_a_pressor():
    found = found_in(PRESSOR, pressed())
    hours = found.hour[found.treated]
    assert hours.tolist() == [5.5, 10.5]
    assert found.dose[found.treated] == pytest.approx([0.1, 0.06])
    assert found.before[found.treated] == pytest.approx([0.0, 0.1])
    assert found.baseline[found.treated].tolist() == [60, 72]
    assert found.outcome[found.treated].tolist() == [72, 72] and found.outcome_after_h[0] == 0.5
    spared = found.hour[~found.treated]
    after = found.outcome_after_h[~found.treated]
    assert len(spared) > 10 and np.isnan(found.dose[~found.treated]).all()
    for begin in (5.5, 10.5):  # none that has the order before its outcome, none in the washout
        assert not ((spared <= begin) & (begin <= spared + after)).any()
        assert not ((spared > begin) & (spared - begin <= PRESSOR.washout_h)).any()


def test_an_hourly_table_is_known_an_hour_later():
    late = found_in(PRESSOR, pressed(lag_h=1.0))
    assert late.baseline[late.treated].tolist() == [60, 72]  # of the hours 4 and 9, not 5 and 10
    maps = {"map_mmhg": series(*[(float(h), 50.0 + h) for h in range(24)])}
    known = [found_in(PRESSOR, pressed(values=maps, lag_h=lag)).baseline[0] for lag in (0.0, 1.0)]
    assert known == [55, 54]


def test_who_is_out_of_range_or_not_looked_at_is_no_point():
    high = {"map_mmhg": series(*[(float(h), 90.0) for h in range(24)])}
    assert not len(found_in(PRESSOR, pressed(values=high)).hour)
    rare = {"map_mmhg": series((5.0, 60.0), (20.0, 60.0))}
    found = found_in(PRESSOR, pressed(values=rare))
    assert found.treated.any() and np.isnan(found.outcome).all()
    assert not len(found_in(PRESSOR, stay({}, {})).hour)


def test_a_course_of_doses_is_their_sum_up_to_the_outcome():
    values = {"potassium_mmol_l": series((1, 3.2), (12, 3.6))}
    found = found_in(POTASSIUM, stay(values, {"potassium_chloride": (dose(2, 20), dose(4, 20), dose(13, 40))}))
    assert found.hour[found.treated].tolist() == [2, 13]  # 4 lies within the washout
    assert found.dose[0] == 40 and found.outcome[0] == 3.6 and np.isnan(found.outcome[1])
    unknown = found_in(POTASSIUM, stay(values, {"potassium_chloride": (dose(2, 20), dose(4, NAN))}))
    assert np.isnan(unknown.dose[0])


def test_urine_is_a_volume_over_the_window():
    q = by_name("furosemide")
    urine = series(*[(float(h), 50.0 if h <= 10 else 200.0) for h in range(24)])
    found = found_in(q, stay({"urine_output_ml": urine}, {"furosemide": (dose(10.5, 40, "mg"),)}))
    assert found.treated.sum() == 1
    assert (found.baseline[0], found.outcome[0]) == (50.0, 200.0)  # mL an hour
    late = found_in(q, stay({"urine_output_ml": urine}, {"furosemide": (dose(20.5, 40, "mg"),)}))
    assert np.isnan(late.outcome[late.treated]).all() or not late.treated.any()  # the stay ends within the window


def test_oxygen_is_compared_where_it_is_charted():
    values = {"fio2_fraction": series((2, 0.4), (4, 0.4), (6, 0.6), (8, 0.3), (10, 0.3)),
              "spo2_percent": series(*[(float(h), 92.0) for h in range(24)])}  # fmt: skip
    found = found_in(OXYGEN, stay(values, {}))
    assert found.hour.tolist() == [6, 4, 10] and found.treated.tolist() == [True, False, False]
    assert found.before == pytest.approx([0.4, 0.4, 0.3])


def many() -> list[Stay]:
    """As `pressed`, each raised a little differently; the labs of one alone come often."""
    out = []
    for i in range(12):
        maps = series(*[(h + 0.01 * i, 60.0 + 0.1 * i) for h in range(24)])
        values = {"map_mmhg": maps, "chloride_mmol_l": series((3.0, 100.0 + i), (9.0, 101.0 + i))}
        out.append(pressed(stay_id=i, subject=i // 2, values=values, hospital=f"h{i % 3}"))
    return out


def test_points_hold_nothing_of_what_came_after():
    stays = many()
    points = decision_points(PRESSOR, stays, 40, seed=0, by_hospital=True)
    assert points.treated.sum() == 24 and (~points.treated).sum() == 40
    assert len(np.unique(points.cluster)) == 3 and len(np.unique(points.subject)) == 6
    cut = 11.0  # all later values are another patient's
    changed = [
        replace(s, values={n: (t, np.where(t > cut, 1.0 + 0 * v, v)) for n, (t, v) in s.values.items()}) for s in stays
    ]
    again = decision_points(PRESSOR, changed, 40_000, seed=0, by_hospital=True)
    whole = decision_points(PRESSOR, stays, 40_000, seed=0, by_hospital=True)

    def early(p):
        rows = p.hour <= cut
        return p.history[rows], p.treated[rows], p.hour[rows]

    for a, b in zip(early(whole), early(again), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


def test_a_stay_alone_gives_what_it_gives_among_others():
    stays = many()
    whole = decision_points(PRESSOR, stays, 40_000, seed=0, by_hospital=False)
    alone = decision_points(PRESSOR, stays[4:5], 40_000, seed=0, by_hospital=False)
    rows = whole.stay == 4
    assert np.array_equal(whole.history[rows], alone.history, equal_nan=True)
    assert np.array_equal(whole.outcome[rows], alone.outcome)


def test_nobody_treated_is_none():
    assert decision_points(PRESSOR, [pressed(orders={})], 100, seed=0, by_hospital=False) is None
    assert decision_points(PRESSOR, [], 100, seed=0, by_hospital=False) is None


def test_a_stay_of_an_episode():
    start = datetime(2150, 3, 1, 10)

    def at(h: float) -> datetime:
        return start + timedelta(hours=h)

    e = build_episode(
        subject_id=1, stay_id=2, started=start, admitted=start, discharged=at(30), died=at(20), died_in_hospital=True,
        age_years=61.0, sex_female=None,
        inquiries=[InquiryEvent("map_mmhg", 61.0, None, at(2), at(3), "mm[Hg]", "LAB//1"),
                   InquiryEvent("crp_mg_l", None, "<1", at(2), at(3), "", "LAB//2")],
        interventions=[
            InterventionEvent("furosemide", "administration", at(4), None, 40.0, "mg", None, "", "iv", "X"),
            InterventionEvent("furosemide", "prescription", at(5), None, 40.0, "mg", None, "", "iv", "X"),
        ],
    )  # fmt: skip
    s = stay_of(e, 1.0)
    assert list(s.values) == ["map_mmhg"] and s.values["map_mmhg"][0].tolist() == [2.0]
    assert [(o.start_h, o.dose, o.route) for o in s.orders["furosemide"]] == [(4.0, 40.0, "IV")]
    assert s.length_h == 20.0 and np.isnan(s.sex_female)
