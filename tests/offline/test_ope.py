"""Estimators against known values: unbiased or consistent where they should be, and of the variance they promise."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from agents.offline.acting import Acting
from agents.offline.behaviour import Exploring
from agents.offline.charts import ChartReader
from agents.offline.choices import Choices
from agents.offline.collect import collect
from agents.offline.ope.doubly_robust import doubly_robust, weighted_doubly_robust
from agents.offline.ope.evidence import effective_size, evidence_of, once, replay
from agents.offline.ope.fitted_q import FittedQ, fitted_q_value
from agents.offline.ope.importance import importance_sampling
from agents.offline.ope.model_based import model_based
from agents.offline.ope.per_decision import per_decision, weighted_per_decision
from agents.offline.ope.weighted_importance import weighted_importance_sampling
from agents.offline.recipes import CASES, behaviour, colleagues, simulator_of
from agents.rollout import judge
from clinenv.simulator import Simulator
from tests.agents.bandit_world import STEPS as TURNS
from tests.agents.bandit_world import DialWorld
from tests.offline.small import Follower, HoldTask, dial_behaviour, sampled, true_q, true_value
from world_models import keys

UNBIASED = {"IS": importance_sampling, "per-decision": per_decision, "doubly robust": doubly_robust}
CONSISTENT = {
    "weighted": weighted_importance_sampling,
    "weighted per-decision": weighted_per_decision,
    "weighted doubly robust": weighted_doubly_robust,
}
LOGS, STAYS = 400, 40


def in_small_logs(estimator, q=None) -> torch.Tensor:
    """The estimates of LOGS logs of STAYS stays."""
    evidence = sampled(LOGS * STAYS, 11, q)
    apart = torch.kron(torch.eye(LOGS, dtype=torch.float64), torch.ones(1, STAYS, dtype=torch.float64))
    return estimator(evidence, apart)


@pytest.mark.parametrize("name", list(UNBIASED))
def test_unbiased_in_small_logs(name: str) -> None:
    wrong = true_q()[0] * 0.5 + 1.0  # doubly robust: whatever Q
    found = in_small_logs(UNBIASED[name], wrong)
    assert abs(float(found.mean()) - true_value()) < 4 * float(found.std()) / LOGS**0.5


@pytest.mark.parametrize("name", [*UNBIASED, *CONSISTENT])
def test_consistent_in_a_large_log(name: str) -> None:
    estimator = {**UNBIASED, **CONSISTENT}[name]
    evidence = sampled(100_000, 12, true_q()[0] * 0.5 + 1.0)
    assert float(estimator(evidence, once(evidence))) == pytest.approx(true_value(), abs=0.03)


def test_each_refinement_is_of_less_variance() -> None:
    q = true_q()[0]
    spread = [
        float(in_small_logs(estimator, q).std()) for estimator in (importance_sampling, per_decision, doubly_robust)
    ]
    assert all(more > 1.2 * less for more, less in pairwise(spread)), spread
    assert spread[2] < 0.7 * float(in_small_logs(doubly_robust, torch.zeros_like(q)).std())
    assert float(in_small_logs(weighted_importance_sampling).std()) < spread[0]


def test_the_policy_of_the_log_itself_is_judged_by_its_mean() -> None:
    evidence = sampled(500, 13)
    evidence = evidence._replace(log_ratio=torch.zeros_like(evidence.log_ratio))
    mean = evidence.reward.sum(-1).mean()
    for estimator in (*UNBIASED.values(), *CONSISTENT.values()):
        torch.testing.assert_close(estimator(evidence, once(evidence)), mean.unsqueeze(0))
    assert effective_size(evidence) == pytest.approx(500)


def test_stays_that_count_twice_count_twice() -> None:
    evidence = sampled(30, 14, true_q()[0])
    times = torch.tensor([[2.0] * 10 + [0.0] * 10 + [1.0] * 10], dtype=torch.float64)
    index = torch.cat([torch.arange(10), torch.arange(10), torch.arange(20, 30)])
    again = type(evidence)(*(x[index] if isinstance(x, torch.Tensor) else x for x in evidence))
    for estimator in (*UNBIASED.values(), *CONSISTENT.values()):
        torch.testing.assert_close(estimator(evidence, times), estimator(again, once(again)))


def test_a_discount_weighs_later_rewards_less() -> None:
    evidence = sampled(2000, 15)._replace(discount=0.5)
    expected = (evidence.log_ratio.cumsum(-1).exp() * evidence.reward * 0.5 ** torch.arange(4)).sum(-1).mean()
    torch.testing.assert_close(per_decision(evidence, once(evidence)), expected.unsqueeze(0))


@pytest.fixture(scope="module")
def dial():
    """A log of two colleagues who turn a dial to where it should stand, or too far."""
    simulator = Simulator(DialWorld(drift=0.2), HoldTask())
    logged = collect(Acting(dial_behaviour(simulator), 3), simulator, 70, 600, TURNS, "dial")
    return simulator, logged, ChartReader(simulator, logged), Choices(simulator)


def test_a_replay_gives_back_the_logs_own_chances(dial) -> None:
    simulator, logged, reader, _ = dial
    replayed = replay(Acting(dial_behaviour(simulator)), logged, reader, 2)
    torch.testing.assert_close(replayed.log_prob, logged.log_prob, rtol=1e-4, atol=1e-5)
    assert replayed.choices.shape == (600, TURNS, 2, 1)
    assert bool(logged.hidden_severity.isnan().all())  # this world hides nothing that is known


def test_estimates_of_a_dial_come_to_the_truth(dial) -> None:
    """Fitted Q, importance weights and both together, on another policy than the log's."""
    simulator, logged, reader, choices = dial
    policy = Exploring(Follower(), choices, 0.15)
    truth = float(judge(Acting(policy, 9), simulator, keys.from_seed(10**6, 4000), TURNS).returns.mean())
    replayed = replay(Acting(policy), logged, reader)
    fitted = FittedQ.resampled(logged, choices, 6)
    values = fitted_q_value(fitted, replayed)
    q, v = FittedQ.crossed(logged, choices).held_out(replayed)
    evidence = evidence_of(logged, replayed, q, v)
    both = {name: float(f(evidence, once(evidence))) for name, f in {**UNBIASED, **CONSISTENT}.items()}
    spread = abs(truth - float(logged.returns.mean()))
    assert abs(float(values[0]) - truth) < 0.25 * spread, (values, truth)
    for name, found in both.items():
        assert abs(found - truth) < (0.5 if name == "IS" else 0.2) * spread, (name, found, truth)
    assert float(values[1:].std()) > 0.0 and values.shape == (7,)
    assert 10 < effective_size(evidence) < 600


