"""Several files under one seal: replaced as one wherever the writer is killed, and refused when one of them is
changed."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from tests.kills import every, kill_at, needs_fork
from world_models import sealed, tensor_file
from world_models.checkpoint import load, save_checkpoint
from world_models.sealed import Form
from world_models.tensor_file import CheckpointError, read_tensors

FORM = Form("it.json", ("one.safetensors", "two.safetensors"), "python -m seal")


def write(folder: Path, value: float) -> str:
    return FORM.write(
        folder, {"value": value}, [save({"a": torch.full((2,), value)}), save({"b": torch.full((3,), -value)})]
    )


def values(folder: Path) -> set[float]:
    with FORM.opened(folder) as found:
        one, two = (found.tensors(name) for name in FORM.tensors)
        return {found.config["value"], *one["a"].tolist(), *(-two["b"]).tolist()}


@needs_fork
def test_two_files_are_replaced_as_one(tmp_path: Path) -> None:
    seen, line, killed = [], 0, True
    while killed:
        folder = tmp_path / str(line)
        write(folder, 1.0)
        killed = kill_at(line, lambda folder=folder: write(folder, 2.0), sealed, tensor_file)
        found = values(folder)
        assert found in ({1.0}, {2.0})
        seen.append(found.pop())
        # over what the first left behind, half done as well
        kill_at(line // 2, lambda folder=folder: write(folder, 3.0), sealed, tensor_file)
        assert values(folder) in ({seen[-1]}, {3.0})
        line += every(7)
    assert seen == sorted(seen) and set(seen) == {1.0, 2.0}


def test_no_part_is_changed_alone(tmp_path: Path) -> None:
    write(tmp_path / "a", 1.0)
    write(tmp_path / "b", 2.0)
    for name in (*FORM.tensors, FORM.json):
        good = (tmp_path / "a" / name).read_bytes()
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
        with pytest.raises(CheckpointError, match=r"one of them was changed.*python -m seal"):
            values(tmp_path / "a")
        (tmp_path / "a" / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            values(tmp_path / "a")
        (tmp_path / "a" / name).write_bytes(good)
    # ... nor is one file's end another's beginning
    whole = [(tmp_path / "a" / name).read_bytes() for name in FORM.tensors]
    (tmp_path / "a" / FORM.tensors[0]).write_bytes(whole[0] + whole[1][:9])
    (tmp_path / "a" / FORM.tensors[1]).write_bytes(whole[1][9:])
    with pytest.raises(CheckpointError, match="one of them was changed"):
        values(tmp_path / "a")


def test_headers_are_read_with_care(tmp_path: Path) -> None:
    good = save({"a": torch.ones(2)})
    size = int.from_bytes(good[:8], "little")
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    path = tmp_path / "x.safetensors"

    def told(header: object, body: bytes = good[8 + size :]) -> bytes:
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + body

    for content in (
        b"",
        b"\xff" * 8,
        good[:5],
        (1 << 60).to_bytes(8, "little") + good[8:],
        good + b"\0",
        told([1]),
        told({"a": 1}),
        told({"a": {**entry, "dtype": "F128"}}),
        told({"a": {**entry, "dtype": ["F32"]}}),
        told({"a": {**entry, "shape": "ab"}}),
        told({"a": {**entry, "shape": [1 << 62, 4]}}),
        told({"a": {**entry, "shape": [-1, -2]}}),
        told({"a": {**entry, "data_offsets": [0, 1 << 40]}}),
        told({"a": {**entry, "data_offsets": [0]}}),
        told({"a": entry, "b": entry}),
        told({"__metadata__": 3, "a": entry}),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            read_tensors(path)
    path.write_bytes(good)
    assert read_tensors(path)[0]["a"].tolist() == [1.0, 1.0]
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none")


def _save_often(folder: Path, number: int) -> None:
    for _ in range(20):
        save_checkpoint(folder, {"a": torch.full((20_000,), float(number))}, {"number": number}, "card")


@needs_fork
def test_two_processes_may_save_while_others_read(tmp_path: Path) -> None:
    folder = tmp_path / "ü and w"
    save_checkpoint(folder, {"a": torch.zeros(20_000)}, {"number": 0}, "card")
    savers = [multiprocessing.get_context("fork").Process(target=_save_often, args=(folder, k)) for k in (1, 2)]
    for saver in savers:
        saver.start()
    while any(saver.is_alive() for saver in savers):
        tensors, config = load(folder)
        assert float(tensors["a"][0]) == config["number"]
    assert [saver.exitcode for saver in savers] == [0, 0]
    assert sorted(path.name for path in folder.iterdir()) == ["CARD.md", "config.json", "model.safetensors"]
