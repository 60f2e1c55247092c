"""The native TorchRL environment: specs, encodings, resets of some rows, seeds, and what it refuses."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from tests.clinenv.test_ehr_replay import stay
from tests.toy_progression import ToyClinic
from tests.toy_ward import InferringToyWard, ToyWard
from tests.toy_world import ToyWorld

pytest.importorskip("torchrl")
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from clinenv.doors.torchrl import TorchRLEnv

CASES = [
    ("ECGDrug-v0", {"world": ToyWorld(hazard=0.3)}),
    ("ECGDrug-v0", {"world": ToyWorld(hazard=0.3), "observation": "ecg"}),
    ("ECGDrugContinuous-v0", {"world": ToyWorld(hazard=0.3)}),
    ("EHRWard-v0", {"world": ToyWard(hazard=0.2)}),
    ("EHRWard-v0", {"world": ToyWard(hazard=0.2), "action": "multidiscrete"}),
    ("EHRWard-v0", {"world": ToyWard(hazard=0.2), "observation": "events"}),
    ("EHRWardDose-v0", {"world": ToyWard(hazard=0.2)}),
    ("EHRReplay-v0", {"world": InferringToyWard(hazard=0.2), "stays": [stay(1), stay(2)]}),
    ("ECGProgression-v0", {"world": ToyClinic()}),
    ("ECGExplain-v0", {"world": ToyClinic()}),
]


@pytest.mark.parametrize("categorical", [True, False], ids=["categorical", "one-hot"])
@pytest.mark.parametrize(("env_id", "kwargs"), CASES, ids=[f"{i}-{e}" for i, (e, _) in enumerate(CASES)])
def test_it_says_what_it_gives(env_id: str, kwargs: dict, categorical: bool) -> None:
    env = TorchRLEnv(env_id, 3, categorical_actions=categorical, **kwargs)
    check_env_specs(env, break_when_any_done="both")
    course = env.rollout(9, break_when_any_done=False)
    assert course.batch_size == (3, 9) and course["next", "reward"].shape == (3, 9, 1)
    assert bool((course["next", "cost"] >= 0).all()) and not bool(course["cost"][:, 0].any())
    if "action_mask" in course.keys():
        mask = course["action_mask"]
        assert mask.dtype == torch.bool and bool(mask.any(-1).all())
    env.close()


def test_one_hot_and_numbers_mean_the_same() -> None:
    courses = []
    for categorical in (True, False):
        env = TorchRLEnv("ECGProgression-v0", 2, categorical_actions=categorical, world=ToyClinic())
        env.set_seed(4)
        now = env.reset()
        sizes = [int(n) for n in env._patients.single_action_space.nvec]
        choice = torch.tensor([[n - 1 for n in sizes], [0] * len(sizes)])
        parts = [torch.nn.functional.one_hot(choice[:, i], n).bool() for i, n in enumerate(sizes)]
        now["action"] = choice if categorical else torch.cat(parts, -1)
        courses.append(env.step(now)["next"])
    assert torch.equal(courses[0]["observation"], courses[1]["observation"])
    assert torch.equal(courses[0]["reward"], courses[1]["reward"])


def test_rows_are_begun_anew_by_themselves_and_the_others_stay() -> None:
    env = TorchRLEnv("ECGDrug-v0", 3, world=ToyWorld(hazard=0.0))
    env.set_seed(9)
    now = env.reset()
    for _ in range(2):
        now["action"] = torch.tensor([1, 2, 3])
        now = env.step_mdp(env.step(now))
    before = now["observation"].clone()
    some = TensorDict({"_reset": torch.tensor([[False], [True], [False]])}, [3])
    after = env.reset(now.clone().update(some))["observation"]
    plain = gymnasium.make("ECGDrug-v0", world=ToyWorld(hazard=0.0))
    plain.reset(seed=10)
    assert np.array_equal(after[1], plain.reset()[0]), "row 1 meets the next patient of its own seed"
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_equal_seeds_give_equal_courses_and_a_reset_may_fix_a_patient() -> None:
    env = TorchRLEnv("ECGDrug-v0", 3, world=ToyWorld())
    courses = []
    for _ in range(2):
        env.set_seed(5)
        torch.manual_seed(0)
        courses.append(env.rollout(30, break_when_any_done=False))
    for name in ("observation", "action", ("next", "reward"), ("next", "terminated"), ("next", "cost")):
        assert torch.equal(courses[0][name], courses[1][name])
    fixed = env.reset(options={"age_years": 70.0})["observation"]
    assert np.allclose(env._patients.describe(fixed.numpy())["age_years"], 70.0, atol=1e-3)


def test_what_has_ended_is_not_stepped_and_what_is_no_tensor_is_refused() -> None:
    env = TorchRLEnv("ECGDrug-v0", 2, world=ToyWorld(hazard=0.0), hours=2)
    now = env.reset()
    now["action"] = torch.tensor([0, 0])
    after = env.step(now)["next"]
    assert bool(after["truncated"].all()) and not bool(after["terminated"].any())
    after["action"] = torch.tensor([0, 0])
    with pytest.raises(gymnasium.error.ResetNeeded, match="rows \\[0, 1\\]"):
        env.step(after)
    with pytest.raises(ValueError, match="strings"):
        TorchRLEnv("EHRWard-v0", 2, world=ToyWard(), observation="text")
    with pytest.raises(ValueError, match="autoreset_mode.*leave it out"):
        TorchRLEnv("ECGDrug-v0", 2, world=ToyWorld(), autoreset_mode="SameStep")


def test_torchrls_own_wrapper_refuses_the_mode_that_it_does_not_know() -> None:
    """Which is why next-step can be the default: whoever needs another mode says so."""
    from torchrl.envs import GymWrapper

    kwargs = {"vectorization_mode": "vector_entry_point", "world": ToyWorld()}
    with pytest.raises(RuntimeError, match="SAME_STEP or DISABLED"):
        GymWrapper(gymnasium.make_vec("ECGDrug-v0", 2, **kwargs))
