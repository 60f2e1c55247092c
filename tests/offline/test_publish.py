"""What goes to the Hub is whole and well described, only when it is told to, and the token stays unsaid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agents import publish
from agents.offline.croissant import croissant_of, path_of, write_croissant
from agents.offline.logged import About, Logged, save
from agents.offline.sheet import sheet_of, write_sheet
from tests.offline.hub import Hub, hub
from world_models.refresh_cards import SHIPPED

TOKEN = "hf_a_token_that_nobody_may_read"


def log(switches: bool = False) -> Logged:
    """Two stays of three steps and one, of nobody."""
    about = About(
        env_id="Toy-v0",
        task="toy",
        world="toy",
        weights_sha256=None,
        cohort=None,
        behaviour="by chance",
        confounding=0.0,
        first_seed=7,
        patients=2,
        most_steps=3,
        hours_per_step=2.0,
        observation_names=("qtcf_ms", "hours"),
        observation_units=("ms", "h"),
        action_kind="switches" if switches else "menu",
        action_labels=("a", "b"),
    )
    steps = torch.zeros(2, 3)
    return Logged(
        about=about,
        seed=torch.tensor([7, 8]),
        length=torch.tensor([3, 1]),
        observation=torch.zeros(2, 4, 2),
        choice=torch.zeros(2, 3, 2 if switches else 1, dtype=torch.int64),
        reward=steps,
        cost=steps,
        terms={"burden": steps},
        log_prob=steps,
        nominal_log_prob=steps,
        terminated=steps.bool(),
        truncated=steps.bool(),
        hidden_severity=torch.full((2,), 0.5),
        mask=torch.ones(2, 4, 2, dtype=torch.int8) if switches else None,
    )


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    for name, switches in (("menu", False), ("switches", True)):
        logged, path = log(switches), folder / f"Toy-v0-{name}.h5"
        save(logged, path)
        sheet = sheet_of(logged, path, "made by hand")
        write_croissant(croissant_of(logged, sheet, "0.1.0"), path)
        write_sheet(sheet, path)
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    with hub(TOKEN) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv(publish.TOKEN, TOKEN)
        yield running


def test_the_metadata_are_valid_croissant(logs: Path) -> None:
    for path in sorted(logs.glob("*.h5")):
        told = json.loads(path_of(path).read_text())
        (file,) = told["distribution"]
        assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        fields = {field["name"] for part in told["recordSet"] for field in part["field"]}
        assert {"observation", "choice", "reward", "term_burden", "log_prob", "seed", "hidden_severity"} <= fields
        assert ("mask" in fields) == ("switches" in path.name)
    mlcroissant = pytest.importorskip("mlcroissant")  # `make test-hub`: its requirements are many, and pin types
    for name, content in publish.data_files(logs, published="2026-11-30").items():
        if name.endswith(".croissant.json"):
            found = mlcroissant.Dataset(jsonld=json.loads(content))
            assert not found.metadata.ctx.issues.errors and not found.metadata.ctx.issues.warnings, name
            assert [part.name for part in found.metadata.record_sets] == ["steps", "visits", "stays"]


def test_a_dry_run_sends_nothing_and_needs_no_token(
    server: Hub, logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(publish.TOKEN)
    assert publish.main(["weights", "ecg-risk-small", "--repo", "me/risk"]) == 0
    assert publish.main(["data", str(logs), "--repo", "me/logs"]) == 0
    printed = capsys.readouterr().out
    assert "dry run" in printed and "model.safetensors" in printed and "Toy-v0-menu.h5" in printed
    assert not server.made and not server.repos
    assert publish.main(["data", str(logs), "--repo", "me/logs", "--push"]) == 2
    assert "HF_TOKEN is not set" in capsys.readouterr().err and not server.made


def test_weights_arrive_whole_under_their_card(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main(["weights", "ecg-risk-small", "--repo", "me/risk", "--push", "--private"]) == 0
    held = server.repos["models/me/risk"]
    folder = SHIPPED / "ecg-risk-small"
    assert held.keys() == {"README.md", "config.json", "model.safetensors"}
    assert held["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert held["README.md"] == (folder / "CARD.md").read_bytes()
    (made,) = server.made
    assert made["name"] == "risk" and (made.get("private") is True or made.get("visibility") == "private")
    said = capsys.readouterr()
    assert "sent: " in said.out and TOKEN not in said.out + said.err


def test_logs_arrive_with_their_sheets(server: Hub, logs: Path) -> None:
    assert publish.main(["data", str(logs), "--repo", "me/logs", "--push"]) == 0
    held = server.repos["datasets/me/logs"]
    assert len(held) == 9 and held["Toy-v0-menu.h5"] == (logs / "Toy-v0-menu.h5").read_bytes()
    assert b"| [Toy-v0-switches.h5](Toy-v0-switches.md) | Toy-v0 | 2 | 4 | 0 |" in held["README.md"]
    assert json.loads(held["Toy-v0-menu.croissant.json"])["datePublished"]


def test_a_refusal_does_not_say_the_token(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(publish.TOKEN, "hf_another")
    assert publish.main(["weights", "ecg-risk-small", "--repo", "me/risk", "--push"]) == 2
    said = capsys.readouterr()
    assert "the Hub refused me/risk" in said.err and "hf_another" not in said.out + said.err
    assert not server.repos


def test_what_is_not_whole_is_not_published(logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main(["weights", "nobody", "--repo", "me/x"]) == 2
    assert publish.main(["weights", "ecg-risk-small", "--repo", "x"]) == 2
    assert publish.main(["data", str(tmp_path), "--repo", "me/x"]) == 2
    (tmp_path / "Toy-v0-menu.h5").write_bytes((logs / "Toy-v0-menu.h5").read_bytes())
    assert publish.main(["data", str(tmp_path), "--repo", "me/x"]) == 2
    folder = tmp_path / "weights"
    folder.mkdir()
    for path in (SHIPPED / "ecg-risk-small").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"kind": "other"}))
    assert publish.main(["weights", str(folder), "--repo", "me/x"]) == 2
    errors = capsys.readouterr().err.splitlines()
    said = ("nobody is neither", "is not OWNER/NAME", "holds no log", "has no sheet of its own", "cannot be published")
    assert len(errors) == 5 and all(words in error for words, error in zip(said, errors, strict=True)), errors
