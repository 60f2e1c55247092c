"""The public checkers of environments: every shipped one passes, and one that breaks a rule is told which."""

from __future__ import annotations

import gymnasium
import pytest
import torch
from gymnasium.vector import AutoresetMode

import clinenv  # noqa: F401 - registers the ids
from clinenv.envs.ecg_drug.env import ECGDrugEnv, ECGDrugVectorEnv
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from clinenv.testing import check_env, check_fork, check_simulator, check_task, check_vector_env
from tests.toy_progression import ToyClinic
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld

WORLDS = {
    "ECGDrug-v0": ToyWorld,
    "ECGDrugContinuous-v0": ToyWorld,
    "EHRWard-v0": ToyWard,
    "EHRWardDose-v0": ToyWard,
    "ECGProgression-v0": ToyClinic,
    "ECGExplain-v0": ToyClinic,
}


@pytest.mark.parametrize("env_id", WORLDS)
def test_every_environment_passes(env_id: str) -> None:
    check_env(lambda: gymnasium.make(env_id, world=WORLDS[env_id]()))


@pytest.mark.parametrize("kwargs", [{"action_unit": "mg"}, {"noise": "ward", "missingness": "much"}, {"hours": 4}])
def test_it_passes_in_other_forms(kwargs: dict) -> None:
    check_env(lambda: gymnasium.make("ECGDrugContinuous-v0", world=ToyWorld(), **kwargs))


class SaysNoCostAtReset(ECGDrugEnv):
    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return observation, {name: value for name, value in info.items() if name != "cost"}


class SaysNoTermsAtReset(ECGDrugEnv):
    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return observation, {name: value for name, value in info.items() if not name.startswith("reward_")}


class CostsAtReset(ECGDrugEnv):
    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return observation, {**info, "cost": 1.0}


class WrapsSeeds(ECGDrugEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed % 2**64 if type(seed) is int and seed > 0 else seed, options=options)


class TripsOverOptions(ECGDrugEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=dict((options or {}).items()))


class IgnoresOptions(ECGDrugEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


class TakesNoOrder(ECGDrugEnv):
    def step(self, action):
        return super().step(0 if action is None and not self._over else action)


class RemembersRefusals(ECGDrugEnv):
    def step(self, action):
        try:
            return super().step(action)
        except ValueError:
            super().step(0)
            raise


class NeverCloses(ECGDrugEnv):
    def close(self):
        pass


class StepsBeforeReset(ECGDrugEnv):
    def step(self, action):
        if self._over:
            self.reset(seed=0)
        return super().step(action)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (SaysNoCostAtReset, "must hold cost"),
        (SaysNoTermsAtReset, "differ in .*reward_rhythm"),
        (CostsAtReset, "'cost'. is 1.0 at a reset"),
        (WrapsSeeds, "seed=18446744073709551616. was taken"),
        (TripsOverOptions, "must raise ValueError, not AttributeError"),
        (IgnoresOptions, "was taken; it must raise ValueError"),
        (TakesNoOrder, "step with None .* was taken"),
        (RemembersRefusals, "leave no trace"),
        (NeverCloses, "reset after close was taken"),
        (StepsBeforeReset, "step before any reset was taken"),
    ],
)
def test_the_check_finds_a_broken_environment(broken: type, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_env(lambda: broken(world=ToyWorld(hazard=0.0)))


def test_the_check_finds_an_id_without_a_time_limit() -> None:
    gymnasium.register("Limitless-v0", entry_point=ECGDrugEnv, kwargs={"world": ToyWorld()})
    try:
        with pytest.raises(AssertionError, match="no max_episode_steps"):
            check_env(lambda: gymnasium.make("Limitless-v0"))
    finally:
        del gymnasium.registry["Limitless-v0"]


class SameStepByDefault(ECGDrugVectorEnv):
    def __init__(self, **kwargs):
        super().__init__(**{"autoreset_mode": AutoresetMode.SAME_STEP, **kwargs})


class QuietAtReset(ECGDrugVectorEnv):
    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return observation, {name: value for name, value in info.items() if "reward_" not in name}


class CutsActions(ECGDrugVectorEnv):
    def step(self, actions):
        return super().step(actions.clip(0, 8) if getattr(actions, "dtype", "") == "int64" else actions)


class StaysOpen(ECGDrugVectorEnv):
    def close(self, **kwargs):
        pass


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (SameStepByDefault, "default must be next-step"),
        (QuietAtReset, "differ in .*reward_rhythm"),
        (CutsActions, "too large .* was taken"),
        (StaysOpen, "after close was taken"),
    ],
)
def test_the_check_finds_a_broken_vector_environment(broken: type, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_vector_env(
            lambda **kwargs: broken(world=ToyWorld(hazard=0.1), hours=6, **kwargs),
            lambda: gymnasium.make("ECGDrug-v0", world=ToyWorld(hazard=0.1), hours=6),
            steps=8,
        )


class NewTermsLater(ECGDrugTask):
    def reward(self, before, action, after):
        terms = super().reward(before, action, after)
        return {**terms, "late": terms["rhythm"] * 0} if bool((after["hours"] > 0).any()) else terms


def test_the_check_finds_a_task_whose_terms_come_later() -> None:
    with pytest.raises(AssertionError, match="same order, at every step"):
        check_task(NewTermsLater(), ToyWorld())


class Cuts(ToyWorld):
    def transition(self, state, action):
        high = torch.tensor([order.high for order in self.orders])
        return super().transition(state, torch.minimum(action.nan_to_num().clamp_min(0.0), high))


def test_the_check_finds_a_simulator_that_takes_any_amount() -> None:
    with pytest.raises(AssertionError, match="-5 of every order was taken"):
        check_simulator(Simulator(Cuts(), ECGDrugTask()))


class UsesItsParentsThreads(ECGDrugEnv):
    def reset(self, **kwargs):
        torch.set_num_threads(2)
        torch.ones(1_000_000).exp().sum()
        return super().reset(**kwargs)


class Fails(ECGDrugEnv):
    def reset(self, **kwargs):
        raise SystemExit(3)


def test_the_check_of_forks() -> None:
    check_fork(lambda: ECGDrugEnv(world=ToyWorld()))
    with pytest.raises(AssertionError, match="waits for threads"):
        check_fork(lambda: UsesItsParentsThreads(world=ToyWorld()), timeout_s=3.0)
    with pytest.raises(AssertionError, match="exit code 3"):
        check_fork(lambda: Fails(world=ToyWorld()))
