"""Agents of somebody else's: told in a file, checked before anything runs, judged in a process of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents import run_folder
from agents.board.cell import Cell, Rules, run_cell
from agents.board.draw import edition
from agents.board.isolated import IsolatedAgent
from agents.board.submission import SubmissionError, read_submission
from agents.board.watched import Disqualified
from agents.making import Making
from agents.policy_builders import ppo
from agents.protocol import Narrowable
from clinenv.commands.main import main

DRUG = "ECGDrug-v0"
TOLD = {
    "name": "mine",
    "ids": [DRUG],
    "made_in": "ecg-wm-small",
    "licence": "Apache-2.0",
    "contact": "me@example.org",
    "description": "half the label's dose while QTcF is below 480 ms",
    "entry": "my_agent:build",
}
SOURCE = """
import os, sys, time
import torch

class Half:
    name = "half"
    def reset(self, mask=None):
        print("this must not get between the frames")
    def act(self, chart):
        due = torch.remainder(chart["hours"] + 1e-3, 12.0) < 2e-3
        return torch.where(due & (chart["qtcf_ms"] < 480.0), 3, 0)

class Odd(Half):
    def __init__(self, how):
        self.how = how
    def act(self, chart):
        if self.how == "dies":
            print("the last words", file=sys.stderr)
            os._exit(3)
        if self.how == "sleeps":
            time.sleep(60)
        return torch.zeros(len(chart["hours"]))

def build(making):
    assert making.simulator.world.name == "ecg-wm-small" and not hasattr(making, "keys")
    return Half()

def odd(making, how):
    return Odd(how)

def peeps(making):
    from world_models import catalog
    return catalog.load("oracle")
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "my_agent.py").write_text(SOURCE)
    (tmp_path / "mine.json").write_text(json.dumps(TOLD))
    return tmp_path


def changed(folder: Path, **other) -> Path:
    told = {k: v for k, v in {**TOLD, **other}.items() if v is not None}
    (folder / "mine.json").write_text(json.dumps(told))
    return folder / "mine.json"


# ---- the file


def test_a_submission_is_read_and_its_digest_holds_all_of_it(folder) -> None:
    first = read_submission(folder / "mine.json")
    assert first.as_entry.isolated and first.as_entry.kind == "policy" and first.as_entry.made_in == "learned"
    assert first == read_submission(folder / "mine.json")
    (folder / "weights.bin").write_bytes(b"1")
    (folder / "rows.json").write_text("{}")
    assert first == read_submission(folder / "mine.json"), "what it does not name is not part of it"
    second = read_submission(changed(folder, files=["weights.bin"]))
    copied = second.copy_to(folder / "runs")
    assert sorted(p.name for p in copied.iterdir()) == ["my_agent.py", "weights.bin"]
    (folder / "my_agent.py").write_text(SOURCE + "\n# trained on the judge's patients\n")
    third = read_submission(changed(folder))
    assert len({first.digest, second.digest, third.digest}) == 3, "another agent meets other patients"
    installed = read_submission(changed(folder, entry="agents.baselines.rules:nothing"))
    assert installed.digest not in (first.digest, third.digest)


