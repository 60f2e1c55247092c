"""Training: resumable to the bit, and a world that loads from what it writes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.ehr_world.ward_small import CONFIG, some_stays, words
from world_models import catalog, keys, tree
from world_models.ehr_world import train, ward_rollouts
from world_models.ehr_world.feeder import Feeder
from world_models.ehr_world.set_outcome.network import SetOutcome


def fresh() -> SetOutcome:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return SetOutcome(CONFIG, words())


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, monkeypatch) -> None:
    stays = some_stays()
    monkeypatch.setattr(train, "schedule", lambda *a, **k: dataclasses.replace(_schedule(*a, **k), save_every_s=0.0))
    whole = fresh()
    train.train_net(whole, stays, stays, 12, 8, tmp_path / "whole")

    plain, calls = train.stay_losses, []

    def dies(net, batch, expected=None):
        calls.append(1)
        if len(calls) == 9:
            raise Killed
        return plain(net, batch, expected)

    monkeypatch.setattr(train, "stay_losses", dies)
    with pytest.raises(Killed):
        train.train_net(fresh(), stays, stays, 12, 8, tmp_path / "cut")
    monkeypatch.setattr(train, "stay_losses", plain)
    resumed = fresh()
    train.train_net(resumed, stays, stays, 12, 8, tmp_path / "cut")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


_schedule = train.schedule


def test_a_finished_world_loads_and_answers_as_before(tmp_path) -> None:
    stays = some_stays()
    model, figures = train.finish(fresh(), stays, stays, tmp_path, "command", "source")
    assert 0.0 < figures["coverage80"] < 1.0
    loaded = catalog.load(tmp_path)
    key = keys.from_seed(8, 3)
    a, b = model.observe(model.initial(key)), loaded.observe(loaded.initial(key))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert "Not for clinical use" in (tmp_path / "CARD.md").read_text()


def test_batches_are_a_function_of_the_step() -> None:
    feed, again = Feeder(some_stays(), 8), Feeder(some_stays(), 8)
    for step in (13, 2, 7):
        assert all(
            torch.equal(x, y)
            for x, y in zip(map(torch.nan_to_num, feed(step)), map(torch.nan_to_num, again(step)), strict=True)
        )
    seen = torch.cat([feed(i).static for i in range(feed.per_epoch)])
    assert len(torch.unique(seen, dim=0)) == len(torch.unique(some_stays().static, dim=0))


def test_shards_are_kept_and_other_stays_refused(tmp_path, monkeypatch) -> None:
    plain = ward_rollouts.rollout
    monkeypatch.setattr(ward_rollouts, "rollout", lambda key, **how: plain(key, 2, **how))
    ward_rollouts.write_shards(tmp_path, "few", 5, 2, size=2)
    before = (tmp_path / "few-000.safetensors").stat().st_mtime_ns
    ward_rollouts.write_shards(tmp_path, "few", 5, 2, size=2)
    assert (tmp_path / "few-000.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="other stays"):
        ward_rollouts.write_shards(tmp_path, "few", 6, 2, size=2)
    with pytest.raises(ValueError, match="other stays"):
        ward_rollouts.write_shards(tmp_path, "few", 5, 2, size=2, edits=ward_rollouts.MANY)
    assert len(tree.leaves(ward_rollouts.read_shards(tmp_path, "few")[0])) == 9


def test_edits_refuse_what_a_patient_needs_and_more_edits_more() -> None:
    """Of what the clinician would give, in the same patients."""
    key, t = keys.from_seed(5, 400), torch.zeros(400, dtype=torch.int64)
    everything = torch.ones(400, len(ward_rollouts.INTERVENTIONS))
    dose = ward_rollouts._random_doses(key, t)
    given = [
        (ward_rollouts._edited(everything, dose, key, t, edits) > 0).float().mean()
        for edits in (ward_rollouts.SOME, ward_rollouts.MANY)
    ]
    some, many = (
        ward_rollouts.SOME.refused / 2,
        ward_rollouts.MANY.refused / 2,
    )  # half of the refusals begin with the stay
    assert 1 - some - 0.04 < float(given[0]) < 1 - some + 0.02 and 1 - many - 0.04 < float(given[1]) < 1 - many + 0.02
