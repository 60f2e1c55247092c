"""Whole episodes can be planned at once in every environment, by every kind of plan; the drug's own planner besides."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch

import clinenv  # noqa: F401  (registers the ids)
from agents.baselines.constant import FixedRegimen
from agents.planning.base_policies import base_policy
from agents.planning.budget import Budget
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.gradient import GradientConfig
from agents.planning.icem import ICEMConfig
from agents.planning.inverse_planner import InverseConfig
from agents.planning.planners import planner_for
from agents.planning.rollout_policy import RolloutPlanner
from agents.planning.tree_search import TreeConfig
from agents.protocol import menu_of
from agents.rollout import judge
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from world_models import catalog, keys

BRIEF = dict(candidates=6, particles=1, finalists=1, every=(6,))

# id -> (steps of an episode, more settings of a plan, what the belief sees)
WHOLE = {
    "ECGDrug-v0": (24, {}, {}),
    "ECGDrugContinuous-v0": (24, {"nothing": 0.9}, {}),
    "EHRWard-v0": (84, {"nothing": 0.98}, {}),
    "EHRWardDose-v0": (84, {"nothing": 0.98, "block": 6}, {}),
    "EHRReplay-v0": (84, {"nothing": 0.98, "block": 12}, {}),
    "ECGProgression-v0": (40, {}, {"fixed": {"months_to_next_visit": 3.0}}),
    "ECGExplain-v0": (8, {"every": ()}, {}),
}


def simulator_of(env_id: str) -> Simulator:
    if env_id == "EHRReplay-v0":  # whose patients are records: its world and task, with patients of its own
        return Simulator(catalog.load("ehr-mimic-demo-small"), EHRWardTask())
    return gym.make(env_id).unwrapped.simulator


@pytest.mark.slow
@pytest.mark.parametrize("env_id", WHOLE)
def test_an_episode_is_planned_whole(env_id):
    steps, settings, more = WHOLE[env_id]
    simulator = simulator_of(env_id)
    config = ICEMConfig(**{**BRIEF, "horizon": steps, "elites": 3, **settings})
    planner = WorldPlanner(simulator, config, budget=Budget(transitions=12 * steps), **more)
    also = ("latent",) if env_id == "ECGProgression-v0" else ()
    if also:
        planner = WorldPlanner(simulator, config, budget=Budget(transitions=12 * steps), sees=SEEN, **more)
    state, chart = simulator.reset(keys.from_seed(4, 2), also=also)
    decision = planner.act(chart)
    report = planner.report
    assert report.rewards.shape == (2, steps) and bool(report.promised.isfinite().all())
    assert 6 * steps < int(report.transitions[0]) <= 13 * steps
    orders = decision if decision.is_floating_point() else menu_of(simulator)[decision]
    out = simulator.step(state, {n: v for n, v in chart.items() if n not in also}, orders)
    assert bool(out.reward.isfinite().all())
    if "fixed" in more:
        assert torch.equal(decision[:, -1], torch.full((2,), 3.0))


SEEN = ("age_years", "sex_female", "years", "months_since_visit", "treated", "bleeding", "latent")


@pytest.mark.parametrize("env_id", ["ECGDrug-v0", "ECGDrugContinuous-v0", "EHRWard-v0", "EHRWardDose-v0"])
def test_plans_are_edits_of_a_rule(env_id):
    simulator = simulator_of(env_id)
    steps = 6 if env_id.startswith("EHR") else 24
    config = CEMConfig(**{**BRIEF, "horizon": steps, "elites": 3, "nothing": 0.99})
    planner = WorldPlanner(simulator, config, policy=base_policy(simulator), budget=Budget(transitions=9 * steps))
    chart = simulator.reset(keys.from_seed(4, 2))[1]
    decision = planner.act(chart)
    orders = decision if decision.is_floating_point() else menu_of(simulator)[decision]
    rule = base_policy(simulator)
    expected = rule.act(chart)
    expected = expected if expected.is_floating_point() else menu_of(simulator)[expected]
    assert float((orders != expected).float().mean()) < 0.15, "the rule's own plan, or a few edits of it"


def test_schedules_for_doses_and_menus_and_a_tree_over_edits():
    for env_id in ("ECGDrug-v0", "ECGDrugContinuous-v0"):
        simulator = simulator_of(env_id)
        chart = simulator.reset(keys.from_seed(4, 2))[1]
        settings = {**BRIEF, "horizon": 24, "schedule": True, "every": (6, 12)}
        decision = WorldPlanner(simulator, CEMConfig(**settings, elites=3)).act(chart)
        assert decision.is_floating_point() == (env_id == "ECGDrugContinuous-v0")
    simulator = simulator_of("EHRWardDose-v0")
    config = TreeConfig(**{**BRIEF, "horizon": 4, "candidates": 8}, simulations=3, trees=2, block=2, width=4)
    planner = WorldPlanner(simulator, config, policy=base_policy(simulator), budget=Budget(transitions=100))
    chart = simulator.reset(keys.from_seed(4, 2))[1]
    assert planner.act(chart).shape == (2, 69) and int(planner.report.transitions.max()) <= 104


def test_gradients_through_the_learned_drug_world():
    task = gym.make("ECGDrugContinuous-v0").unwrapped.task
    simulator = Simulator(catalog.load("ecg-wm-small"), task, grad=True, events="expected")
    chart = simulator.reset(keys.from_seed(4, 3))[1]
    config = GradientConfig(**{**BRIEF, "horizon": 12, "candidates": 16, "finalists": 0}, starts=2, ascents=6)
    led = WorldPlanner(simulator, config)
    led.act(chart)
    begun = WorldPlanner(simulator, GradientConfig(**{**config.__dict__, "ascents": 1, "step_size": 1e-6}))
    begun.act(chart)
    assert float((led.report.promised - begun.report.promised).mean()) > 0.0


def test_inverse_dynamics_plan_in_one_pass():
    simulator = Simulator(catalog.load("ecg-wm-small"), ECGDrugTask())
    key, patients = keys.fold(keys.from_seed(11, 12), "inverse"), 12
    settings = dict(horizon=12, particles=2, finalists=2, replan_every=6)
    planner = WorldPlanner(simulator, InverseConfig(**settings))
    treated = judge(planner, simulator, key, 24)
    idle = judge(FixedRegimen(0, 12.0), simulator, key, 24)
    assert float((treated.returns - idle.returns).mean()) > 0.0
    assert 0 < float((treated.ordered > 0).any(1).float().mean()), "somebody is given something"
    chart = simulator.reset(key)[1]
    planner.reset()
    planner.act(chart)
    proposals = 1 + 3 * 4 * 2 * 2  # nothing; wishes x drugs x entries of the menu, once and every 12 h
    assert int(planner.report.transitions[0]) <= (proposals + 3 + 1) * 2 * 12
    assert planner.act(chart).shape == (patients,)
    with pytest.raises(ValueError, match="inverse dynamics"):
        ward = simulator_of("EHRWard-v0")
        WorldPlanner(ward, InverseConfig(**settings)).act(ward.reset(keys.from_seed(0, 1))[1])


def test_a_planner_by_name_for_each_task():
    for env_id in WHOLE:
        simulator = simulator_of(env_id)
        for preset in ("fast", "small", "careful"):
            assert planner_for(simulator, "cem", preset).config.horizon >= 2
    ward = simulator_of("EHRWardDose-v0")
    planner = planner_for(ward, "rollout", "fast")
    assert isinstance(planner, RolloutPlanner) and planner.simulator.events == "expected"
    with pytest.raises(ValueError, match="no planner"):
        planner_for(ward, "magic", "fast")
    with pytest.raises(ValueError, match="base policy"):
        base_policy(ward, "constant")
