"""What others bring: Stable-Baselines3 trains, TorchRL's checker passes, Minari records."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import clinenv  # noqa: F401 - registers the ids
from tests.contract.worlds import IDS
from tests.toy_progression import ToyClinic
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld


@pytest.mark.parametrize(
    ("algorithm", "env_id", "policy", "observation"),
    [
        ("PPO", "ECGDrug-v0", "MlpPolicy", "chart"),
        ("PPO", "ECGDrugContinuous-v0", "MlpPolicy", "latent"),
        ("PPO", "ECGDrug-v0", "MultiInputPolicy", "ecg"),
        ("DQN", "ECGDrug-v0", "MlpPolicy", "chart"),
        ("SAC", "ECGDrugContinuous-v0", "MlpPolicy", "chart"),
    ],
)
def test_stable_baselines3_trains(algorithm: str, env_id: str, policy: str, observation: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = gymnasium.make(env_id, world=ToyWorld(), observation=observation)
    settings = {
        "PPO": {"n_steps": 32, "batch_size": 16, "n_epochs": 1},
        "DQN": {"learning_starts": 16, "buffer_size": 200, "batch_size": 8},
        "SAC": {"learning_starts": 16, "buffer_size": 200, "batch_size": 8},
    }[algorithm]
    if observation == "ecg":
        settings["policy_kwargs"] = {"net_arch": [4]}
    model = getattr(sb3, algorithm)(policy, env, seed=0, device="cpu", **settings)
    model.learn(48)
    observation_now, _ = env.reset(seed=0)
    action, _ = model.predict(observation_now, deterministic=True)
    assert env.action_space.contains(action) or int(action) in range(9)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", ["single", "SameStep", "Disabled"])
def test_torchrl_checks_the_specs(env_id: str, mode: str) -> None:
    envs = pytest.importorskip("torchrl.envs")
    world = ToyWorld(hazard=0.3)
    if mode == "single":
        envs.utils.check_env_specs(envs.GymEnv(env_id, world=world))
        return
    vector = gymnasium.make_vec(
        env_id, num_envs=3, vectorization_mode="vector_entry_point", world=world, autoreset_mode=mode
    )
    env = envs.GymWrapper(vector)
    envs.utils.check_env_specs(env)
    course = env.rollout(20, break_when_any_done=False)
    assert course.batch_size == (3, 20) and bool(course["next", "done"].any())


@pytest.mark.parametrize(
    ("env_id", "world"),
    [
        ("ECGDrug-v0", ToyWorld()),
        ("ECGDrugContinuous-v0", ToyWorld()),
        ("EHRWard-v0", ToyWard()),
        ("EHRWardDose-v0", ToyWard()),
        ("ECGProgression-v0", ToyClinic()),
        ("ECGExplain-v0", ToyClinic()),
    ],
)
def test_minari_records_infos_too(env_id: str, world, tmp_path, monkeypatch) -> None:
    pytest.importorskip("jax")  # of minari[create]
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gymnasium.make(env_id, world=world), record_infos=True)
    env.action_space.seed(0)
    lengths = []
    for seed in range(2):
        env.reset(seed=seed)
        over, steps = False, 0
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over, steps = terminated or truncated, steps + 1
        lengths.append(steps)
    data = env.create_dataset(f"clinenv/{env_id.lower()}", algorithm_name="random", eval_env=None)
    for episode, steps in zip(data.iterate_episodes(), lengths, strict=True):
        assert len(episode.infos["hours"]) == len(episode.infos["cost"]) == steps + 1
        assert episode.infos["cost"][0] == 0.0 and np.isfinite(episode.rewards).all()
