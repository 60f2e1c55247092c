"""Every example runs and says what it promises; in the oracle, so that no weights are needed."""

from __future__ import annotations

import importlib

import pytest


def run(name, *arguments):
    return importlib.import_module(f"examples.{name}").main(["--world", "oracle", *arguments])


def test_random_agent(capsys):
    total = run("01_random_agent")
    said = capsys.readouterr().out
    assert said.count("QTcF") > 3 and "rhythm +" in said and f"return {total:.2f}" in said


def test_train_ppo(capsys):
    run("02_train_ppo", "--steps", "2000", "--num-envs", "32")
    assert "return" in capsys.readouterr().out


def test_plan_with_cem():
    rows = run("03_plan_with_cem", "--patients", "4", "--steps", "4")
    planners = ["CEM, Mean()", "CEM, MeanMinusSigma(lam=2.0, part='both')", "CEM, CVaR(alpha=0.25)"]
    assert [r["agent"] for r in rows] == ["no treatment", *planners]


def test_branch_one_patient():
    courses = run("04_branch_one_patient")
    assert max(courses["dofetilide 0.5 mg"]) > max(courses["nothing"])
    assert courses["dofetilide 0.5 mg, chance 0"] != courses["dofetilide 0.5 mg, chance 1"]


def test_your_own_trial():
    rows = run("05_your_own_trial", "--patients", "20")
    assert len(rows) == 2 and rows[1]["patients"] == 20


def test_care_team(capsys):
    rewards = run("09_care_team", "--steps", "7")
    said = capsys.readouterr().out
    assert "intensivist's furosemide_mg: the pharmacist held it back" in said and len(set(rewards.values())) == 2
    assert said.count("at their word") == 2


@pytest.mark.slow
def test_quickstart(tmp_path, capsys):
    arguments = ["--steps", "6000", "--patients", "50", "--out", str(tmp_path)]
    assert run("quickstart", *arguments) == 0
    said = capsys.readouterr().out
    assert "dofetilide label rule" in said and "return minus reference" in said
    assert (tmp_path / "table.csv").read_text().count("\n") == 5
    assert "<html" in (tmp_path / "report.html").read_text().lower()
    assert (tmp_path / "patient.hea").exists()


def test_quickstart_takes_no_other_world_in_place_of_a_missing_one(tmp_path, capsys):
    quickstart = importlib.import_module("examples.quickstart")
    assert quickstart.main(["--world", "no-such-world", "--out", str(tmp_path / "q")]) == 2
    assert "no-such-world" in capsys.readouterr().err and not (tmp_path / "q").exists()


def test_many_devices():
    rows = run("12_many_devices", "--patients", "4", "--group", "2", "--steps", "3")
    assert [r["agent"] for r in rows] == ["no treatment", "CEM"] and rows[1]["patients"] == 4


@pytest.mark.parametrize("wrong", [("--steps", "-3"), ("--patients", "0")])
def test_quickstart_refuses_numbers_before_it_trains(tmp_path, capsys, wrong):
    quickstart = importlib.import_module("examples.quickstart")
    with pytest.raises(SystemExit):
        quickstart.main([*wrong, "--out", str(tmp_path / "q")])
    assert "is not a whole number from 1" in capsys.readouterr().err and not (tmp_path / "q").exists()
