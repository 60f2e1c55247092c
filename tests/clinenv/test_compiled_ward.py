"""Wards as machine code against their eager selves.

What is promised is what all compiled worlds promise: a course of 200 steps within NEAR (relative, or absolute for
numbers below 1), for as long as no draw lies nearer to its chance than that. It is not the same bits: exp, log and
their kin come from another library and may differ in the last place. Reports of the oracle are rounded, which hides
that last place nearly always, and shows it as a whole step of the report in the rare case between.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401  (registers the ids)
from clinenv.compiled import counts, cxx_compiler
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from world_models import catalog, keys, tree
from world_models.testing import random_orders

pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(cxx_compiler() is None, reason="no C++ compiler"),
]
NEAR = 1e-4  # what learned worlds promise of anything they compute in another order
STEPS, BATCH = 200, 37


def few(space: gymnasium.Space, luck: np.random.Generator) -> np.ndarray:
    """A few orders at once, of amounts up to a third."""
    on = luck.random(space.shape) < 0.12
    if isinstance(space, gymnasium.spaces.Box):
        return (space.low + on * luck.random(space.shape) * (space.high - space.low) / 3.0).astype(space.dtype)
    return on.astype(space.dtype)


@pytest.mark.parametrize(
    ("id_", "world"),
    [("EHRWard-v0", "ward-oracle"), ("EHRWard-v0", "ehr-ward-small"), ("EHRWardDose-v0", "ehr-ward-small")],
)
def test_one_patient_alone_has_the_same_stays(id_: str, world: str) -> None:
    """Observation, reward, end and infos of 200 steps, stay after stay."""
    eager = gymnasium.make(id_, world=world).unwrapped
    quick = gymnasium.make(id_, world=world, compile=True).unwrapped
    luck, stays, made = np.random.default_rng(3), 1, None
    for env in (eager, quick):
        env.reset(seed=0)
    for _ in range(STEPS):
        action = few(eager.action_space, luck)
        expected, found = eager.step(action), quick.step(action)
        made = counts() if made is None else made
        for one, other in zip(found[:2], expected[:2], strict=True):
            np.testing.assert_allclose(one, other, rtol=NEAR, atol=NEAR)
        assert found[2:4] == expected[2:4], "death and discharge strike alike"
        assert found[4].keys() == expected[4].keys()
        for name, value in expected[4].items():
            np.testing.assert_allclose(found[4][name], value, rtol=NEAR, atol=NEAR, err_msg=name)
        if expected[2] or expected[3]:
            stays += 1
            for env in (eager, quick):
                env.reset(seed=stays)
    assert stays >= 3
    assert counts() == made, "nothing is compiled after the first step"


@pytest.mark.parametrize("world", ["ehr-ward-small"])
def test_a_batch_of_which_not_all_is_asked_for(world: str) -> None:
    """More patients than `FEW`: only what was asked is worked out, however much that is, nothing among it."""
    eager, task = catalog.load(world), EHRWardTask()
    plain, quick = Simulator(eager, task), Simulator(eager, task, compile=True)
    before = counts()
    state, chart = plain.reset(keys.from_seed(0, BATCH))
    for step, given in enumerate((0.3, 0.0, 1.0, 0.1)):
        orders = random_orders(eager, state.key, step, given=given)
        expected, found = plain.step(state, chart, orders), quick.step(state, chart, orders)
        for one, other in zip(tree.leaves(found), tree.leaves(expected), strict=True):
            torch.testing.assert_close(one, other, rtol=NEAR, atol=NEAR, equal_nan=True)
        state, chart = expected.state, expected.chart
    after = counts()
    assert after.loaded == before.loaded + 1, "one library for all of them"
