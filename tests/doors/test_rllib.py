"""RLlib: ids by their names, runners that meet other patients, and a loud refusal of the wrong autoreset mode."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld

pytest.importorskip("ray.rllib", exc_type=ImportError)
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from clinenv.doors import rllib

VECTOR = {"num_env_runners": 0, "num_envs_per_env_runner": 2, "gym_env_vectorize_mode": "vector_entry_point"}


def runner(name: str, **env_config) -> SingleAgentEnvRunner:
    config = PPOConfig().environment(name, env_config=env_config).env_runners(**VECTOR)
    return SingleAgentEnvRunner(config=config.callbacks(on_environment_created=rllib.refuse_wrong_autoreset))


def test_every_id_has_its_name_and_each_mode_its_environment() -> None:
    rllib.register()
    rllib.register()
    made = runner("EHRWard-v0", world=ToyWard(), action="multidiscrete")
    assert made.env.unwrapped.single_action_space == gymnasium.spaces.MultiDiscrete([2] * 69)
    assert made.env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert len(made.sample(num_timesteps=8, random_actions=True)) >= 2
    made.stop()
    single = rllib.creator("ECGDrug-v0")({"world": ToyWorld()})
    assert isinstance(single, gymnasium.Env)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, "SameStep", AutoresetMode.DISABLED, "sometimes"])
def test_another_autoreset_mode_is_refused_by_name(mode) -> None:
    rllib.register()
    with pytest.raises(ValueError, match="RLlib takes every vector environment for a next-step one.*leave it out"):
        runner("ECGDrug-v0", world=ToyWorld(), autoreset_mode=mode)


def test_a_same_step_environment_that_came_another_way_is_refused_too() -> None:
    """As a creator of one's own would hand it over: without the callback RLlib samples it without a word."""

    def mine(env_config):
        kwargs = {"world": ToyWorld(), "autoreset_mode": AutoresetMode.SAME_STEP}
        return gymnasium.make_vec("ECGDrug-v0", 2, vectorization_mode="vector_entry_point", **kwargs)

    register_env("mine", mine)
    with pytest.raises(ValueError, match="wrong patients"):
        runner("mine")


def test_multibinary_is_refused_with_the_remedy() -> None:
    for env_config in ({"world": ToyWard()}, {"world": ToyWard(), "num_envs": 2}):
        with pytest.raises(ValueError, match='RLlib.*action="multidiscrete"'):
            rllib.creator("EHRWard-v0")(env_config)


def test_no_two_runners_meet_the_same_patient() -> None:
    """RLlib seeds runner w with its own seed + w, and row i of a batch adds i."""
    first = []
    for worker in range(3):
        context = EnvContext({"world": ToyWorld(), "num_envs": 4}, worker_index=worker)
        env = rllib.creator("ECGDrug-v0")(context)
        first.append(env.reset(seed=100 + worker)[0])
    rows = np.concatenate(first)
    assert len(np.unique(rows, axis=0)) == 12
    plain = gymnasium.make("ECGDrug-v0", world=ToyWorld())
    assert np.array_equal(rows[7], plain.reset(seed=107)[0])
