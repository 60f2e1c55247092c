"""The SB3 adapter keeps SB3's rules, short trainings run and resume, and a saved policy decides as the trained one."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from agents.policy_agent import PolicyAgent
from agents.protocol import Agent
from agents.rollout import judge
from agents.sb3 import store
from agents.sb3.presets import PRESETS
from agents.sb3.train import train
from agents.sb3.vec_env import SB3VecEnv
from clinenv.simulator import Simulator
from clinenv.vector_env import ClinicalVectorEnv
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from world_models import keys


def dial(count=4, **kw):
    return ClinicalVectorEnv(DialTask(), count, DialWorld(), **{"autoreset_mode": AutoresetMode.SAME_STEP, **kw})


def make(env_id, preset, world, **kw):
    assert kw["autoreset_mode"] == AutoresetMode.SAME_STEP, "train asks for what SB3 needs"
    return ClinicalVectorEnv(DialTask(), preset.num_envs, DialWorld(drift=0.2), **kw)


SMALL = PRESETS["ppo"].but(num_envs=16, settings={**PRESETS["ppo"].settings, "n_steps": STEPS, "batch_size": 64})


def test_a_whole_course_and_the_next_patient():
    env, plain = SB3VecEnv(dial(), cost_weight=0.5), dial()
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), plain.reset(seed=0)[0])
    total, cost = np.zeros(4), np.zeros(4)
    for step in range(STEPS):
        action = np.array([0, 1, 2, 2])
        obs, reward, done, infos = env.step(action)
        seen, paid, terminated, truncated, info = plain.step(action)
        np.testing.assert_array_equal(obs, seen)
        assert obs.dtype == np.float32 and reward.dtype == np.float32 and done.dtype == bool
        np.testing.assert_allclose(reward, paid - 0.5 * (action > 1.5), rtol=1e-5)
        assert [i["cost"] for i in infos] == [0.0, 0.0, 1.0, 1.0]
        total += paid
        cost += action > 1.5
        assert done.tolist() == (terminated | truncated).tolist() == [step == STEPS - 1] * 4
    for i in range(4):
        last = infos[i]["terminal_observation"]
        np.testing.assert_array_equal(last, info["final_obs"][i])
        assert last.shape == obs[i].shape and not np.array_equal(last, obs[i])
        assert infos[i]["TimeLimit.truncated"] is True
        assert infos[i]["episode"]["r"] == pytest.approx(total[i], rel=1e-5)
        assert infos[i]["episode"]["l"] == STEPS and infos[i]["episode"]["cost"] == cost[i]
    _, _, done, infos = env.step(action)
    assert not done.any() and "terminal_observation" not in infos[0]


def test_torsades_is_an_end_and_the_time_limit_can_be_one():
    class Short(DialTask):
        def terminated(self, chart):
            return chart["dial_turns"] >= 4.0

    short = ClinicalVectorEnv(Short(), 2, DialWorld(), autoreset_mode=AutoresetMode.SAME_STEP)
    env = SB3VecEnv(short, bootstrap_truncated=True)
    env.reset()
    env.step(np.array([2, 0]))
    _, _, done, infos = env.step(np.array([2, 0]))
    assert done.tolist() == [True, False] and infos[0]["TimeLimit.truncated"] is False
    env = SB3VecEnv(dial(), bootstrap_truncated=False)
    env.reset()
    for _ in range(STEPS):
        _, _, done, infos = env.step(np.zeros(4, int))
    assert done.all() and infos[0]["TimeLimit.truncated"] is False


def test_attributes_methods_and_refusals():
    env = SB3VecEnv(dial(3))
    assert env.get_attr("num_envs") == [3, 3, 3] and env.get_attr("render_mode", [1]) == [None]
    env.set_attr("label", "x")
    assert env.get_attr("label") == ["x"] * 3
    env.set_attr("label", "y", indices=[1])
    assert env.get_attr("label") == ["x", "y", "x"]
    assert len(env.env_method("reset", seed=1, indices=[0, 2])) == 2
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3
    with pytest.raises(ValueError, match="same-step"):
        SB3VecEnv(dial(2, autoreset_mode=AutoresetMode.NEXT_STEP))
    with pytest.raises(ValueError, match="cost_weight"):
        SB3VecEnv(dial(2), cost_weight=-1)


def test_sb3_wrappers_accept_it():
    model = PPO("MlpPolicy", VecMonitor(SB3VecEnv(dial(8))), n_steps=STEPS, batch_size=64, seed=0, device="cpu")
    model.learn(2 * 8 * STEPS)
    assert len(model.ep_info_buffer) > 0


def test_trains_learns_saves_and_decides_the_same(tmp_path):
    folder = train(tmp_path / "ppo", 24_000, preset=SMALL, make=make, progress=False)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["steps"] >= 24_000 and lines[-1]["return"] > lines[0]["return"]
    assert not list(folder.glob("*.partial")) and not list(folder.glob("*.zip"))

    simulator = Simulator(DialWorld(drift=0.2), DialTask())
    agent = PolicyAgent(folder, simulator)
    assert isinstance(agent, Agent)
    key = keys.from_seed(900, 30)
    judged = judge(agent, simulator, key, STEPS)
    again = judge(PolicyAgent(folder, simulator), simulator, key, STEPS)
    assert torch.equal(judged.returns, again.returns)

    # The judge sees through the same encoder as the environment: decision for decision the same course.
    policy, _ = store.load_policy(folder)
    env = ClinicalVectorEnv(DialTask(), 5, DialWorld(drift=0.2))
    obs, _ = env.reset(seed=4)
    action = policy.predict(obs, deterministic=True)[0]
    assert agent.act(env.chart).tolist() == action.tolist()


def test_resuming_goes_on_where_it_stopped(tmp_path):
    kw = {"preset": SMALL, "make": make, "progress": False}
    train(tmp_path / "a", 1_000, **kw)
    before = store.read_config(tmp_path / "a")
    assert before["steps_done"] >= 1_000
    train(tmp_path / "a", 3_000, **kw)
    after = store.read_config(tmp_path / "a")
    assert after["steps_done"] >= 3_000 and after["updates_done"] > before["updates_done"]
    stamp = (tmp_path / "a" / "policy.safetensors").stat().st_mtime_ns
    train(tmp_path / "a", 3_000, **kw)  # nothing left to do
    assert (tmp_path / "a" / "policy.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another world"):
        train(tmp_path / "a", 5_000, world="oracle", **kw)
    with pytest.raises(ValueError, match="algo"):
        train(tmp_path / "b", 5_000, algo="sac", **kw)


def test_dqn_trains(tmp_path):
    settings = {**PRESETS["dqn"].settings, "learning_starts": 100, "buffer_size": 2_000}
    preset = PRESETS["dqn"].but(num_envs=8, settings=settings)
    folder = train(tmp_path / "dqn", 1_000, algo="dqn", preset=preset, make=make, progress=False)
    simulator = Simulator(DialWorld(), DialTask())
    assert judge(PolicyAgent(folder, simulator, "DQN"), simulator, keys.from_seed(0, 4), STEPS).returns.shape == (4,)


def test_a_policy_of_another_layout_is_refused(tmp_path):
    folder = train(tmp_path / "ppo", 200, preset=SMALL, make=make, progress=False)

    class Blind(DialTask):
        observation = DialTask.observation[:2]

    with pytest.raises(ValueError, match="train one for this task"):
        PolicyAgent(folder, Simulator(DialWorld(), Blind()))
    with pytest.raises(FileNotFoundError, match="agents.sb3.train"):
        PolicyAgent(tmp_path / "nobody", Simulator(DialWorld(), DialTask()))
