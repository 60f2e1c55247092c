"""Recorded stays: split by patient, no look ahead, training by folds, the command for anybody's data."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import datetime, timedelta
from functools import lru_cache

import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.ward import fidelity as fidelity_ehr_world
from benchmarks.ward.records import differences, next_slots, normal_of, path_slots, restrict, scores
from tests.ehr_world.ward_small import some_stays, tiny
from world_models import checkpoint, tree
from world_models.catalog import weights_folder
from world_models.data.ehr.episode import InquiryEvent, InterventionEvent, build_episode
from world_models.data.ehr.meds.writer import write_episodes
from world_models.ehr_world import records, train, train_records
from world_models.ehr_world.people import with_sources
from world_models.ehr_world.set_outcome.losses import forced
from world_models.ehr_world.set_outcome.network import SetOutcome
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED

START = datetime(2150, 3, 1, 10)
UNITS = {"potassium_mmol_l": "mmol/L", "heart_rate_bpm": "bpm", "sodium_mmol_l": "mmol/L"}


def stay(subject: int, shift: float = 0.0):
    """Potassium and sodium every 8 h, heart rate every 4 h, saline once; numbers differ by patient and hour."""
    inquiries, steps = [], 8
    for k in range(steps):
        for name, level, every in (
            ("heart_rate_bpm", 80.0, 1),
            ("potassium_mmol_l", 4.0, 2),
            ("sodium_mmol_l", 138.0, 2),
        ):
            if k % every == 0:
                value = level * (1 + 0.02 * ((subject * 7 + k * 5) % 11 - 5)) + shift * (k >= 4)
                when = START + timedelta(hours=4 * k + 1)
                inquiries.append(InquiryEvent(name, round(value, 1), None, when, None, UNITS[name], "LAB//1"))
    saline = InterventionEvent(
        "saline", "infusion", START, START + timedelta(hours=4), 500.0, "mL", None, "", "", "X//1"
    )
    return build_episode(
        started=START,
        subject_id=subject,
        stay_id=subject,
        admitted=START,
        discharged=START + timedelta(hours=4 * steps),
        died_in_hospital=False,
        age_years=50.0 + subject,
        sex_female=subject % 2 == 0,
        inquiries=inquiries,
        interventions=[saline],
    )


@lru_cache(maxsize=1)
def world():
    return tiny()


def read(path, **changes):
    return records.read_records(world().vocabulary, None, meds=path, **changes)[0]


@pytest.fixture(scope="module")
def meds(tmp_path_factory):
    return write_episodes([stay(s) for s in range(1, 13)], tmp_path_factory.mktemp("meds") / "few.parquet")


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    """A ward's folder with the size of the tiny world."""
    folder = tmp_path_factory.mktemp("init")
    train.finish(world().net, some_stays(), some_stays(), folder, "command", "source")
    return folder


def test_folds_part_patients_not_stays() -> None:
    subject = torch.tensor([5, 5, 9, 2, 2, 2, 7, 11])
    fold = records.fold_of(subject, 3)
    for s in subject.unique():
        assert len(fold[subject == s].unique()) == 1
    sizes = torch.bincount(torch.tensor([int(fold[subject == s][0]) for s in subject.unique()]))
    assert sizes.amax() - sizes.amin() <= 1 and torch.equal(fold, records.fold_of(subject, 3))
    few, more = records.shares(subject, 0.4, 0), records.shares(subject, 0.8, 0)
    assert bool((~few | more).all()) and int(few.sum()) < int(more.sum())
    with pytest.raises(ValueError, match="5 patients cannot be split into 6"):
        records.fold_of(subject, 6)


def test_stays_read_back_are_those_read(meds, tmp_path) -> None:
    first, left = records.read_records(world().vocabulary, tmp_path, meds=meds)
    again, left_again = records.read_records(world().vocabulary, tmp_path, meds=meds)
    assert left == left_again and torch.equal(first.filtered, again.filtered)
    for a, b in zip(first.stays, again.stays, strict=True):
        assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) and a.dtype == b.dtype
    kept = next(tmp_path.glob("*.safetensors"))
    kept.write_bytes(kept.read_bytes()[:100])  # a kill in mid-write cannot do this, a full disk can
    assert torch.equal(records.read_records(world().vocabulary, tmp_path, meds=meds)[0].subject, first.subject)


