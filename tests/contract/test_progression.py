"""The clinic's environments on every clinic there is: checkers, rows, and what both tasks promise of any world."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from clinenv.envs.ecg_explain.env import ECGExplainEnv, ECGExplainVectorEnv, explain_world
from clinenv.envs.ecg_progression.env import ECGProgressionEnv, ECGProgressionVectorEnv
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.simulator import Simulator
from clinenv.testing import check_simulator, check_vector_env
from tests.contract.worlds import CLINICS, clinic_named
from tests.toy_progression import ToyClinic
from world_models.quantities.progression import ORDERS
from world_models.testing import check_world

ENVIRONMENTS = {
    "ECGProgression-v0": (ECGProgressionEnv, ECGProgressionVectorEnv),
    "ECGExplain-v0": (ECGExplainEnv, ECGExplainVectorEnv),
}
STEPS = {"ECGProgression-v0": 30, "ECGExplain-v0": 20}  # within which courses of every clinic end, and begin anew


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", CLINICS)
def test_worlds_and_tasks(name: str) -> None:
    world, (relative, absolute) = clinic_named(name), CLINICS[name]
    check_world(world, batch=5, steps=4, relative=relative, absolute=absolute)
    check_simulator(Simulator(world, ECGProgressionTask()), batch=4, horizon=3, exact=relative == 0.0)
    task, pairs = explain_world(None, world)
    check_world(pairs, batch=5, steps=4, relative=relative, absolute=absolute, stochastic=False)
    check_simulator(Simulator(pairs, task), batch=4, horizon=3, exact=relative == 0.0, stochastic=False)


@pytest.mark.parametrize("name", CLINICS)
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_gymnasium_and_sb3_checkers_are_silent(env_id: str, name: str) -> None:
    env = ENVIRONMENTS[env_id][0](world=clinic_named(name))
    check_env(env, skip_render_check=True)
    pytest.importorskip("stable_baselines3.common.env_checker").check_env(env)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLINICS)
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_row_i_is_the_single_environment(env_id: str, name: str) -> None:
    one, many = ENVIRONMENTS[env_id]
    world = ToyClinic(hazard=0.2) if name == "toy-clinic" else clinic_named(name)
    relative, absolute = CLINICS[name]
    check_vector_env(
        lambda **kwargs: many(world=world, **kwargs),
        lambda: one(world=world),
        num_envs=2,
        steps=STEPS[env_id],
        relative=relative,
        absolute=absolute,
    )


@pytest.mark.parametrize("name", CLINICS)
def test_a_course_of_ten_years_is_judged_in_any_clinic(name: str) -> None:
    env = ECGProgressionVectorEnv(4, world=clinic_named(name), autoreset_mode="Disabled")
    env.reset(seed=2)
    action = np.zeros((4, len(ORDERS)), dtype=np.int64)
    action[:, -1] = 3
    total = np.zeros(4)
    over = np.zeros(4, bool)
    while not over.any():
        _, reward, terminated, truncated, info = env.step(action)
        total += reward
        over |= terminated | truncated
        terms = [value for key, value in info.items() if key.startswith("reward_")]
        assert len(terms) == 5 and all((term <= 0).all() for term in terms), "every term is a loss"
    assert (total >= -10.5).all(), "nobody loses more than the ten years, and what care costs"
    assert torch.equal(env.chart["years"][over] >= 9.99, env.chart["dead"][over] < 0.5)
