"""Worlds on disk: what is written is what is read, damage is found, and names are helped."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from tests.kills import every, kill_at, needs_fork
from tests.toy_world import ToyWorld
from world_models import catalog, checkpoint, sealed, tensor_file
from world_models.checkpoint import CheckpointError


def saved(folder, **config) -> str:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.int64)}
    return checkpoint.save_checkpoint(folder, tensors, {"kind": "toy", **config}, "# A toy\n")


def test_what_is_written_is_read(tmp_path) -> None:
    total = saved(tmp_path / "new" / "world", width=3)
    tensors, config = checkpoint.load(tmp_path / "new" / "world")
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3)) and tensors["b"].dtype == torch.int64
    assert config["width"] == 3 and checkpoint.sha256(tmp_path / "new" / "world") == total
    files = sorted(path.name for path in (tmp_path / "new" / "world").iterdir())
    assert files == ["CARD.md", "config.json", "model.safetensors"], "no temporary file is left"
    assert saved(tmp_path / "again", width=3) == total, "the same tensors have the same sum"


def test_nothing_is_written_when_the_input_is_bad(tmp_path) -> None:
    for tensors, config in (({}, {}), ({"a": torch.tensor([float("nan")])}, {}), ({"a": torch.ones(1)}, {"f": print})):
        with pytest.raises(ValueError):
            checkpoint.save_checkpoint(tmp_path / "x", tensors, config, "")
        assert not (tmp_path / "x").exists()


def test_damage_is_found(tmp_path) -> None:
    saved(tmp_path)
    weights = tmp_path / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="bears the seal"):
        checkpoint.load(tmp_path)
    (tmp_path / checkpoint.CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match="no JSON"):
        checkpoint.load(tmp_path)
    weights.unlink()
    (tmp_path / checkpoint.CONFIG).write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        checkpoint.load(tmp_path)


def test_the_seal_covers_every_value_of_the_config(tmp_path) -> None:
    saved(tmp_path, width=3, steps=4)
    path = tmp_path / checkpoint.CONFIG
    plain = json.loads(path.read_text())
    for change in ({"steps": 3}, {"steps": 4.0}, {"kind": "other"}, {"more": None}):
        path.write_text(json.dumps({**plain, **change}))
        with pytest.raises(CheckpointError, match="one of them was changed"):
            checkpoint.load(tmp_path)
    path.write_text(json.dumps(dict(reversed(plain.items())), indent=7))
    assert checkpoint.load(tmp_path)[1]["steps"] == 4, "order and layout of the text mean nothing"
    path.write_text(json.dumps(plain)[:-1] + ', "steps": 3}')
    with pytest.raises(CheckpointError, match="'steps' is given twice"):
        checkpoint.load(tmp_path)


def test_a_folder_without_a_seal_is_sealed_by_the_command_it_names(tmp_path, capsys) -> None:
    total = saved(tmp_path)
    path = tmp_path / checkpoint.CONFIG
    plain = json.loads(path.read_text())
    del plain["seal_sha256"]
    before = hashlib.sha256((tmp_path / checkpoint.WEIGHTS).read_bytes()).hexdigest()
    path.write_text(json.dumps({**plain, "weights_sha256": before}))  # as earlier versions did
    with pytest.raises(CheckpointError, match=f"bears no seal.*python -m world_models.checkpoint {tmp_path}"):
        checkpoint.load(tmp_path)
    assert checkpoint.main([str(tmp_path)]) == 0 and total in capsys.readouterr().out
    assert checkpoint.sha256(tmp_path) == total
    path.write_text(json.dumps({**plain, "weights_sha256": "0" * 64}))
    assert checkpoint.main([str(tmp_path)]) == 2 and "do not belong together" in capsys.readouterr().err


@needs_fork
def test_a_save_that_is_killed_anywhere_leaves_the_old_world_or_the_new_one(tmp_path) -> None:
    def save(folder, value: float) -> str:
        return checkpoint.save_checkpoint(
            folder, {"a": torch.full((3,), value)}, {"kind": "toy", "value": value}, f"{value}"
        )

    old, new = save(tmp_path / "a", 1.0), save(tmp_path / "b", 2.0)
    line, seen, killed = 0, [], True
    while killed:
        folder = tmp_path / str(line)
        save(folder, 1.0)
        killed = kill_at(line, lambda folder=folder: save(folder, 2.0), checkpoint, sealed, tensor_file)
        tensors, config = checkpoint.load(folder)
        seen.append(checkpoint.sha256(folder))
        assert tensors["a"].tolist() == [config["value"]] * 3
        line += every(5)
    assert set(seen) == {old, new} and seen == sorted(seen, key=[old, new].index) and len(seen) > 20


def toy_from(folder, device: str = "cpu"):
    world = ToyWorld(device)
    world.scale = float(checkpoint.load(folder)[0]["a"].sum())
    return world


def test_a_folder_is_a_world_and_is_loaded_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(catalog.LOADERS, "toy", f"{__name__}:toy_from")
    saved(tmp_path / "w")
    first = catalog.load(tmp_path / "w")
    assert first is catalog.load(str(tmp_path / "w")) and first.scale == 15.0
    checkpoint.save_checkpoint(tmp_path / "w", {"a": torch.ones(2)}, {"kind": "toy"}, "")
    assert catalog.load(tmp_path / "w").scale == 2.0, "weights that were trained anew are loaded anew"
    with pytest.raises(ValueError, match="knows no cohorts"):
        catalog.load(tmp_path / "w", cohort="elderly")


def test_a_factory_without_weights(monkeypatch) -> None:
    monkeypatch.setitem(catalog.WORLDS, "toy", catalog.Entry("tests.toy_world:ToyWorld"))
    assert catalog.load("toy") is catalog.load("toy")
    assert catalog.load("toy", cohort="long-qt").cohort == "long-qt"


def test_unknown_names_are_helped(tmp_path) -> None:
    with pytest.raises(ValueError, match="oracle, ecg-wm-small"):
        catalog.load("orcale")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        catalog.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "other"}))
    with pytest.raises(ValueError, match="known kinds"):
        catalog.load(tmp_path)
