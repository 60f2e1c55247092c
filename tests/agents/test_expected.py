"""Judging with deaths at their chances: the same mean as drawn, less spread, and the oracle ward's own chances."""

from __future__ import annotations

import pytest
import torch

from agents.baselines.constant import no_treatment
from agents.expected import judge_expected
from agents.planning.base_policies import base_policy
from agents.rollout import judge
from clinenv.envs.ehr_ward.orders import DOSES
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from tests.agents.bandit_world import DialTask, DialWorld
from world_models import keys
from world_models.oracles.ward.world import WardOracle

STEPS = 6


@pytest.fixture(scope="module")
def ward() -> Simulator:
    return Simulator(WardOracle("icu", hours_per_step=12.0), EHRWardTask(actions=DOSES))


def test_the_mean_is_that_of_drawn_deaths_and_the_spread_is_less(ward: Simulator) -> None:
    key = keys.fold(keys.from_seed(0, 256), "judge")
    drawn, expected = (f(base_policy(ward), ward, key, STEPS) for f in (judge, judge_expected))
    died = drawn.outcomes.totals["died"]
    assert 3 < float(died.sum()), "some must have died, or nothing is compared"
    for name in ("died", "hours", "discharged"):
        one, other = drawn.outcomes.totals[name], expected.outcomes.totals[name]
        error = float(((one - other).var() / len(one)).sqrt())
        assert abs(float((one - other).mean())) < 3.5 * error + 1e-6, name
    difference = drawn.returns - expected.returns
    assert abs(float(difference.mean())) < 3.5 * float((difference.var() / len(key)).sqrt())
    assert float(expected.returns.std()) < 0.9 * float(drawn.returns.std())  # how ill they are is most of it
    assert torch.allclose(sum(expected.terms.values()), expected.returns, rtol=1e-4, atol=1e-4)
    assert float(expected.lengths.max()) <= STEPS and float(expected.refused.max()) >= 0


@pytest.mark.slow
def test_all_events_at_their_chances_and_none(ward: Simulator) -> None:
    key = keys.fold(keys.from_seed(1, 96), "judge")
    both = judge_expected(base_policy(ward), ward, key, STEPS, ("alive", "discharged"))
    none = judge_expected(base_policy(ward), ward, key, STEPS, ())
    left = both.outcomes.totals["died"] + both.outcomes.totals["discharged"]
    assert bool((left <= 1.0 + 1e-4).all()) and float(left.min()) > 0
    assert set(none.outcomes.totals["died"].unique().tolist()) <= {0.0, 1.0}
    with pytest.raises(ValueError, match="no event fever; the world tells the chances of alive, discharged"):
        judge_expected(base_policy(ward), ward, key, 1, ("fever",))


def test_worlds_without_chances_and_events_without_an_end_are_refused() -> None:
    with pytest.raises(ValueError, match="tells no chances"):
        judge_expected(no_treatment(), Simulator(DialWorld(), DialTask()), keys.from_seed(0, 2), 2)
    with pytest.raises(ValueError, match="N >= 1"):
        judge_expected(no_treatment(), Simulator(DialWorld(), DialTask()), keys.from_seed(0, 2), 0)


def test_the_oracle_ward_tells_the_chances_it_draws_by(ward: Simulator) -> None:
    state, chart = ward.reset(keys.from_seed(2, 256))
    world, nothing = ward.world, torch.zeros(256, len(ward.task.orders))
    died, chance = 0.0, 0.0
    for _ in range(STEPS):
        before, state = state, world.transition(state, nothing)
        fates = world.fates(before, state)
        gone = (before.course.alive < 0.5) | (before.course.discharged > 0.5)
        assert not bool(fates.chances["alive"][gone].any()) and not bool(fates.chances["discharged"][gone].any())
        assert bool((fates.spared.course.alive == before.course.alive).all())
        died += float((before.course.alive - state.course.alive).sum())
        chance += float(fates.chances["alive"].sum())
    assert chance > 2 and abs(died - chance) < 3.5 * chance**0.5
