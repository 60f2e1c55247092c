"""The training command: a small run ends with a whole model, a run that cannot end says so before anything is made."""

from __future__ import annotations

import logging

import pytest
import torch

from world_models import catalog, keys
from world_models.ecg_wm import readback_training
from world_models.ecg_wm.beat_data import BeatSource
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.readback import READ, Readback
from world_models.ecg_wm.train import main, steps_of
from world_models.ecg_wm.vae import BeatVAE


def test_a_readback_that_can_read_nothing_learns_nothing_and_says_so(tmp_path, caplog, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae, readback = BeatVAE(SMALL), Readback(SMALL)
    nothing = torch.full((64, len(READ)), torch.nan)
    monkeypatch.setattr(readback_training, "missing_of", lambda *asked: nothing)
    before = [p.clone() for p in readback.parameters()]
    with caplog.at_level(logging.WARNING):
        readback_training.train_readback(vae, readback, BeatSource(tmp_path, drawn=64), 2, 64, 3, 64, tmp_path)
    assert caplog.text.count("could read none of 64 synthesised ECGs") == 2
    assert all(torch.equal(p, q) for p, q in zip(readback.parameters(), before, strict=True))


@pytest.mark.parametrize("scale", ["0.0033", "0", "-1", "nan", "inf", "2.6"])
def test_a_scale_that_leaves_a_stage_without_steps_is_refused_first(scale: str, tmp_path, capsys):
    assert main(["--out", str(tmp_path / "model"), "--scale", scale]) == 2
    assert "at least 0.0034" in capsys.readouterr().err and not (tmp_path / "model").exists()


def test_the_steps_of_the_shipped_weights():
    assert steps_of(1.0) == {
        "beats": 800,
        "bender": 5000,
        "readback": 2400,
        "dynamics": 2600,
        "belief": 300,
        "foresight": 350,
        "hazard": 600,
    }
    assert all(count >= 1 for count in steps_of(0.0034).values())


def test_other_input_that_cannot_be_is_refused_first(tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["--out", str(out), "--ludb", str(tmp_path)]) == 2
    assert "no ludb.csv" in capsys.readouterr().err and not out.exists()
    wrong = [["--threads", "0"]] + [["--device", "cuda"]] * (not torch.cuda.is_available())
    for arguments in wrong:
        with pytest.raises(SystemExit):
            main(["--out", str(out), *arguments])
        assert arguments[0] in capsys.readouterr().err and not out.exists()


@pytest.mark.slow
def test_the_smallest_run_ends_with_a_world_that_steps(tmp_path):
    assert main(["--out", str(tmp_path), "--scale", "0.0034", "--threads", "1"]) == 0
    world = catalog.load(str(tmp_path))
    state = world.transition(world.initial(keys.from_seed(0, 4)), torch.zeros(4, 4))
    assert torch.isfinite(world.observe(state)["qtcf_ms"]).all()
