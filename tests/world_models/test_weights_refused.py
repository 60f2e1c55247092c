"""Folders of weights that are damaged, altered or made up: each loads as it was, or is refused by one kind of error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from world_models import catalog, checkpoint
from world_models.checkpoint import CONFIG, WEIGHTS, CheckpointError
from world_models.config_json import ConfigError, from_json, parse_json
from world_models.ecg_wm.config import ECGWorldConfig

LEARNED = [name for name, entry in catalog.WORLDS.items() if entry.weights is not None]
SIZE = {
    "ecg-wm-small": "drift_width",
    "ehr-ward-small": "hidden",
    "ehr-mimic-demo-small": "query",
    "ehr-icu-small": "query",
    "ehr-icu-hourly-small": "query",
    "cardiac-jepa-small": "bank",
}


def copied(name: str, folder: Path) -> Path:
    source = catalog.weights_folder(name)
    if not (source / WEIGHTS).is_file():
        pytest.skip(f"world {name} has no weights here")
    folder.mkdir(parents=True)
    for file in (CONFIG, WEIGHTS):
        shutil.copy(source / file, folder / file)
    return folder


def with_config(folder: Path, change: Callable[[dict], object]) -> Path:
    """The folder with another config, sealed anew as its owner could."""
    plain = json.loads((folder / CONFIG).read_text())
    change(plain)
    (folder / CONFIG).write_text(json.dumps(plain))
    checkpoint.seal(folder)
    return folder


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    checkpoint.seal(folder)
    return folder


@pytest.mark.parametrize("name", LEARNED)
def test_a_sealed_config_that_is_not_the_models_is_refused(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path / "w")
    good = (folder / CONFIG).read_text()
    assert catalog.load(folder).weights_sha256 == checkpoint.sha256(catalog.weights_folder(name))
    size = SIZE[name]
    for value, words in (
        ("96", "of type int, not '96'"),
        (True, "not True"),
        (None, "not None"),
        (96.0, r"not 96\.0"),
        ([96], "not"),
        (0, "1 or more"),
        (-1, "1 or more"),
        (1 << 40, "at most"),
        (61, "does not hold the tensors expected"),
    ):
        (folder / CONFIG).write_text(good)
        with pytest.raises(CheckpointError, match=words) as caught:
            catalog.load(with_config(folder, lambda c, value=value: c.update({size: value})))
        assert size in str(caught.value) or "does not hold" in str(caught.value)
    (folder / CONFIG).write_text(good)
    with pytest.raises(CheckpointError, match="'colour' that this version does not know"):
        catalog.load(with_config(folder, lambda c: c.update(colour="red")))
    (folder / CONFIG).write_text(good)
    with pytest.raises(CheckpointError, match="known kinds"):
        catalog.load(with_config(folder, lambda c: c.update(kind=["x"])))


@pytest.mark.parametrize("name", LEARNED)
def test_sizes_are_compared_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    most = {"bank": 1 << 24}.get(SIZE[name], 60_000)  # gigabytes of weights or of patients
    folder = with_config(copied(name, tmp_path / "w"), lambda c: c.update({SIZE[name]: most}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="does not hold the tensors expected here"):
        catalog.load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize("name", LEARNED)
def test_tensors_go_in_as_they_are_or_not_at_all(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path / "w")
    first = next(n for n, t in load_file(folder / WEIGHTS).items() if t.is_floating_point() and t.ndim)

    def odd(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
        return lambda t: t.update({first: t[first].index_fill(0, torch.tensor([0]), value)})

    for change, words in (
        (odd(float("nan")), f"{first}' holds NaN or infinity"),
        (odd(float("inf")), f"{first}' holds NaN or infinity"),
        (lambda t: t.update({first: t[first].double()}), f"{first} is float64 .*, not float32"),
        (lambda t: t.update({first: t[first][None]}), f"{first} is float32 .*, not float32"),
        (lambda t: t.pop(first), f"lacks 1 tensors .{first}"),
        (lambda t: t.update(extra=torch.zeros(2)), "adds 1 tensors .extra"),
    ):
        shutil.copy(catalog.weights_folder(name) / WEIGHTS, folder / WEIGHTS)
        with pytest.raises(CheckpointError, match=words):
            catalog.load(with_tensors(folder, change))


def test_weights_do_not_load_under_another_vocabulary(tmp_path: Path) -> None:
    ward, demo = (copied(name, tmp_path / name) for name in ("ehr-ward-small", "ehr-mimic-demo-small"))
    words = json.loads((demo / CONFIG).read_text())["vocabulary"]
    sealed = json.loads((ward / CONFIG).read_text())
    (ward / CONFIG).write_text(json.dumps({**sealed, "vocabulary": words}))
    with pytest.raises(CheckpointError, match="one of them was changed"):
        catalog.load(ward)
    checkpoint.seal(ward)
    with pytest.raises(CheckpointError, match="expected here|trained under another config.json"):
        catalog.load(ward)
    (ward / CONFIG).write_text(json.dumps(sealed))

    def swapped(c: dict) -> None:  # the same number of bins: shapes alone do not tell
        c["vocabulary"]["items"][0]["offset_h"] += 0.25

    with pytest.raises(CheckpointError, match=r"trained under another config\.json.*'offset_h'"):
        catalog.load(with_config(ward, swapped))
    for broken, said in (
        (lambda c: c["vocabulary"].update(items=[]), "another vocabulary"),
        (lambda c: c["vocabulary"]["items"][3].update(sd=0.0), "sd=0.0"),
        (lambda c: c["vocabulary"]["items"][3].update(edges=[0.0] * 5000), "5000 bin edges"),
        (lambda c: c["vocabulary"]["items"][3].pop("mean"), "lacks the field 'mean'"),
        (lambda c: c.update(vocabulary=7), "must be an object, not 7"),
    ):
        (ward / CONFIG).write_text(json.dumps(sealed))
        with pytest.raises(CheckpointError, match=said):
            catalog.load(with_config(ward, broken))


def test_mutated_folders_load_as_they_were_or_are_refused(tmp_path: Path) -> None:
    """Bytes flipped, cut, doubled and put in, with the old seal and with a new one."""
    rng = np.random.default_rng(7)
    source = checkpoint.WEIGHTS, checkpoint.CONFIG
    folder = copied("ehr-ward-small", tmp_path / "w")
    content = {name: (folder / name).read_bytes() for name in source}
    seal = checkpoint.sha256(folder)
    refused = 0
    for trial in range(80):
        name = source[trial % 2]
        whole = bytearray(content[name])
        place = int(rng.integers(len(whole) if trial % 4 else 3000))  # half of them where header and sizes stand
        match trial % 5:
            case 0 | 1:
                whole[place] ^= 1 << int(rng.integers(8))
            case 2:
                del whole[place:]
            case 3:
                whole[place:place] = whole[place : place + 40]
            case 4:
                whole[place : place + 3] = rng.bytes(3)
        for other in source:
            (folder / other).write_bytes(content[other])
        (folder / name).write_bytes(whole)
        try:
            if trial % 3 == 0:
                checkpoint.seal(folder)
            found = catalog.load(folder)
        except CheckpointError as error:
            refused += 1
            assert str(tmp_path) in str(error)
        else:
            assert trial % 3 == 0 or found.weights_sha256 == seal
    assert refused > 60


def test_json_is_read_strictly() -> None:
    for text, words in (
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": NaN}', "no finite number"),
        ('{"a": 1e999}', "no finite number"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "holds a list"),
        (b"\xff", "no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "no JSON"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_json(text, "it")
    assert from_json(ECGWorldConfig, {"hours_per_step": 1}, "it").hours_per_step == 1.0
    for value in (0, -2.0, 1e9, 10**400, "2"):
        with pytest.raises(ConfigError, match="hours_per_step"):
            from_json(ECGWorldConfig, {"hours_per_step": value}, "it")
