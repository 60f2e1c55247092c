"""How ends are judged: areas, skills, rivals that find what is there, and worlds that cannot be fooled by charting."""

import torch

from benchmarks.people import ends
from benchmarks.people.ends import BASE, Steps, asked, boosted, by_time, by_world, features, rows_of, steps_of
from tests.benchmarks.people_stays import ITEM, process, records
from tests.ehr_world.ward_small import tiny, words
from world_models.ehr_world.records import StayRecords
from world_models.ehr_world.set_outcome.losses import forced


def ending(count: int, seed: int = 0) -> StayRecords:
    """Who is above one unit when a step ends dies in it with a chance of one half; nobody leaves, and all stays are as
    long: what comes after a death is left in."""
    stays = process(count, seed=seed)
    chart = features(words(), stays, False)[..., ITEM].nan_to_num(-9.0)
    dies = (chart > 1.0) & (torch.rand(chart.shape, generator=torch.Generator().manual_seed(seed)) < 0.5)
    return records(stays._replace(alive=~dies))


def test_skill_is_measured_against_the_rate_and_owners_are_drawn_together():
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(2000, generator=generator)
    happened = torch.rand(2000, generator=generator) < chance
    at = Steps(torch.arange(2000), torch.zeros(2000, dtype=torch.int64), happened, torch.arange(2000) // 10)
    rate = torch.full((2000,), float(happened.float().mean()))
    base, best, wrong = rows_of(at, {BASE: rate, "truth": chance, "opposite": 1 - chance}, 200)
    assert base["log_skill"] == base["brier_skill"] == 0.0 and base["auroc"] == 0.5
    assert 0.2 < best["log_skill_low"] < best["log_skill"] < best["log_skill_high"] < 0.4
    assert 0.8 < best["auroc_low"] < best["auroc"] < best["auroc_high"] < 0.87
    assert wrong["log_skill"] < -1 and abs(wrong["auroc"] + best["auroc"] - 1) < 1e-6


def test_a_rate_by_step_is_that_of_those_learned_from_and_deaths_bar_discharge():
    told = ending(200)
    rate = by_time([(told, False)], "death")
    at = steps_of(told, "death", False)
    for place in (1, 7):
        here = at.place == place
        assert abs(float(rate[place]) - float(at.happened[here].double().mean())) < 0.02
    leaves = steps_of(told, "discharge", False)
    assert len(leaves.row) == len(at.row) - int(at.happened.sum()) and not bool(leaves.happened.any())


def test_boosting_finds_what_kills(monkeypatch):
    monkeypatch.setattr(ends, "RATES", (0.12,))
    monkeypatch.setattr(ends, "TREES", 60)
    learn, valid, test = ([(ending(n, seed), False)] for n, seed in ((150, 1), (60, 2), (60, 3)))
    model = boosted(words(), learn, valid, "death", False)
    at = steps_of(test[0][0], "death", False)
    x = features(words(), test[0][0].stays, False)[at.row, at.place]
    said = torch.tensor(model.predict(x.numpy()))
    base, found = rows_of(at, {BASE: by_time(learn, "death")[at.place].float(), "boosting": said.float()}, 100)
    assert found["auroc"] > 0.9 and found["log_skill_low"] > 0.3 and base["ends"] == found["ends"]
    assert features(words(), test[0][0].stays, True).shape[-1] > x.shape[-1]


def test_a_world_says_of_every_step_what_its_network_does():
    model, told = tiny(people=True), records(process(7))
    said = by_world(model, told, "nowhere")
    wanted = torch.sigmoid(forced(model.net, told.stays).end_logits)
    torch.testing.assert_close(said, wanted, rtol=0, atol=1e-6)


def test_three_days_are_lived_for_each_way_of_asking(monkeypatch):
    monkeypatch.setattr(ends, "PATIENTS", 20)
    model = tiny(people=True)
    with torch.no_grad():
        model.net.ends[2].weight.zero_()
        model.net.ends[2].bias.copy_(torch.tensor([-20.0, 20.0]))  # everybody leaves at once
    usual = torch.full((len(words().items),), 0.2)
    told = asked(model, "tiny", usual)
    assert [row["asked"] for row in told] == ["nothing", "as in records", "everything"]
    assert all(row["home"] == 1.0 and row["dead"] == 0.0 for row in told)
