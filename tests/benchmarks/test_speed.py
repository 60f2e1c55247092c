"""The machinery of `benchmarks.common.speed`: what counts once, what is counted, what is said when something fails."""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.common import first_calls, peers, speed, speed_tables
from benchmarks.common.case_speed import case_rows
from benchmarks.common.figures import load
from benchmarks.common.matrix_peak import matrix_peak, share_of_peak
from benchmarks.common.playing import playing
from benchmarks.common.stepping import CASES, Case, made, together, without_door
from benchmarks.common.time_split import KINDS, Meter, flops_by_kind, passes_of, time_by_kind
from benchmarks.common.timing import by_turns, rate
from clinenv.registration import ENVIRONMENTS
from tests.toy_world import ToyWorld
from world_models import catalog, keys, tree


def test_rates_are_of_units_and_things_to_time_take_turns():
    order = []

    def work(name: str, units: int) -> int:
        order.append(name)
        time.sleep(0.002)
        return units

    found = by_turns({"a": lambda: work("a", 10), "b": lambda: work("b", 20)}, 0.0005, 3)
    assert order == ["a", "b"] * 4, "once untimed, then three rounds"
    for row in found.values():
        assert 0 < row["low"] <= row["median"] <= row["high"] and row["cpu"] > 0
    assert set(rate(lambda: 1, 0.0, 1)) == {"median", "low", "high", "cpu"}


def test_a_moment_counts_once_for_the_kind_that_goes_before():
    ticks = itertools.count()
    meter = Meter(lambda: float(next(ticks)))  # every reading is a second later
    meter.enter("admissions")  # a second of the door before it
    meter.enter("physiology")  # within admissions: theirs
    meter.enter("learned")
    meter.enter("keys")
    meter.leave()
    meter.enter("physiology")  # within a learned pass: its own
    meter.leave()
    meter.leave()
    meter.leave()
    meter.leave()
    meter.stop()
    assert meter.totals == {"door": 2.0, "admissions": 4.0, "learned": 4.0, "keys": 1.0, "physiology": 0.0}
    assert sum(meter.totals.values()) == 11.0, "as many as there were readings, less the first"


class LearnedWorld(ToyWorld):
    """With a pass through weights in every step."""

    def __init__(self) -> None:
        super().__init__(hazard=0.3)
        self.layer = torch.nn.Linear(16, 32)

    def transition(self, state, action):
        self.layer(torch.zeros(len(action), 16))
        return super().transition(state, action)


def test_the_split_sums_to_one_and_leaves_all_as_it_was():
    world = LearnedWorld()
    env = made(Case("ECGDrug-v0", "", {"world": world}), 4)
    work, episodes = together(env), env.unwrapped.episodes
    before, fold = dict(vars(world)), keys.fold
    split = time_by_kind(work, episodes, 60.0, 12)
    assert split.units == 48 and split.cpu_s > 0 and set(split.share) == set(KINDS)
    assert sum(split.share.values()) == pytest.approx(1.0)
    assert all(share > 0 for share in split.share.values())
    assert vars(world) == before and keys.fold is fold and not {"begin", "renew"} & set(vars(episodes))
    flops = flops_by_kind(work, episodes, 3)
    assert flops["learned"] == 2 * 16 * 32 and sum(flops.values()) == flops["learned"], "one product, a row each"


def test_a_world_without_weights_has_no_learned_share():
    env = made(Case("ECGDrug-v0", "", {"world": ToyWorld()}), 1)
    work = playing(env)
    assert time_by_kind(work, env.unwrapped.episodes, 0.0, 5).share["learned"] == 0
    assert set(flops_by_kind(work, env.unwrapped.episodes, 1).values()) == {0.0}


@pytest.mark.parametrize("name", ["ecg-wm-small", "ehr-ward-small", "cardiac-jepa-small"])
def test_every_learned_pass_that_is_named_is_there(name):
    passes = passes_of(catalog.load(name))
    assert passes and all(callable(getattr(owner, method)) for owner, method in passes)


def test_rows_stand_at_different_hours_and_the_simulator_alone_moves_nobody():
    env = made(Case("ECGDrug-v0", "", {"world": ToyWorld()}), 6)
    together(env)
    episodes = env.unwrapped.episodes
    assert episodes.running.steps.tolist() == [0, 4, 8, 12, 16, 20]
    before = episodes.running
    assert without_door(env)() == 6
    assert all(map(torch.equal, tree.leaves(before), tree.leaves(episodes.running)))


