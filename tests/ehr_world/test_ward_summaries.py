"""Summaries of oracle stays: their truth is the stay's, they say it, and readers of them are scored as known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.ward import context as benchmark
from benchmarks.ward.context_scores import FIELDS, compare, same_words, score_rows, word_f1
from benchmarks.ward.mortality import plain
from world_models import keys, tree
from world_models.data.ehr.context.grounding import grounded
from world_models.data.ehr.context.schema import CHRONIC, JSON_SCHEMA, StatedDiagnosis, StaticContext, as_json
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.ward_summaries.development_styles import DEVELOPMENT
from world_models.ehr_world.ward_summaries.facts import ALLERGENS, CONDITIONS, facts_of
from world_models.ehr_world.ward_summaries.held_out_styles import HELD_OUT
from world_models.ehr_world.ward_summaries.wording import misspelt
from world_models.ehr_world.ward_summaries.write import write_summaries
from world_models.quantities.ward import DISEASES, STATIC, inquiry_index

STYLES = (*DEVELOPMENT, *HELD_OUT)
SEED, COUNT = ward_rollouts.TRAIN_SEED + 880_000, 24


@pytest.fixture(scope="module")
def stays():
    return ward_rollouts.rollout(keys.from_seed(SEED, COUNT), 30, orders=plain)


def test_facts_are_those_of_the_stay(stays) -> None:
    facts = facts_of(stays, keys.from_seed(SEED, COUNT))
    columns = [q.name for q in STATIC]
    for row, fact in enumerate(facts):
        assert fact.primary.name == DISEASES[int(stays.diagnosis[row].argmax())]
        chronic = {c.name for c in fact.secondary} & set(CHRONIC)
        assert chronic == {name for name in CHRONIC if stays.static[row, columns.index(name)] > 0.5}
        for condition in (fact.primary, *fact.secondary):
            for item, value in condition.findings:
                charted = stays.value[row, :, inquiry_index(item)]
                charted = charted[~charted.isnan()]
                assert value in (float(charted.min()), float(charted.max()))
        assert fact.primary.name not in fact.absent and fact.died == (not bool(stays.alive[row].all()))
    assert {None, ()} < {fact.allergies for fact in facts}
    with pytest.raises(ValueError, match="23 keys for 24 stays"):
        facts_of(stays, keys.from_seed(SEED, COUNT - 1))
    with pytest.raises(ValueError, match="no diagnosis"):
        facts_of(stays._replace(diagnosis=torch.zeros_like(stays.diagnosis)), keys.from_seed(SEED, COUNT))


@pytest.mark.parametrize("style", STYLES, ids=lambda s: s.name)
def test_a_summary_says_its_truth_word_by_word(stays, style) -> None:
    for summary in write_summaries(stays, keys.from_seed(SEED, COUNT), [style]):
        truth = replace(summary.truth, secondary=tuple(replace(d, reason="") for d in summary.truth.secondary))
        kept, refused = grounded(truth, summary.text)
        # a course may leave the primary reason's capital, never its words
        assert not refused and kept.age_years == summary.truth.age_years
        assert [d.name for d in kept.diagnoses()] == [d.name for d in summary.truth.diagnoses()]
        assert summary.truth.primary is not None and set(summary.truth.primary.terms) <= summary.truth.terms()
    assert style.held_out == (style in HELD_OUT)
    assert style.words.conditions.keys() == {*CONDITIONS, "heart_failure_on_chronic"}
    assert style.words.allergens.keys() == set(ALLERGENS)


def test_a_row_is_written_as_the_patient_alone_and_styles_take_turns(stays) -> None:
    key = keys.from_seed(SEED, COUNT)
    many = write_summaries(stays, key, STYLES)
    alone = write_summaries(tree.take(stays, slice(3, 4)), key[3:4], [STYLES[3]])
    assert alone == many[3:4] and [s.style for s in many[:6]] == [s.name for s in STYLES] + [STYLES[0].name]
    with pytest.raises(ValueError, match="no styles"):
        write_summaries(stays, key, [])


def test_held_out_names_are_other_names() -> None:
    seen = {name.lower() for names in DEVELOPMENT[0].words.conditions.values() for name in names}
    new = [n for names in HELD_OUT[0].words.conditions.values() for n in names]
    assert not seen & {n.lower() for n in new} - {"lactic acidosis"} and len(new) > 40


def test_a_misspelling_exchanges_two_letters_of_a_long_word() -> None:
    assert misspelt("CKD", 0.5) == "CKD"
    wrong = misspelt("Severe pneumonia", 0.3)
    assert wrong != "Severe pneumonia" and sorted(wrong) == sorted("Severe pneumonia") and wrong.startswith("Severe p")


# ---- scores

TRUE = StaticContext(
    67.0,
    "female",
    ("sulfa", "latex"),
    StatedDiagnosis("Severe sepsis", "lactate 4.2 and fever", None, ("sepsis",)),
    (
        StatedDiagnosis("CKD", "", None, ("chronic_kidney_disease",)),
        StatedDiagnosis("AKI", "creatinine 3.1", None, ("acute_kidney_injury",)),
    ),
)


def counts(found: StaticContext, true: StaticContext = TRUE) -> dict[str, list[int]]:
    return dict(zip(FIELDS, compare(found, true).tolist(), strict=True))


def test_words_in_common() -> None:
    assert word_f1("Severe sepsis", "sepsis") == pytest.approx(2 / 3)
    assert same_words("Sulfa (Sulfonamide Antibiotics)", "sulfa") and not same_words("acute renal failure", "acute MI")
    assert word_f1("a a b", "a c") == pytest.approx(0.4) and word_f1("", "x") == 0.0


def test_a_perfect_reader_and_one_that_reads_nothing() -> None:
    right = counts(TRUE)
    assert all(false == missed == 0 and hits > 0 for hits, false, missed in right.values())
    nothing = counts(StaticContext())
    assert all(hits == false == 0 for hits, false, _ in nothing.values())
    assert {name: missed for name, (_, _, missed) in nothing.items()} == {
        name: hits for name, (hits, _, _) in right.items()
    }


def test_each_field_is_counted_as_known() -> None:
    found = StaticContext(
        68.0,
        None,
        ("latex", "eggs"),
        StatedDiagnosis("sepsis", "lactate 4.2", None, ("sepsis", "pneumonia")),
        (
            StatedDiagnosis("AKI", "low urine output", None, ("acute_kidney_injury",)),
            StatedDiagnosis("AKI again", "", None, ("diabetes",)),
            StatedDiagnosis("Gout", ""),
        ),
    )
    assert counts(found) == {
        "age": [0, 1, 1],
        "sex": [0, 0, 1],
        "allergies": [1, 1, 1],
        "primary diagnosis": [1, 0, 0],
        "secondary diagnoses": [1, 2, 1],
        "reasons": [1, 1, 1],
        "chronic conditions": [0, 1, 1],
        "acute diseases": [2, 1, 0],
    }
    assert counts(StaticContext(allergies=()))["allergies"] == [0, 1, 2]
    assert counts(StaticContext(allergies=()), StaticContext(allergies=()))["allergies"] == [1, 0, 0]


def test_pooled_figures_and_their_intervals() -> None:
    some = torch.zeros(50, len(FIELDS), 3, dtype=torch.int64)
    some[:, 0] = torch.tensor([3, 1, 2])  # every summary alike: the interval is a point
    some[:25, 1, 0], some[25:, 1, 2] = 1, 1  # found in half of them
    age, sex, allergies, *_ = score_rows(some, 500)
    assert (age["precision"], age["recall"], age["f1"]) == pytest.approx((0.75, 0.6, 2 / 3))
    assert age["f1_low"] == age["f1_high"] == pytest.approx(2 / 3) and age["true"] == 250
    assert sex["recall"] == 0.5 and 0.3 < sex["recall_low"] < 0.45 and 0.55 < sex["recall_high"] < 0.7
    assert sex["precision"] == 1.0 and allergies["f1"] != allergies["f1"]  # NaN: nothing was there


@pytest.mark.slow
def test_the_benchmark_judges_both_groups_and_a_model_with_and_without_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "STEPS", 6)  # a day: enough to be written about
    out = tmp_path / "context.csv"
    assert benchmark.main(["--work", str(tmp_path), "--out", str(out), "--summaries", "6"]) == 0
    rows = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    assert len(rows) == 1 + len(FIELDS) * (1 + 2 + 1 + 3) and any(row.startswith("rules,form,held out") for row in rows)

    def mute(prompts):
        return ["no comment"] * len(prompts)

    reader = benchmark.Reader("mute", mute, 6, attempts=1)
    with pytest.raises(ValueError, match="gave no answer"):
        benchmark.judge(reader._replace(backend=lambda p: [RuntimeError("off")] * len(p)), "held out", tmp_path, True)
    found = {
        (r["reader"], r["field"]): r for r in benchmark.judge(reader, "held out", tmp_path, True) if r["style"] == "all"
    }
    rules = benchmark.judge(benchmark.Reader("rules", None, 6), "held out", tmp_path, True)
    age = next(r for r in rules if r["style"] == "all" and r["field"] == "age")
    assert found["mute, else rules", "age"]["recall"] == age["recall"] > 0
    assert found["mute alone", "age"]["recall"] == 0 and found["mute alone", "age"]["by_model"] == 0
    assert benchmark.main(["--work", str(tmp_path), "--out", str(out), "--model", "x"]) == 2


def test_a_bounded_schema_asks_for_what_the_whole_one_takes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    bounded = jsonschema.Draft202012Validator(benchmark._bounded(JSON_SCHEMA))
    assert bounded.is_valid(as_json(TRUE))
    long = replace(TRUE, secondary=TRUE.secondary * 4)
    assert jsonschema.Draft202012Validator(JSON_SCHEMA).is_valid(as_json(long)) and not bounded.is_valid(as_json(long))
    assert not bounded.is_valid(as_json(replace(TRUE, allergies=("x" * 81,))))