def test_a_cut_record_holds_nothing_that_resulted_later(meds) -> None:
    stays = read(meds).stays
    late = stays._replace(delay=torch.where(stays.asked, 2, stays.delay).to(torch.int8))
    given = records.cut(late, 3)
    assert given.value.shape[1] == 4
    assert bool((given.delay[:, 2:][given.asked[:, 2:]] == CENSORED).all()) and bool(given.value[:, 2:].isnan().all())
    assert torch.equal(torch.nan_to_num(given.value[:, :2]), torch.nan_to_num(stays.value[:, :2]))


def test_predictions_do_not_look_ahead(meds, tmp_path) -> None:
    guesses = records.guesses_of(world().vocabulary, read(meds).stays)
    other = write_episodes([stay(s, shift=9.0) for s in range(1, 13)], tmp_path / "other.parquet")
    ours, theirs = read(meds), read(other)  # the same until position 4
    a, b = (next_slots(world(), x, guesses) for x in (ours, theirs))
    early = a["place"] <= 5  # position 5 is predicted from 4 and before
    assert int(early.sum()) > 50 and torch.equal(a["point/model"][early], b["point/model"][early])
    assert not torch.equal(a["point/model"], b["point/model"]) and not torch.equal(a["y"], b["y"])
    a, b = (path_slots(world(), x, guesses, begin=4, paths=3) for x in (ours, theirs))
    assert torch.equal(a["point/model"], b["point/model"]) and not torch.equal(a["y"], b["y"])
    first = path_slots(world(), ours, guesses, begin=0, paths=3, firsts=True)
    plain = path_slots(world(), ours, guesses, begin=0, paths=3)
    assert torch.equal(first["point/first_value"], plain["point/first_value"])
    assert not torch.equal(first["point/model"], plain["point/model"])


def test_slots_are_those_of_the_likelihood_and_the_chart(meds) -> None:
    guesses = records.guesses_of(world().vocabulary, read(meds).stays)
    slots = next_slots(world(), read(meds), guesses, chunk=5)
    run = forced(world().net, read(meds).stays)
    assert len(slots["y"]) == int((~run.z.isnan() & (run.place > 0)).sum())
    known = restrict(slots, ~slots["last"].isnan())
    assert torch.equal(known["point/last_value"], known["last"])
    row = scores(known, "last_value", normal_of(world()))
    assert row["s25"] == 1.0 and row["values"] == len(known["y"])
    error = (known["y"] - known["last"]).abs() / known["y"].abs()
    assert row["s10"] == pytest.approx(float((error <= 0.1).float().mean()))


def test_the_bootstrap_finds_what_is_better() -> None:
    generator = torch.Generator().manual_seed(0)
    y = 100 + 20 * torch.randn(4000, generator=generator)
    near, far = y + 5 * torch.randn(4000, generator=generator), y + 60 * torch.randn(4000, generator=generator)
    slots = {
        "y": y,
        "last": far,
        "subject": torch.arange(4000) // 100,
        "point/near": near,
        "point/far": far,
        "point/same": near,
    }
    found = differences(slots, "near", "far", number=200)["s25"]
    assert found["low"] > 0.3 and found["low"] < found["difference"] < found["high"] and found["patients"] == 40
    same = differences(slots, "near", "same", number=200)["s25"]
    assert same["difference"] == same["low"] == same["high"] == 0.0


