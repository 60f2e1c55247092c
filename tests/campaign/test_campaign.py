"""The campaign's commands, each with tiny counts, and that they see what they look for."""

from __future__ import annotations

import json
import random
import shutil
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from agents import run_folder
from agents.policy_agent import PolicyAgent
from benchmarks import reliability
from benchmarks.common.results import read_json
from tests.campaign import __main__ as campaign
from tests.campaign import mutate, small
from tests.campaign.guarded import Opened, guarded
from tests.campaign.inputs import KINDS
from tests.campaign.jobs import JOBS
from tests.campaign.kills import killed
from tests.campaign.mutations import damaged, in_json
from tests.campaign.promises import PROMISES
from tests.campaign.steps import GROWTH, extreme, stepped, wrong
from tests.campaign.tally import Tally
from tests.kills import needs_fork
from world_models.tensor_file import CheckpointError

CHEAP = ("submissions", "policies", "tables of labels", "a machine's table")


def test_a_name_that_is_none_is_told(capsys) -> None:
    assert campaign.main([]) == 2 and campaign.main(["storm"]) == 2
    assert "mutate" in capsys.readouterr().err


@pytest.mark.slow
@needs_fork
def test_damaged_inputs_are_read_or_refused(tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    assert campaign.main(["mutate", "--count", "24", "--out", str(out), "--only", *CHEAP]) == 0
    told = json.loads(out.read_text())["mutate"]
    assert told["failed"] == 0 and told["trials"] >= 24 and set(told["counts"]) == set(CHEAP)
    outcomes = {name for counts in told["counts"].values() for name in counts}
    assert outcomes == {"read", "refused"} and told["figures"]["most_kilobytes"] < 2 << 20
    before = out.read_bytes()
    assert campaign.main(["mutate", "--count", "24", "--out", str(out), "--only", *CHEAP]) == 0
    after = json.loads(out.read_text())["mutate"]
    assert after["counts"] == json.loads(before)["mutate"]["counts"], "a finished one is not run again"


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), struct.error("4 bytes"), MemoryError(), ValueError()]
)
def test_errors_that_say_nothing_are_failures(error: Exception) -> None:
    assert mutate.judged(error) is not None


def test_only_the_packages_own_errors_pass() -> None:
    for call, fine in (
        (lambda: np.zeros(3).reshape(4, 4), False),
        (lambda: json.loads("{"), False),
        (lambda: b"\xff".decode(), False),
        (lambda: PolicyAgent("no such folder", small.simulator()), True),
    ):
        with pytest.raises((ValueError, OSError)) as caught:
            call()
        assert (mutate.judged(caught.value) is None) == fine


@needs_fork
def test_a_trial_that_hangs_dies_or_takes_the_memory_is_known(monkeypatch) -> None:
    monkeypatch.setattr("tests.campaign.guarded.LIMIT_S", 0.3)

    def trial(number: int) -> dict:
        if number == 1:
            import os

            os._exit(7)
        if number == 2:
            while True:
                pass
        if number == 3:
            bytearray(3 << 30)
        return {"outcome": "read"}

    told = dict(guarded(trial, list(range(5))))
    assert told[0]["outcome"] == told[4]["outcome"] == "read"
    assert "died with 7" in told[1]["failed"] and "processor time" in told[2]["failed"]
    assert "MemoryError" in told[3]["failed"]


def test_a_file_that_is_opened_elsewhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    watch = Opened(tmp_path)
    if not watch.works:
        pytest.skip("no inotify here")
    assert watch.since() == []
    list(tmp_path.iterdir())
    assert watch.since() == [], "to list a folder is not to read a file"
    (tmp_path / "x").read_text()
    assert set(watch.since()) == {"x"}


def test_damages_follow_their_seed() -> None:
    text = b'{"a": [1, 2, {"b": "x"}]}'
    for damage in (partial(damaged, text=True), partial(damaged, text=False)):
        made = [damage(text, random.Random(seed)) for seed in range(60)]
        assert made == [damage(text, random.Random(seed)) for seed in range(60)]
        assert len(set(made)) > 30
    assert len({in_json(text, random.Random(seed)) for seed in range(60)}) > 20
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@needs_fork
def test_a_killed_job_ends_as_one_undisturbed(tmp_path: Path) -> None:
    job = next(job for job in JOBS if job.name == "training a policy")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    assert killed(job, tmp_path / "whole", 1e9, random.Random(0)) == 0
    kills = 0
    while killed(job, tmp_path / "cut", 0.02 + 0.03 * kills, random.Random(kills)) is None:
        kills += 1
        job.check(tmp_path / "cut")
    job.run(tmp_path / "cut")
    assert kills and job.result(tmp_path / "cut") == job.result(tmp_path / "whole")


