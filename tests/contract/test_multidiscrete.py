"""`action="multidiscrete"`: the ward's switches for libraries that know no MultiBinary, and nothing else changed."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import MultiBinary, MultiDiscrete

import clinenv  # noqa: F401 - registers the ids
from clinenv.testing import check_env, check_vector_env
from tests.clinenv.test_ehr_replay import stay
from tests.toy_progression import ToyClinic
from tests.toy_ward import InferringToyWard, ToyWard
from tests.toy_world import ToyWorld
from world_models.quantities.ward import order_index

FORM = {"action": "multidiscrete"}
WARDS = {
    "EHRWard-v0": lambda: {"world": ToyWard(hazard=0.1)},
    "EHRReplay-v0": lambda: {"world": InferringToyWard(hazard=0.1), "stays": [stay(1), stay(2, age=50.0)]},
}


def vector(env_id: str = "EHRWard-v0", num_envs: int = 3, **kwargs):
    kwargs = {**WARDS[env_id](), **kwargs}
    return gymnasium.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)


@pytest.mark.parametrize("env_id", WARDS)
def test_both_forms_are_one_environment(env_id: str) -> None:
    kwargs = WARDS[env_id]()
    binary, discrete = gymnasium.make(env_id, **kwargs), gymnasium.make(env_id, **kwargs, **FORM)
    assert binary.action_space == MultiBinary(69)
    assert discrete.action_space == MultiDiscrete([2] * 69)
    seen = [env.reset(seed=3)[0] for env in (binary, discrete)]
    assert np.array_equal(*seen)
    binary.action_space.seed(1)
    for _ in range(4):
        action = binary.action_space.sample()
        one, other = binary.step(action), discrete.step(action.astype(np.int64))
        assert np.array_equal(one[0], other[0]) and one[1:4] == other[1:4]
        if one[2]:
            break
        assert np.array_equal(binary.unwrapped.action_masks(), discrete.unwrapped.action_masks())


@pytest.mark.slow
@pytest.mark.parametrize("env_id", WARDS)
def test_it_keeps_the_rules_of_every_environment(env_id: str) -> None:
    kwargs = {**WARDS[env_id](), **FORM}
    check_env(lambda: gymnasium.make(env_id, **kwargs), steps=4)
    check_vector_env(
        lambda **given: vector(env_id, **given, **kwargs),
        lambda: gymnasium.make(env_id, **kwargs),
        num_envs=2,
        steps=30,
    )


def test_the_mask_has_two_places_a_switch_and_says_what_is_refused() -> None:
    env = vector(num_envs=4, world=ToyWard(hazard=0.0, leaves=0.0), **FORM)
    _, info = env.reset(seed=0)
    test = order_index("inquire_potassium")
    action = np.zeros((4, 69), np.int64)
    action[:2, test] = 1
    for _ in range(2):
        masks = env.action_masks()
        assert masks.shape == (4, 138) and masks.dtype == np.bool_
        assert info["action_mask"].shape == (4, 138) and info["action_mask"].dtype == np.int8
        assert np.array_equal(masks, info["action_mask"])
        assert masks[:, ::2].all(), "a switch may always stay off"
        allowed = masks[np.arange(4), 2 * test + action[:, test]]
        *_, info = env.step(action)
        assert info["refused_orders"].tolist() == (~allowed).tolist()
    assert not allowed[:2].any() and allowed[2:].all(), "a result that is awaited is not ordered again"


def test_what_the_mask_allows_is_carried_out() -> None:
    env = gymnasium.make("EHRWard-v0", world=ToyWard(hazard=0.0, leaves=0.0), **FORM)
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    alone = np.zeros(69, np.int64)
    for _ in range(20):
        drawn = env.action_space.sample(mask=tuple(info["action_mask"].reshape(69, 2)))
        alone[:] = 0  # one order at a time: what contradicts others of its set is no matter of the mask
        alone[np.random.default_rng(int(info["hours"])).choice(np.flatnonzero(drawn))] = 1
        *_, info = env.step(alone)
        assert info["refused_orders"] == 0


def test_it_is_refused_where_there_are_no_switches() -> None:
    for env_id, world in (
        ("ECGDrug-v0", ToyWorld()),
        ("EHRWardDose-v0", ToyWard()),
        ("ECGProgression-v0", ToyClinic()),
    ):
        with pytest.raises(ValueError, match="multidiscrete.*no switches.*leave it out"):
            gymnasium.make(env_id, world=world, **FORM)
    with pytest.raises(ValueError, match="'discrete' is unknown.*multidiscrete"):
        gymnasium.make("EHRWard-v0", world=ToyWard(), action="discrete")
    env = gymnasium.make("EHRWard-v0", world=ToyWard(), **FORM)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="neither 0"):
        env.unwrapped.step(np.full(69, 2))


def test_a_snapshot_goes_from_one_form_to_the_other() -> None:
    """As from a menu to doses: a patient is the same, whatever form the orders have."""
    world = ToyWard(hazard=0.0, leaves=0.0)
    here, other = vector(num_envs=1, world=world, **FORM), vector(num_envs=1, world=world)
    here.reset(seed=5)
    seen = here.step(np.ones((1, 69), np.int64))[0]
    assert np.array_equal(other.restore(here.snapshot()), seen)
    assert np.array_equal(other.action_masks(), here.action_masks())
    action = np.arange(69)[None] % 2
    assert np.array_equal(here.step(action)[0], other.step(action.astype(np.int8))[0])
