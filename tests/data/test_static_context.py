"""Static context of stays: the schema, the rules on notes made by hand, codes, and what an answer may not invent."""

from __future__ import annotations

import json

import pytest

from world_models.data.ehr.context.grounding import grounded
from world_models.data.ehr.context.icd_terms import is_coded, terms_of_code, terms_of_codes
from world_models.data.ehr.context.rules import by_rules
from world_models.data.ehr.context.schema import (
    JSON_SCHEMA,
    TERMS,
    ConfigError,
    StatedDiagnosis,
    StaticContext,
    as_json,
    read_context,
)
from world_models.data.ehr.context.sections import sections
from world_models.data.ehr.context.terms import terms_of
from world_models.data.ehr.episode import Diagnosis

NOTE = """
Name:  ___                     Unit No:   ___
Date of Birth:  ___             Sex:   F
Service: MEDICINE

Allergies:
Penicillins / Codeine (hives)

History of Present Illness:
Ms. ___ is a 67 year old woman with hx of CHF (EF 30%) who presented with fever. She denies a history of CKD.

Past Medical History:
1. DM2
2. s/p appendectomy in 1998
3. pneumonia in 2011

Family History:
Father with CKD, mother had DKA.

Brief Hospital Course:
# Sepsis: Temperature 39.4 and lactate 4.2 on arrival. Started on antibiotics. GI bleed was ruled out.
# Acute kidney injury: creatinine rose to 3.1 mg/dL. It then fell.

Discharge Diagnosis:
Primary diagnosis:
Severe sepsis
Secondary diagnoses:
AKI
Hyperkalemia (K 6.1), resolved
No evidence of pneumonia
N18.3 CKD stage III

Discharge Condition:
Stable
"""
FULL = StaticContext(
    67.0,
    "female",
    ("Codeine",),
    StatedDiagnosis("Severe sepsis", "lactate 4.2", None, ("sepsis",)),
    (StatedDiagnosis("CKD stage III", "", "N18.3", ("chronic_kidney_disease",)),),
)


# ---- schema


def test_a_context_survives_json_and_lists_every_term_once() -> None:
    assert read_context(json.dumps(as_json(FULL))) == FULL
    assert FULL.terms() == {"sepsis", "chronic_kidney_disease"}
    assert [d.name for d in FULL.diagnoses()] == ["Severe sepsis", "CKD stage III"]
    assert len(set(TERMS)) == len(TERMS) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"age_years": "67"}, "age_years"),
        ({"age_years": 670}, "670"),
        ({"sex": "F"}, "female, male"),
        ({"allergies": "Codeine"}, "allergies"),
        ({"allergies": [""]}, "allergy"),
        ({"primary": {"name": ""}}, "name"),
        ({"primary": {"name": "x" * 301}}, "301"),
        ({"primary": {"name": "Sepsis", "icd10": "sepsis"}}, "ICD-10"),
        ({"primary": {"name": "Sepsis", "terms": ["fever"]}}, "fever"),
        ({"secondary": [{"reason": "none"}]}, "name"),
        ({"secondary": None}, "secondary"),
    ],
)
def test_json_off_the_schema_is_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_context({**as_json(FULL), **change})


def test_the_schema_that_servers_get_is_the_one_that_is_checked() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(JSON_SCHEMA)
    jsonschema.Draft202012Validator.check_schema(JSON_SCHEMA)
    for right in (FULL, StaticContext(), StaticContext(allergies=())):
        assert check.is_valid(as_json(right))
    for change in (
        {"colour": "red"},
        {"sex": "F"},
        {"age_years": "67"},
        {"primary": {"name": "Sepsis"}},
        {"secondary": 1},
    ):
        assert not check.is_valid({**as_json(FULL), **change})


# ---- rules


