"""Policies learned from logs: what is stored decides as what was trained, and damaged folders are refused."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.offline import train
from agents.offline.acting import Acting
from agents.offline.behaviour import Exploring, Softmax
from agents.offline.choices import Choices
from agents.offline.collect import collect
from agents.offline.logged import Logged, save
from agents.offline.policy import OfflinePolicy, Recipe, load_networks, save_policy
from agents.offline.recipes import behaviour, simulator_of
from agents.policy_agent import PolicyAgent
from agents.rollout import judge
from world_models import keys
from world_models.checkpoint import CheckpointError

D3RLPY = importlib.util.find_spec("d3rlpy") is not None
QUICK = train.Settings(updates=40, batch=64, hidden=(16,), epochs=2)


def log(env_id: str, patients: int = 24, steps: int = 12) -> Logged:
    simulator = simulator_of(env_id)
    return collect(Acting(behaviour(env_id, "mixed", simulator), 1), simulator, 77, patients, steps, env_id)


def stored(folder, decision: str = "best", **changes) -> Recipe:
    """A policy of random weights for the drug menu."""
    names = log("ECGDrug-v0", 2, 1).about.observation_names
    made = Recipe("none", decision, "menu", "menu", 9, 1, (8,), names, 0, 0, {}, 0.2, 2)
    recipe = replace(made, **changes)
    networks = recipe.build().to_empty(device="cpu")
    generator = torch.Generator().manual_seed(3)
    state = {n: 0.5 * torch.randn(v.shape, generator=generator) for n, v in networks.state_dict().items()}
    networks.load_state_dict(state)
    book = torch.zeros(9, 1, dtype=torch.int64) if recipe.coding == "book" else None
    save_policy(folder, recipe, networks, book)
    return recipe


@pytest.mark.parametrize("decision", ["best", "constrained", "likeliest"])
def test_a_stored_policy_decides_by_its_networks(decision: str, tmp_path) -> None:
    stored(tmp_path, decision)
    simulator = simulator_of("ECGDrug-v0")
    policy = OfflinePolicy(tmp_path, simulator)
    chart = simulator.reset(keys.from_seed(0, 50))[1]
    decided = policy.act(chart)
    policy.reset()
    scores = policy.scores(chart)
    assert torch.equal(PolicyAgent(tmp_path, simulator).act(chart), decided)  # as any other trained policy's folder
    assert decided.shape == (50,) and torch.equal(decided, scores.argmax(-1))
    assert bool((scores == -torch.inf).any()) == (decision == "constrained")
    soft = Softmax(policy, Choices(simulator), 1.0).chances(chart)
    torch.testing.assert_close(soft.option.exp().sum(-1), torch.ones(50, 1, 1))
    exploring = Acting(Exploring(policy, Choices(simulator), 0.1), 2)
    results = judge(exploring, simulator, keys.from_seed(0, 20), 3)
    assert torch.isfinite(results.returns).all()


def test_a_missing_measure_reads_as_it_was_last_seen(tmp_path) -> None:
    """As the environment's observation shows it, through new patients and patients who leave."""
    stored(tmp_path)
    simulator = simulator_of("ECGDrug-v0")
    first = simulator.reset(keys.from_seed(0, 4))[1]
    first = {**first, "pr_ms": torch.full((4,), 200.0)}
    gone = {**first, "pr_ms": torch.full((4,), torch.nan)}
    policy = OfflinePolicy(tmp_path, simulator)
    seen = policy.scores(first)
    torch.testing.assert_close(policy.scores(gone), seen)
    policy.reset(torch.tensor([True, False, False, False]))
    scores = policy.scores(gone)
    torch.testing.assert_close(scores[1:], seen[1:])
    assert not torch.allclose(scores[0], seen[0])
    policy.narrow(torch.tensor([1, 3]))
    torch.testing.assert_close(policy.scores({n: v[[1, 3]] for n, v in gone.items()}), seen[[1, 3]])