def test_a_torn_file_is_seen(tmp_path: Path) -> None:
    small.train_policy(tmp_path / "a", 1)
    job = next(job for job in JOBS if job.name == "training a policy")
    job.check(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    weights = tmp_path / "b" / run_folder.TENSORS
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError):
        job.check(tmp_path / "b")


def test_a_policy_made_up_of_other_types_is_refused(tmp_path: Path) -> None:
    """Found by the campaign: an env_kwargs that is a list, and a space with a number that no array holds."""
    small.train_policy(tmp_path, 1)
    path = tmp_path / run_folder.POLICY.json
    whole = json.loads(path.read_text())
    for other in ({"env_kwargs": ["x"]}, {"action": {"levels": [10**400]}}, {"action": {"choices": 10**400}}):
        path.write_text(json.dumps({**whole, **other}))
        run_folder.POLICY.seal(tmp_path)
        with pytest.raises(ValueError, match="train it again"):
            PolicyAgent(tmp_path, small.simulator())


@pytest.mark.slow
def test_steps_in_one_id(tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    asked = ["steps", "--count", "600", "--seconds", "0.5", "--out", str(out), "--only", "ECGExplain-v0"]
    assert campaign.main(asked) == 0
    assert json.loads(out.read_text())["steps"]["failed"] == 0


class Hoarder:
    """Two patients; keeps so many bytes of every step."""

    num_envs = 2
    observation_space = spaces.Box(-1.0, 1.0, (2, 1), np.float32)
    action_space = spaces.MultiDiscrete([3, 3])

    def __init__(self, kept_bytes: int) -> None:
        self.kept_bytes, self.kept = kept_bytes, []

    def reset(self, seed: int) -> tuple:
        return np.zeros((2, 1), np.float32), {}

    def step(self, actions: np.ndarray) -> tuple:
        self.kept.append(np.ones(self.kept_bytes, np.int8))
        return np.zeros((2, 1), np.float32), np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), {}


def test_memory_that_grows_is_seen() -> None:
    for kept_bytes, grows in ((1_000_000, True), (0, False)):
        done, found, growth = stepped(Hoarder(kept_bytes), "random", 0, 200, 60.0)
        assert done == 200 and found is None and (growth > GROWTH) == grows, growth


def test_what_is_outside_its_space_is_seen() -> None:
    box = spaces.Box(-1.0, 1.0, (2, 3), np.float32)
    assert wrong("x", np.zeros((2, 3), np.float32), box) is None
    assert "x[1, 2] is 1.5" in wrong("x", np.array([[0, 0, 0], [0, 0, 1.5]], np.float32), box)
    assert "nan" in wrong("x", {"y": np.array([np.nan])})
    rng = np.random.default_rng(0)
    for space in (box, spaces.MultiDiscrete([[3, 2], [3, 2]]), spaces.MultiBinary([2, 4])):
        assert all(space.contains(extreme(space, rng)) for _ in range(20))


def test_promises_that_cost_little(tmp_path: Path) -> None:
    for name in ("full disk under a command", "one file, four threads"):
        (tmp_path / name).mkdir()
        PROMISES[name](tmp_path / name)


def test_a_tally_goes_on_where_it_stopped(tmp_path: Path) -> None:
    told = Tally.begun("x", 0, tmp_path / "t.json")
    told.add("a", "read", 3)
    told.fail("a", "broke", number=3)
    assert told.report() == 1
    again = Tally.begun("x", 0, tmp_path / "t.json")
    assert again.done("a") == 4 and again.failures[0]["number"] == 3
    assert Tally.begun("x", 1, tmp_path / "t.json").done("a") == 0, "another seed is another campaign"


def test_the_page_holds_the_tallies_that_are_kept() -> None:
    told, text = read_json(reliability.KEPT), reliability.PAGE.read_text(encoding="utf-8")
    assert reliability.page(told, text) == text, "python -m benchmarks.reliability writes it anew"
    for name, tally in told.items():
        if name in reliability.ASKED:
            assert tally["trials"] == sum(sum(counts.values()) for counts in tally["counts"].values())
            assert tally["failed"] == len(tally["failures"])
