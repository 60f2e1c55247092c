"""The open sets side by side: divided once and for all, their source told or not."""

import torch

from tests.ehr_world.ward_small import some_stays, tiny
from world_models.ehr_world.people import COHORTS, PARTS, Cohort, divided, shards, told_source, with_sources
from world_models.ehr_world.records import UNTOLD, StayRecords, hospital_number, most_positions
from world_models.ehr_world.train_people import Learned, PeopleFeed, PeopleRecipe, hidden


def some_records(count: int = 400) -> StayRecords:
    one = some_stays()
    stays = type(one)(*(x[:1].expand(count, *x.shape[1:]) for x in one))
    subject = torch.arange(count) // 2
    hospital = torch.where(subject % 5 == 0, UNTOLD, subject % 40)
    return StayRecords(stays, subject, torch.ones(count, dtype=torch.bool), hospital)


def test_no_patient_is_in_two_parts_and_parts_do_not_depend_on_who_else_is_there():
    records = some_records()
    parts = divided(COHORTS[0], records)
    who = [set(parts[name].subject.tolist()) for name in PARTS]
    assert not (who[0] & who[1] or who[0] & who[2] or who[1] & who[2])
    assert sum(len(p.subject) for p in parts.values()) == 400
    assert 0.6 < len(parts["learn"].subject) / 400 < 0.8
    half = StayRecords(*(type(x)(*(y[:200] for y in x)) if isinstance(x, tuple) else x[:200] for x in records))
    for name in PARTS:
        assert set(divided(COHORTS[0], half)[name].subject.tolist()) == {
            s for s in parts[name].subject.tolist() if s < 100
        }


def test_hospitals_are_kept_together():
    cohort = Cohort("eicu_demo", {}, by_hospital=True)
    parts = divided(cohort, some_records())
    where = [set(parts[name].hospital.tolist()) - {UNTOLD} for name in PARTS]
    assert not (where[0] & where[1] or where[0] & where[2] or where[1] & where[2]) and all(where[i] for i in (0, 2))


def test_who_was_in_two_hospitals_is_in_one_part_alone():
    cohort = Cohort("eicu_demo", {}, by_hospital=True)
    records = some_records()._replace(hospital=torch.arange(400) % 40)  # two stays a patient, in two hospitals
    parts = divided(cohort, records)
    who = [set(parts[name].subject.tolist()) for name in PARTS]
    assert not (who[0] & who[1] or who[0] & who[2] or who[1] & who[2]) and all(who)
    assert sum(len(p.subject) for p in parts.values()) < 400, "the later of two parts loses his stays"
    by_stay = divided(cohort, records._replace(subject=torch.arange(400)))
    assert len(parts["learn"].subject) == len(by_stay["learn"].subject), "nobody is lost to learn from"


def test_mimic_is_test_data_whole():
    for cohort in COHORTS:
        if cohort.name.startswith("mimic"):
            assert len(divided(cohort, some_records())["test"].subject) == 400


def test_the_source_is_told_beside_the_wards_context():
    words = with_sources(tiny().vocabulary, ["one", "other"])
    assert with_sources(words, ["one", "other"]) == words
    records, width = some_records(4), len(tiny().vocabulary.static)
    static = told_source(records, words, "other").stays.static
    assert static.shape == (4, width + 2) and static[:, width:].tolist() == [[0.0, 1.0]] * 4
    for name in (None, "a third"):
        assert bool(told_source(records, words, name).stays.static[:, width:].isnan().all())


def test_the_source_is_hidden_whole_from_a_share_of_stays():
    words = with_sources(tiny().vocabulary, ["one", "other"])
    names = [s.name for s in words.static]
    stays = told_source(some_records(200), words, "one").stays
    seen = hidden(stays, PeopleRecipe(untold=0.5), names, 3, 1).static[:, -2:].isnan()
    assert torch.equal(seen.all(1), seen.any(1)) and 0.2 <= float(seen.float().mean()) <= 0.8


def test_hospitals_by_number():
    assert (hospital_number("eICU 59"), hospital_number(""), hospital_number("General")) == (59, UNTOLD, UNTOLD)
    assert (most_positions(4.0), most_positions(1.0)) == (85, 169)


def test_a_feed_meets_every_set_as_often_as_its_positions_weigh():
    stays = some_stays()
    sets = {"a": Learned(shards(stays, 4), True), "b": Learned(shards(stays, 4)[:1], False)}
    feed = PeopleFeed(sets, positions=2 * stays.value.shape[1])
    met = [feed(step) for step in range(len(feed.batches))]
    assert {ends for _, ends in met} == {True, False}
    told = sum(float(s.valid.sum()) for s, ends in met if not ends) / sum(float(s.valid.sum()) for s, _ in met)
    here = [float(sum(x.valid.sum() for x in learned.shards)) for learned in sets.values()]
    assert abs(told - here[1] / sum(here)) < 0.1
    again = PeopleFeed(sets, positions=2 * stays.value.shape[1])(3)
    assert torch.equal(again[0].static, met[3][0].static) and torch.equal(again[0].asked, met[3][0].asked)