def test_what_is_submitted_lies_in_its_folder_and_can_be_read(folder, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret"
    elsewhere.write_text("not submitted")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").symlink_to(elsewhere)
    with pytest.raises(SubmissionError, match="a.txt is a link that leads out"):
        read_submission(changed(folder, files=["notes"]))
    (folder / "notes" / "a.txt").unlink()
    (folder / "notes" / "a.txt").symlink_to(folder / "my_agent.py")
    assert read_submission(changed(folder, files=["notes"])).files == ("notes",)
    for text in ("[" * 100_000, '{"a":' * 100_000, '{"a": 1e999}', "[]"):
        (folder / "mine.json").write_text(text)
        with pytest.raises(SubmissionError, match="mine.json .*; see agents/board/submission.py"):
            read_submission(folder / "mine.json")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"licence": None}, "lacks licence"),
        ({"prize": 1}, "has prize, which nobody reads"),
        ({"name": ""}, "name=''"),
        ({"name": "PPO"}, "is taken"),
        ({"contact": "a\nb"}, "printable"),
        ({"ids": []}, "ids=\\[\\]"),
        ({"ids": ["Pong-v0"]}, "must be a list of some of ECGDrug-v0"),
        ({"ids": [DRUG, DRUG]}, "each once"),
        ({"made_in": "oracle"}, "no place beside them"),
        ({"seeds": 0}, "1 to 10"),
        ({"seeds": True}, "1 to 10"),
        ({"sees": ["condition"]}, "may hold latent alone"),
        ({"entry": "my_agent"}, "write module:function"),
        ({"entry": "os;rm:f"}, "write module:function"),
        ({"entry": "no_such_module:f"}, "no module 'no_such_module'"),
        ({"entry": None}, "one of entry"),
        ({"policy": "p"}, "one of entry"),
        ({"entry": None, "policy": "../elsewhere"}, "not inside the folder"),
        ({"entry": None, "policy": "nowhere"}, "no such folder"),
        ({"files": ["nowhere"]}, "no such file"),
        ({"files": ["."]}, "not inside the folder"),
        ({"files": "all"}, "no list"),
        ({"ids": [["ECGDrug-v0"]]}, "must be a list of some of ECGDrug-v0"),
        ({"files": ["a\0b"]}, "not inside the folder"),
        ({"files": ["\ud800"]}, "not inside the folder"),
        ({"files": ["a" * 300]}, "not inside the folder"),
        ({"entry": None, "policy": "x/../../elsewhere"}, "not inside the folder"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(folder, other, reason) -> None:
    with pytest.raises(SubmissionError, match=reason):
        read_submission(changed(folder, **other))


def test_a_file_that_is_none(folder) -> None:
    for text in ("{", "[]"):
        (folder / "bad.json").write_text(text)
        with pytest.raises(SubmissionError, match="JSON"):
            read_submission(folder / "bad.json")
    with pytest.raises(SubmissionError, match="is no file; give the JSON that"):
        read_submission(folder / "nobody.json")


# ---- the process


@pytest.mark.slow
def test_an_agent_in_its_own_process_decides_the_same_and_fails_alone(folder) -> None:
    entry = read_submission(folder / "mine.json").as_entry
    making = {"env_id": DRUG, "steps": 4, "seed": 0, "quick": True, "world": "ecg-wm-small", "runs": str(folder)}
    chart = {"hours": torch.tensor([0.0, 2.0, 12.0, 12.0]), "qtcf_ms": torch.tensor([400.0, 400.0, 400.0, 490.0])}
    with IsolatedAgent(entry, making, folder, 1000.0) as agent:
        assert isinstance(agent, Narrowable) and agent.name == "half"
        agent.reset()
        assert agent.act(chart).tolist() == [3, 0, 3, 0]
        agent.narrow(torch.tensor([2, 3]))
        assert agent.act({name: values[2:] for name, values in chart.items()}).tolist() == [3, 0]
        assert chart["hours"].tolist() == [0.0, 2.0, 12.0, 12.0]
    with pytest.raises(Disqualified, match="its process ended"):
        agent.act(chart)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [("dies", "the last words"), ("sleeps", "did not answer within 1 s")],
)
def test_an_agent_that_fails_in_its_process_is_a_failed_cell(folder, how, reason) -> None:
    entry = replace(read_submission(folder / "mine.json").as_entry, build="my_agent:odd", options={"how": how})
    rules = Rules(edition("ab" * 16), 2, 2, 400.0, quick=True)
    found = run_cell(entry, Cell("mine", DRUG, 3, 0), rules, folder, folder)
    assert found["status"] == "failed" and reason in found["reason"]


# ---- the command


@pytest.mark.slow
def test_submit_checks_judges_and_writes_rows(folder, capsys) -> None:
    common = ["--runs", str(folder / "runs"), "--quick", "--patients", "6", "--steps", "3"]
    assert main(["submit", str(folder / "mine.json"), *common, "--json", str(folder / "rows.json")]) == 0
    said = capsys.readouterr().out
    assert "not for clinical use" in said and "| mine | policy | 6 |" in said
    told = json.loads((folder / "rows.json").read_text())
    rows = {r["agent"]: r for r in told["rows"]}
    assert told["digest"] == read_submission(folder / "mine.json").digest and len(told["salt"]) == 32
    half, mine = rows["dofetilide 0.25 mg every 12 h, without looking"], rows["mine"]
    assert mine["status"] == "ok" and mine["return"] == pytest.approx(half["return"], rel=1e-4), "on the same patients"
    assert {"random", "nothing", "best constant", "dofetilide label rule"} < set(rows)
    assert not [r for r in rows.values() if r["kind"] == "reference"]


@pytest.mark.slow
def test_submit_tells_what_is_wrong_and_exits_with_2(folder, capsys) -> None:
    common = ["--check-only", "--runs", str(folder / "runs"), "--limit-ms", "500"]
    assert main(["submit", str(changed(folder, entry="my_agent:peeps")), *common]) == 2
    assert "may not load 'oracle'" in capsys.readouterr().err
    assert main(["submit", str(changed(folder, made_in="oracle")), *common]) == 2
    assert "no place beside them" in capsys.readouterr().err
    assert main(["submit", str(folder / "nobody.json"), *common]) == 2
    assert main(["submit", str(changed(folder)), "--json", str(folder / "no" / "rows.json")]) == 2
    assert "--json" in capsys.readouterr().err and not (folder / "no").exists()


@pytest.mark.slow
def test_a_stored_policy_is_submitted_without_code(folder, capsys) -> None:
    from agents.board.stage import Stage

    simulator = Stage(DRUG, 24).learned
    making = Making(DRUG, simulator, "ecg-wm-small", 24, runs=folder, quick=True)
    from agents import policy_builders as builders

    old, builders.QUICK_STEPS = builders.QUICK_STEPS, 6144
    try:
        built = ppo(making)
    finally:
        builders.QUICK_STEPS = old
    policy = next(p for p in folder.iterdir() if p.name.startswith("ppo-"))
    assert built.weights == read_seal(policy)
    path = changed(folder, entry=None, policy=policy.name)
    digest = read_submission(path).digest
    assert main(["submit", str(path), "--check-only", "--runs", str(folder / "runs")]) == 0
    assert digest in capsys.readouterr().out
    (policy / run_folder.TENSORS).write_bytes(b"damaged")
    assert read_submission(path).digest != digest


def read_seal(folder: Path) -> str:
    with run_folder.POLICY.opened(folder) as found:
        return found.sha256
