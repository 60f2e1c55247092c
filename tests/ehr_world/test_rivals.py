"""Rivals of the learned ward: the slots they share, their scores, and that each can be trained and asked."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.ward import narratives
from benchmarks.ward import rivals_lm as lms
from benchmarks.ward.paper_tables import efficiency, figure_rows, paper_rows, retention
from benchmarks.ward.rivals import Boosting, budget_steps, by_net, train_set_outcome, untold
from benchmarks.ward.scores import laplace_scores
from benchmarks.ward.slots import Known, SlotPrediction, all_slots, label_scores, score, simple, some_slots
from tests.ehr_world.causal_stays import stay as small_stay
from tests.ehr_world.ward_small import some_stays, tiny, words
from world_models import tree
from world_models.ehr_world.causal_lm.codec import encode
from world_models.ehr_world.causal_lm.text import STATUS
from world_models.ehr_world.causal_lm.tokens import QuantileCodec
from world_models.ehr_world.people import with_sources
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.vocabulary import from_z, to_z


def setting():
    stays = some_stays()
    known = Known(words(), stays)
    return stays, known, some_slots(tree.take(stays, slice(0, 8)), known.label, 10, 0)


def test_slots_are_whole_steps_behind_the_admission():
    stays, known, slots = setting()
    assert int(slots.place.min()) > 0
    numbers = slots.take(~known.label[slots.item])
    for group in numbers.group.unique():
        at = numbers.group == group
        row, place = int(numbers.row[at][0]), int(numbers.place[at][0])
        there = stays.asked[row, place] & ~stays.value[row, place].isnan() & ~known.label
        assert torch.equal(there.nonzero()[:, 0], numbers.item[at])
    counts = torch.bincount(numbers.row, minlength=8)
    possible = all_slots(tree.take(stays, slice(0, 8)), 0)
    possible = torch.bincount(possible.row[~known.label[possible.item]], minlength=8)
    assert bool((counts >= possible.clamp_max(10)).all())


def test_scores_of_the_truth_and_of_no_answer():
    _, known, slots = setting()
    right = score("truth", slots, SlotPrediction(slots.y), known)
    assert right["s10"] == 1.0 and right["smape"] == 0.0 and right["energy"] == pytest.approx(0.0, abs=1e-6)
    nothing = score("none", slots, SlotPrediction(torch.full_like(slots.y, float("nan"))), known)
    assert nothing["s25"] == 0.0 and nothing["answered"] == 0.0 and nothing["smape"] == pytest.approx(2.0)
    assert nothing["status_f1"] == 0.0 and "energy" not in nothing


def test_label_scores_count_the_right_organism_only():
    y, told = torch.tensor([0.0, 1.0, 3.0, 3.0, 0.0]), torch.tensor([0.0, 1.0, 4.0, 0.0, 1.0])
    found = label_scores(y, told)
    assert found["label_precision"] == pytest.approx(1 / 3) and found["label_recall"] == pytest.approx(1 / 3)
    assert found["labels_positive"] == 3


def test_baselines_have_laplace_distributions():
    _, known, slots = setting()
    slots = slots.take(~known.label[slots.item])
    said = simple("last_value", slots, known)
    scale = known.spread["last_value"][slots.item]
    plain = laplace_scores(known.z(slots) - to_z(said.point, known.scale[slots.item]), scale)
    assert float(said.nll.mean()) == pytest.approx(plain["nll"], abs=1e-5)
    assert float(said.crps.mean()) == pytest.approx(plain["crps"], abs=1e-5)
    assert torch.allclose(said.quantiles[:, 17] - said.quantiles[:, 1], 2 * scale * torch.tensor(5.0).log(), atol=1e-4)
    seen = ~slots.last.isnan()
    assert torch.equal(said.point[seen], slots.last[seen])
    assert score("last_value", slots, said, known)["skill_against_last_value"] == pytest.approx(0.0, abs=1e-6)


def test_a_stay_that_goes_on_is_told_as_in_training():
    whole = small_stay(3, steps=4)
    whole = whole._replace(steps=tuple(s._replace(number=i) for i, s in enumerate(whole.steps)))
    codec = QuantileCodec.fit([whole])
    bare = whole._replace(
        steps=tuple(s._replace(asked=tuple(a for a in s.asked if a.item != STATUS)) for s in whole.steps)
    )
    told, trained = encode(narratives.Staying(codec), bare).ids, encode(codec, whole).ids
    assert told == trained[: len(told)] and len(trained) - len(told) == 2  # the last status and its outcome


def test_what_had_not_come_is_not_told():
    stays, _, _ = setting()
    late = (stays.delay > 0) & (stays.delay < 15) & stays.asked & ~stays.value.isnan()
    row, place, item = late.nonzero()[0].tolist()
    name = words().items[item].name

    def holds(now: int) -> bool:
        step = narratives.stay(stays, row, 0, place + 1, now=now).steps[place]
        return any(a.item == name for a in step.asked)

    assert not holds(place) and holds(place + int(stays.delay[row, place, item]))


def test_a_budget_is_kept_and_another_one_refused(tmp_path):
    calls = []
    steps = budget_steps(tmp_path, 0.2, lambda step: calls.append(sum(i * i for i in range(20_000))))
    assert steps >= 1 and calls
    before = len(calls)
    assert budget_steps(tmp_path, 0.2, calls.append) == steps and len(calls) == before
    with pytest.raises(ValueError, match="0.2 s, not 5"):
        budget_steps(tmp_path, 5, calls.append)


def test_a_network_of_other_scales_and_sources_is_judged_on_the_common_ones():
    stays, known, slots = setting()
    few, net = tree.take(stays, slice(0, 8)), tiny().net
    told = by_net(net, few, slots, known)
    others = Known(words(), stays)
    others.scale = known.scale * torch.tensor([1.1, 2.0, 1.0, 1.0])
    moved = by_net(net, few, slots, others)
    number = ~known.label[slots.item]
    torch.testing.assert_close(moved.point, told.point, rtol=1e-4, atol=1e-4)
    # twice the SD: a density half as high on x is twice as high on z
    torch.testing.assert_close(told.nll[number] - moved.nll[number], torch.full((int(number.sum()),), math.log(2.0)))
    assert torch.equal(told.nll[~number], moved.nll[~number])
    back = from_z(moved.quantiles[number], others.scale[slots.item[number]].unsqueeze(1))
    mine = from_z(told.quantiles[number], known.scale[slots.item[number]].unsqueeze(1))
    torch.testing.assert_close(back, mine, rtol=1e-3, atol=1e-3)
    sourced = SetOutcome(net.config, with_sources(words(), ["one", "two"]))
    assert untold(sourced, few).static.shape[1] == few.static.shape[1] + 2
    assert bool(untold(sourced, few).static[:, -2:].isnan().all()) and torch.equal(untold(net, few).static, few.static)


@pytest.mark.slow
def test_set_outcome_and_boosting_are_trained_and_asked(tmp_path):
    stays, known, slots = setting()
    few = tree.take(stays, slice(0, 8))
    net = train_set_outcome(stays, few, words(), tmp_path / "net", 0.05, batch=8, hidden=16, query=16, rank=2)
    row = score("net", slots, by_net(net, few, slots, known), known)
    assert all(torch.tensor(float(row[n])).isfinite() for n in ("nll", "nll_joint", "crps", "energy", "coverage80"))
    train = tree.take(stays, slice(0, 16))  # rarer items have too few values, which is an own path
    trees = Boosting.train(train, known, tmp_path / "trees", 0.01, rows=60)
    assert score("trees", slots, trees.predict(few, slots), known)["s25"] > 0.3
    again = Boosting.train(train, known, tmp_path / "trees", 0.01, rows=60)
    assert torch.equal(again.predict(few, slots).point, trees.predict(few, slots).point)
    paths = trees.simulate(few, 1)
    full = all_slots(few, 1)
    assert not bool(paths[:, full.row, full.place, full.item].isnan().any())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["quantile", "text"])
def test_language_models_are_trained_and_asked(tmp_path, form):
    pytest.importorskip("transformers")
    stays, known, slots = setting()
    few = tree.take(stays, slice(0, 2))
    slots = slots.take(slots.row < 2)
    lm = lms.train_lm(stays, tmp_path / form, 0.01, form, batch=2, width=32, layers=1)
    said = lms.next_step(lm, few, slots, known, paths=3)
    row = score(form, slots, said, known)
    assert row["answered"] == 1.0 and torch.tensor(row["nll_joint"]).isfinite()
    if form == "quantile":
        assert torch.tensor(row["nll"]).isfinite() and bool((said.quantiles.diff(dim=-1) >= -1e-5).all())
    short = tree.take(few, slice(0, 1))
    short = short._replace(**{n: getattr(short, n)[:, :4] for n in short._fields[2:]})
    paths = lms.simulate(lm, short, 1, known, paths=2)
    full = all_slots(short, 1)
    assert len(full.y) and not bool(paths[:, full.row, full.place, full.item].isnan().any())


def test_layouts():
    same = {"data": "ward", "model": "a", "remark": "", "patients": 3, "horizon_h": 168}
    near = {
        **same,
        "setting": "next_step",
        "s25": 0.8,
        "status_f1": 0.5,
        "label_f1": 0.4,
        "average": 0.6,
        "high_sensitivity_s25": 0.5,
    }
    near |= {"smape": 0.1, "high_sensitivity_smape": 0.3, "moved": 4, "values": 9}
    far = {**near, "setting": "full_trajectory", "s25": 0.6, "label_f1": 0.0}
    (row,) = retention([near, far])
    assert row["s25_retention"] == pytest.approx(75.0) and row["label_f1_retention"] == 0.0
    shown = figure_rows([near, far])
    assert shown[0]["s25_drop"] == pytest.approx(0.3) and shown[0]["smape_rise"] == pytest.approx(0.2)
    assert all("other data" in r["remark"] for r in paper_rows())


def test_efficiency_without_speeds_says_how_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="benchmarks.ward.speed"):
        efficiency(tmp_path / "speed.json")
