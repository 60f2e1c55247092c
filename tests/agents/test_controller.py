"""The planner finds the known best course from charts alone, and its memory follows patients who come and go."""

from __future__ import annotations

import pytest
import torch

from agents.baselines.constant import Constant, no_treatment
from agents.baselines.uniform import Uniform
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.risk import CVaR, MeanMinusSigma
from agents.protocol import Agent
from agents.rollout import judge
from clinenv.simulator import Simulator
from tests.agents.bandit_world import STEPS, DialTask, DialWorld, InferringDialWorld
from world_models import keys

CONFIG = CEMConfig(horizon=3, candidates=60, particles=1, iterations=3, elites=6, nothing=0.3, every=())


@pytest.mark.parametrize("world", [DialWorld(), InferringDialWorld()])
@pytest.mark.parametrize("replan", [1, 2])
def test_follows_the_path_of_every_patient(world, replan):
    simulator = Simulator(world, DialTask())
    config = CEMConfig(**{**CONFIG.__dict__, "replan_every": replan})
    planner = WorldPlanner(simulator, config)
    assert isinstance(planner, Agent)
    key = keys.from_seed(0, 10)
    planned = judge(planner, simulator, key, STEPS)
    assert torch.equal(planned.returns, torch.zeros(10))
    assert float(judge(no_treatment(), simulator, key, STEPS).returns.max()) < 0
    assert float(judge(Uniform(3), simulator, key, STEPS).returns.mean()) < 0


def test_same_seed_same_decisions_and_grouping_changes_nothing():
    simulator = Simulator(DialWorld(drift=0.3), DialTask())
    key = keys.from_seed(3, 6)
    config = CEMConfig(horizon=3, candidates=16, particles=4, iterations=2, elites=4)
    ways = ((0, 65_536), (0, 70), (1, 65_536))
    runs = [judge(WorldPlanner(simulator, config, seed=s, max_rows=r), simulator, key, STEPS) for s, r in ways]
    assert torch.equal(runs[0].returns, runs[1].returns)
    assert not torch.equal(runs[0].returns, runs[2].returns)


def test_history_holds_what_was_seen_and_given_since_the_patient_came():
    world = InferringDialWorld()
    planner = WorldPlanner(Simulator(world, DialTask()), CONFIG)
    state = world.initial(keys.from_seed(0, 2))
    given = []
    for step in range(3):
        choice = planner.act(world.observe(state))
        given.append(choice)
        state = world.transition(state, choice.float().unsqueeze(1))
        if step == 1:  # the second patient leaves; another comes
            planner.reset(torch.tensor([False, True]))
            fresh = world.initial(keys.from_seed(9, 2))
            state = type(state)(*(torch.stack([old[0], new[1]]) for old, new in zip(state, fresh, strict=True)))
    stays, comes = sorted(world.asked[-2:], key=lambda h: -h.actions.shape[1])
    assert comes.actions.shape == (1, 1, 1) and float(comes.actions.abs().sum()) == 0
    assert stays.actions[0, :, 0].tolist() == [float(given[0][0]), float(given[1][0]), 0.0]
    assert stays.hours.tolist() == [[0.0, 2.0, 4.0]]
    assert stays.charts["dial_turns"][0].tolist() == [0.0, float(given[0][0]), float(given[0][0] + given[1][0])]


def test_cost_weight_buys_safety():
    simulator = Simulator(DialWorld(), DialTask())
    key = keys.from_seed(0, 10)
    cheap = judge(WorldPlanner(simulator, CONFIG, cost_weight=0.0), simulator, key, STEPS)
    dear = judge(WorldPlanner(simulator, CONFIG, cost_weight=1000.0), simulator, key, STEPS)
    assert float(cheap.costs.sum()) > 0 and float(dear.costs.sum()) == 0
    assert float(dear.returns.mean()) < float(cheap.returns.mean())


def test_fear_of_an_uncertain_cost_prefers_the_certain_one():
    class Costly(DialTask):
        def reward(self, before, action, after):
            return {"turned": (action[:, 0] > 0).to(torch.float32) * 3.0}

        def cost(self, before, action, after):  # one costs 1 for sure; two costs 0 or 2, as the drift falls
            up = after["dial_turns"] - before["dial_turns"] - action[:, 0] > 0
            return torch.where(action[:, 0] > 1.5, 2.0 * up, (action[:, 0] > 0.5).to(torch.float32))

    simulator = Simulator(InferringDialWorld(drift=0.3), Costly())
    key = keys.from_seed(0, 12)
    config = CEMConfig(horizon=1, candidates=12, particles=16, elites=3, nothing=0.3, every=())
    bold, shy = (
        judge(WorldPlanner(simulator, config, cost_weight=1.0, cost_risk=MeanMinusSigma(lam)), simulator, key, STEPS)
        for lam in (-1.0, 1.0)
    )
    assert torch.equal(shy.ordered[:, 0], torch.full((12,), 1.0 * STEPS))
    assert float(bold.ordered.mean()) > 1.9 * STEPS


def test_takes_any_risk_and_every_preset():
    simulator = Simulator(DialWorld(drift=0.5), DialTask())
    for preset in ("fast", "small", "careful"):
        planner = WorldPlanner(simulator, preset, risk=CVaR(0.25))
        assert judge(planner, simulator, keys.from_seed(0, 2), 2).returns.shape == (2,)


def test_refuses_what_it_cannot_do():
    simulator = Simulator(DialWorld(), DialTask())
    with pytest.raises(ValueError, match="preset"):
        WorldPlanner(simulator, "enormous")
    with pytest.raises(ValueError, match="cost_weight"):
        WorldPlanner(simulator, CONFIG, cost_weight=-1.0)
    planner = WorldPlanner(simulator, CONFIG)
    planner.act(simulator.reset(keys.from_seed(0, 3))[1])
    with pytest.raises(ValueError, match="reset"):
        planner.act(simulator.reset(keys.from_seed(0, 4))[1])
    with pytest.raises(ValueError):
        Constant(-1)


def test_what_comes_after_the_end_of_an_episode_does_not_count():
    class Invests(DialTask):
        """Turning costs 1.5 a unit, and each unit pays 1 at every step from then on."""

        def reward(self, before, action, after):
            return {"pays": after["dial_turns"], "effort": -1.5 * action[:, 0]}

    simulator = Simulator(InferringDialWorld(), Invests())
    key, config = keys.from_seed(0, 3), CEMConfig(**{**CONFIG.__dict__, "horizon": 4})
    hours = STEPS * simulator.world.hours_per_step
    blind, told = (WorldPlanner(simulator, config, episode_hours=end) for end in (None, hours))
    invested, stopped = (judge(planner, simulator, key, STEPS) for planner in (blind, told))
    assert torch.equal(invested.ordered[:, 0], torch.full((3,), 2.0 * STEPS))
    assert torch.equal(stopped.ordered[:, 0], torch.full((3,), 2.0 * (STEPS - 1))), "the last turn would not pay"
    with pytest.raises(ValueError, match="more than 0 h"):
        WorldPlanner(simulator, config, episode_hours=0.0)
