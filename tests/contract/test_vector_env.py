"""The vector environment is N single ones, in every word of every answer, in all three autoreset modes."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import clinenv  # noqa: F401 - registers the ids
from clinenv.testing import check_vector_env
from tests.contract.worlds import EXACTNESS, IDS, world_named
from tests.toy_world import ToyWorld


def vector(num_envs: int = 3, env_id: str = "ECGDrug-v0", **kwargs):
    kwargs = {"world": ToyWorld(hazard=0.1), **kwargs}
    return gymnasium.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("world", EXACTNESS)
@pytest.mark.parametrize("env_id", IDS)
def test_it_is_n_single_environments(env_id: str, world: str) -> None:
    found = world_named(world)
    relative, absolute = EXACTNESS[world]
    check_vector_env(
        lambda **kwargs: vector(env_id=env_id, world=found, **kwargs),
        lambda: gymnasium.make(env_id, world=found),
        steps=27,
        relative=relative,
        absolute=absolute,
    )


@pytest.mark.parametrize("observation", ["chart", "ecg", "latent"])
def test_it_is_n_single_environments_whatever_is_observed(observation: str) -> None:
    kwargs = {"observation": observation, "noise": "ward", "missingness": "much", "hours": 6}
    check_vector_env(
        lambda **given: vector(**kwargs, **given),
        lambda: gymnasium.make("ECGDrug-v0", world=ToyWorld(hazard=0.1), **kwargs),
        num_envs=2,
        steps=8,
    )


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    mode=st.sampled_from(list(AutoresetMode)),
    actions=st.lists(st.tuples(*[st.integers(0, 8)] * 3), min_size=6, max_size=16),
)
def test_row_i_equals_the_single_environment(seed: int, mode: AutoresetMode, actions: list) -> None:
    """Stated without SyncVectorEnv: each row beside one environment of its own, episode after episode."""
    world = ToyWorld(hazard=0.6)
    many = vector(world=world, autoreset_mode=mode, hours=8)
    single = [gymnasium.make("ECGDrug-v0", world=world, hours=8) for _ in range(3)]
    observation, _ = many.reset(seed=seed)
    for i, env in enumerate(single):
        assert np.array_equal(env.reset(seed=seed + i)[0], observation[i])
    over = [False] * 3
    for action in actions:
        if mode == AutoresetMode.DISABLED and any(over):
            observation, _ = many.reset(options={"reset_mask": np.array(over)})
            for i in np.flatnonzero(over):
                assert np.array_equal(single[i].reset()[0], observation[i])
            over = [False] * 3
        observation, reward, terminated, truncated, infos = many.step(np.array(action))
        for i, env in enumerate(single):
            if mode == AutoresetMode.NEXT_STEP and over[i]:
                assert np.array_equal(env.reset()[0], observation[i]) and reward[i] == 0
                over[i] = False
                continue
            shown, value, ended, cut, info = env.step(action[i])
            assert (value, ended, cut) == (reward[i], terminated[i], truncated[i])
            over[i] = ended or cut
            if mode == AutoresetMode.SAME_STEP and over[i]:
                assert infos["_final_obs"][i] and np.array_equal(infos["final_obs"][i], shown)
                assert all(infos["final_info"][name][i] == x for name, x in info.items())
                shown, info = env.reset()
                over[i] = False
            assert np.array_equal(shown, observation[i])
            assert all(infos[name][i] == x and infos[f"_{name}"][i] for name, x in info.items())


def test_tensors_say_the_same_as_arrays() -> None:
    arrays, tensors = (vector(hours=6, autoreset_mode="SameStep", tensors=kind) for kind in (False, True))
    a, b = arrays.reset(seed=2), tensors.reset(seed=2)
    assert isinstance(b[0], torch.Tensor) and np.array_equal(a[0], b[0].numpy())
    for step in range(8):
        action = np.array([step % 9, 4, 0])
        a, b = arrays.step(action), tensors.step(torch.from_numpy(action))
        for x, y in zip(a[:4], b[:4], strict=True):
            assert np.array_equal(x, y.numpy())
        assert a[4].keys() == b[4].keys()
        if "final_obs" in a[4]:
            for i in np.flatnonzero(a[4]["_final_obs"]):
                assert np.array_equal(a[4]["final_obs"][i], b[4]["final_obs"][i].numpy())
            assert np.array_equal(a[4]["final_info"]["cost"], b[4]["final_info"]["cost"].numpy())


def test_rows_that_ended_are_made_anew_and_at_most_two_wait_for_each() -> None:
    world = ToyWorld(hazard=0.3)
    env = vector(256, world=world, autoreset_mode="SameStep")
    env.reset(seed=0)
    world.initial_calls.clear()
    ended = 0
    for _ in range(10):
        _, _, terminated, truncated, _ = env.step(np.full(256, 4))
        ended += int((terminated | truncated).sum())
    assert 0 < ended <= sum(world.initial_calls) <= ended + 2 * 256


def test_a_snapshot_of_one_patient_branches_into_many() -> None:
    single = gymnasium.make("ECGDrug-v0", world=ToyWorld()).unwrapped
    single.reset(seed=4)
    shown = single.step(4)[0]
    env = vector(4, world=ToyWorld()).unwrapped
    observation = env.restore(single.snapshot())
    assert all(np.array_equal(row, shown) for row in observation)
    observation, reward, *_ = env.step(np.array([0, 0, 4, 4]))
    assert reward[0] == reward[1] != reward[2] == reward[3], "one luck: only the orders make a difference"
    env.restore(single.snapshot(), seed=0)
    observation, *_ = env.step(np.zeros(4, dtype=int))
    assert len({row.tobytes() for row in observation}) == 4, "other luck, and each row its own"
    kept = env.snapshot()
    with pytest.raises(ValueError, match="4 patients but there are 3"):
        vector(3, world=ToyWorld()).unwrapped.restore(kept)


def test_factors_one_for_all_or_one_a_row() -> None:
    env = vector(3).unwrapped
    observation, _ = env.reset(seed=0, options={"age_years": 50, "weight_kg": np.array([50.0, 60.0, 70.0])})
    said = env.describe(observation)
    assert said["age_years"] == pytest.approx([50] * 3) and said["weight_kg"] == pytest.approx([50, 60, 70])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"reset_mask": [True, False, False]}, ValueError),
        ({"reset_mask": np.array([1, 0, 0])}, ValueError),
        ({"reset_mask": np.array([True])}, ValueError),
        ({"reset_mask": np.zeros(3, bool)}, ValueError),
        ({"agee": 3}, ValueError),
    ],
)
def test_bad_options(options: dict, error: type) -> None:
    env = vector(3).unwrapped
    env.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(error):
        env.reset(options=options)
    assert env.snapshot() == before


def test_bad_seeds_and_actions() -> None:
    env = vector(3).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(3, int))
    with pytest.raises(ValueError, match="one for each of the 3"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="whole number"):
        env.reset(seed=[1, 2, -3])
    env.reset(seed=[1, None, 3])
    for action in (np.zeros(2, int), np.zeros(3), np.array([0, 0, 9])):
        with pytest.raises(ValueError, match="menu"):
            env.step(action)
    disabled = vector(3, autoreset_mode="Disabled", hours=2)
    disabled.reset(seed=0)
    disabled.step(np.zeros(3, int))
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset_mask"):
        disabled.step(np.zeros(3, int))


def test_four_thousand_patients_step() -> None:
    env = vector(4096)
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (4096, 36)
    for _ in range(3):
        observation, reward, *_ = env.step(env.action_space.sample())
    assert reward.shape == (4096,) and np.isfinite(observation).all()


def test_each_row_is_rendered() -> None:
    pytest.importorskip("clinenv.rendering.ecg_paper")
    env = vector(2, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([4, 0]))
    frames = env.render()
    assert len(frames) == 2 and frames[0].dtype == np.uint8 and not np.array_equal(*frames)


class Shares(gymnasium.vector.VectorWrapper):
    """Gives the same observation array again and again."""

    def step(self, actions):
        observation, *rest = self.env.step(actions)
        if not hasattr(self, "_kept"):
            self._kept = observation
        self._kept[:] = observation
        return self._kept, *rest


class ForgetsTheFinalObservation(gymnasium.vector.VectorWrapper):
    def step(self, actions):
        *rest, infos = self.env.step(actions)
        infos.pop("final_obs", None)
        return *rest, infos


@pytest.mark.parametrize(("wrapper", "words"), [(Shares, "earlier call"), (ForgetsTheFinalObservation, "final_obs")])
def test_the_check_finds_a_broken_vector_env(wrapper: type, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_vector_env(
            lambda **kwargs: wrapper(vector(hours=6, **kwargs)),
            lambda: gymnasium.make("ECGDrug-v0", world=ToyWorld(hazard=0.1), hours=6),
            steps=8,
        )


def test_a_number_of_environments_may_be_numpys() -> None:
    env = vector(np.int64(2))
    assert type(env.unwrapped.num_envs) is int
    np.testing.assert_array_equal(env.reset(seed=1)[0], vector(2).reset(seed=1)[0])


def test_whoever_waits_for_a_patient_may_ask_for_anything() -> None:
    env = vector(3, hours=2 * ToyWorld().hours_per_step)
    env.reset(seed=0)
    for action in (0, 0):
        truncated = env.step(np.full(3, action))[3]
    assert truncated.all()
    _, reward, *_ = env.step(np.full(3, -1))
    assert (reward == 0).all()
    with pytest.raises(ValueError, match="outside"):
        env.step(np.full(3, -1))


def test_who_comes_after_a_branched_patient_differs_by_row() -> None:
    one, env = vector(1), vector(4)
    one.reset(seed=0), env.reset(seed=0)
    saved = one.unwrapped.snapshot()
    env.unwrapped.restore(saved, seed=5)
    env.reset(options={"reset_mask": np.ones(4, bool)})
    ages = env.unwrapped.episodes.running.chart["baseline_qtcf_ms"]
    assert len(set(ages.tolist())) == 4
    env.unwrapped.restore(saved)
    env.reset(options={"reset_mask": np.ones(4, bool)})
    ages = env.unwrapped.episodes.running.chart["baseline_qtcf_ms"]
    assert len(set(ages.tolist())) == 1, "without a seed all rows go on alike"


def test_refused_orders_are_those_of_the_patient_who_is_there() -> None:
    env = vector(2, env_id="EHRWard-v0", world="oracle", hours=4.0)
    env.reset(seed=0)
    everything = np.ones(env.action_space.shape, np.int8)
    info = env.step(everything)[4]
    assert [len(env.unwrapped.refusals(row)) for row in (0, 1)] == info["refused_orders"].tolist() != [0, 0]
    info = env.step(everything)[4]
    assert [len(env.unwrapped.refusals(row)) for row in (0, 1)] == info["refused_orders"].tolist() == [0, 0]
    env.step(everything)
    env.reset(options={"reset_mask": np.array([True, False])})
    assert not env.unwrapped.refusals(0) and env.unwrapped.refusals(1)
