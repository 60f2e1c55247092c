"""Every example of a door runs where its library is installed; in a small world, so that no weights are needed."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest

import clinenv.assemble
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld

SMALL = ("--num-envs", "8", "--steps", "400")
# example -> what it needs
NEEDS = {
    "cleanrl_ppo": "torch",
    "torchrl_ppo": "torchrl",
    "rllib_ppo": "ray",
    "puffer_collect": "pufferlib",
    "skrl_ppo": "skrl",
    "rsl_rl_ppo": "rsl_rl",
    "omnisafe_ppolag": "omnisafe",
    "sb3_contrib_masked": "sb3_contrib",
}


@pytest.fixture
def small_worlds(monkeypatch):
    """In this process the name of a world stands for the toy of its task."""

    def load(task, world, *_):
        return ToyWard() if task.name == "EHRWard" else ToyWorld()

    monkeypatch.setattr(clinenv.assemble, "load_world", load)


@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
@pytest.mark.parametrize("name", NEEDS)
def test_it_runs(name: str, small_worlds, tmp_path) -> None:
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    if name == "rsl_rl_ppo":
        pytest.importorskip("tensorboard")
    more = ("--log-dir", str(tmp_path)) if name == "omnisafe_ppolag" else ()
    try:
        found = importlib.import_module(f"examples.doors.{name}").main([*SMALL, *more])
    finally:
        if name == "rllib_ppo":
            importlib.import_module("ray").shutdown()
    assert np.isfinite(np.atleast_1d(found)).all() and np.size(found) >= 1


def test_minari_records_whole_courses(tmp_path, monkeypatch) -> None:
    pytest.importorskip("minari")
    pytest.importorskip("jax")  # of minari[create]
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = importlib.import_module("examples.doors.minari_record").main(["--episodes", "3"])
    assert data.total_episodes == 3 and 3 <= data.total_steps <= 72
    for episode in data.iterate_episodes():
        hours = episode.infos["hours"]
        assert hours[0] == 0.0 and np.all(np.diff(hours) == 2.0) and len(hours) == len(episode.rewards) + 1
