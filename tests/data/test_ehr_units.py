from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from world_models.data.ehr import inquiry_items, intervention_items
from world_models.data.ehr.canonical_events import canonical_inquiries, canonical_interventions, number
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.units import UnitError, check_units, conversion, dose_conversion, spell, spell_dose
from world_models.quantities import ward as ward_quantities

TIME = pd.Timestamp("2150-03-01 07:00").as_unit("us")


def rows(*values, itemid=50931):
    return pd.DataFrame(
        {
            "subject_id": 1,
            "stay_id": 11.0,
            "itemid": itemid,
            "unit": [unit for _, unit in values],
            "value": [float(v) if not isinstance(v, str) else np.nan for v, _ in values],
            "text": [v if isinstance(v, str) else "" for v, _ in values],
            "collected": TIME,
            "resulted": TIME + pd.Timedelta(hours=1),
            "source": "LAB//x",
        }
    )


def convert(value, unit, itemid):
    return canonical_inquiries(rows((value, unit), itemid=itemid), Flow(), "t")["value"].tolist()


@pytest.mark.parametrize(
    ("itemid", "value", "unit", "expected"),
    [
        (50931, 5.55, "mmol/L", 100.0),  # glucose
        (50912, 88.4, "umol/L", 1.0),  # creatinine
        (51006, 10.0, "mmol/L", 28.01),  # urea nitrogen
        (50885, 17.1, "µmol/L", 1.0),  # bilirubin
        (50971, 4.0, "mEq/L", 4.0),
        (50893, 2.5, "mmol/L", 10.02),  # calcium
        (50808, 2.4, "mEq/L", 1.2),  # ionised calcium, two charges
        (50960, 1.0, "mmol/L", 2.43),  # magnesium
        (50813, 18.0, "mg/dL", 2.0),  # lactate
        (51222, 140.0, "g/L", 14.0),
        (50889, 1.2, "mg/dL", 12.0),  # C-reactive protein
        (51003, 0.05, "ng/mL", 50.0),  # troponin
        (50821, 13.3, "kPa", 99.76),
        (223761, 98.6, "°F", 37.0),
        (223761, 98.6, "?F", 37.0),
        (226531, 200.0, None, 90.72),  # pounds by the item itself
        (51301, 9000, "#/uL", 9.0),
        (223835, 40.0, "", 0.4),
    ],
)
def test_known_conversions(itemid, value, unit, expected):
    assert convert(value, unit, itemid) == pytest.approx([expected], rel=2e-3)


def test_every_item_speaks_its_own_unit_and_agrees_with_the_ward():
    for item in inquiry_items.INQUIRY_ITEMS:
        assert spell(item.unit) == item.unit and conversion(item.name, item.unit, item.unit) == (1.0, 0.0)
        assert item.low < item.high and (item.ref_low is None or item.ref_low <= item.ref_high <= item.high)
        assert inquiry_items.parse_lab_code(item.code).itemid in item.itemids
    ours = {item.name: item.unit for item in inquiry_items.INQUIRY_ITEMS}
    shared = [q for q in ward_quantities.INQUIRIES if q.name in ours]
    assert len(shared) >= 30 and {q.name: q.unit for q in shared} == {q.name: ours[q.name] for q in shared}
    itemids = [i for item in inquiry_items.INQUIRY_ITEMS for i in item.itemids]
    assert len(itemids) == len(set(itemids))


def test_every_order_speaks_its_own_units_once():
    for item in intervention_items.INTERVENTION_ITEMS:
        assert spell_dose(item.amount) == item.amount and spell_dose(item.rate) == item.rate
    itemids = [i for item in intervention_items.INTERVENTION_ITEMS for i in item.itemids]
    assert len(itemids) == len(set(itemids)) and len(intervention_items.by_name()) == len(
        intervention_items.INTERVENTION_ITEMS
    )


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("HYDROmorphone (Dilaudid)", "hydromorphone"),
        ("CefTRIAXone", "ceftriaxone"),
        ("0.9% Sodium Chloride", "saline"),
        ("Insulin Glargine", "insulin_glargine"),
        ("Insulin", "insulin"),
        ("Levophed-k", "norepinephrine"),
        ("Albuterol 0.083% Neb Soln", "albuterol"),
        ("Sevelamer  CARBONATE", "sevelamer carbonate"),
        ("norepinephrine", "norepinephrine"),
        ("Metoprolol Succinate XL", "metoprolol"),
    ],
)
def test_names_of_drugs(name, item):
    assert intervention_items.item_of_drug(name) == item and intervention_items.item_of_drug(item) == item


