"""What a client may write as an action, and what it is told when it is none."""

from __future__ import annotations

import numpy as np
import pytest

from clinenv.serving.errors import Refused

FORMS = [
    ("ECGDrug-v0", {"text": "4"}, {4: 1}),
    ("ECGDrug-v0", {"text": " Dofetilide 0.5 mg. "}, {4: 1}),
    ("ECGDrug-v0", {"orders": ["nothing"]}, {0: 1}),
    ("EHRWard-v0", {"text": "nothing"}, {}),
    ("EHRWard-v0", {"text": "- lactate\n- Furosemide: 40 mg\n- norepinephrine 0.1 ug/kg/min"}, {24: 1, 42: 1, 49: 1}),
    ("EHRWard-v0", {"orders": {"furosemide_mg": 40, "saline_ml": True, "water_ml": 0}}, {39: 1, 49: 1}),
    ("EHRWard-v0", {"orders": ["inquire_ph", "red cells"]}, {25: 1, 57: 1}),
    ("EHRWardDose-v0", {"text": "saline_ml=1000, inquire_sodium; insulin 4 units/h"}, {0: 1, 39: 0.25, 50: 4 / 50}),
    ("ECGProgression-v0", {"text": "statin, ACE inhibitor, months_to_next_visit 6"}, {6: 1, 9: 1, 14: 2}),
    ("ECGExplain-v0", {"text": "onset of I48"}, {16: 1}),
]


@pytest.mark.parametrize(("env_id", "action", "entries"), FORMS)
def test_it_is_understood(served, env_id, action, entries) -> None:
    reader = served[env_id].reader
    found = reader(action)
    if isinstance(found, int):
        assert {found: 1} == entries
        return
    wanted = np.zeros(len(reader.labels))
    wanted[list(entries)] = list(entries.values())
    if env_id == "EHRWardDose-v0":  # of the largest amount
        wanted[50] = 4 / reader._highest["insulin_units_h"]
    assert np.allclose(found, wanted) and reader.space.contains(found)


WRONG = [
    ("ECGDrug-v0", 3, "is no object"),
    ("ECGDrug-v0", {}, "exactly one of value, orders, text; this one has none"),
    ("ECGDrug-v0", {"value": 1, "text": "1"}, "this one has value, text"),
    ("ECGDrug-v0", {"value": 1, "vlaue": 2}, "field 'vlaue' of an action is unknown"),
    ("ECGDrug-v0", {"value": 9}, "whole number from 0 to 8"),
    ("ECGDrug-v0", {"value": True}, "whole number from 0 to 8"),
    ("ECGDrug-v0", {"text": "99"}, "whole number from 0 to 8"),
    ("ECGDrug-v0", {"text": "dofetilide"}, "did you mean dofetilide 0.5 mg"),
    ("ECGDrug-v0", {"orders": ["nothing", "nothing"]}, "one choice is wanted"),
    ("EHRWard-v0", {"value": [1] * 68}, "a list of 68 is no list of 69 numbers"),
    ("EHRWard-v0", {"value": ["1"] * 69}, "for inquire_sodium is no number"),
    ("EHRWard-v0", {"text": "furosemide 40 g"}, "is given in mg, not in g"),
    ("EHRWard-v0", {"text": "furosemide 80"}, "standard amount, 40"),
    ("EHRWard-v0", {"text": "furosemid"}, "did you mean furosemide_mg"),
    ("EHRWard-v0", {"text": "lactate, inquire_lactate"}, "inquire_lactate is ordered twice"),
    ("EHRWard-v0", {"text": "I would give <b>fluids</b>"}, "is no order with an optional amount"),
    ("EHRWard-v0", {"text": "x" * 20_000}, "of 20000 characters is no text of at most 10000"),
    ("EHRWard-v0", {"orders": [1]}, "no list of names and no object"),
    ("EHRWardDose-v0", {"text": "saline_ml"}, "saline_ml needs an amount in mL, at most 4000"),
    ("EHRWardDose-v0", {"text": "saline_ml 5000"}, "outside 0 to 4000 mL"),
    ("ECGProgression-v0", {"text": "months_to_next_visit 2"}, "has the amounts 1, 3, 6, 12, and 2 was given"),
    ("ECGProgression-v0", {"text": "months_to_next_visit"}, "and no amount was given"),
]


@pytest.mark.parametrize(("env_id", "action", "told"), WRONG)
def test_it_is_refused_with_what_to_write_instead(served, env_id, action, told) -> None:
    with pytest.raises(Refused) as refusal:
        served[env_id].reader(action)
    assert told in str(refusal.value) and len(str(refusal.value)) < 600
