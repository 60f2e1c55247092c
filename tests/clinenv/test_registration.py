"""The table of ids: light to import, complete, and bound to the weights it names."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import clinenv
from clinenv.registration import ENVIRONMENTS, WEIGHTS_SHA256
from world_models import catalog, checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("row", ENVIRONMENTS, ids=lambda row: row["id"])
def test_every_row_is_registered_and_leads_somewhere(row: dict) -> None:
    spec = gymnasium.spec(row["id"])
    assert spec.max_episode_steps == row["max_episode_steps"]
    for name in ("entry_point", "vector_entry_point"):
        module, _, attribute = row[name].partition(":")
        assert getattr(importlib.import_module(module), attribute).__doc__
    assert row["kwargs"]["world"] in catalog.WORLDS


@pytest.mark.parametrize("row", ENVIRONMENTS, ids=lambda row: row["id"])
def test_the_page_has_no_place_left_open(row: dict) -> None:
    for name in ("entry_point", "vector_entry_point"):
        module, _, attribute = row[name].partition(":")
        page = getattr(importlib.import_module(module), attribute).__doc__
        assert not re.findall(r"\{[A-Za-z_.]*\}", page)
        for made in re.findall(r'gymnasium\.make\("' + row["id"] + r'"[^)]*\)', page):
            assert f'world="{row["kwargs"]["world"]}"' in made


def test_the_page_has_every_section() -> None:
    from clinenv.envs.ecg_drug.env import ECGDrugEnv

    for section in (
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Episode End",
        "Arguments",
        "Version History",
    ):
        assert f"## {section}" in ECGDrugEnv.__doc__
    assert "Not for clinical use" in ECGDrugEnv.__doc__


def test_the_page_states_the_spaces_as_they_are() -> None:
    """Each row of the observation table: name, bounds, centre and scale."""
    from clinenv.envs.ecg_drug.env import ECGDrugEnv
    from tests.toy_world import ToyWorld

    layout = ECGDrugEnv(world=ToyWorld()).episodes.interface.layout
    rows = re.findall(r"^ *\| (\d[\d-]*) \|" + r"(.+?)\|" * 6 + "$", ECGDrugEnv.__doc__, re.MULTILINE)
    checked = 0
    for num, label, _, low, high, centre, scale in rows:
        index = int(num.split("-")[0])
        assert layout.names[index].startswith(label.split()[0])
        for stated, found in ((low, layout.low), (high, layout.high), (centre, layout.centre), (scale, layout.scale)):
            if stated.strip()[0].isdigit():
                assert float(stated) == pytest.approx(float(found[index])), label
                checked += 1
    assert checked >= 100 and len(layout.names) == 36


def test_importing_registers_without_torch() -> None:
    code = "import clinenv, gymnasium, sys; gymnasium.spec('ECGDrug-v0'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert clinenv.__version__


def test_other_weights_are_refused(tmp_path, monkeypatch) -> None:
    import torch

    monkeypatch.setattr(catalog, "weights_folder", lambda name: tmp_path)
    found = checkpoint.save_checkpoint(tmp_path, {"w": torch.ones(2)}, {"kind": "ecg-wm"}, "# card")
    monkeypatch.setitem(WEIGHTS_SHA256, "ecg-wm-small", "0" * 64)
    with pytest.raises(ValueError, match=f"{found}.*{'0' * 64}"):
        gymnasium.make("ECGDrug-v0")


def test_an_oracle_that_reads_with_other_weights_is_refused(monkeypatch) -> None:
    assert catalog.load("progression-oracle", sha256=WEIGHTS_SHA256["progression-oracle"])
    monkeypatch.setitem(WEIGHTS_SHA256, "progression-oracle", "0" * 64)
    with pytest.raises(checkpoint.CheckpointError, match="the registration of that name stands for 000"):
        gymnasium.make("ECGProgression-v0", world="oracle")


def test_weights_are_summed_up_once(monkeypatch) -> None:
    """Where a world is made for the first time; again to see that the folder is as it was."""
    from world_models import sealed
    from world_models.kept import LastMade

    calls: list[int] = []
    honest = sealed._sum
    monkeypatch.setattr(sealed, "_sum", lambda *given: calls.append(1) or honest(*given))
    monkeypatch.setattr(catalog, "_MADE", LastMade(4))
    monkeypatch.setattr(checkpoint, "_MODULES", LastMade(4))
    first = gymnasium.make("EHRWard-v0").unwrapped.world
    assert len(calls) == 1
    assert gymnasium.make("EHRWard-v0").unwrapped.world is first and len(calls) == 2


def test_the_shipped_weights_are_those_of_the_table() -> None:
    for name, entry in catalog.WORLDS.items():
        if entry.weights is not None:
            folder = catalog.weights_folder(name)
            if not (folder / checkpoint.WEIGHTS).is_file():
                pytest.skip(f"world {name} has no weights here; train it first")
            assert WEIGHTS_SHA256.get(name) == checkpoint.sha256(folder), f"write the new sum of {name} into the table"
