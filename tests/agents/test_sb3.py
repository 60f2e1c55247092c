"""The SB3 adapter keeps SB3's rules, short trainings run and resume, and a saved policy decides as the trained one."""

from __future__ import annotations

import json
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from safetensors.torch import load_file
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from agents import run_folder
from agents.journal import METRICS
from agents.policy_agent import PolicyAgent
from agents.protocol import Agent, Narrowable
from agents.rollout import judge
from agents.sb3 import store
from agents.sb3 import train as sb3_train
from agents.sb3.algorithms import ALGORITHMS
from agents.sb3.presets import PRESETS, preset_for
from agents.sb3.train import train
from agents.sb3.vec_env import SB3VecEnv
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from clinenv.vector_env import ClinicalVectorEnv
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from tests.toy_ward import ToyWard
from world_models import keys, tree


def dial(count=4, **kw):
    return ClinicalVectorEnv(DialTask(), count, DialWorld(), **{"autoreset_mode": AutoresetMode.SAME_STEP, **kw})


def make(env_id, num_envs, world, **kw):
    assert kw["autoreset_mode"] == AutoresetMode.SAME_STEP, "train asks for what SB3 needs"
    return ClinicalVectorEnv(DialTask(), num_envs, DialWorld(drift=0.2), **kw)


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
    env.set_options([{"age_years": 70.0}, {}, {}])
    with pytest.raises(ValueError, match="share their reset options"):
        env.reset()


def test_sb3_wrappers_accept_it():
    model = PPO("MlpPolicy", VecMonitor(SB3VecEnv(dial(8))), n_steps=STEPS, batch_size=64, seed=0, device="cpu")
    model.learn(2 * 8 * STEPS)
    assert len(model.ep_info_buffer) > 0


class CarefulTask(DialTask):
    """The dial, which may not be turned any more once it stands at five."""

    refuses = True

    def admissible(self, chart):
        return (chart["dial_turns"] < 5.0).unsqueeze(1)


def small(algo):
    """A preset for a training of seconds."""
    changes = {"n_steps": STEPS, "batch_size": 64}
    if algo == "a2c":
        changes = {"n_steps": 4}
    if not ALGORITHMS[algo].on_policy:
        changes = {"learning_starts": 100, "buffer_size": 512, "target_update_interval": 160, "batch_size": 64}
    return PRESETS[algo].but(num_envs=16, settings={**PRESETS[algo].settings, **changes})


class Stopped(Exception):
    pass


def stopped_at(steps, monkeypatch):
    """Trainings save at `steps`, and are stopped there."""
    tell = sb3_train._Between._tell

    def told(self, last):
        tell(self, last)
        if self.num_timesteps >= steps and not last:
            self.save()
            raise Stopped

    monkeypatch.setattr(sb3_train._Between, "_tell", told)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_trains_resumes_equal_and_decides_as_it_was_trained(algo, tmp_path, monkeypatch):
    pytest.importorskip("sb3_contrib" if ALGORITHMS[algo].library == "sb3-contrib" else "stable_baselines3")
    task = CarefulTask() if ALGORITHMS[algo].masks else DialTask()

    def patients(env_id, num_envs, world, **kw):
        return ClinicalVectorEnv(task, num_envs, DialWorld(drift=0.2), **kw)

    models = []
    save = store.save
    monkeypatch.setattr(store, "save", lambda model, *rest: (models.append(model), save(model, *rest)))
    kw = {"algo": algo, "preset": small(algo), "make": patients, "progress": False, "steps": 640}
    whole = train(tmp_path / "whole", **kw)
    model = models[-1]
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stopped_at(320, patch)
        train(tmp_path / "parts", **kw)
    assert 320 <= run_folder.read_config(tmp_path / "parts")["steps_done"] < 640
    parts = train(tmp_path / "parts", **kw)
    one, other = (load_file(folder / run_folder.TENSORS) for folder in (whole, parts))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    lines = [[json.loads(x) for x in (f / METRICS).read_text().splitlines()] for f in (whole, parts)]
    assert [x["steps"] for x in lines[0]] == [x["steps"] for x in lines[1]]

    simulator = Simulator(DialWorld(drift=0.2), task)
    agent = PolicyAgent(whole, simulator)
    assert isinstance(agent, Narrowable) and agent.name == algo
    vec = SB3VecEnv(patients("", 8, None, autoreset_mode=AutoresetMode.SAME_STEP))
    vec.seed(31)
    seen, memory, starts = vec.reset(), None, np.ones(8, bool)
    for step in range(2 * STEPS):
        wanted = {"action_masks": np.stack(vec.env_method("action_masks"))} if ALGORITHMS[algo].masks else {}
        action, memory = model.predict(seen, memory, starts, deterministic=True, **wanted)
        assert agent.act(vec.env.chart).tolist() == action.tolist(), f"step {step}"
        seen, _, starts, _ = vec.step(action)
        agent.reset(torch.as_tensor(starts))


