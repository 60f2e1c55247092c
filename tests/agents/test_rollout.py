"""Judging is paired and repeatable, and its figures are the ones numpy gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.baselines.constant import Constant, no_treatment
from agents.baselines.uniform import Uniform
from agents.rollout import Episodes, format_table, judge, paired_table
from clinenv.simulator import Simulator
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from world_models import keys


@pytest.fixture(scope="module")
def simulator():
    return Simulator(DialWorld(drift=0.4), DialTask())


def test_same_agent_same_keys_same_episodes(simulator):
    key = keys.from_seed(0, 20)
    agent = Uniform(3, seed=4)
    first, second = (judge(agent, simulator, key, STEPS) for _ in range(2))
    assert torch.equal(first.returns, second.returns) and torch.equal(first.orders, second.orders)


def test_patients_do_not_depend_on_each_other(simulator):
    key = keys.from_seed(0, 20)
    together = judge(Constant(1), simulator, key, STEPS)
    alone = judge(Constant(1), simulator, key[7:8], STEPS)
    assert float(together.returns[7]) == float(alone.returns[0])


def test_pairing_takes_the_luck_out_of_a_difference():
    class Costless(DialTask):
        def reward(self, before, action, after):
            return {"luck": after["dial_turns"] - before["dial_turns"]}

    simulator = Simulator(DialWorld(drift=5.0), Costless())
    key = keys.from_seed(1, 50)
    results = {n: judge(Constant(i), simulator, key, STEPS) for i, n in enumerate(("none", "one"))}
    rows = paired_table(results, reference="none", resamples=200)
    assert rows[1]["return_minus_reference"] == pytest.approx(STEPS, abs=1e-3)
    assert rows[1]["return_minus_reference_high"] - rows[1]["return_minus_reference_low"] < 1e-3
    assert rows[1]["return_high"] - rows[1]["return_low"] > 1.0


def test_terms_sum_to_the_return_and_steps_are_counted(simulator):
    episodes = judge(Constant(2), simulator, keys.from_seed(0, 5), STEPS)
    assert torch.allclose(sum(episodes.terms.values()), episodes.returns, rtol=1e-5)
    assert episodes.lengths.tolist() == [STEPS] * 5
    assert episodes.costs.tolist() == [float(STEPS)] * 5
    assert episodes.orders.tolist() == [[2.0 * STEPS]] * 5


def test_nothing_counts_after_the_end():
    class Short(DialTask):
        def terminated(self, chart):
            return chart["dial_turns"] >= 4.0

    simulator = Simulator(DialWorld(), Short())
    path = {"path_turns": torch.ones(2, STEPS)}
    episodes = judge(Constant(2), simulator, keys.from_seed(0, 2), STEPS, factors=path)
    assert episodes.lengths.tolist() == [2, 2] and episodes.orders.tolist() == [[4.0]] * 2
    assert episodes.returns.tolist() == [-5.0] * 2  # (2 - 1)^2 + (4 - 2)^2


def _episodes(returns):
    zero = torch.zeros(len(returns))
    return Episodes(torch.tensor(returns), zero, zero.bool(), zero.long(), zero, {}, zero.unsqueeze(1))


def test_table_equals_numpy():
    values = np.random.default_rng(0).normal(size=400).astype(np.float32)
    rows = paired_table({"a": _episodes(values), "b": _episodes(values + 1)}, reference="a")
    assert rows[0]["return"] == pytest.approx(values.mean(), abs=1e-6)
    half = 1.96 * values.std(ddof=1) / 20
    assert rows[0]["return_low"] == pytest.approx(values.mean() - half, abs=0.02)
    assert rows[0]["return_high"] == pytest.approx(values.mean() + half, abs=0.02)
    assert rows[0]["return_cvar"] == pytest.approx(np.sort(values)[:20].mean(), abs=1e-5)
    assert rows[1]["return_minus_reference"] == pytest.approx(1.0, abs=1e-5)
    assert "return minus reference" in format_table(rows)


def test_refuses_unpaired_results_and_empty_runs(simulator):
    with pytest.raises(ValueError, match="same patients"):
        paired_table({"a": _episodes([1.0]), "b": _episodes([1.0, 2.0])})
    with pytest.raises(ValueError, match="reference"):
        paired_table({"a": _episodes([1.0])}, reference="z")
    with pytest.raises(ValueError, match="steps"):
        judge(no_treatment(), simulator, keys.from_seed(0, 3), 0)
