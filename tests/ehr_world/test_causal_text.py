"""The text form of a stay: nothing is lost on the way there and back, and what is no stay is refused."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models.data.ehr import inquiry_items
from world_models.data.ehr.episode import (
    Diagnosis,
    InquiryEvent,
    InterventionEvent,
    PatientEpisode,
    at_float32,
    build_episode,
)
from world_models.ehr_world.causal_lm import text as causal_text
from world_models.ehr_world.causal_lm.parse import parse, parse_stays
from world_models.ehr_world.causal_lm.text import (
    STATUS,
    STATUSES,
    AskedItem,
    Given,
    Narrative,
    NarrativeError,
    NarrativeStep,
    narrative_of,
    render,
    to_episode,
    usual_unit,
)
from world_models.ehr_world.causal_lm.ward_narratives import facts_of_ward, narrative_of_ward, orders_of_action
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, STATIC, inquiry_index, order_index

START = datetime(2150, 3, 1, 7, 30)

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(0, 1e6, width=32)


@st.composite
def narratives(draw: st.DrawFn) -> Narrative:
    """Any narrative, however odd its names."""

    def asked() -> AskedItem:
        item = draw(st.one_of(words, st.sampled_from(["potassium_mmol_l", "hour 4", "give | x", "a = b"])))
        if draw(st.booleans()):
            return AskedItem(item, label=draw(words))
        return AskedItem(item, draw(numbers), None, draw(st.one_of(st.just(usual_unit(item) or ""), words)))

    def given_one() -> Given:
        some = st.none() | numbers
        return Given(
            draw(words), draw(words), draw(some), draw(words), draw(some), draw(words), draw(some), draw(words)
        )

    width = draw(st.sampled_from([1 / 60, 0.25, 1.0, 4.0, 12.0]))
    index = sorted(draw(st.sets(st.integers(0, 300), max_size=3)))
    steps = tuple(
        NarrativeStep(
            i,
            tuple(asked() for _ in range(draw(st.integers(0, 3)))),
            tuple(given_one() for _ in range(draw(st.integers(0, 2)))),
        )
        for i in index
    )
    names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
    facts = tuple((draw(names), draw(st.one_of(numbers, words))) for _ in range(draw(st.integers(0, 3))))
    ranks = st.none() | st.integers(1, 40)
    diagnoses = tuple(Diagnosis(draw(ranks), "10", draw(words)) for _ in range(draw(st.integers(0, 2))))
    return Narrative(facts, diagnoses, width, steps)


@settings(max_examples=150, deadline=None)
@given(narratives())
def test_text_to_events_to_text_loses_nothing(narrative: Narrative) -> None:
    text = render(narrative)
    assert parse(text) == narrative
    assert render(parse(text)) == text


@st.composite
def episodes(draw: st.DrawFn) -> PatientEpisode:
    minute = st.integers(0, 40 * 60 - 1).map(lambda m: START + timedelta(minutes=m))
    inquiries = [
        InquiryEvent(item, at_float32(draw(amounts)), None, draw(minute), None, usual_unit(item), "LAB//1")
        if item is not None
        else InquiryEvent(
            "culture//blood//aerobic",
            None,
            draw(st.sampled_from(["negative", 'e. "coli"', "4.2"])),
            draw(minute),
            None,
            "",
            "",
        )
        for item in draw(st.lists(st.sampled_from(["sodium_mmol_l", "ph", None]), max_size=6))
    ]
    interventions = [
        InterventionEvent(
            "norepinephrine",
            "infusion",
            at,
            at + timedelta(minutes=draw(st.integers(0, 600))),
            draw(st.none() | amounts.map(at_float32)),
            "mg",
            draw(st.none() | amounts.map(at_float32)),
            "ug/kg/min",
            "iv",
            "x",
        )
        for at in draw(st.lists(minute, max_size=3))
    ]
    died = draw(st.booleans())
    end = START + timedelta(hours=44)
    return build_episode(
        started=START,
        admitted=START,
        discharged=end,
        subject_id=1,
        stay_id=2,
        inquiries=inquiries,
        interventions=interventions,
        diagnoses=[Diagnosis(1, "10", "A419")],
        age_years=63.0,
        sex_female=True,
        race="WHITE",
        died=end if died else None,
        died_in_hospital=died,
        hours_per_step=draw(st.sampled_from([1 / 60, 4.0])),
    )


@settings(max_examples=60, deadline=None)
@given(episodes(), st.booleans())
def test_an_episode_of_the_text_reads_the_same(episode: PatientEpisode, diagnoses: bool) -> None:
    told = narrative_of(episode, diagnoses=diagnoses)
    assert len(told.diagnoses) == diagnoses
    assert sum(len(s.given) for s in told.steps) == sum(len(s.interventions) for s in episode.steps)
    assert [a.item for s in told.steps for a in s.asked if a.item != STATUS] == [
        name for s in episode.steps for name in sorted(q.item for q in s.inquiries)
    ]
    assert [s.asked[-1].label for s in told.steps][:-1] == [STATUSES[0]] * (len(told.steps) - 1)
    if told.steps:
        assert told.steps[-1].asked[-1].label == STATUSES[2 if episode.died_in_hospital else 1]
        again = narrative_of(to_episode(parse(render(told)), START), diagnoses=diagnoses)
        assert again == told


def test_the_form_itself() -> None:
    step = NarrativeStep(
        2,
        (
            AskedItem("heart_rate_bpm", 112.0, None, "bpm"),
            AskedItem("odd", 3.5, None, "mg/L"),
            AskedItem(STATUS, label="stays"),
        ),
        (Given("norepinephrine", "infusion", None, "", 0.1, "ug/kg/min", 3.5, "iv"),),
    )
    told = Narrative((("age_years", 63.0), ("code", "12")), (Diagnosis(1, "10", "A419"),), 4.0, (step,))
    assert render(told) == (
        'patient | age_years 63 | code "12" | step 4\ndiagnoses | 1 10 A419\nhour 8\n'
        "ask | heart_rate_bpm | odd | status\n"
        "give | norepinephrine | infusion | rate 0.1 ug/kg/min | for 3.5 | route iv\n"
        'heart_rate_bpm = 112\nodd = 3.5 mg/L\nstatus = "stays"\n'
    )
    waiting = told._replace(steps=(step.orders(),))
    assert parse(render(waiting)) == waiting, "orders whose outcomes are not known yet"
    assert parse_stays(render(told) + "\n" + render(waiting)) == [told, waiting]


def test_the_two_tables_agree_on_units() -> None:
    shared = [q for q in INQUIRIES if inquiry_items.find(q.name) is not None]
    assert len(shared) > 25 and all(inquiry_items.by_name(q.name).unit == q.unit for q in shared)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("patient | step 4\nhour 8\nhour 4\n", 3, "time runs backwards"),
        ("patient | step 4\nhour 3\n", 2, "no multiple"),
        ("patient | step 4\nhour 0\nask | ph\nph = seven\n", 4, "finite number, or a label"),
        ("patient | step 4\nhour 0\nask | ph\nph = 1e999\n", 4, "finite number"),
        ("patient | step 4\nhour 0\nask | ph\nsodium_mmol_l = 140\n", 4, "expected the outcome of 'ph'"),
        ("patient | step 4\nhour 0\ngive | x | infusion | speed 3\n", 3, "expected dose, rate, for or route"),
        ("patient | step 4\nhour 0\nask | a\\z\n", 3, "is no escape"),
        ("patient | age_years 63\n", 1, "expected 'patient"),
        ("patient | step 0.001\n", 1, "under a minute"),
        ("Here is the patient\n", 1, "expected 'patient"),
    ],
)
def test_what_is_no_stay_is_refused(text: str, line: int, what: str) -> None:
    with pytest.raises(NarrativeError, match=f"line {line}: .*{what}"):
        parse(text)


def test_a_cut_text_and_an_unknown_outcome_are_refused() -> None:
    with pytest.raises(NarrativeError, match="cut off"):
        parse("patient | step 4")
    with pytest.raises(NarrativeError, match="no outcome yet"):
        to_episode(Narrative((), (), 4.0, (NarrativeStep(0, (AskedItem("ph"),)),)), START)
    with pytest.raises(NarrativeError, match="not finite"):
        causal_text.number(float("nan"))


def test_a_stay_of_the_ward() -> None:
    steps, ph, culture = 3, inquiry_index("ph"), inquiry_index("blood_culture")
    asked = torch.zeros(steps, len(INQUIRIES), dtype=torch.bool)
    value = torch.full((steps, len(INQUIRIES)), float("nan"))
    asked[0, [ph, culture]] = True
    asked[1, ph] = True  # never came
    value[0, ph], value[0, culture] = 7.31234, 2.0
    amounts = torch.zeros(steps, len(INTERVENTIONS))
    amounts[1, 0] = 1000.0
    static = {q.name: 1.0 for q in STATIC} | {"age_years": 71.234}
    told = narrative_of_ward(
        facts_of_ward(static, 0),
        asked,
        value,
        amounts,
        torch.ones(steps, dtype=torch.bool),
        torch.tensor([False, True, False]),
        4.0,
    )
    assert [(a.item, a.value, a.label) for a in told.steps[0].asked] == [
        ("blood_culture", None, "mrsa"),
        ("ph", 7.312, None),
        (STATUS, None, "stays"),
    ]
    assert told.steps[1] == NarrativeStep(
        1, (AskedItem(STATUS, label="discharged"),), (Given("saline_ml", "administration", 1000.0, "mL"),)
    )
    assert len(told.steps) == 2 and ("sex", "female") in told.facts and ("age_years", 71.2) in told.facts
    assert parse(render(told)) == told

    action = torch.zeros(len(INQUIRIES) + len(INTERVENTIONS))
    action[order_index("inquire_ph")] = 1
    action[order_index("norepinephrine_ug_kg_min")] = 0.1
    step = orders_of_action(action, 4)
    assert step.asked == (AskedItem("ph"), AskedItem(STATUS)) and step.given[0].rate == 0.1
    with pytest.raises(NarrativeError, match="columns, got 3"):
        orders_of_action(action[:3], 0)
