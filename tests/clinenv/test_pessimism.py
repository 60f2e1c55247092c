"""Pessimism in the one step: what is charged, where it ends, and that environments, planners and policies meet it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401
from clinenv.imagined import Imagined
from clinenv.pessimism import Pessimism, Wary
from clinenv.simulator import Simulator
from clinenv.testing import check_env, check_simulator, check_vector_env
from tests.agents.bandit_world import DialTask, DialWorld
from world_models import keys

MOPO = {"kind": "mopo", "weight": 2.0}
MOREL = {"kind": "morel", "weight": 7.0}


class Doubtful(DialWorld):
    """Unsure of the dial by as much as it stands at; fitted up to 3."""

    def __init__(self, drift: float = 0.0, limit: float = 3.0) -> None:
        super().__init__(drift)
        self.limit = limit

    def spread(self, state):
        return {"dial_turns": state.dial}

    def support(self, state):
        return state.dial <= self.limit


def played(pessimism, turns=(1.0, 2.0, 2.0), **options):
    """Rewards and ends of one patient's steps, with and without."""
    found = []
    for given in (None, pessimism):
        sim = Simulator(Doubtful(), DialTask(), pessimism=given)
        start = sim.reset(keys.from_seed(1, 1))
        actions = torch.tensor(turns).view(1, -1, 1)
        found.append((sim.rollout(*start, actions), sim.imagine(*start, actions.unsqueeze(1), 2)))
    return found


def test_mopo_charges_each_step_by_its_doubt() -> None:
    (plain, told), (wary, imagined) = played(MOPO)
    # the dial stands at 1, 3, 5 and the task's scale of it is 4
    torch.testing.assert_close(plain.rewards - wary.rewards, torch.tensor([[1.0, 3.0, 5.0]]) / 4 * 2)
    torch.testing.assert_close(wary.terms["pessimism"], torch.tensor([[-0.5, -1.5, -2.5]]))
    torch.testing.assert_close(told.returns - imagined.returns, torch.full((1, 1, 2), 4.5))
    assert torch.equal(plain.terminated, wary.terminated)


def test_morel_ends_where_nothing_is_known_and_pays_once() -> None:
    (plain, _), (wary, imagined) = played(MOREL, (1.0, 2.0, 2.0, 0.0))
    assert wary.terminated.tolist() == [[False, False, True, True]]
    torch.testing.assert_close(wary.terms["pessimism"], torch.tensor([[0.0, 0.0, -7.0, 0.0]]))
    torch.testing.assert_close(wary.rewards[:, :2], plain.rewards[:, :2])
    torch.testing.assert_close(imagined.returns[0, 0], wary.rewards.sum().expand(2))
    assert bool(imagined.terminated.all())
    (_, _), (narrow, _) = played({**MOREL, "threshold": 0.5})
    assert narrow.terminated.tolist() == [[False, True, True]], "a doubt of 3 / 4 is more than a half"


class Paying(DialTask):
    """Wants the dial turned as far as it goes, which leads where `Doubtful` knows nothing."""

    def reward(self, before, action, after):
        return {"more": after["dial_turns"]}


@pytest.mark.slow
def test_a_policy_is_trained_with_it(tmp_path) -> None:
    """Stable-Baselines3, through the environment's own argument."""
    pytest.importorskip("stable_baselines3")
    from agents.policy_agent import PolicyAgent
    from agents.rollout import judge
    from agents.sb3.presets import PRESETS
    from agents.sb3.train import train
    from clinenv.vector_env import ClinicalVectorEnv

    def make(env_id, num_envs, world, **arguments):
        return ClinicalVectorEnv(Paying(), num_envs, Doubtful(limit=0.5), **arguments)

    preset = PRESETS["ppo"].but(
        num_envs=16, settings={**PRESETS["ppo"].settings, "n_steps": 8, "batch_size": 64, "learning_rate": 0.01}
    )
    turned = {}
    for name, given in (("plain", {}), ("wary", {"pessimism": {"kind": "morel", "weight": 20.0}})):
        folder = train(tmp_path / name, 2_500, preset=preset, make=make, progress=False, **given)
        plain = Simulator(Doubtful(), Paying())
        turned[name] = float(judge(PolicyAgent(folder, plain), plain, keys.from_seed(8, 30), 4).ordered.mean())
    assert turned["plain"] > 4 and turned["wary"] < 0.5


def test_a_search_no_longer_finds_what_the_world_gets_wrong() -> None:
    """A world that pays for what it knows nothing of: the plain planner goes there, the wary ones do not."""
    from agents.planning.cem import CEMConfig
    from agents.planning.controller import WorldPlanner

    config = CEMConfig(horizon=3, candidates=27, particles=2, iterations=1, elites=2, finalists=0)
    turned = {}
    for name, given in (("plain", None), ("mopo", {"weight": 8.0}), ("morel", {"kind": "morel", "weight": 100.0})):
        sim = Simulator(Doubtful(limit=0.5), Paying(), pessimism=given)
        _, chart = sim.reset(keys.from_seed(1, 2))
        turned[name] = WorldPlanner(sim, config).act(chart).tolist()
    assert turned == {"plain": [2, 2], "mopo": [0, 0], "morel": [0, 0]}


