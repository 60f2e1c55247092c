"""Wards as machine code: what a compiled step gives, against the eager one.

What is promised. From the same state, a compiled step gives what the eager one gives to within TOLERANCE of each
number; the oracle's charted values, which are rounded for the report, to within one step of the report. It is not the
same bits: exp, log and their kin come from another library and differ in the last place. So what a draw decides falls
alike until a draw lies within that last place of its chance, which no step here met.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import clinenv  # noqa: F401 - registers the ids
from clinenv.compiled import counts, cxx_compiler

pytestmark = [
    pytest.mark.slow,  # a library of the oracle's takes minutes, once on a machine
    pytest.mark.skipif(cxx_compiler() is None, reason="no C++ compiler"),
]
TOLERANCE = 1e-4  # relative, and of a hundredth of a unit
STEPS = 200
WORLDS = ("ward-oracle", "ehr-ward-small")


def switches(space: gymnasium.Space, luck: np.random.Generator) -> np.ndarray:
    """A few orders at once."""
    return (luck.random(space.shape) < 0.12).astype(space.dtype)


@pytest.mark.parametrize("world", WORLDS)
def test_one_patient_alone_goes_the_same_way(world: str) -> None:
    """200 steps, patient after patient, each from the eager environment's own state."""
    eager = gymnasium.make("EHRWard-v0", world=world).unwrapped
    quick = gymnasium.make("EHRWard-v0", world=world, compile=True).unwrapped
    luck, seed = np.random.default_rng(3), 0
    eager.reset(seed=seed)
    quick.reset(seed=seed)
    made = None
    for _ in range(STEPS):
        action = switches(eager.action_space, luck)
        expected, found = eager.step(action), quick.step(action)
        made = counts() if made is None else made
        np.testing.assert_allclose(found[0], expected[0], rtol=TOLERANCE, atol=TOLERANCE)
        assert found[1] == pytest.approx(expected[1], rel=TOLERANCE, abs=TOLERANCE)
        assert found[2:4] == expected[2:4], "death and discharge strike alike"
        assert found[4].keys() == expected[4].keys()
        for name, value in expected[4].items():
            np.testing.assert_allclose(found[4][name], value, rtol=TOLERANCE, atol=1e-2, err_msg=name)
        if expected[2] or expected[3]:
            seed += 1
            eager.reset(seed=seed)
            quick.reset(seed=seed)
    assert seed > 2
    assert counts() == made, "nothing is compiled after the first step"
    eager.close()
    quick.close()
