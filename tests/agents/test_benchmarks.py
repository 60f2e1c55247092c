"""The benchmarks' own machinery: shares add up, tables are written, a tiny run of each goes through."""

from __future__ import annotations

import json
import time

import pytest
import torch

from agents.planning.parameter_cem import ParameterCEM
from benchmarks.common.network_share import time_shares
from benchmarks.common.results import read_csv
from benchmarks.ecg_drug import plan_speed, planners, ppo_speed
from benchmarks.ward import rollouts
from tests.agents.bandit_world import DialWorld
from world_models import keys


def test_time_shares_count_nested_calls_once_and_leave_the_world_as_it_was():
    world = DialWorld()
    slow = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    slow.register_forward_pre_hook(lambda *_: time.sleep(0.004))
    world.spread = lambda state: slow(torch.zeros(1, 2))  # a verb that is all network

    def work():
        world.spread(world.initial(keys.from_seed(0)))
        time.sleep(0.004)
        return 1

    before = world.spread
    shares = time_shares(work, world, 0.2, also={"all": [(world, "spread"), (world, "initial")]})
    assert 0.2 < shares["modules"] <= shares["learned"] <= shares["world"] < 0.8
    assert shares["all"] == pytest.approx(shares["world"], abs=0.02), "what is asked for besides is timed too"
    assert shares["world"] + shares["rest"] == pytest.approx(1.0)
    assert world.spread is before and "initial" not in vars(world)


class Solver:
    """A pass through learned weights that is a plain method, with a module's call inside."""

    def __init__(self) -> None:
        self.inner = torch.nn.Linear(2, 2)
        self.inner.register_forward_pre_hook(lambda *_: time.sleep(0.003))

    def advance(self) -> None:
        time.sleep(0.006)
        self.inner(torch.zeros(1, 2))


def test_learned_passes_are_those_a_world_names_or_a_caller_lists():
    world, solver = DialWorld(), Solver()
    world.spread = lambda state: solver.advance()

    def work():
        world.spread(None)
        time.sleep(0.003)
        return 1

    def shares(*learned):
        found = time_shares(work, world, 0.2, *learned)
        return found["modules"], found["learned"]

    modules, learned = shares()
    assert learned == pytest.approx(modules, abs=0.02), "nothing was named: only calls of modules count"
    modules, learned = shares([(solver, "advance")])
    assert modules < 0.45 < learned < 0.95, "the method counts, and the call inside it counts once"
    world.learned_passes = ((solver, "advance"),)
    assert shares()[1] == pytest.approx(learned, abs=0.15) and shares([])[1] < 0.45
    assert "advance" not in vars(solver)


@pytest.mark.slow
def test_ppo_speed_writes_its_figures(tmp_path):
    sizes = "--num-envs 16 --minibatches 64 --contest-minibatches 64 --turns 2 --patients 20 --seeds 1 --limit 1"
    sizes = [*sizes.split(), "--no-single", "--no-compiled"]
    assert ppo_speed.main([*sizes, "--out", str(tmp_path / "s.json")]) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    (row,) = found["steps_per_second"]
    assert row["ratio_cpu_low"] <= row["ratio_cpu"] <= row["ratio_cpu_high"] and row["steps_per_second_wall"] > 0
    assert len(found["time_to_return"]) == 2
    for arrival in found["time_to_return"]:
        assert arrival["arrived"] == (arrival["best_return"] >= found["wanted_return"]) and arrival["steps"] >= 16 * 24


def test_plan_speed_counts_what_is_imagined_and_tells_where_the_time_goes(tmp_path):
    sizes = "--candidates 30 --particles 2 --horizon 4 --threads 1 --decisions 1 --share-seconds 0.01"
    assert plan_speed.main([*sizes.split(), "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "plan_speed.json").read_text())
    assert found["config"]["elites"] == 1 and found["config"]["candidates"] == 30 and found["made_by"]["seals"]
    finalists = found["config"]["finalists"] + 1  # and nothing at all
    for row, rounds in zip(found["decision"], (1, 2), strict=True):
        assert row["transitions"] == 2 * 4 * (30 * rounds + finalists + 1), "the last is the course of the report"
        assert 0 < row["milliseconds_low"] == row["milliseconds"] == row["milliseconds_high"]
        share = row["share"]
        assert 0 < share["modules"] <= share["learned"] <= share["world"] < 1
        assert 0 < share["transition"] + share["belief"] < share["world"] and share["world"] < share["scoring"] + 0.5
        assert 0 < share["task"] and 0 < share["planner"] == pytest.approx(share["rest"] - share["task"])
    assert plan_speed.main(["--world", "nowhere", "--out", str(tmp_path / "no")]) == 2
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_planners_at_equal_transitions_and_what_they_foresaw(tmp_path, monkeypatch):
    monkeypatch.setattr(planners, "GROUP", 2)
    monkeypatch.setattr(planners, "STEPS", 3)
    arguments = ["--patients", "3", "--budgets", "900", "--planners", "CEM", "rollout of the rule"]
    where = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert planners.main([*arguments, *where]) == 0
    rows = read_csv(tmp_path / "out" / "planners.csv")
    owner = "CEM, 900 transitions, owns the oracle"
    labels = [planners.RULE, "constant", "CEM, 900 transitions", "rollout of the rule, 900 transitions", owner]
    assert [row["agent"] for row in rows] == labels
    foresight = read_csv(tmp_path / "out" / "planners_foresight.csv")
    first = [row for row in foresight if row["planner"] == owner and float(row["steps_ahead"]) == 1]
    assert len(first) == 1 and float(first[0]["transitions"]) <= 900
    assert abs(float(first[0]["bias"])) < 0.1, "who owns the oracle knows what the next step brings"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.*")}
    assert planners.main([*arguments, *where]) == 0
    assert kept == {path: path.stat().st_mtime_ns for path in kept} and len(kept) == 2 * 5 + 2 * 3
    assert read_csv(tmp_path / "out" / "planners_foresight.csv") == foresight
    assert planners.main(["--world", "nowhere", *where]) == 2


@pytest.mark.slow
def test_the_wards_rule_improved_online_is_paired_with_the_rule(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rollouts, "STEPS", 2)
    monkeypatch.setattr(rollouts, "GROUP", 2)
    monkeypatch.setattr(rollouts, "SEARCH", ParameterCEM(1, 2, 1))
    where = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    sizes = "--patients 3 --courses 2 --planner-courses 1 --tuning-patients 2 --presets fast --bases tuned rule"
    assert rollouts.main([*sizes.split(), *where]) == 0
    rule, *others = read_csv(tmp_path / "out" / "ward_rollouts.csv")
    assert rule["agent"] == rollouts.RULE and float(rule["return_minus_reference"]) == 0.0
    assert [row["agent"] for row in others] == [
        rollouts.TUNED,
        "rollout of the tuned rule, fast",
        "rollout of the rule, fast",
    ]
    assert [float(row["courses"]) for row in (rule, *others)] == [2, 2, 1, 1]
    assert rollouts.main(["--courses", "1", "--planner-courses", "2", *where]) == 2
    for ours in others:
        terms = [float(ours[name]) for name in ours if name.startswith("term_") and name.endswith("_minus_reference")]
        assert sum(terms) == pytest.approx(float(ours["return_minus_reference"]), abs=1e-4)
    assert "minus the rule's" in capsys.readouterr().out
