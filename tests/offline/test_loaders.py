"""Other libraries read the same numbers: d3rlpy, SCOPE-RL (whose estimators agree with ours), and plain tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.offline.acting import Acting
from agents.offline.coding import NOTHING, Coding, coding_of
from agents.offline.collect import collect
from agents.offline.loaders import as_d3rlpy, as_scope_rl, as_transitions
from agents.offline.logged import Logged
from agents.offline.ope.doubly_robust import doubly_robust
from agents.offline.ope.evidence import Evidence, once
from agents.offline.ope.importance import importance_sampling
from agents.offline.ope.per_decision import per_decision, weighted_per_decision
from agents.offline.ope.weighted_importance import weighted_importance_sampling
from agents.offline.recipes import behaviour, simulator_of

# LoggedDataset of SCOPE-RL 0.2.1, as its `SyntheticDataset.obtain_episodes` documents it
SCOPE_RL_KEYS = [
    "size", "n_trajectories", "step_per_trajectory", "action_type", "n_actions", "action_dim", "action_keys",
    "action_meaning", "state_dim", "state_keys", "state", "action", "reward", "done", "terminal", "info", "pscore",
    "behavior_policy", "dataset_id",
]  # fmt: skip


def logged_of(env_id: str, patients: int = 40, steps: int = 24, kind: str = "mixed") -> Logged:
    simulator = simulator_of(env_id)
    return collect(Acting(behaviour(env_id, kind, simulator), 1), simulator, 31, patients, steps, env_id)


@pytest.fixture(scope="module")
def drug() -> Logged:
    """Of random treatment: torsades end some stays before the others."""
    logged = logged_of("ECGDrug-v0", 250, kind="random")
    assert 0 < int(logged.terminated.any(-1).sum()) < 250
    return logged


def test_transitions_are_the_steps_one_after_the_other(drug: Logged) -> None:
    steps = as_transitions(drug)
    assert len(steps.reward) == int(drug.length.sum())
    torch.testing.assert_close(torch.zeros(250).index_add_(0, steps.stay, steps.reward), drug.returns)
    inside = ~(steps.terminated | steps.truncated)
    assert torch.equal(steps.next_observation[:-1][inside[:-1]], steps.observation[1:][inside[:-1]])
    assert int((~inside).sum()) == 250


def test_scope_rl_finds_its_own_layout(drug: Logged) -> None:
    found = as_scope_rl(drug)
    assert list(found) == SCOPE_RL_KEYS
    size = found["n_trajectories"] * found["step_per_trajectory"]
    assert found["size"] == size and found["state"].shape == (size, found["state_dim"])
    flat = ("action", "reward", "done", "terminal", "pscore")
    assert all(found[name].shape == (size,) for name in flat) and found["action"].dtype.kind == "i"
    last = found["terminal"].reshape(-1, found["step_per_trajectory"])
    assert last[:, -1].all() and not last[:, :-1].any() and (found["done"] >= found["terminal"]).all()
    gone = ~drug.here.numpy().ravel()
    assert gone.any() and (found["pscore"][gone] == 1).all() and not found["reward"][gone].any()
    np.testing.assert_allclose(found["pscore"][~gone], 1 / 9, rtol=1e-5)
    doses = as_scope_rl(logged_of("ECGDrugContinuous-v0", 10, 4))
    assert doses["action_type"] == "continuous" and doses["pscore"].shape == doses["action"].shape == (40, 4)
    with pytest.raises(ValueError, match="no switches"):
        as_scope_rl(logged_of("EHRWard-v0", 2, 2))


@pytest.mark.filterwarnings("ignore")
def test_scope_rls_estimators_agree_with_ours(drug: Logged) -> None:
    discrete = pytest.importorskip("scope_rl.ope.discrete")
    found, here = as_scope_rl(drug), drug.here.numpy().ravel()
    generator = np.random.default_rng(0)
    policy = generator.dirichlet(np.full(9, 20.0), len(here))
    policy[~here] = np.eye(9)[0]
    q = generator.normal(size=policy.shape) * here[:, None]
    given = {
        "step_per_trajectory": found["step_per_trajectory"],
        "action": found["action"],
        "reward": found["reward"],
        "pscore": found["pscore"],
        "evaluation_policy_action_dist": policy,
        "state_action_value_prediction": q,
    }
    shape = drug.reward.shape

    def chosen(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values[np.arange(len(here)), found["action"]]).reshape(shape)

    ratio = torch.from_numpy(np.log(chosen(policy).numpy().ravel() / found["pscore"])).reshape(shape)
    v = torch.from_numpy((policy * q).sum(1)).reshape(shape)
    evidence = Evidence(drug.reward.double(), drug.here, ratio, chosen(q), v, 1.0)
    pairs = {
        "TrajectoryWiseImportanceSampling": importance_sampling,
        "SelfNormalizedTIS": weighted_importance_sampling,
        "PerDecisionImportanceSampling": per_decision,
        "SelfNormalizedPDIS": weighted_per_decision,
        "DoublyRobust": doubly_robust,
    }
    for name, ours in pairs.items():
        theirs = getattr(discrete, name)().estimate_policy_value(**given)
        assert float(ours(evidence, once(evidence))) == pytest.approx(theirs, rel=1e-4), name


def test_codings_give_back_what_they_can_hold() -> None:
    ward = logged_of("EHRWard-v0", 4, 6)
    box = coding_of(ward, "box")
    choice = ward.choice[ward.here]
    assert torch.equal(box.decode(box.encode(choice)), choice)
    book = coding_of(ward, "book")
    assert book.book is not None and book.size == len(choice.unique(dim=0))
    assert torch.equal(book.decode(book.encode(choice)), choice)
    small = coding_of(ward, "book", 5)
    near = (small.decode(small.encode(choice)) != choice).sum(-1)
    every = (choice.unsqueeze(1) != small.book).sum(-1).min(-1).values
    assert torch.equal(near, every) and int(near.max()) > 0
    doses = Coding("box", "doses", 2)
    share = torch.tensor([[0.0, 0.7]])
    assert torch.equal(doses.encode(share), torch.tensor([[NOTHING, 0.7]]))
    assert torch.equal(doses.decode(doses.encode(share)), share)
    with pytest.raises(ValueError, match="does not go with switches"):
        coding_of(ward, "menu")


def test_d3rlpy_takes_every_stay(drug: Logged) -> None:
    d3rlpy = pytest.importorskip("d3rlpy")
    data = as_d3rlpy(drug, coding_of(drug, "menu"), cost_weight=0.5)
    assert len(data.episodes) == 250 and data.transition_count == int(drug.length.sum())
    assert data.dataset_info.action_space == d3rlpy.ActionSpace.DISCRETE and data.dataset_info.action_size == 9
    for i in (0, 100, 249):
        steps = int(drug.length[i])
        np.testing.assert_array_equal(data.episodes[i].observations, drug.observation[i, :steps])
        np.testing.assert_allclose(data.episodes[i].rewards[:, 0], (drug.reward - 0.5 * drug.cost)[i, :steps])
        assert data.episodes[i].terminated