def test_sums_of_a_long_log_are_not_rounded_off(dial) -> None:
    """Columns that say the same leave only the ridge to keep the matrix positive, and it is small beside their sums."""
    _, logged, _, choices = dial
    alike = torch.full((*logged.observation.shape[:2], 80), 5.0)
    long = type(logged)(**{**vars(logged), "observation": torch.cat([logged.observation, alike], -1)})
    fitted = FittedQ(long, choices)
    features = fitted._features.to(torch.float64)
    gram = features.T @ features + 3.0 * torch.eye(features.shape[1], dtype=torch.float64)
    found = fitted._factors[0] @ fitted._factors[0].T
    assert float((found - gram).abs().max()) < 1e-9 * float(gram.max())


def test_a_fit_of_each_half_is_for_the_other(dial) -> None:
    """What a stay is corrected with does not depend on its own rewards."""
    simulator, logged, reader, choices = dial
    replayed = replay(Acting(Exploring(Follower(), choices, 0.15)), logged, reader, 1)
    q, v = FittedQ.crossed(logged, choices).held_out(replayed)
    raised = logged.reward.clone()
    raised[::2] += 100.0  # of the even stays
    other = type(logged)(**{**vars(logged), "reward": raised})
    q_after, v_after = FittedQ.crossed(other, choices).held_out(replayed)
    torch.testing.assert_close(q_after[::2], q[::2], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(v_after[::2], v[::2], rtol=1e-3, atol=1e-2)
    assert float((q_after[1::2] - q[1::2]).mean()) > 50.0


def test_told_chances_undo_the_confounding_that_nominal_ones_leave() -> None:
    """No treatment has the patients who will do well: by what the charts tell, it looks better than it is."""
    env_id, count = "ECGDrug-v0", 4000
    simulator = simulator_of(env_id)
    pair = [Acting(behaviour(env_id, "mixed", simulator, d), 5) for d in (1.0, 0.0)]
    logged = collect(pair[0], simulator, 5_000_000, count, 24, env_id, pair[1])
    reader = ChartReader(simulator, logged)
    policy = colleagues(env_id, simulator)["no treatment"]
    truth = float(judge(Acting(policy, 6), simulator, keys.from_seed(6_000_000, 3000), 24).returns.mean())
    replayed = replay(Acting(policy), logged, reader, 1)
    nominal, told = (
        float(weighted_importance_sampling(e, once(e)))
        for e in (evidence_of(logged, replayed, told=t) for t in (False, True))
    )
    assert nominal - truth > 0.2 and abs(told - truth) < 0.1, (nominal, told, truth)


def test_a_learned_world_takes_the_logs_patients() -> None:
    env_id = "ECGDrug-v0"
    oracle, learned = simulator_of(env_id), simulator_of(env_id, "learned")
    logged = collect(Acting(behaviour(env_id, "mixed", oracle), 1), oracle, 99, 60, 24, env_id)
    reader = ChartReader(oracle, logged)
    found = {}
    for name in ("no treatment", "random"):
        policy = Acting(colleagues(env_id, learned)[name], 1)
        found[name] = model_based(policy, learned, oracle.world, reader, CASES[env_id].steps)
        assert found[name].shape == (60,) and torch.isfinite(found[name]).all()
    assert float((found["no treatment"] - found["random"]).mean()) > 1.0
