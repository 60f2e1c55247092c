"""Policies on disk: one that was altered, or describes something else, is refused before anything is built of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from safetensors.torch import load, save
from stable_baselines3 import PPO

from agents import ppo, ppo_policy, run_folder
from agents.ppo_config import PPOConfig
from agents.sb3 import store
from agents.sb3.vec_env import SB3VecEnv
from clinenv.vector_env import ClinicalVectorEnv
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from world_models.checkpoint import CheckpointError

FILES = ("policy.json", "policy.safetensors")
LEFT = ("checkpoint/checkpoint.json", "checkpoint/checkpoint.safetensors")


@pytest.fixture(scope="module")
def made() -> tuple[PPO, SB3VecEnv]:
    vec = SB3VecEnv(ClinicalVectorEnv(DialTask(), 2, DialWorld(), autoreset_mode=AutoresetMode.SAME_STEP))
    with torch.random.fork_rng(devices=[]):
        model = PPO("MlpPolicy", vec, seed=0, device="cpu", n_steps=4, batch_size=4, policy_kwargs={"net_arch": [8]})
        return model.learn(8), vec


@pytest.fixture
def folder(made: tuple[PPO, SB3VecEnv], tmp_path: Path) -> Path:
    told = {"algo": "ppo", "library": "stable-baselines3", "preset": {"net_arch": [8]}}
    store.save(*made, tmp_path, told)
    return tmp_path


def restored(made: tuple[PPO, SB3VecEnv], folder: Path) -> int:
    with run_folder.opened_checkpoint(folder) as found:
        return store.restore(*made, found)


def test_what_is_saved_is_loaded(made: tuple[PPO, SB3VecEnv], folder: Path) -> None:
    generator = torch.random.get_rng_state()
    policy, told = store.load_policy(folder)
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert told["steps_done"] == 8
    for name, tensor in made[0].policy.state_dict().items():
        assert torch.equal(policy.state_dict()[name], tensor)
    assert restored(made, folder) == 8


@pytest.mark.parametrize("name", [*FILES, *LEFT])
def test_a_changed_file_is_refused(made: tuple[PPO, SB3VecEnv], folder: Path, name: str) -> None:
    random = np.random.default_rng(1)
    content = (folder / name).read_bytes()
    for _ in range(40):
        harmed = bytearray(content)
        harmed[int(random.integers(len(content)))] ^= 1 << int(random.integers(7))
        (folder / name).write_bytes(harmed)
        try:
            store.load_policy(folder) if name in FILES else restored(made, folder)
        except CheckpointError as error:
            assert str(folder) in str(error)
        else:
            assert name.endswith(".json") and json.loads(harmed) == json.loads(content)  # a blank for a blank


def test_a_made_up_policy_is_refused_before_it_is_built(folder: Path) -> None:
    good = {name: (folder / name).read_bytes() for name in FILES}
    plain = json.loads(good["policy.json"])

    def refused(words: str, config: dict | None = None, policy: bytes = good["policy.safetensors"]) -> None:
        (folder / "policy.safetensors").write_bytes(policy)
        (folder / "policy.json").write_text(json.dumps({**plain, **(config or {})}))
        run_folder.POLICY.seal(folder)
        with pytest.raises(CheckpointError, match=words):
            store.load_policy(folder)

    refused("need .* bytes or more", {"preset": {"net_arch": [1 << 16, 1 << 16]}})
    refused("not whole numbers", {"preset": {"net_arch": ["8"]}})
    refused("not whole numbers", {"preset": {"net_arch": [1 << 20]}})
    refused("no size of a policy", {"preset": {"net_arch": [8], "policy": {"cells": 8}}})
    refused("need .* bytes or more", {"preset": {"net_arch": [8], "policy": {"lstm_hidden_size": 1 << 15}}})
    refused("describes no policy", {"algo": "sac"})
    refused("describes no policy", {"observation": {"low": [0.0]}})
    refused("describes no policy", {"action": {"choices": -1}})
    refused("does not hold the tensors", {"preset": {"net_arch": [7]}})
    tensors = load(good["policy.safetensors"])
    first = next(iter(tensors))
    refused("NaN", policy=save({**tensors, first: torch.full_like(tensors[first], float("nan"))}))
    refused("float64", policy=save({**tensors, first: tensors[first].double()}))


def test_a_made_up_checkpoint_changes_nothing(made: tuple[PPO, SB3VecEnv], folder: Path) -> None:
    place = folder / "checkpoint"
    good = {name: (place / name).read_bytes() for name in ("checkpoint.json", "checkpoint.safetensors")}
    plain = json.loads(good["checkpoint.json"])
    before = {name: tensor.clone() for name, tensor in made[0].policy.state_dict().items()}

    def refused(words: str, config: dict | None = None, tensors: bytes = good["checkpoint.safetensors"]) -> None:
        (place / "checkpoint.safetensors").write_bytes(tensors)
        (place / "checkpoint.json").write_text(json.dumps({**plain, **(config or {})}))
        run_folder.CHECKPOINT.seal(place)
        with pytest.raises(CheckpointError, match=words):
            restored(made, folder)
        assert all(torch.equal(tensor, before[name]) for name, tensor in made[0].policy.state_dict().items())

    counters = plain["counters"]
    refused("counters='x'", {"counters": "x"})
    refused("not whole numbers", {"counters": {**counters, "num_timesteps": -1}})
    refused("snapshot is uint8", {"counters": {**counters, "snapshot_bytes": 3}})
    held = load(good["checkpoint.safetensors"])
    refused("adds 1 tensors", tensors=save({**held, "optimizer.99.step": torch.zeros(())}))
    refused("lacks 1 tensors", tensors=save({name: value for name, value in held.items() if name != "starts"}))


def test_a_policy_of_ours_that_was_made_up_is_refused_too(tmp_path: Path) -> None:
    def patients(env_id, num_envs, world, **kw):
        return ClinicalVectorEnv(DialTask(), num_envs, DialWorld(), **kw)

    config = PPOConfig(num_envs=2, n_steps=STEPS, minibatch=8, epochs=1, hidden=(8,))
    folder = ppo.train(tmp_path / "p", 2 * STEPS, config=config, make=patients, progress=False)
    plain = json.loads((folder / "policy.json").read_text())
    for words, change in (
        ("not whole numbers", {"hidden": ["8"], "history": 1}),
        ("not whole numbers", {"hidden": [8], "history": 0}),
        ("describes no policy", {"history": 1}),
        ("does not hold the tensors", {"hidden": [1 << 19, 1 << 19], "history": 1}),
    ):
        (folder / "policy.json").write_text(json.dumps({**plain, "preset": change}))
        run_folder.POLICY.seal(folder)
        with pytest.raises(CheckpointError, match=words):
            ppo_policy.load(folder)


def test_a_folder_of_an_earlier_version_is_sealed_by_the_command_it_names(folder: Path) -> None:
    plain = json.loads((folder / "policy.json").read_text())
    del plain["seal_sha256"]
    (folder / "policy.json").write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match=f"python -m agents.run_folder {folder}"):
        store.load_policy(folder)
    run_folder.POLICY.seal(folder)
    store.load_policy(folder)
