from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from world_models.data.ehr import inquiry_items
from world_models.data.ehr.episode import (
    KINDS,
    Diagnosis,
    EpisodeError,
    InquiryEvent,
    InterventionEvent,
    at_float32,
    build_episode,
)
from world_models.data.ehr.meds.writer import read_episodes, to_table, write_episodes

START = datetime(2150, 3, 1, 6)


def potassium(
    hours: float, value: float | None = 4.1, label: str | None = None, delay: float | None = 1.0
) -> InquiryEvent:
    collected = START + timedelta(hours=hours)
    resulted = None if delay is None else collected + timedelta(hours=delay)
    return InquiryEvent("potassium_mmol_l", value, label, collected, resulted, "mmol/L", "LAB//50971")


def saline(hours: float, **fields) -> InterventionEvent:
    start = START + timedelta(hours=hours)
    made = InterventionEvent("saline", "infusion", start, None, 500.0, "mL", None, "", "", "INFUSION//225158")
    return made._replace(**fields)


def stay(**fields):
    return build_episode(
        **{
            "subject_id": 1,
            "stay_id": 11,
            "started": START,
            "admitted": START + timedelta(hours=4),
            "discharged": START + timedelta(hours=48),
            "hours_per_step": 4.0,
            **fields,
        }
    )


def test_events_land_in_the_step_they_were_drawn_or_started_in():
    e = stay(inquiries=[potassium(3.999), potassium(4.0), potassium(47.9)], interventions=[saline(4.0)])
    assert [step.number for step in e.steps] == [0, 1, 11]
    assert e.steps[1].start == START + timedelta(hours=4)
    assert (len(e.steps[0].interventions), len(e.steps[1].interventions)) == (0, 1)
    assert e.n_steps == 12 and e.length_of_stay_hours == 48 and e.hours(e.admitted) == 4


def test_a_step_is_a_set_whatever_the_order_of_its_events():
    events = [potassium(1.0), potassium(0.5), potassium(1.0), potassium(1.0, None, "<1")]
    one, other = stay(inquiries=events), stay(inquiries=events[::-1])
    assert one == other and hash(one.steps) == hash(other.steps)
    assert len(one.steps[0].inquiries) == 3  # the double is gone


def test_regrid_moves_events_and_loses_none():
    e = stay(inquiries=[potassium(h) for h in (0, 1, 5, 9.5, 40)], interventions=[saline(h) for h in (2, 12)])
    fine = e.regrid(1.0)
    assert [step.number for step in fine.steps] == [0, 1, 2, 5, 9, 12, 40]
    assert sorted(fine.inquiries()) == sorted(e.inquiries()) and fine.regrid(4.0) == e


@pytest.mark.parametrize("value", [0.1, 4.2, 98.6, 1 / 3, -25.0, 1e-30, 3.4e38, 16777217.0])
def test_float32_keeps_short_decimals_short(value):
    kept = at_float32(value)
    assert np.float32(kept) == np.float32(value) and at_float32(kept) == kept
    assert len(repr(kept)) <= 18 and (value not in (0.1, 4.2, 98.6) or kept == value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"discharged": START + timedelta(hours=3)}, "time runs backwards"),
        ({"started": START + timedelta(hours=5)}, "after admitted"),
        ({"died": START - timedelta(days=1)}, "time runs backwards"),
        ({"inquiries": [potassium(-1)]}, "time runs backwards"),
        ({"inquiries": [potassium(1, delay=-0.5)]}, "before it was collected"),
        ({"inquiries": [potassium(49)]}, "after discharge"),
        ({"inquiries": [potassium(1, None)]}, "exactly one of value and label"),
        ({"inquiries": [potassium(1, 4.0, "<5")]}, "exactly one of value and label"),
        ({"inquiries": [potassium(1, float("nan"))]}, "finite"),
        ({"inquiries": [potassium(1, 1e39)]}, "finite float32"),
        ({"interventions": [saline(49)]}, "after discharge"),
        ({"interventions": [saline(1, kind="thought")]}, "use one of administration"),
        ({"interventions": [saline(2, end=START)]}, "time runs backwards"),
        ({"interventions": [saline(2, dose=-1.0)]}, "dose or rate"),
        ({"hours_per_step": 0.0}, "above 0"),
        ({"hours_per_step": float("nan")}, "above 0"),
        ({"age_years": 300.0}, "outside 0..130"),
        ({"diagnoses": [Diagnosis(1, "ICD//10", "I509")]}, "version"),
    ],
)
def test_what_cannot_be_is_an_error_that_says_what_to_do(fields, words):
    with pytest.raises(EpisodeError, match=words):
        stay(**fields)


