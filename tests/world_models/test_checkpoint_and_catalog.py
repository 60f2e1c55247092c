"""Worlds on disk: what is written is what is read, damage is found, and names are helped."""

from __future__ import annotations

import json

import pytest
import torch

from tests.toy_world import ToyWorld
from world_models import catalog, checkpoint


def saved(folder, **config) -> str:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.int64)}
    return checkpoint.save_checkpoint(folder, tensors, {"kind": "toy", **config}, "# A toy\n")


def test_what_is_written_is_read(tmp_path) -> None:
    total = saved(tmp_path / "new" / "world", width=3)
    tensors, config = checkpoint.load(tmp_path / "new" / "world", expected_sha256=total)
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
    with pytest.raises(ValueError, match="not those"):
        checkpoint.load(tmp_path, expected_sha256="0" * 64)
    weights = tmp_path / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="SHA-256"):
        checkpoint.load(tmp_path)
    (tmp_path / checkpoint.CONFIG).write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        checkpoint.load(tmp_path)
    weights.unlink()
    (tmp_path / checkpoint.CONFIG).write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        checkpoint.load(tmp_path)


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
