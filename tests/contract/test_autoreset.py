"""Whose observation is whose at an episode's end, as the libraries that collect courses see it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as wrappers

import clinenv  # noqa: F401 - registers the ids
from tests.toy_world import ToyWorld

STEPS = 24
HOURS = [2.0 * step for step in range(STEPS + 1)]


def vector(num_envs: int = 3, **kwargs) -> gymnasium.vector.VectorEnv:
    make = {"vectorization_mode": "vector_entry_point", "world": ToyWorld(hazard=0.0)}
    return gymnasium.make_vec("ECGDrug-v0", num_envs=num_envs, **{**make, **kwargs})


def said(observations: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Hours, and what tells patients apart (age and weight), of the observations [T, n] of one episode."""
    told = gymnasium.make("ECGDrug-v0", world=ToyWorld()).unwrapped.describe(np.asarray(observations, np.float32))
    return np.round(told["hours"], 2).tolist(), np.stack([told["age_years"], told["weight_kg"]], -1)


def test_the_default_is_that_of_gymnasiums_own() -> None:
    default = gymnasium.make_vec("CartPole-v1", num_envs=1).metadata["autoreset_mode"]
    assert vector().metadata["autoreset_mode"] == default == AutoresetMode.NEXT_STEP


def test_an_episode_runs_from_its_first_hour_to_its_last() -> None:
    env = vector()
    observation, _ = env.reset(seed=0)
    courses = [[row] for row in observation]
    over = np.zeros(3, bool)
    patients = []
    for _ in range(2 * STEPS + 2):
        observation, _, terminated, truncated, info = env.step(np.zeros(3, int))
        for i, row in enumerate(observation):
            courses[i] = [row] if over[i] else [*courses[i], row]
        over = terminated | truncated
        for i in np.flatnonzero(over):
            hours, who = said(courses[i])
            assert hours == HOURS and np.ptp(who, axis=0).max() < 1e-3
            patients.append(tuple(who[0].round(3)))
        assert "final_obs" not in info
    assert len(set(patients)) == len(patients) == 6


def test_gymnasiums_statistics_count_every_episode_right() -> None:
    env = wrappers.RecordEpisodeStatistics(vector())
    env.reset(seed=0)
    total, found = np.zeros(3), []
    for _ in range(3 * (STEPS + 1)):
        _, reward, terminated, truncated, info = env.step(np.full(3, 4))
        total += reward
        if (terminated | truncated).all():
            found.append((info["episode"]["l"].tolist(), info["episode"]["r"] - total))
            total[:] = 0.0
    assert [lengths for lengths, _ in found] == [[STEPS] * 3] * 3
    assert max(np.abs(error).max() for _, error in found) < 1e-4


@pytest.mark.parametrize("wrapper", [wrappers.FlattenObservation, wrappers.NormalizeObservation])
def test_gymnasiums_vector_wrappers_take_it(wrapper: type) -> None:
    env = wrapper(vector())
    env.reset(seed=0)
    for _ in range(STEPS + 2):
        observation, *_ = env.step(np.zeros(3, int))
    assert observation.shape == (3, 36)


def test_stable_baselines3_collects_whole_courses_of_one_patient_each() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.callbacks import BaseCallback

    from agents.sb3.vec_env import SB3VecEnv

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            for info in self.locals["infos"]:
                if "terminal_observation" in info:
                    last.append(info["terminal_observation"])
            return True

    last: list[np.ndarray] = []
    envs = SB3VecEnv(vector(autoreset_mode=AutoresetMode.SAME_STEP))
    model = sb3.PPO("MlpPolicy", envs, n_steps=2 * STEPS, batch_size=48, n_epochs=1, seed=0, device="cpu")
    model.learn(3 * 2 * STEPS, callback=Watch())
    assert len(last) == 6
    rows = model.rollout_buffer.observations.reshape(3, 2, STEPS, -1)  # get() put the environments first
    for i in range(3):
        for episode in range(2):
            hours, who = said([*rows[i, episode], last[3 * episode + i]])
            assert hours == HOURS and np.ptp(who, axis=0).max() < 1e-3


def test_rllib_collects_whole_courses_of_one_patient_each() -> None:
    """Through RLlib's native vector entry point, which takes every vector environment for a next-step one."""
    ppo = pytest.importorskip("ray.rllib.algorithms.ppo")
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    config = (
        ppo.PPOConfig()
        .environment("ECGDrug-v0", env_config={"world": ToyWorld(hazard=0.0)})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, gym_env_vectorize_mode="vector_entry_point")
    )
    runner = SingleAgentEnvRunner(config=config, worker_index=0)
    try:
        episodes = runner.sample(num_episodes=4, random_actions=True)
    finally:
        runner.stop()
    patients = []
    for episode in episodes:
        hours, who = said(np.asarray(episode.get_observations()))
        assert hours == HOURS and np.ptp(who, axis=0).max() < 1e-3
        assert [info["hours"] for info in episode.get_infos()] == HOURS
        patients.append(tuple(who[0].round(3)))
    assert len(set(patients)) == len(patients) == 4
