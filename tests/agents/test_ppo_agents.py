"""What PPO in torch alone trained decides as an agent as it did in training, whatever the kind of action."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import ppo, ppo_policy
from agents.policy_agent import PolicyAgent
from agents.ppo_config import PPOConfig, preset_for
from agents.protocol import Narrowable
from agents.rollout import judge
from clinenv.simulator import Simulator
from clinenv.task import Column, Doses, Levels, Switches
from clinenv.vector_env import ClinicalVectorEnv
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from tests.toy_progression import ToyClinic
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld
from world_models import keys, tree

SMALL = PPOConfig(num_envs=16, n_steps=STEPS, minibatch=64, hidden=(32, 32))


def patients(task):
    def make(env_id, num_envs, _, **kw):
        return ClinicalVectorEnv(task, num_envs, DialWorld(drift=0.2), **kw)

    return make


class LevelsTask(DialTask):
    actions = Levels({"turn_mg": (0.0, 1.0, 2.0)})


class SwitchTask(DialTask):
    actions = Switches({"turn_mg": 1.0})


class DoseTask(DialTask):
    actions = Doses({"turn_mg": 2.0})


@pytest.mark.parametrize("task", [DialTask(), LevelsTask(), SwitchTask(), DoseTask()], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("history", [1, 3])
def test_the_agent_decides_as_the_trained_policy_in_its_environment(task, history, tmp_path) -> None:
    config = replace(SMALL, history=history, learning_rate=3e-3)
    folder = ppo.train(tmp_path / "p", 16 * STEPS * 3, config=config, make=patients(task), progress=False)
    simulator = Simulator(DialWorld(drift=0.2), task)
    agent = PolicyAgent(folder, simulator)
    assert isinstance(agent, Narrowable) and agent.name == "ppo"
    env = ClinicalVectorEnv(task, 5, DialWorld(drift=0.2), autoreset_mode="Disabled")
    env.reset(seed=8)
    policy, _ = ppo_policy.load(folder)
    ended = np.zeros(5, bool)
    for step in range(2 * STEPS):
        observation = torch.as_tensor(env.episodes.observation())
        if step == STEPS:
            policy.reset(None)
            agent.reset(torch.ones(5, dtype=torch.bool))
        action = policy.decide(observation, None)
        orders = agent.act(env.chart)
        chosen = orders if orders.is_floating_point() else env.episodes.interface.codec(orders, 5)
        assert torch.equal(chosen, env.episodes.interface.codec(action, 5))
        _, _, terminated, truncated, _ = env.step(action.numpy())
        ended = terminated | truncated
        if ended.any():
            env.reset(options={"reset_mask": ended})
    key = keys.from_seed(8, 9)
    together, alone = (judge(PolicyAgent(folder, simulator), simulator, k, STEPS) for k in (key, key[4:5]))
    torch.testing.assert_close(together.returns[4:5], alone.returns)
    first, second = PolicyAgent(folder, simulator), PolicyAgent(folder, simulator)
    _, chart = simulator.reset(key)
    rows = torch.tensor([7, 1])
    first.act(chart)
    first.narrow(rows)
    second.act(tree.take(chart, rows))
    assert torch.equal(first.act(tree.take(chart, rows)), second.act(tree.take(chart, rows)))


@pytest.mark.parametrize(
    ("env_id", "world", "settings"),
    [
        ("ECGDrug-v0", ToyWorld(), {}),
        ("ECGDrugContinuous-v0", ToyWorld(), {"action_unit": "mg"}),
        ("EHRWard-v0", ToyWard(), {}),
        ("EHRWard-v0", ToyWard(), {"action": "multidiscrete"}),
        ("EHRWardDose-v0", ToyWard(), {}),
        ("ECGProgression-v0", ToyClinic(), {}),
        ("ECGExplain-v0", ToyClinic(), {}),
    ],
)
def test_it_trains_on_the_environments_by_their_ids(env_id: str, world, settings, tmp_path) -> None:
    config = replace(preset_for(env_id), num_envs=4, n_steps=6, minibatch=12, epochs=2)
    folder = ppo.train(tmp_path / "p", 48, env_id, world, config, progress=False, **settings)
    env = gym.make_vec(env_id, num_envs=4, vectorization_mode="vector_entry_point", world=world, **settings)
    observation, _ = env.reset(seed=1)
    agent = PolicyAgent(folder, env.unwrapped.simulator)
    policy, told = ppo_policy.load(folder)
    assert told["masked"] is (env.unwrapped.task.refuses and not isinstance(env.single_action_space, spaces.Box))
    mask = torch.as_tensor(env.unwrapped.action_masks()) if told["masked"] else None
    action = policy.decide(torch.as_tensor(observation), mask)
    assert env.action_space.contains(action.numpy().astype(env.action_space.dtype))
    wanted = env.unwrapped.episodes.interface.codec(action, 4)
    orders = agent.act(env.unwrapped.chart)
    given = orders if orders.is_floating_point() else env.unwrapped.episodes.interface.codec(orders, 4)
    torch.testing.assert_close(given, wanted)
    if told["masked"]:
        assert not bool(((given > 0) & ~env.unwrapped.task.admissible(env.unwrapped.chart)).any())


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path) -> None:
    out = tmp_path / "p"
    with pytest.raises(ValueError, match="steps must be at least 1"):
        ppo.train(out, 0)
    with pytest.raises(ValueError, match="none of clinenv's"):
        ppo.train(out, 10, "CartPole-v1")
    with pytest.raises(ValueError, match="row of numbers"):
        ppo.train(out, 10, "ECGDrug-v0", ToyWorld(), observation="ecg")
    for name, value in (("clip", 0.0), ("gamma", 1.5), ("num_envs", 0), ("hidden", (0,)), ("entropy", -1.0)):
        with pytest.raises(ValueError, match=name):
            replace(SMALL, **{name: value})
    assert not list(tmp_path.iterdir())

    class Blind(DialTask):
        observation = (Column("hours", 8.0, 8.0),)

    folder = ppo.train(out, 16 * STEPS, config=SMALL, make=patients(DialTask()), progress=False)
    with pytest.raises(ValueError, match="train one for this task"):
        PolicyAgent(folder, Simulator(DialWorld(), Blind()))