@pytest.mark.parametrize(
    ("item", "unit", "to", "factor"),
    [
        ("norepinephrine", "mg/kg/min", "ug/kg/min", 1000.0),
        ("vasopressin", "[U]/min", "[U]/h", 60.0),
        ("cefazolin", "mg", "g", 0.001),
        ("potassium_chloride", "mEq", "mmol", 1.0),
        ("fentanyl", "ug/h", "mg/d", 0.024),
        ("calcium_gluconate", "mEq", "mmol", None),
        ("norepinephrine", "ug/min", "ug/kg/min", None),
        ("insulin", "mL", "[U]", None),
    ],
)
def test_doses_convert_only_within_a_kind(item, unit, to, factor):
    found = dose_conversion(item, unit, to)
    assert (found is None) == (factor is None) and (factor is None or found == pytest.approx(factor))


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("mcg/kg/min", "ug/kg/min"),
        ("mcgkgmin", "ug/kg/min"),
        ("Uhr", "[U]/h"),
        ("mEq./hour", "mEq/h"),
        ("gm", "g"),
        ("units", "[U]"),
        ("TAB", "tab"),
        (None, ""),
        ("mL/hour", "mL/h"),
    ],
)
def test_spellings_of_doses(text, ours):
    assert spell_dose(text) == ours and spell_dose(ours) == ours


def test_mixed_units_are_converted_where_known_and_counted_where_not():
    flow = Flow()
    got = canonical_inquiries(rows((100, "mg/dL"), (5.55, "mmol/L"), (7, "furlongs"), (7, None)), flow, "labs")
    assert got["value"].tolist() == pytest.approx([100.0, 99.99], abs=0.1) and set(got["unit"]) == {"mg/dL"}
    assert flow.unknown_units == {"glucose_mg_dl": {"furlongs": 1, "": 1}}
    assert flow.table("labs").dropped["unit missing or not convertible"] == 2
    flow.check()
    with pytest.raises(UnitError, match=r"glucose_mg_dl: 2 of 4 values in 'furlongs' x 1, 'no unit' x 1.*CONVERSIONS"):
        check_units(flow, 0.01)
    check_units(flow, 0.5)


def test_results_beyond_the_method_become_labels_in_our_unit():
    flow = Flow()
    got = canonical_inquiries(
        rows(("<0.01", "ng/mL"), ("GREATER THAN 25", "ng/mL"), ("HEMOLYZED", "ng/mL"), itemid=51003), flow, "labs"
    )
    assert got["label"].tolist() == ["<10", ">25000"] and got["value"].isna().all()
    assert flow.table("labs").dropped == {"no numeric result (text, blank or censored)": 1}


def test_implausible_values_and_results_before_their_draw():
    raw = rows((1350, "mEq/L"), (135, "mEq/L"), itemid=50983)
    raw["resulted"] = TIME - pd.Timedelta(hours=2)
    flow = Flow()
    got = canonical_inquiries(raw, flow, "labs")
    assert got["value"].tolist() == [135.0] and (got["resulted"] == got["collected"]).all()
    assert flow.table("labs").dropped == {"outside the plausible range": 1}
    assert flow.table("labs").repaired == {"result before the collection: taken as the collection time": 1}


def test_rates_of_norepinephrine():
    raw = pd.DataFrame(
        {
            "subject_id": 1,
            "stay_id": 11.0,
            "kind": "infusion",
            "item": "norepinephrine",
            "start": TIME,
            "end": TIME + pd.Timedelta(hours=1),
            "dose": [1.0, -1.0, 2.0, 1.0],
            "unit": ["mg", "mg", None, "vials"],
            "rate": [0.1, 0.0002, 0.15, 99.0],
            "rate_unit": ["mcg/kg/min", "mg/kg/min", "mg/kg/min", "mcg/kg/min"],
            "route": "",
            "source": "x",
            "weight_kg": [80.0, 80.0, 1.0, 80.0],
        }
    )
    flow = Flow()
    got = canonical_interventions(raw, flow, "inputs")
    assert got["rate"].tolist()[:3] == pytest.approx([0.1, 0.2, 0.15]) and np.isnan(got["rate"].iloc[3])
    assert got["unit"].tolist() == ["mg", "", "", "vials"] and np.isnan(got["dose"].iloc[1:3]).all()
    assert sum(flow.table("inputs").repaired.values()) == 4 and len(got) == 4


def test_numbers_in_text():
    got = number(pd.Series(["1,000", "0.5", "5-10", None, "", "1 TAB"]))
    assert got.tolist()[:2] == [1000.0, 0.5] and got[2:].isna().all()