@pytest.mark.parametrize("events", ["drawn", "expected"])
def test_learned_worlds_are_wary_by_their_own_spread_and_support(events: str) -> None:
    env = gymnasium.make("ECGDrug-v0", pessimism=MOPO).unwrapped
    sims = [Simulator(env.world, env.task, events=events, pessimism=p) for p in (None, MOPO, MOREL)]
    state, chart = sims[0].reset(keys.from_seed(3, 4))
    plans = torch.zeros(4, 2, 6, 4)
    plans[:, 1, :, 1] = 1.0  # a milligram every two hours: far beyond training
    plain, mopo, morel = (sim.imagine(state, chart, plans, 4) for sim in sims)
    assert isinstance(mopo, Imagined) and bool((mopo.returns < plain.returns).all())
    lost = (plain.returns - mopo.returns).mean(-1)
    assert bool((lost[:, 1] > 1.2 * lost[:, 0]).all()), "more drug, more doubt"
    assert bool((morel.terminated[:, 1].float() == 1).all()) and bool((morel.terminated[:, 0].float() < 0.05).all())
    assert bool((morel.returns[:, 1] < plain.returns[:, 1] + 7).all())


def test_doubt_is_differentiated_also_where_there_is_none() -> None:
    env = gymnasium.make("ECGDrugContinuous-v0").unwrapped
    sim = Simulator(env.world, env.task, grad=True, pessimism=MOPO)
    start = sim.reset(keys.from_seed(3, 40))
    actions = torch.full((40, 3, 4), 0.05, requires_grad=True)
    course = sim.rollout(*start, actions)
    (slope,) = torch.autograd.grad(course.terms["pessimism"].sum(), actions)
    assert bool(torch.isfinite(slope).all())
    assert float(slope[:, 0, 1].median()) < 0, "more dofetilide, more doubt"


@pytest.mark.slow
@pytest.mark.parametrize("pessimism", [MOPO, MOREL])
def test_environments_keep_their_rules_and_name_the_term(pessimism) -> None:
    arguments = {"pessimism": pessimism}

    def single(**other):
        return gymnasium.make("ECGDrug-v0", **arguments, **other)

    def several(**other):
        return gymnasium.make_vec("ECGDrug-v0", vectorization_mode="vector_entry_point", **arguments, **other)

    env = single()
    _, info = env.reset(seed=3)
    assert info["reward_pessimism"] == 0.0
    _, reward, _, _, info = env.step(4)
    named = [value for name, value in info.items() if name.startswith("reward_")]
    assert np.isclose(sum(named), reward, atol=1e-5)
    assert (info["reward_pessimism"] < 0) == (pessimism is MOPO)
    check_env(single)
    check_vector_env(several, single, steps=30, relative=1e-4, absolute=1e-3)


def test_a_simulator_with_pessimism_keeps_its_rules() -> None:
    env = gymnasium.make("ECGDrug-v0").unwrapped
    check_simulator(Simulator(env.world, env.task, pessimism=MOREL), exact=False)


def test_a_snapshot_of_a_course_that_ended_for_want_of_knowledge_is_over() -> None:
    env = gymnasium.make("ECGDrug-v0", pessimism=MOREL)
    env.reset(seed=1)
    over = False
    while not over:
        *_, over, _, _ = env.step(4)  # dofetilide at every step
    saved = env.unwrapped.snapshot()
    other = gymnasium.make("ECGDrug-v0", pessimism=MOREL).unwrapped
    other.restore(saved)
    assert bool(other._episodes.over().all())


def test_what_is_no_pessimism_is_refused() -> None:
    for given, words in (
        ("mopo", "give None, or a mapping"),
        ({"lambda": 1.0}, "some of kind, weight, threshold"),
        ({"kind": "fear"}, "choose one of mopo, morel"),
        ({"weight": -1.0}, "weight=-1.0"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"weight": True}, "weight=True"),
        ({"threshold": 1.0}, 'is for pessimism of kind "morel"'),
    ):
        with pytest.raises(ValueError, match=words):
            gymnasium.make("ECGDrug-v0", pessimism=given)
    assert Pessimism.of(None) is None and Pessimism.of(Pessimism()) == Pessimism.of({})
    with pytest.raises(ValueError, match="its doubt is not known"):
        Wary(Pessimism(), DialWorld(), DialTask())
    with pytest.raises(ValueError, match="its doubt is not known"):
        gymnasium.make("ECGProgression-v0", pessimism={"kind": "mopo"})
    gymnasium.make("ECGProgression-v0", pessimism={"kind": "morel"})
