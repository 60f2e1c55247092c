"""From a folder of open sets to a world that is judged, by the commands."""

import json

import numpy as np
import pytest
import torch

from benchmarks.ward import fidelity
from tests.data.small_icu import USUAL, challenge
from world_models import catalog, checkpoint, keys
from world_models.ehr_world import train
from world_models.ehr_world.people import COHORTS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the sets, and a world that hardly learned."""
    root = tmp_path_factory.mktemp("people")
    folder = root / "data" / "challenge_2019"
    folder.mkdir(parents=True)
    frame = challenge(40)
    varied = 1 + 0.01 * np.random.default_rng(0).integers(-6, 3, size=len(frame))
    moving = [name for name in USUAL if name != "TroponinI"]
    frame[moving] = frame[moving].mul(varied, axis=0).round(1)
    frame.to_parquet(folder / "training_set_b.parquet", index=False)
    out = root / "world"
    train.main(
        ["--source", "people", "--data", str(root / "data"), "--out", str(out)]
        + ["--steps", "2", "--polish", "1", "--oracle-stays", "0", "--name", "tiny-people"]
    )
    return root, out


def test_the_command_makes_a_world_whose_card_tells_of_whom(made) -> None:
    root, out = made
    card = (out / "CARD.md").read_text()
    assert "challenge_2019:" in card and "Not for clinical use" in card and COHORTS[1].attribution in card
    assert "Beside them" not in card  # no simulated stays
    config = checkpoint.read_config(out)
    assert config["trends"] and config["repeats"] and config["with_diagnoses"]
    assert config["vocabulary"]["static"][-1]["name"] == "source_challenge_2019"
    assert not list((root / "data").rglob("*.safetensors"))  # nothing is written beside the data


def test_the_world_lives(made) -> None:
    world = catalog.load(str(made[1]))
    state = world.initial(keys.from_seed(0, 3))
    orders = torch.zeros(3, len(world.orders))
    orders[:, :39] = 1.0
    for _ in range(3):
        state = world.transition(state, orders)
    chart = world.observe(state)
    assert not any(x.isnan().any() for x in chart.values()) and chart["complaint"].shape == (3, 6)
    grid = world.net.grid
    stepped = (grid > 0) & state.seen
    off = (state.value / grid.clamp_min(1e-6) - (state.value / grid.clamp_min(1e-6)).round()).abs()
    inside = (state.value > world.bounds[:, 0]) & (state.value < world.bounds[:, 1])
    assert bool(stepped.any()) and float(off[stepped & inside].max()) < 2e-3  # numbers as they are reported


def test_it_is_judged_on_anybodys_stays_training_nothing(made, tmp_path, capsys) -> None:
    root, out = made
    table = root / "data" / "challenge_2019" / "training_set_b.parquet"
    metrics = tmp_path / "metrics.json"
    asked = ["--world", str(out), "--out", str(metrics), "--paths", "2", "--stays", "5"]
    assert fidelity.main(["--challenge2019", str(table), *asked]) == 0
    found = json.loads(metrics.read_text())
    assert found["patients"] == 40 and found["next_step"]["model"]["s25"] > 0
    assert {"s25_of_the_median", "mae_sd", "crps"} <= set(found["next_step"]["model"])
    assert found["full_trajectory"]["stays"] <= 5
    assert any("'challenge_2019'" in note for note in found["notes"])
    with pytest.raises(SystemExit) as caught:
        fidelity.main(["--challenge2019", str(table), "--eicu", str(root), *asked])
    assert caught.value.code == 2 and "one source" in capsys.readouterr().err


def test_what_goes_with_another_source_is_refused(tmp_path, capsys) -> None:
    for arguments, word in (
        (["--source", "people"], "--data"),
        (["--source", "ward", "--data", str(tmp_path)], "--source people"),
        (["--source", "people", "--data", str(tmp_path), "--meds", "x"], "--source meds"),
    ):
        with pytest.raises(SystemExit) as caught:
            train.main([*arguments, "--out", str(tmp_path / "out")])
        assert caught.value.code == 2 and word in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main(["--source", "people", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "holds none of" in capsys.readouterr().err and not (tmp_path / "out").exists()