def test_rules_read_headings_lists_negation_family_and_past() -> None:
    found = by_rules(NOTE)
    assert (found.age_years, found.sex, found.allergies) == (67.0, "female", ("Penicillins", "Codeine"))
    assert found.primary is not None and found.primary.name == "Severe sepsis"
    assert found.primary.reason == "Temperature 39.4 and lactate 4.2 on arrival"
    told = {d.name: d for d in found.secondary}
    assert list(told) == ["AKI", "Hyperkalemia (K 6.1), resolved", "CKD stage III", "CHF", "DM2"]
    assert told["AKI"].reason == "creatinine rose to 3.1 mg/dL" and told["AKI"].terms == ("acute_kidney_injury",)
    assert told["CKD stage III"].icd10 == "N18.3"
    assert found.terms() == {
        "sepsis", "acute_kidney_injury", "chronic_kidney_disease", "diabetes", "chronic_heart_failure",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "allergies"),
    [
        ("Allergies: NKDA", ()),
        ("Allergies: Patient recorded as having No Known Allergies to Drugs", ()),
        ("ALLERGIES:\n1. Sulfa (rash)\n2. Latex - anaphylaxis", ("Sulfa", "Latex")),
        ("He is allergic to aspirin and codeine.", ("aspirin", "codeine")),
        ("Allergies:\n___\nService: MEDICINE", None),
        ("Nothing of the kind.", None),
    ],
)
def test_rules_tell_no_allergy_from_none_told(text: str, allergies: tuple[str, ...] | None) -> None:
    assert by_rules(text).allergies == allergies


@pytest.mark.parametrize(
    ("text", "age", "sex"),
    [
        ("A 45-year-old man came in.", 45.0, "male"),
        ("80 y/o female with cough", 80.0, "female"),
        ("78M h/o CHF", 78.0, "male"),
        ("Mrs. ___ fell. Sex: F", None, "female"),
        ("He said that his leg hurt.", None, "male"),
        ("Seen in clinic. 999 year old chart.", None, None),
    ],
)
def test_rules_read_age_and_sex(text: str, age: float | None, sex: str | None) -> None:
    found = by_rules(text)
    assert (found.age_years, found.sex) == (age, sex)


def test_rules_take_a_list_in_a_line_and_prose_without_one() -> None:
    listed = by_rules("Discharge Diagnosis: 1. Upper GI bleed (Hgb 6.2) 2. CKD, DM2, CHF 3. r/o pneumonia")
    assert listed.primary == StatedDiagnosis("Upper GI bleed", "Hgb 6.2", None, ("gi_bleed",))
    assert [d.name for d in listed.secondary] == ["CKD", "DM2", "CHF"]
    prose = by_rules("He has diabetes. He was admitted with DKA given glucose of 640. There was no pneumonia.")
    assert prose.primary is not None and prose.primary.name == "DKA" and prose.primary.reason == "glucose of 640"
    assert prose.terms() == {"diabetic_ketoacidosis", "diabetes"}
    assert by_rules("") == StaticContext()


def test_sections_end_where_the_next_heading_stands() -> None:
    kinds = {s.kind: s.text for s in sections(NOTE)}
    assert kinds["allergies"] == "Penicillins / Codeine (hives)"
    assert kinds["primary"] == "Severe sepsis"
    assert "Father" in kinds["family"] and "Sepsis: Temperature" in kinds["course"]


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("CHF exacerbation", {"heart_failure", "chronic_heart_failure"}),
        ("Acute on chronic diastolic CHF", {"heart_failure", "chronic_heart_failure"}),
        ("Acute systolic heart failure", {"heart_failure"}),
        ("hypertensive heart disease without heart failure", set()),
        ("DKA", {"diabetic_ketoacidosis", "diabetes"}),
        ("diabetes insipidus", set()),
        ("Acute on chronic renal failure", {"acute_kidney_injury", "chronic_kidney_disease"}),
        ("Penumonia", {"pneumonia"}),
        ("cryptogenic organizing pneumonia", set()),
        ("septic arthritis", set()),
        ("Hypertension", set()),
    ],
)
def test_names_and_their_terms(name: str, terms: set[str]) -> None:
    assert set(terms_of(name)) == terms


