"""Policies on disk: one that was altered, or describes something else, is refused before anything is built of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

pytest.importorskip("stable_baselines3")

import gymnasium
import numpy as np
from stable_baselines3 import PPO

from agents.sb3 import store
from world_models.checkpoint import CheckpointError


class Still(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, False, True, {}


@pytest.fixture(scope="module")
def model() -> PPO:
    with torch.random.fork_rng(devices=[]):
        made = PPO("MlpPolicy", Still(), seed=0, device="cpu", n_steps=4, batch_size=4, policy_kwargs={"net_arch": [8]})
        return made.learn(4)


@pytest.fixture
def folder(model: PPO, tmp_path: Path) -> Path:
    store.save(model, tmp_path, {"algo": "ppo", "preset": {"net_arch": [8]}})
    return tmp_path


def test_what_is_saved_is_loaded(model: PPO, folder: Path) -> None:
    generator = torch.random.get_rng_state()
    policy, config = store.load_policy(folder)
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert config["steps_done"] == 4
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(policy.state_dict()[name], tensor)
    assert store.restore(model, folder) == 4


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors", "optimizer.safetensors"])
def test_a_changed_file_is_refused(model: PPO, folder: Path, name: str) -> None:
    random = np.random.default_rng(1)
    content = (folder / name).read_bytes()
    for _ in range(40):
        harmed = bytearray(content)
        harmed[int(random.integers(len(content)))] ^= 1 << int(random.integers(7))
        (folder / name).write_bytes(harmed)
        for read in (store.load_policy, lambda f: store.restore(model, f)):
            try:
                read(folder)
            except CheckpointError as error:
                assert str(folder) in str(error)
            else:
                assert name == "policy.json" and json.loads(harmed) == json.loads(content)  # a blank for a blank


def test_a_made_up_policy_is_refused_before_it_is_built(model: PPO, folder: Path) -> None:
    good = {
        name: (folder / name).read_bytes() for name in ("policy.json", "policy.safetensors", "optimizer.safetensors")
    }
    plain = json.loads(good["policy.json"])

    def refused(words: str, config: dict | None = None, **files: bytes) -> None:
        for name, content in good.items():
            (folder / name).write_bytes(files.get(name.split(".")[0], content) if name != "policy.json" else content)
        (folder / "policy.json").write_text(json.dumps({**plain, **(config or {})}))
        store.FORM.seal(folder)
        with pytest.raises(CheckpointError, match=words):
            store.load_policy(folder)
            store.restore(model, folder)

    refused("need .* bytes or more", {"preset": {"net_arch": [1 << 20, 1 << 20]}})
    refused("not whole numbers", {"preset": {"net_arch": ["8"]}})
    refused("describes no policy", {"algo": "sac"})
    refused("describes no policy", {"observation": {"low": [0.0]}})
    refused("describes no policy", {"action": {"choices": -1}})
    refused("does not hold the tensors", {"preset": {"net_arch": [7]}})
    refused("steps_done='x'", {"steps_done": "x"})
    tensors = load(good["policy.safetensors"])
    first = next(iter(tensors))
    refused("NaN", policy=save({**tensors, first: torch.full_like(tensors[first], float("nan"))}))
    refused("float64", policy=save({**tensors, first: tensors[first].double()}))
    moments = load(good["optimizer.safetensors"])
    refused("adds 1 tensors", optimizer=save({**moments, "99.step": torch.zeros(())}))


def test_a_folder_of_an_earlier_version_is_sealed_by_the_command_it_names(folder: Path) -> None:
    plain = json.loads((folder / "policy.json").read_text())
    del plain["seal_sha256"]
    (folder / "policy.json").write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match=f"python -m agents.sb3.store {folder}"):
        store.load_policy(folder)
    store.FORM.seal(folder)
    store.load_policy(folder)