def test_a_fold_is_trained_on_its_patients_alone_and_resumed(meds, init, tmp_path) -> None:
    recipe = dataclasses.replace(train_records.RecordsRecipe(), steps=4, wide_steps=2, batch=4, fewest=5)
    whole, wide = read(meds), read(meds)
    made = train_records.train_fold(init, whole, tmp_path, 3, 1, wide=wide, recipe=recipe)
    held, trained = set(made.held_out.subject.tolist()), set(made.train.subject.tolist())
    assert not held & trained and len(held | trained) == 12 and len(held) == 4
    stays = whole.stays
    changed = torch.isin(whole.subject, made.held_out.subject).view(-1, 1, 1)
    strange = whole._replace(stays=stays._replace(value=torch.where(changed, stays.value * 1.3, stays.value)))
    again = train_records.train_fold(init, strange, tmp_path / "b", 3, 1, wide=wide, recipe=recipe)
    for a, b in zip(made.net.state_dict().values(), again.net.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    files = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.safetensors")}
    third = train_records.train_fold(init, whole, tmp_path, 3, 1, wide=wide, recipe=recipe)
    assert all(f.stat().st_mtime_ns == t for f, t in files.items())  # what was done is loaded
    assert all(torch.equal(a, b) for a, b in zip(made.net.parameters(), third.net.parameters(), strict=True))


def test_the_commands_from_records_to_metrics(meds, init, tmp_path) -> None:
    out = tmp_path / "world"
    train.main(
        [
            "--source",
            "meds",
            "--meds",
            str(meds),
            "--init",
            str(init),
            "--folds",
            "3",
            "--fold",
            "0",
            "--steps",
            "3",
            "--batch",
            "4",
            "--name",
            train_records.DEMO_NAME,
            "--out",
            str(out),
        ]
    )
    card = (out / "CARD.md").read_text()
    assert "Open Database License" in card and "Not for clinical use" in card and "fold 0 of 3" in card
    medians = checkpoint.read_config(out)["guesses"]["median"]
    assert len(medians) == len(world().vocabulary.items)
    metrics = tmp_path / "metrics.json"
    for source in (meds, meds.parent):
        assert (
            fidelity_ehr_world.main(["--meds", str(source), "--world", str(out), "--out", str(metrics), "--paths", "2"])
            == 0
        )
        found = json.loads(metrics.read_text())
        for table in ("next_step", "full_trajectory"):
            for who in ("model", "last_value", "first_value", "item_median"):
                assert {
                    "s10",
                    "s15",
                    "s25",
                    "smape",
                    "status_f1",
                    "nll",
                    "coverage80",
                    "high_sensitivity_s25",
                } <= found[table][who].keys()
                assert 0 <= found[table][who]["s25"] <= 1
        assert found["patients"] == 12 and found["stays"] == 12 and found["values"] == 12 * 16
        metrics.unlink()


def test_what_cannot_be_read_ends_with_2_and_writes_nothing(meds, init, tmp_path, capsys) -> None:
    table = pq.read_table(meds)
    short, cut, empty = tmp_path / "short.parquet", tmp_path / "cut.parquet", tmp_path / "empty"
    pq.write_table(table.drop_columns(["time"]), short)
    cut.write_bytes(meds.read_bytes()[: meds.stat().st_size // 2])
    empty.mkdir()
    out = tmp_path / "out" / "metrics.json"
    for source, says in ((short, "time"), (cut, "cut.parquet"), (empty, "no parquet file")):
        code = fidelity_ehr_world.main(["--meds", str(source), "--world", str(init), "--out", str(out)])
        assert code == 2 and says in capsys.readouterr().err
        assert not out.parent.exists()
    with pytest.raises(SystemExit) as stop:
        fidelity_ehr_world.main(["--meds", str(tmp_path / "nowhere"), "--world", str(init), "--out", str(out)])
    assert stop.value.code == 2
    code = fidelity_ehr_world.main(["--meds", str(meds), "--world", "no-such-world", "--out", str(out)])
    assert code == 2 and "unknown world" in capsys.readouterr().err


def test_a_world_of_records_starts_and_steps(meds, init, tmp_path) -> None:
    recipe = dataclasses.replace(train_records.RecordsRecipe(), steps=1, batch=4)
    made = train_records.train_fold(init, read(meds), tmp_path / "work", 1, 0, recipe=recipe)
    assert made.held_out is None and len(made.train.subject) == 12
    model, _ = train_records.finish_fold(made, tmp_path / "out", meds, init, 1, 0, False)
    card = (tmp_path / "out/CARD.md").read_text()
    assert "license: other" in card and "# ehr-own-stays" in card, "not the licence of the demo that ships"
    assert "records of your own" in card and "Demo" not in card and "ODbL" not in card
    from world_models import catalog, keys

    loaded = catalog.load(tmp_path / "out")
    state = loaded.initial(keys.from_seed(1, 4))
    state = loaded.transition(state, torch.ones(4, len(loaded.orders)) * 0.0 + (torch.arange(len(loaded.orders)) < 30))
    chart = loaded.observe(state)
    assert all(bool(torch.isfinite(x).all()) for x in chart.values()) and float(chart["inquiry_seen"].sum()) > 0
    assert all(
        torch.equal(a, b)
        for a, b in zip(tree.leaves(model.net.state_dict()), tree.leaves(loaded.net.state_dict()), strict=True)
    )


def test_a_start_that_learned_from_people_keeps_its_bins(meds, init, tmp_path) -> None:
    words = with_sources(world().vocabulary, ["one"])
    told = SetOutcome(dataclasses.replace(world().config, temperature=1.15), words)
    stays = some_stays()._replace(static=torch.nn.functional.pad(some_stays().static, (0, 1), value=0.0))
    folder = tmp_path / "of-people"
    train.finish(told, stays, stays, folder, "command", "source")
    recipe = dataclasses.replace(train_records.RecordsRecipe(), steps=1, batch=4)
    found = records.read_records(words, None, meds=meds)[0]
    made = train_records.train_fold(folder, found, tmp_path / "a", 3, 0, recipe=recipe)
    ward = train_records.train_fold(init, read(meds), tmp_path / "b", 3, 0, recipe=recipe)
    assert made.net.vocabulary == words, "else its weights would mean something else"
    assert ward.net.vocabulary.items != world().vocabulary.items, "simulated values are no people's"
    assert made.net.config.temperature == 1.15 and ward.net.config.temperature == 1.0


@pytest.mark.slow
def test_passes_are_chosen_by_the_training_patients_alone(meds, init, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train_records, "PASSES", (2.0, 6.0))
    recipe = dataclasses.replace(train_records.RecordsRecipe(), batch=4)
    whole = read(meds)
    made = train_records.train_fold(init, whole, tmp_path / "a", 3, 1, recipe=recipe)
    assert set(made.chosen) == {2.0, 6.0} and all(math.isfinite(v) for v in made.chosen.values())
    held = torch.isin(whole.subject, made.held_out.subject).view(-1, 1, 1)
    strange = whole._replace(
        stays=whole.stays._replace(value=torch.where(held, whole.stays.value * 1.3, whole.stays.value))
    )
    other = train_records.train_fold(init, strange, tmp_path / "b", 3, 1, recipe=recipe)
    assert other.chosen == made.chosen  # nothing of a held-out patient chose anything
    best = min(made.chosen, key=made.chosen.get)
    told = train_records.train_fold(init, whole, tmp_path / "a", 3, 1, recipe=dataclasses.replace(recipe, passes=best))
    assert told.chosen == {} and all(
        torch.equal(a, b) for a, b in zip(made.net.parameters(), told.net.parameters(), strict=True)
    )
    few = train_records.choose_passes(init, made.held_out, tmp_path / "c", "x", None, recipe)
    assert (few.passes, few.nats) == (6.0, {})  # four patients cannot be divided: the middle of the list


def test_a_card_names_the_data_of_its_starting_point_too():
    card = (weights_folder("ehr-mimic-demo-small") / "CARD.md").read_text()
    told = card[card.index("## Training data") : card.index("## Training\n")]
    assert all(name in told for name in ("MIMIC-IV", "Challenge 2012", "Challenge 2019", "eICU"))
    assert told.count("PhysioNet: Goldberger") == 1
    assert train_records._inherited(weights_folder("ehr-ward-small")) == ""