def test_a_batch_whose_steps_take_too_long_is_left_out_and_named():
    case = Case("ECGDrug-v0", "toy", {"world": ToyWorld()})
    ((key, row),) = case_rows(case, (2,), 0.0, 1, 1.0, patience_s=-1.0)
    assert key == "left_out" and row["batch"] == 2 and "processor time" in row["why"]
    found = dict(case_rows(case, (2,), 0.0, 1, 1.0, patience_s=60.0))
    assert set(found) == {"steps_per_second", "time_share"}
    assert found["steps_per_second"]["of_simulator"] > 0 and found["time_share"]["share_of_peak"] == 0


def test_the_share_of_the_peak():
    assert share_of_peak(50.0, 1.0, 100.0) == 0.5 and share_of_peak(0.0, 0.0, 100.0) == 0
    assert matrix_peak(0.0, 1)["cpu"] > 0


def test_every_id_is_measured_in_its_own_world_and_in_its_oracle():
    worlds = {row["id"]: row["kwargs"]["world"] for row in ENVIRONMENTS}
    measured = {(case.id, case.world) for case in CASES}
    assert set(worlds.items()) <= measured
    assert {(id_, "oracle") for id_ in worlds if id_ != "EHRReplay-v0"} <= measured
    assert {case.catalogued for case in CASES} <= set(catalog.WORLDS)


def test_a_peer_is_measured_by_its_script(monkeypatch, tmp_path):
    told = json.dumps({"a pole": {"id": "CartPole-v1"}})
    monkeypatch.setitem(peers.PEERS, "poles", peers.Peer((("x",),), "gymnasium_ids", ("gymnasium", told)))
    monkeypatch.setattr(peers, "_installed", lambda *_: Path(sys.executable))
    found = peers.measure_peer("poles", tmp_path, 0.01, 1)
    assert found["threads"] == 1 and found["rates"]["a pole"]["median"] > 0


def test_what_keeps_a_peer_from_being_measured_is_told(monkeypatch, tmp_path):
    assert "no package registry" in peers.measure_peer("epicare", tmp_path, 0.01, 1)["error"]
    monkeypatch.setattr(peers, "_installed", lambda *_: Path(sys.executable))
    monkeypatch.setitem(peers.PEERS, "nothing", peers.Peer((("x",),), "gymnasium_ids", ("no_such_module", "{}")))
    assert "no_such_module" in peers.measure_peer("nothing", tmp_path, 0.01, 1)["error"]
    monkeypatch.setattr(peers, "_run", lambda *_: "no JSON\n")
    assert peers.measure_peer("nothing", tmp_path, 0.01, 1)["error"].startswith("not measured")


def test_peers_are_installed_once_and_again_when_they_change(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(peers.venv, "create", lambda home, **_: home.mkdir(exist_ok=True))
    monkeypatch.setattr(peers, "_run", lambda command, *_: ran.append(command))
    for wanted in ("a==1", "a==1", "a==2"):
        peers._installed(peers.Peer(((wanted,),)), tmp_path / "a", {})
    assert [command[-1] for command in ran] == ["a==1", "a==2"]


def test_every_peer_has_a_script_or_a_reason():
    folder = Path(peers.__file__).parent / "peer_scripts"
    for peer in peers.PEERS.values():
        assert bool(peer.installs) != bool(peer.absent)
        assert not peer.installs or (folder / f"{peer.script}.py").exists()


def test_first_calls_and_memory(capsys):
    assert first_calls.main(["ECGDrug-v0", "oracle", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"import_s", "make_s", "reset_s", "step_s", "second_step_s", "process_mb"} <= set(found)
    assert all(found[name] > 0 for name in found if name.endswith("_s"))


def test_tables_have_a_row_for_each_case():
    for table in (speed_tables.rates, speed_tables.splits):
        head, line, *rows = table(load).splitlines()
        assert len(rows) == len(CASES) and {row.count("|") for row in (head, line, *rows)} == {head.count("|")}


@pytest.mark.slow
def test_the_quick_run_writes_every_kind_of_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "QUICK", (("ECGDrug-v0", "oracle"),))
    assert speed.main(["--quick", "--json", str(tmp_path / "s.json")]) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert {row["batch"] for row in found["steps_per_second"]} == {1, 64} and not found["peers"]
    assert all(found[name] for name in ("time_share", "yardsticks", "waveforms_per_second", "first_calls"))
    assert found["made_by"]["files"] and found["matrix_peak"]["cpu"] > 0