def test_steps_laid_out_by_hand_are_checked():
    e = stay(inquiries=[potassium(0), potassium(5)])
    with pytest.raises(EpisodeError, match="stands after step"):
        replace(e, steps=e.steps[::-1])
    with pytest.raises(EpisodeError, match="starts at"):
        replace(e, steps=(e.steps[0]._replace(start=START + timedelta(hours=1)),))
    with pytest.raises(EpisodeError, match="doubles"):
        replace(e, steps=(e.steps[0]._replace(inquiries=e.steps[0].inquiries * 2),))


words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=8)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
hours = st.floats(0, 47.99)
items = st.sampled_from([item.name for item in inquiry_items.INQUIRY_ITEMS] + ["culture//blood//routine"])


@st.composite
def inquiries(draw):
    collected = START + timedelta(hours=draw(hours))
    delay = draw(st.none() | st.floats(0, 400))
    value = draw(st.none() | numbers)
    return InquiryEvent(
        draw(items),
        value,
        draw(words) if value is None else None,
        collected,
        None if delay is None else collected + timedelta(hours=delay),
        draw(words),
        draw(words),
    )


@st.composite
def interventions(draw):
    start = START + timedelta(hours=draw(hours))
    lasts = draw(st.none() | st.floats(0, 400))
    amount = st.none() | numbers.map(abs)
    return InterventionEvent(
        draw(words),
        draw(st.sampled_from(KINDS)),
        start,
        None if lasts is None else start + timedelta(hours=lasts),
        draw(amount),
        draw(words),
        draw(amount),
        draw(words),
        draw(words),
        draw(words),
    )


@st.composite
def stays(draw, stay_id=11):
    diagnosis = st.builds(
        Diagnosis, st.none() | st.integers(1, 40), st.sampled_from(["9", "10"]), st.text("0123456789EIV/", min_size=1)
    )
    return stay(
        subject_id=draw(st.integers(-(2**62), 2**62)),
        stay_id=stay_id,
        hours_per_step=draw(st.floats(0.1, 100)),
        inquiries=draw(st.lists(inquiries(), max_size=5)),
        interventions=draw(st.lists(interventions(), max_size=4)),
        diagnoses=draw(st.lists(diagnosis, max_size=4)),
        died=draw(st.none() | st.floats(0, 1000).map(lambda h: START + timedelta(hours=h))),
        died_in_hospital=draw(st.none() | st.booleans()),
        truncated=draw(st.booleans()),
        age_years=draw(st.none() | st.floats(0, 120)),
        sex_female=draw(st.none() | st.booleans()),
        race=draw(words),
        admission_type=draw(words),
        admission_location=draw(words),
        discharge_location=draw(words),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 99), unique=True, max_size=3).flatmap(lambda ids: st.tuples(*(stays(i) for i in ids))))
def test_meds_round_trip_loses_nothing(episodes):
    table = to_table(episodes)
    assert read_episodes(table) == sorted(episodes, key=lambda e: (e.subject_id, e.started, e.stay_id))
    times = table.column("time").cast(pa.int64()).to_pylist()
    subjects = table.column("subject_id").to_pylist()
    for (one, before), (other, after) in zip(
        zip(subjects, times, strict=True), list(zip(subjects, times, strict=True))[1:], strict=False
    ):
        assert one < other or (one == other and (before is None or (after is not None and before <= after)))


@pytest.mark.parametrize("sign", (1.0, -1.0))
def test_the_largest_float32_is_kept_and_what_is_beyond_it_refused(sign):
    largest = sign * float(np.finfo(np.float32).max)
    value = at_float32(largest)
    assert at_float32(value) == value and np.float32(value) == np.float32(largest)
    e = stay(inquiries=[potassium(1, value=largest)])
    assert read_episodes(to_table([e])) == [e]
    for wrong in (sign * 3.41e38, sign * float("inf"), float("nan")):
        with pytest.raises(EpisodeError, match="not a finite float32"):
            at_float32(wrong)


def test_round_trip_through_a_file_and_a_stay_twice(tmp_path):
    e = stay(inquiries=[potassium(1)], interventions=[saline(1)], diagnoses=[Diagnosis(1, "9", "0389")])
    path = write_episodes([e], tmp_path / "new" / "folder" / "a.parquet")
    assert read_episodes(path) == [e] and [p.name for p in path.parent.iterdir()] == ["a.parquet"]
    with pytest.raises(EpisodeError, match="there twice"):
        write_episodes([e, e], tmp_path / "b.parquet")
    assert not (tmp_path / "b.parquet").exists()
