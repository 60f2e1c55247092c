"""The training command: a small run ends with a whole model, a run that cannot end says so before anything is made."""

from __future__ import annotations

import pytest
import torch

from world_models import catalog, keys
from world_models.ecg_wm.train import main, steps_of


@pytest.mark.parametrize("scale", ["0.0033", "0", "-1", "nan", "inf", "2.6"])
def test_a_scale_that_leaves_a_stage_without_steps_is_refused_first(scale: str, tmp_path, capsys):
    assert main(["--out", str(tmp_path / "model"), "--scale", scale]) == 2
    assert "at least 0.0034" in capsys.readouterr().err and not (tmp_path / "model").exists()


def test_the_steps_of_the_shipped_weights():
    assert steps_of(1.0) == {
        "beats": 800,
        "dynamics": 2600,
        "belief": 300,
        "foresight": 350,
        "events": 600,
        "teacher": 1500,
        "student": 1500,
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