def test_a_heart_failure_that_does_not_say_is_what_the_patient_came_for_only_if_primary() -> None:
    assert terms_of("CHF") == ("chronic_heart_failure",)
    assert set(terms_of("CHF", primary=True)) == {"heart_failure", "chronic_heart_failure"}


# ---- codes


@pytest.mark.parametrize(
    ("version", "code", "terms"),
    [
        ("10", "I50.23", {"heart_failure", "chronic_heart_failure"}),
        ("10", "I5031", {"heart_failure"}),
        ("10", "I5022", {"chronic_heart_failure"}),
        ("10", "I130", {"chronic_heart_failure", "chronic_kidney_disease"}),
        ("10", "E11.10", {"diabetic_ketoacidosis", "diabetes"}),
        ("10", "E1165", {"diabetes"}),
        ("10", "N179", {"acute_kidney_injury"}),
        ("10", "K2970", set()),
        ("10", "K2971", {"gi_bleed"}),
        ("10", "A419", {"sepsis"}),
        ("9", "0389", {"sepsis"}),
        ("9", "486", {"pneumonia"}),
        ("9", "25011", {"diabetic_ketoacidosis", "diabetes"}),
        ("9", "40391", {"chronic_kidney_disease"}),
        ("9", "40493", {"chronic_kidney_disease", "chronic_heart_failure"}),
        ("9", "42823", {"heart_failure", "chronic_heart_failure"}),
        ("9", "5789", {"gi_bleed"}),
        ("9", "V4511", {"chronic_kidney_disease"}),
        ("10", "486", set()),
        ("9", "I50", set()),
        ("10", "", set()),
    ],
)
def test_codes_of_either_revision(version: str, code: str, terms: set[str]) -> None:
    assert set(terms_of_code(version, code)) == terms


def test_a_stays_codes_together_and_a_label_that_is_no_coding() -> None:
    codes = (Diagnosis(1, "10", "I509"), Diagnosis(2, "10", "N183"))
    assert terms_of_codes(codes) == {"heart_failure", "chronic_heart_failure", "chronic_kidney_disease"}
    assert terms_of_codes([d._replace(sequence=None) for d in codes]) == {
        "chronic_heart_failure",
        "chronic_kidney_disease",
    }
    assert is_coded(codes) and is_coded(codes[:1])
    assert not is_coded([Diagnosis(None, "9", "99591")]) and not is_coded([])


# ---- what an answer may not invent


def test_words_that_the_note_does_not_have_are_left_out_and_counted() -> None:
    invented = StaticContext(
        76.0,
        "female",
        ("Codeine", "Latex"),
        StatedDiagnosis("severe  SEPSIS", "lactate 9.9", None, ()),
        (
            StatedDiagnosis("Stroke", "weakness"),
            StatedDiagnosis("CKD stage III", "", "N18.3"),
            StatedDiagnosis("AKI", "", "N17.9"),
        ),
    )
    kept, refused = grounded(invented, NOTE)
    assert kept.age_years is None and kept.allergies == ("Codeine",)
    assert kept.primary == StatedDiagnosis("severe  SEPSIS", "", None, ("sepsis",))
    assert [(d.name, d.icd10) for d in kept.secondary] == [("CKD stage III", "N18.3"), ("AKI", None)]
    assert refused == {
        "age_years": 1, "allergies": 1, "primary.reason": 1, "secondary": 1, "secondary.icd10": 1,
    }  # fmt: skip
    assert grounded(FULL, NOTE) == (FULL, {})


def test_a_number_within_another_does_not_ground_an_age() -> None:
    assert grounded(StaticContext(67.0), "Hgb 6.7, K 167")[0].age_years is None
    assert grounded(StaticContext(67.0), "67M, K 4.")[0].age_years == 67.0
