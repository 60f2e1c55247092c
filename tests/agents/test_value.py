"""The value at the horizon: shaping keeps the order of plans, a network learns a known value, its command resumes."""

from __future__ import annotations

import json

import pytest
import torch

from agents.baselines.constant import Constant
from agents.planning import value_training
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.value import LearnedValue, WithValue
from agents.rollout import judge
from clinenv.simulator import Simulator
from clinenv.testing import check_task
from tests.agents.bandit_world import DialTask, DialWorld
from tests.agents.pump_world import STEPS, PumpTask, PumpWorld
from world_models import keys


def test_shaped_rewards_add_up_to_the_return_and_the_value_at_the_end():
    world = DialWorld(drift=0.2)

    def value(chart):
        return chart["dial_turns"].square() - chart["hours"]

    plain, shaped = Simulator(world, DialTask()), Simulator(world, WithValue(DialTask(), value, 0.9))
    check_task(shaped.task, world)
    state, chart = plain.reset(keys.from_seed(0, 5))
    plan = torch.ones(5, 3, 4, 1)
    told, with_value = (s.imagine(state, chart, plan, 2, discount=0.9) for s in (plain, shaped))
    one = plain.rollout(state, chart, plan[:, 0])
    end = value({name: x[:, -1] for name, x in one.charts.items()})
    also = shaped.rollout(state, chart, plan[:, 0])
    weights = 0.9 ** torch.arange(4.0)
    gained = (also.rewards * weights).sum(1) - (one.rewards * weights).sum(1)
    torch.testing.assert_close(gained, 0.9**4 * end - value(chart), rtol=1e-4, atol=1e-4)
    assert with_value.returns.shape == told.returns.shape and torch.equal(with_value.costs, told.costs)


class Ahead(PumpTask):
    """The reward comes at the last step alone: 1 for each of the first two steps at which the first pump was on."""

    name = "ahead"

    def reward(self, before, action, after):
        return {"late": torch.zeros_like(after["hours"])}


def test_a_value_shows_a_short_plan_what_comes_later():
    simulator = Simulator(PumpWorld(), Ahead("switches"))

    def value(chart):  # what is given now pays later
        return chart["given_mg"][:, 0]

    config = CEMConfig(horizon=1, candidates=8, particles=1, elites=2, nothing=0.5, every=())
    key = keys.from_seed(0, 4)
    blind = judge(WorldPlanner(simulator, config), simulator, key, STEPS)
    planner = WorldPlanner(simulator, config, value=value)
    seeing = judge(planner, simulator, key, STEPS)
    assert float(blind.ordered.sum()) == 0.0 and torch.equal(seeing.ordered[:, 0], torch.full((4,), float(STEPS)))
    torch.testing.assert_close(planner.promised, torch.ones(4))


def test_a_network_learns_the_value_of_a_policy(tmp_path):
    """Always turning by one, the path of each patient decides the return: a function of the chart."""
    simulator = Simulator(DialWorld(), DialTask())
    courses = value_training.returns_to_go(simulator, Constant(1), 40, 8)
    judged = judge(Constant(1), simulator, keys.fold(keys.from_seed(value_training.SEED, 40), "value"), 8)
    whole = courses.here[:, 0]
    torch.testing.assert_close(courses.to_go[whole, 0], judged.returns[whole])
    assert 0.2 < float(whole.float().mean()) < 0.8, "half explore"
    trained, explained = value_training.train_value(tmp_path / "v", simulator, Constant(1), 400, 400, 128, 8)
    assert explained > 0.7
    value = LearnedValue(tmp_path / "v", simulator)
    chart = simulator.reset(keys.from_seed(1, 6))[1]
    torch.testing.assert_close(value(chart), LearnedValue(trained, simulator)(chart))
    again, same = value_training.train_value(tmp_path / "v", simulator, Constant(1), 400, 400, 128, 8)
    assert same == pytest.approx(explained)  # the finished stage was loaded
    with pytest.raises(ValueError, match="train one"):
        LearnedValue(tmp_path / "v", Simulator(PumpWorld(), PumpTask()))


def test_the_command_writes_a_sealed_folder_and_refuses_nonsense(tmp_path, capsys):
    out = tmp_path / "value"
    assert value_training.main(["--out", str(out), "--patients", "24", "--steps", "20", "--batch", "64"]) == 0
    assert "explains" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["task"] == "ECGDrug" and config["horizon_steps"] == 24 and (out / "CARD.md").exists()
    assert [json.loads(line)["stage"] for line in (out / "training" / "metrics.jsonl").read_text().splitlines()][
        -1
    ] == "test"
    assert value_training.main(["--out", str(tmp_path / "x"), "--id", "ECGExplain-v0"]) == 2
    assert "base policy" in capsys.readouterr().err and not (tmp_path / "x").exists()
    with pytest.raises(SystemExit) as end:
        value_training.main(["--out", str(out), "--patients", "none"])
    assert end.value.code == 2
