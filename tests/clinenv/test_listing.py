"""`clinenv envs`, `worlds`, `cohorts` and `doctor`: what they say is so, for people and for programs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from clinenv import clashes
from clinenv.commands import cohorts, envs, worlds
from clinenv.commands.doctor import machine, shipped, software
from clinenv.commands.main import main
from clinenv.registration import ENVIRONMENTS, TEAMS, WEIGHTS_SHA256
from world_models import catalog


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_envs_are_all_there_with_the_spaces_that_their_pages_state(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["id"]: row for row in envs.rows()}
    assert list(rows) == [row["id"] for row in (*ENVIRONMENTS, *TEAMS)]
    ward, drug, clinic = rows["EHRWard-v0"], rows["ECGDrug-v0"], rows["ECGProgression-v0"]
    assert ward["action_space"] == {"kind": "MultiBinary", "shape": [69], "dtype": "int8"}
    assert ward["observation_space"] == {"kind": "Box", "shape": [229], "dtype": "float32"}
    assert (drug["hours_at_most"], drug["hours_per_step"], drug["steps_at_most"]) == (48.0, 2.0, 24)
    assert (clinic["hours_at_most"], clinic["steps_at_most"]) == (87660.0, 120)  # ten years, a visit a month at most
    assert (rows["ECGExplain-v0"]["hours_at_most"], rows["CareTeam-v0"]["steps_at_most"]) == (None, 84)
    assert drug["action_space"]["choices"] == 9 and len(clinic["action_space"]["choices"]) == 15
    assert rows["EHRReplay-v0"]["oracle"] is None and rows["EHRReplay-v0"]["world"] == "ehr-mimic-demo-small"
    assert len(rows["CareTeam-v0"]["action_space"]) == 3 and json.dumps(rows, allow_nan=False)
    assert main(["envs"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"^EHRWard-v0 +MultiBinary\(69\) +Box\(229\) +84 +336 +ehr-ward-small +ward-oracle$", table, re.M)


def test_worlds_say_whether_their_weights_are_whole_and_released(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {row["world"]: row for row in worlds.rows()}
    assert list(rows) == list(catalog.WORLDS)
    learned = rows["ehr-icu-small"]
    assert learned["sha256"] == WEIGHTS_SHA256["ehr-icu-small"] and learned["released"] and learned["license"] == "odbl"
    assert "physionet-eicu-crd-demo" in learned["datasets"] and "2,766 patients" in learned["trained_on"]
    assert rows["oracle"]["kind"] == "mechanistic" and "nothing is learned" in rows["oracle"]["meaning"]
    shutil.copytree(catalog.weights_folder("ehr-ward-small"), tmp_path / "ehr-ward-small")
    monkeypatch.setattr(catalog, "weights_folder", lambda name: tmp_path / name)
    with (tmp_path / "ehr-ward-small/model.safetensors").open("ab") as file:
        file.write(b"\0")
    rows = {row["world"]: row for row in printed(capsys, "worlds", "--json")}  # type: ignore[attr-defined]
    assert rows["ehr-ward-small"]["problem"].startswith("weights damaged") and not rows["ehr-ward-small"]["released"]
    assert rows["ecg-wm-small"]["problem"].startswith("weights missing")


def test_cohorts_are_those_that_the_worlds_take(capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(capsys, "cohorts", "--json")
    assert {"elderly", "icu", "clinic"} <= {row["cohort"] for row in rows}  # type: ignore[attr-defined]
    know = {world for worlds_ in cohorts.TABLES.values() for world in worlds_}
    assert know == {name for name in catalog.WORLDS if cohorts.default_of(name) is not None}
    defaults = {world: row["cohort"] for row in rows for world in row["default_in"]}  # type: ignore[attr-defined]
    assert defaults == {name: cohorts.default_of(name) for name in know}
    assert catalog.load("oracle", cohort="elderly").cohort.name == "elderly"


def test_the_doctor_finds_all_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    wrong = [one for one in told["findings"] if one["status"] == "wrong"]
    assert (status, told["wrong"], wrong) == (0, 0, []), wrong
    about = {one["about"] for one in told["findings"]}
    assert {"Python", "module agents", "processor", "threads", "GPU", "compiler", "cache folder", "weights"} <= about
    assert main(["doctor"]) == 0 and "all is well" in capsys.readouterr().out


def test_the_doctor_finds_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "ecg-risk-small"
    shutil.copytree(catalog.weights_folder("ecg-wm-small").parent / name, tmp_path / name)
    monkeypatch.setattr("clinenv.registration.WEIGHTS_SHA256", {name: "0" * 64, "ecg-wm-small": "1" * 64})
    said = [one.said for one in shipped.weights(tmp_path) if one.status == "wrong"]
    assert any("registered: 0000" in words for words in said) and any("does not exist" in words for words in said)
    monkeypatch.setattr(
        software.metadata, "requires", lambda _: ["torch>=99", "no-such-package>=1", "numpy; extra=='x'"]
    )
    found = {one.about: one for one in software.versions() if one.status == "wrong"}
    assert found.keys() == {"torch", "no-such-package"} and found["torch"].remedy == 'pip install "torch>=99"'
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path / "gone"))
    assert {one.about for one in machine.caches() if one.status == "wrong"} == {"temporary folder"}
    monkeypatch.setattr(software, "others_that_install", lambda name: ["openai-agents 0.1"] if name == "agents" else [])
    assert [one.about for one in software.clashing() if one.status == "wrong"] == ["module agents"]
    monkeypatch.setattr("torch.get_num_threads", lambda: 4096)
    assert machine.threads().status == "note" and "OMP_NUM_THREADS" in machine.threads().remedy
    assert main(["doctor"]) == 1 and "module agents: install clinenv into" in capsys.readouterr().out


def test_the_versions_of_a_checkout_are_those_tested_with() -> None:
    assert software.constraints()["torch"] and software.constraints()["gymnasium"]
    assert clashes.others_that_install("no_such_module") == []
    assert "pytest" in " ".join(clashes.others_that_install("_pytest"))


def test_an_id_that_cannot_be_stepped_is_wrong() -> None:
    def broken(name: str, world: str) -> None:
        raise RuntimeError("no such law")

    found = shipped._stepped("ECGDrug-v0", "oracle", broken)
    assert found.status == "wrong" and "RuntimeError: no such law" in found.said
    assert shipped._stepped("EHRReplay-v0", "ehr-mimic-demo-small", shipped._single).status == "ok"