@pytest.mark.parametrize("action", [None, "multidiscrete"])
def test_masks_of_the_ward_reach_the_policy_and_its_agent(action, tmp_path):
    pytest.importorskip("sb3_contrib")
    world, settings = ToyWard(), {} if action is None else {"action": action}
    preset = preset_for("maskable-ppo", "EHRWard-v0")
    preset = preset.but(num_envs=4, settings={**preset.settings, "n_steps": 4, "batch_size": 16, "n_epochs": 1})
    kw = {"world": world, "env_id": "EHRWard-v0", "preset": preset, "progress": False, **settings}
    folder = train(tmp_path / "m", 32, "maskable-ppo", **kw)
    simulator = Simulator(world, EHRWardTask())
    found = judge(PolicyAgent(folder, simulator), simulator, keys.from_seed(3, 20), 10)
    assert float(found.ordered.sum()) > 0
    state, chart = simulator.reset(keys.from_seed(3, 20))
    orders = PolicyAgent(folder, simulator).act(chart)
    assert not bool(((orders > 0) & ~simulator.task.admissible(chart)).any())


def test_a_recurrent_policy_remembers_each_row_by_itself(tmp_path):
    pytest.importorskip("sb3_contrib")
    preset = small("recurrent-ppo")
    folder = train(tmp_path / "r", 512, algo="recurrent-ppo", preset=preset, make=make, progress=False)
    simulator = Simulator(DialWorld(drift=0.2), DialTask())
    key = keys.from_seed(5, 12)
    together = judge(PolicyAgent(folder, simulator), simulator, key, STEPS)
    alone = judge(PolicyAgent(folder, simulator), simulator, key[7:8], STEPS)
    assert torch.equal(together.ordered[7:8], alone.ordered)
    agent, other = PolicyAgent(folder, simulator), PolicyAgent(folder, simulator)
    _, chart = simulator.reset(key)
    rows = torch.tensor([9, 2, 4])
    agent.act(chart)
    agent.narrow(rows)
    few = tree.take(chart, rows)
    other.act(few)
    assert torch.equal(agent.act(few), other.act(few))


def test_a_limit_of_the_cost_moves_the_multiplier(tmp_path):
    free, none = (PRESETS["ppo"].cost_weight, 0.0)
    settings = {**SMALL.settings, "n_steps": STEPS}
    preset = SMALL.but(cost_weight=none, cost_limit=0.5, multiplier_rate=0.5, settings=settings)
    kw = {"preset": preset, "make": make, "progress": False}
    folder = train(tmp_path / "limited", 16 * STEPS * 6, **kw)
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    moved = 0.0
    for line in lines:
        moved = max(0.0, moved + 0.5 * (line["cost"] - 0.5))
        assert line["multiplier"] == pytest.approx(moved, rel=1e-4)
    assert run_folder.read_config(folder)["multiplier"] == pytest.approx(moved, rel=1e-4) and moved > free
    longer = train(folder, 16 * STEPS * 8, **kw)
    lines = [json.loads(line) for line in (longer / METRICS).read_text().splitlines()]
    assert lines[6]["multiplier"] == pytest.approx(max(0.0, moved + 0.5 * (lines[6]["cost"] - 0.5)), rel=1e-4)
    with pytest.raises(ValueError, match="take ppo, or a weight"):
        train(tmp_path / "dqn", 100, algo="dqn", preset=small("dqn").but(cost_limit=1.0), make=make)


