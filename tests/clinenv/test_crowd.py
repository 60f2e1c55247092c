"""A vector environment compiled whole says what the eager one says, in every word, however its patients come and go."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest

import clinenv  # noqa: F401  (registers the ids)
from clinenv import compiled
from clinenv.vector_env import ClinicalVectorEnv
from tests.toy_world import ToyWorld

NEAR = 1e-4  # relative to 1 or to the number, whichever is more
needs_compiler = pytest.mark.skipif(compiled.cxx_compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module", autouse=True)
def libraries(tmp_path_factory):
    """A folder of compiled code that no other test knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.CACHE_VARIABLE, str(tmp_path_factory.mktemp("compiled")))
        yield


def pair(env_id: str, rows: int, **settings: Any) -> tuple[ClinicalVectorEnv, ClinicalVectorEnv]:
    def made(**more: Any) -> Any:
        kind = "vector_entry_point"
        return gymnasium.make_vec(env_id, num_envs=rows, vectorization_mode=kind, **settings, **more).unwrapped

    return made(), made(compile=True)


def same(found: Any, expected: Any, where: str) -> None:
    """Of what `step` or `reset` gave, to the type of each number."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for name in expected:
            same(found[name], expected[name], f"{where}/{name}")
    elif isinstance(expected, tuple):
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            same(one, other, f"{where}[{i}]")
    elif expected.dtype == object:
        assert [x is None for x in found] == [x is None for x in expected], where
        for one, other in zip(found, expected, strict=True):
            if other is not None:
                same(one, other, where)
    else:
        assert found.dtype == expected.dtype and found.shape == expected.shape, where
        np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=NEAR, atol=NEAR, err_msg=where)


def live(eager: ClinicalVectorEnv, fast: ClinicalVectorEnv, steps: int, ends_needed: int) -> None:
    """Both through the same steps."""
    ended, ends = eager._ended.numpy().copy(), 0
    eager.action_space.seed(0)
    for step in range(steps):
        if eager.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.DISABLED and ended.any():
            same(*(env.reset(options={"reset_mask": ended}) for env in (fast, eager)), f"reset before {step}")
        action = eager.action_space.sample()
        found, expected = fast.step(action), eager.step(action)
        same(found, expected, f"step {step}")
        ended = expected[2] | expected[3]
        ends += int(ended.sum())
        if step % 9 == 0:
            assert fast.refusals(1) == eager.refusals(1)
            same(fast.episodes.given.numpy(), eager.episodes.given.numpy(), f"given at {step}")
            same(fast.action_masks(), eager.action_masks(), f"masks at {step}")
    assert ends >= ends_needed


@needs_compiler
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("NextStep", marks=pytest.mark.slow),
        pytest.param("SameStep", marks=pytest.mark.compiles),
        pytest.param("Disabled", marks=pytest.mark.compiles),
    ],
)
def test_patients_come_and_go_alike(mode: str) -> None:
    eager, fast = pair("ECGDrug-v0", 6, world=ToyWorld(hazard=0.1), autoreset_mode=mode)
    assert fast._crowd is not None
    same(fast.reset(seed=3), eager.reset(seed=3), "reset")
    live(eager, fast, 40, 6)
    made = compiled.counts()
    same(fast.restore(eager.snapshot()), eager.restore(eager.snapshot()), "restore")
    live(eager, fast, 5, 0)
    told: dict[str, Any] = {"seed": [5, None, None, 2, None, None], "options": {"age_years": 70.0}}
    same(fast.reset(**told), eager.reset(**told), "reset with options")
    live(eager, fast, 30, 3)
    assert compiled.counts() == made, "nothing is compiled after the first step"
    fast.reset(seed=8)
    again = pickle.loads(pickle.dumps(fast))
    action = eager.action_space.sample()
    same(again.step(action), fast.step(action), "of a pickle")


@pytest.mark.compiles
@needs_compiler
@pytest.mark.parametrize(
    ("env_id", "world"),
    [
        ("ECGDrug-v0", "ecg-wm-small"),
        ("ECGDrugContinuous-v0", "ecg-wm-small"),
        ("ECGProgression-v0", "cardiac-jepa-small"),
    ],
)
def test_learned_worlds_compiled_whole(env_id: str, world: str) -> None:
    eager, fast = pair(env_id, 24, world=world)
    assert fast._crowd is not None
    same(fast.reset(seed=0), eager.reset(seed=0), "reset")
    live(eager, fast, 60, 24)
