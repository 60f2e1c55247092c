"""What environments and a world's verbs are handed: taken as it is meant, or refused by its name."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeAwareObservation

import clinenv  # noqa: F401 - registers the ids
from tests.contract.worlds import world_named
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld
from world_models import keys, tree
from world_models.inputs import admit, check_also, checked_factors, checked_orders
from world_models.quantity import Quantity


def make(env_id: str = "ECGDrug-v0", **kwargs) -> gymnasium.Env:
    return gymnasium.make(env_id, **{"world": ToyWorld(), **kwargs}).unwrapped


def vector(num_envs: int = 3, env_id: str = "ECGDrug-v0", **kwargs):
    kwargs = {"world": ToyWorld(hazard=0.0), "vectorization_mode": "vector_entry_point", **kwargs}
    return gymnasium.make_vec(env_id, num_envs=num_envs, **kwargs)


@pytest.mark.parametrize("name", ["toy", "oracle", "ecg-wm-small"])
@pytest.mark.parametrize("dose", [-5.0, 1e9, float("nan"), float("inf")])
def test_no_dose_beyond_its_bounds_is_swallowed(name: str, dose: float) -> None:
    world = world_named(name)
    state = world.initial(keys.from_seed(0, 2))
    action = torch.zeros(2, 4)
    action[1, 1] = dose
    order = world.orders[1]
    with pytest.raises(ValueError, match=rf"{order.name}=.* mg \(patient 1\) is outside 0 to {order.high:g} mg; give"):
        world.transition(state, action)
    with pytest.raises(ValueError, match="no measure moon_phase; there are: .*qtcf_ms"):
        world.observe(state, ("moon_phase",))
    with pytest.raises(ValueError, match=r"sex_female=0.5 is neither 0 nor 1 \(patient 0\)"):
        world.initial(keys.from_seed(0, 2), {"sex_female": torch.full((2,), 0.5)})
    with pytest.raises(ValueError, match="complex"):
        world.transition(state, action.to(torch.complex64))


def test_the_checks_themselves() -> None:
    orders = (Quantity("dose_mg", "mg", 0.0, 0.1), Quantity("pause_months", "month", 1.0, 24.0))
    given = torch.tensor([[0.1, 0.0], [0.0, 24.0]], dtype=torch.float64)
    taken = checked_orders(orders, given, 2, "cpu")
    assert taken.dtype == torch.float32 and torch.equal(taken, given.float()), (
        "the bounds themselves, and nothing, are fine"
    )
    for wrong in ([[0.0, 0.0]], given[:1], given[0], None):
        with pytest.raises(ValueError, match="action"):
            checked_orders(orders, wrong, 2, "cpu")
    factors = (Quantity("age_years", "a", 18.0, 100.0), Quantity("ill", "bool", 0.0, 1.0, (3,)))
    assert checked_factors(factors, None, 2, "cpu") == {}
    fixed = checked_factors(factors, {"age_years": torch.tensor([18, 100])}, 2, "cpu")
    assert fixed["age_years"].tolist() == [18.0, 100.0]
    with pytest.raises(ValueError, match=r"ill=2 is neither 0 nor 1 \(patient 1\)"):
        checked_factors(factors, {"ill": torch.tensor([[0.0, 1, 0], [0, 0, 2]])}, 2, "cpu")
    for wrong in (50.0, "old", torch.ones(2, dtype=torch.complex64), torch.ones(3)):
        with pytest.raises(ValueError, match="age_years"):
            checked_factors(factors, {"age_years": wrong}, 2, "cpu")
    with pytest.raises(ValueError, match=r"also=\('age_years',\)"):
        check_also(factors, "age_years")


@pytest.mark.parametrize("name", ["toy", "oracle"])
def test_patients_of_whom_not_the_same_is_known_are_drawn_where_it_is_not(name: str) -> None:
    world, key = world_named(name), keys.from_seed(3, 6)
    nan = float("nan")
    factors = {
        "age_years": torch.tensor([50.0, nan, 60.0, nan, 70.0, 80.0]),
        "sex_female": torch.tensor([1.0, 1.0, nan, nan, 0.0, 0.0]),
        "weight_kg": torch.full((6,), 80.0),
    }
    state = admit(world, key, factors)
    assert torch.equal(state.key, key)
    for row in range(6):
        stated = {n: v[row : row + 1] for n, v in factors.items() if not bool(v[row].isnan())}
        alone = world.initial(key[row : row + 1], stated)
        for mine, theirs in zip(tree.leaves(tree.take(state, slice(row, row + 1))), tree.leaves(alone), strict=True):
            assert torch.equal(mine, theirs)
    with pytest.raises(ValueError, match="age_years=nan a is outside"):
        world.initial(key, factors)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, 2**64, np.float32(3), np.array(3)])
def test_seeds_that_are_none_are_refused(seed) -> None:
    for env in (make(), vector()):
        with pytest.raises(ValueError, match="is not a whole number from 0 to 184467440737095516"):
            env.reset(seed=seed)


def test_every_seed_is_a_patient_of_its_own() -> None:
    env = make()
    seeds = [0, 1, np.int64(2), np.uint8(3), 2**63 - 1, 2**63, 2**64 - 1]
    assert len({env.reset(seed=s)[0].tobytes() for s in seeds}) == len(seeds)
    many = vector()
    assert many.reset(seed=2**64 - 3)[0].shape == (3, 36)
    with pytest.raises(ValueError, match="from 0 to 18446744073709551613"):
        many.reset(seed=2**64 - 2)
    mixed = many.reset(seed=[np.int64(5), 2**64 - 1, None])[0]
    assert np.array_equal(mixed[0], env.reset(seed=5)[0]) and np.array_equal(mixed[1], env.reset(seed=2**64 - 1)[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([{}], r"options=\[\{\}\] is a list; give a dict"),
        ("age_years", "options='age_years' is a str"),
        (0, "options=0 is a int"),
        ({"factors": []}, "must map"),
        ({"age_years": None}, "age_years=None is not a number"),
        ({"age_years": 50 + 1j}, "complex"),
        ({"age_years": np.full(1, 50 + 1j)}, "complex"),
        ({"age_years": [[50], [60, 70]]}, "not a number"),
        ({"sex_female": 0.5}, "sex_female=0.5 is neither 0 nor 1"),
        ({"weight_kg": float("inf")}, "weight_kg=inf kg is outside"),
        ({7: 1.0}, "unknown factor 7"),
    ],
)
def test_options_that_are_none_are_refused(options, words: str) -> None:
    for env in (make(), vector()):
        first = env.reset(seed=1)[0]
        with pytest.raises(ValueError, match=words):
            env.reset(seed=2, options=options)
        assert np.array_equal(env.reset(seed=1)[0], first)


@pytest.mark.parametrize("action", [None, "1", 1j, object(), [[1], [1, 2]], {}, np.array("1"), True, 2**70, np.nan])
def test_actions_that_are_none_are_refused(action) -> None:
    for env_id in ("ECGDrug-v0", "ECGDrugContinuous-v0"):
        env, many = make(env_id), vector(env_id=env_id)
        env.reset(seed=0)
        many.reset(seed=0)
        for either in (env, many):
            with pytest.raises(ValueError, match="actions|menu|shape"):
                either.step(action)
    assert "None" in str(pytest.raises(ValueError, env.step, None).value)


def test_actions_may_be_tensors_lists_and_any_whole_number() -> None:
    env = make()
    told = []
    for action in (4, np.int8(4), np.array(4), np.uint64(4), torch.tensor(4)):
        env.reset(seed=0)
        told.append(env.step(action)[0].tobytes())
    assert len(set(told)) == 1
    doses = make("ECGDrugContinuous-v0")
    told = []
    for action in ([0, 1, 0, 0], np.array([0, 1, 0, 0]), torch.tensor([0.0, 1.0, 0.0, 0.0])):
        doses.reset(seed=0)
        told.append(doses.step(action)[0].tobytes())
    assert len(set(told)) == 1


def test_a_closed_environment_says_so() -> None:
    for env in (make(), vector()):
        env.reset(seed=0)
        env.close()
        env.close()
        for call in (lambda e=env: e.reset(seed=0), lambda e=env: e.step(0)):
            with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="make a new one"):
                call()


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_number_of_environments_that_is_none_is_refused(count) -> None:
    with pytest.raises((ValueError, gymnasium.error.Error), match=f"num_envs={count!r}"):
        vector(count)


def test_a_wards_time_can_be_shown() -> None:
    env = TimeAwareObservation(gymnasium.make("EHRWard-v0", world=ToyWard(hazard=0.0, leaves=0.0)))
    observation, _ = env.reset(seed=0)
    steps, over = 0, False
    while not over:
        observation, _, terminated, over, _ = env.step(np.zeros(69, np.int8))
        assert not terminated
        steps += 1
    assert steps == env.spec.max_episode_steps == 84 and observation.shape == (230,) and observation[-1] in (84.0, 1.0)


def test_a_ward_with_shorter_steps_says_that_its_stay_is_cut() -> None:
    hourly = ToyWard(hours_per_step=1.0)
    for env in (make("EHRWard-v0", world=hourly), vector(env_id="EHRWard-v0", world=hourly)):
        with pytest.warns(
            UserWarning, match="336 h takes 336 steps, but the id's time limit is 84.*max_episode_steps=336"
        ):
            env.reset(seed=0)
    whole = vector(
        1, env_id="EHRWard-v0", world=ToyWard(hours_per_step=1.0, hazard=0.0, leaves=0.0), max_episode_steps=336
    )
    whole.reset(seed=0)
    ends = [whole.step(np.zeros((1, 69), np.int8))[3][0] for _ in range(336)]
    assert ends.index(True) == 335