@pytest.mark.slow
def test_trains_learns_saves_and_decides_the_same(tmp_path):
    folder = train(tmp_path / "ppo", 10_000, preset=SMALL, make=make, progress=False)
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert lines[-1]["steps"] >= 10_000 and lines[-1]["return"] > lines[0]["return"] and "value_loss" in lines[-1]
    assert {p.name for p in folder.iterdir()} == {"policy.json", "policy.safetensors", "metrics.jsonl", "checkpoint"}

    simulator = Simulator(DialWorld(drift=0.2), DialTask())
    agent = PolicyAgent(folder, simulator)
    assert isinstance(agent, Agent)
    key = keys.from_seed(900, 30)
    judged = judge(agent, simulator, key, STEPS)
    again = judge(PolicyAgent(folder, simulator), simulator, key, STEPS)
    assert torch.equal(judged.returns, again.returns)

    # The judge sees through the same encoder as the environment: decision for decision the same course.
    policy, _ = store.load_policy(folder)
    assert not policy.training
    env = ClinicalVectorEnv(DialTask(), 5, DialWorld(drift=0.2))
    obs, _ = env.reset(seed=4)
    action = policy.predict(obs, deterministic=True)[0]
    assert agent.act(env.chart).tolist() == action.tolist()


def test_more_steps_go_on_and_another_run_is_refused(tmp_path):
    kw = {"preset": SMALL, "make": make, "progress": False}
    train(tmp_path / "a", 1_000, **kw)
    before = run_folder.read_config(tmp_path / "a")
    assert before["steps_done"] >= 1_000
    train(tmp_path / "a", 3_000, **kw)
    assert run_folder.read_config(tmp_path / "a")["steps_done"] >= 3_000
    stamp = (tmp_path / "a" / "policy.safetensors").stat().st_mtime_ns
    train(tmp_path / "a", 3_000, **kw)  # nothing left to do
    assert (tmp_path / "a" / "policy.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another world"):
        train(tmp_path / "a", 5_000, world="oracle", **kw)
    with pytest.raises(ValueError, match="another preset"):
        train(tmp_path / "a", 5_000, **{**kw, "preset": SMALL.but(cost_weight=1.0)})
    with pytest.raises(ValueError, match="algo"):
        train(tmp_path / "b", 5_000, algo="sac", **kw)
    with pytest.raises(ValueError, match="refuses nothing; take ppo"):
        train(tmp_path / "b", 100, algo="maskable-ppo", preset=small("maskable-ppo"), make=make)
    shutil.rmtree(tmp_path / "a" / "checkpoint")
    with pytest.raises(ValueError, match="nothing to go on from"):
        train(tmp_path / "a", 5_000, **kw)
    assert not (tmp_path / "b").exists()


def test_a_policy_of_another_layout_is_refused(tmp_path):
    folder = train(tmp_path / "ppo", 200, preset=SMALL, make=make, progress=False)

    class Blind(DialTask):
        observation = DialTask.observation[:2]

    with pytest.raises(ValueError, match="train one for this task"):
        PolicyAgent(folder, Simulator(DialWorld(), Blind()))
    with pytest.raises(FileNotFoundError, match="clinenv train"):
        PolicyAgent(tmp_path / "nobody", Simulator(DialWorld(), DialTask()))
