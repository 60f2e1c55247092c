"""A screening tells edits that pay from those that harm, grows in rounds, and its command refuses nonsense."""

from __future__ import annotations

import json

import pytest
import torch

from agents.planning import screening
from agents.planning.edits import edits_of
from agents.planning.rollout_policy import RolloutConfig, RolloutPlanner
from agents.rollout import judge
from clinenv.simulator import Simulator
from tests.agents.pump_world import STEPS, PumpTask, PumpWorld
from world_models import keys

CONFIG = RolloutConfig(horizon=1, particles=2, replan_every=1)


class Needless(PumpWorld):
    """The second pump is never needed, the first always."""

    def initial(self, key, factors=None):
        state = super().initial(key, factors)
        return state._replace(needed=torch.tensor([1.0, 0.0]).expand_as(state.needed).clone())


class Both:
    name = "both"

    def reset(self, mask=None):
        pass

    def act(self, chart):
        return torch.ones(len(chart["hours"]), 2)


def test_what_pays_comes_first_and_a_run_goes_on(tmp_path):
    simulator = Simulator(Needless(drift=0.2), PumpTask("switches"))
    edits, file = edits_of(simulator), tmp_path / "edits.json"
    rows = screening.screen(simulator, Both(), edits, CONFIG, 16, file)
    assert rows[0]["name"] == "without second_mg" and rows[0]["gain"] == pytest.approx(1.0, abs=0.3)
    harm = next(row for row in rows if row["name"] == "without first_mg")
    assert harm["gain"] == pytest.approx(-1.0, abs=0.3) and harm["tried"] == 16 * len(screening.MOMENTS)
    assert next(row for row in rows if row["name"] == "first_mg now")["tried"] == 0, "it changes nothing"
    kept = screening.worth_trying(edits, rows, errors=2.0)
    assert kept.names == ("without second_mg",)
    certain = Simulator(Needless(), PumpTask("switches"))
    gained = judge(RolloutPlanner(certain, Both(), CONFIG, edits=kept), certain, keys.from_seed(0, 4), STEPS)
    assert torch.equal(gained.ordered, torch.tensor([[4.0, 0.0]]).expand(4, 2))
    with pytest.raises(ValueError, match="standard errors"):
        screening.worth_trying(edits, rows, errors=1e6)

    whole = screening.screen(simulator, Both(), edits, CONFIG, 32)
    again = screening.screen(simulator, Both(), edits, CONFIG, 32, file)  # two rounds of four were done
    for one, other in zip(whole, again, strict=True):
        assert one["name"] == other["name"] and one["tried"] == other["tried"]
        assert one["gain"] == pytest.approx(other["gain"], abs=1e-6)
        assert one["error"] == pytest.approx(other["error"], rel=1e-4)
    assert json.loads(file.read_text())["rounds"] == 4
    with pytest.raises(ValueError, match="other settings"):
        screening.screen(simulator, Both(), edits, RolloutConfig(horizon=2, replan_every=1), 32, file)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(screening, "ROUND", 2)
    monkeypatch.setattr(screening, "MOMENTS", (0,))
    assert screening.main(["--id", "ECGExplain-v0", "--out", str(tmp_path / "x.json")]) == 2
    assert "base policy" in capsys.readouterr().err and not list(tmp_path.iterdir())
    file = tmp_path / "edits.json"
    assert screening.main(["--id", "ECGDrug-v0", "--preset", "fast", "--patients", "2", "--out", str(file)]) == 0
    assert "gain" in capsys.readouterr().out and json.loads(file.read_text())["task"] == "ECGDrug"
    with pytest.raises(SystemExit) as end:
        screening.main(["--out", str(file), "--patients", "1"])
    assert end.value.code == 2