def test_what_does_not_fit_or_was_changed_is_refused(tmp_path) -> None:
    drug, ward = simulator_of("ECGDrug-v0"), simulator_of("EHRWard-v0")
    stored(tmp_path / "a")
    with pytest.raises(ValueError, match="learn one from a log of this task"):
        OfflinePolicy(tmp_path / "a", ward)
    stored(tmp_path / "b", "best", coding="book", entries=1)
    with pytest.raises(ValueError, match="scores no rows of a menu"):
        OfflinePolicy(tmp_path / "b", drug).scores(drug.reset(keys.from_seed(0, 2))[1])
    file = tmp_path / "a" / "policy.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "flexibility": 0.9}))
    with pytest.raises(CheckpointError, match="bears the seal"):
        load_networks(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        load_networks(tmp_path / "none")
    with pytest.raises(ValueError, match="must be of"):
        stored(tmp_path / "c", "boldest")


@pytest.mark.parametrize(
    ("algorithm", "kind", "coding"),
    [("cql", "menu", "menu"), ("bc", "switches", "box"), ("bcq", "switches", "book"), ("iql", "doses", "box")],
)
def test_each_algorithm_has_a_coding_for_what_it_learns(algorithm: str, kind: str, coding: str) -> None:
    assert train.coding_for(algorithm, kind) == coding


def test_what_cannot_be_learned_is_refused(tmp_path, capsys) -> None:
    with pytest.raises(ValueError, match="cql does not learn doses; take bc or iql"):
        train.coding_for("cql", "doses")
    with pytest.raises(SystemExit) as stopped:
        train.main(["--log", str(tmp_path / "none.h5"), "--out", str(tmp_path / "p")])
    assert stopped.value.code == 2 and "does not exist" in capsys.readouterr().err and not (tmp_path / "p").exists()
    if not D3RLPY:
        save(log("ECGDrug-v0", 4, 2), tmp_path / "log.h5")
        with pytest.raises(SystemExit):
            train.main(["--log", str(tmp_path / "log.h5"), "--out", str(tmp_path / "p")])
        assert "clinenv[offline]" in capsys.readouterr().err


@pytest.mark.skipif(not D3RLPY, reason="d3rlpy is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("env_id", "algorithm"),
    [
        ("ECGDrug-v0", "bc"), ("ECGDrug-v0", "cql"), ("ECGDrug-v0", "bcq"), ("EHRWard-v0", "bc"),
        ("ECGDrugContinuous-v0", "iql"),
    ],
)  # fmt: skip
def test_the_stored_policy_decides_as_d3rlpys(env_id: str, algorithm: str, tmp_path, monkeypatch) -> None:
    learners, build = [], train._networks

    def kept(recipe, modules):
        learners.append(modules)
        return build(recipe, modules)

    monkeypatch.setattr(train, "_networks", kept)
    logged = log(env_id)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    seal = train.learn(logged, algorithm, tmp_path / "one", QUICK, progress=False)
    assert torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])
    assert train.learn(logged, algorithm, tmp_path / "two", QUICK, progress=False) == seal  # the seed decides
    recipe, networks, _, _ = load_networks(tmp_path / "one")
    observation = logged.observation[:, 0]
    with torch.no_grad():
        if recipe.decision == "mean":
            net = learners[0].imitator if algorithm == "bc" else learners[0].policy
            torch.testing.assert_close(networks["actor"](observation).tanh(), net(observation).squashed_mu)
        for i in range(sum(name.startswith("critic") for name in networks)):
            torch.testing.assert_close(
                networks[f"critic_{i}"](observation), learners[0].q_funcs[i](observation).q_value
            )
        if "imitator" in networks:
            theirs = learners[0].imitator(observation).logits.log_softmax(-1)
            torch.testing.assert_close(networks["imitator"](observation).log_softmax(-1), theirs)
    simulator = simulator_of(env_id)
    results = judge(OfflinePolicy(tmp_path / "one", simulator), simulator, keys.from_seed(0, 8), 4)
    assert torch.isfinite(results.returns).all()
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["updates"] for line in lines] == [20, 40]


@pytest.mark.skipif(not D3RLPY, reason="d3rlpy is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_command_learns_once(tmp_path, capsys) -> None:
    save(log("ECGDrug-v0"), tmp_path / "log.h5")
    arguments = ["--log", str(tmp_path / "log.h5"), "--out", str(tmp_path / "p"), "--updates", "20", "--batch", "32"]
    assert train.main([*arguments, "--algorithm", "bc"]) == 0
    assert train.main([*arguments, "--algorithm", "bc"]) == 0
    assert "is this one already" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        train.main([*arguments, "--algorithm", "cql"])
    assert stopped.value.code == 2 and "learned otherwise" in capsys.readouterr().err


@pytest.mark.skipif(not D3RLPY, reason="d3rlpy is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_clone_of_constant_treatment_treats_so(tmp_path) -> None:
    logged = log("ECGDrug-v0", 40)
    constant = replace(logged, choice=torch.full_like(logged.choice, 7))
    train.learn(constant, "bc", tmp_path, replace(QUICK, updates=300), progress=False)
    simulator = simulator_of("ECGDrug-v0")
    decided = OfflinePolicy(tmp_path, simulator).act(simulator.reset(keys.from_seed(5, 100))[1])
    assert torch.equal(decided, torch.full((100,), 7))
