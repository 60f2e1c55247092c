"""Chances are exact: they sum to one, samples follow them, and mixtures of colleagues obey Bayes' rule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from agents.baselines.uniform import Uniform
from agents.offline.acting import Acting
from agents.offline.behaviour import Exploring, Mixture, Softmax, uniform
from agents.offline.chances import Chances, DoseChances, mixed
from agents.offline.choices import Choices
from agents.offline.hidden import HiddenRank
from agents.offline.recipes import CASES, behaviour, colleagues, simulator_of
from agents.protocol import Agent, Narrowable, Stochastic
from clinenv.simulator import Simulator
from tests.agents.bandit_world import DialTask, DialWorld
from tests.offline.small import Follower, dial_behaviour
from world_models import keys

DIAL = Simulator(DialWorld(), DialTask())
CHOICES = Choices(DIAL)


def some_chances(batch: int = 3, parts: int = 2, entries: int = 3, options: int = 3) -> Chances:
    """Random ones; the last entry has an option less."""
    key = keys.from_seed(1, batch)
    option = keys.normal(key, 0, "option", (parts, entries, options))
    option[:, :, -1, -1] = -torch.inf
    return Chances(keys.normal(key, 0, "weight", (parts,)).log_softmax(-1), option.log_softmax(-1))


def test_chances_of_all_choices_sum_to_one() -> None:
    chances = some_chances()
    every = torch.tensor(list(itertools.product(range(3), range(3), range(2))))
    each = torch.stack([chances.log_prob(choice.expand(3, -1)) for choice in every])
    torch.testing.assert_close(each.exp().sum(0), torch.ones(3))
    impossible = chances.log_prob(torch.tensor([[0, 0, 2]]).expand(3, -1))
    assert torch.equal(impossible, torch.full((3,), -torch.inf))


def test_samples_follow_the_chances_and_are_functions_of_the_key() -> None:
    count = 20_000
    one = some_chances(1)
    many = Chances(*(x.expand(count, *x.shape[1:]) for x in one))
    key = keys.from_seed(9, count)
    choice = many.sample(key, 4, "test")
    assert torch.equal(choice, many.sample(key, 4, "test"))
    assert torch.equal(choice[7:9], Chances(*(x[7:9] for x in many)).sample(key[7:9], 4, "test"))
    for wanted in ([0, 1, 0], [2, 2, 1]):
        share = float((choice == torch.tensor(wanted)).all(-1).float().mean())
        chance = float(one.log_prob(torch.tensor([wanted])).exp())
        assert abs(share - chance) < 4 * math.sqrt(chance / count)


def test_doses_have_a_density_that_integrates_to_one() -> None:
    parts = [
        DoseChances(torch.zeros(1, 1), *(torch.tensor([[[value]]]) for value in values))
        for values in ((0.9, 0.3, 0.1), (0.2, 0.5, 0.4))
    ]
    chances = mixed(parts, torch.tensor([[0.7, 0.3]]).log())
    assert isinstance(chances, DoseChances)
    grid = (torch.arange(20_000) + 0.5) / 20_000
    density = DoseChances(*(x.expand(len(grid), *x.shape[1:]) for x in chances)).log_prob(grid.unsqueeze(-1)).exp()
    nothing = chances.log_prob(torch.zeros(1, 1)).exp()
    torch.testing.assert_close(nothing + density.mean(), torch.ones(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(nothing, torch.tensor([0.7 * 0.1 + 0.3 * 0.8]))
    many = DoseChances(*(x.expand(20_000, *x.shape[1:]) for x in chances))
    drawn = many.sample(keys.from_seed(3, 20_000), 0, "test")
    assert float(drawn.min()) >= 0.0 and float(drawn.max()) <= 1.0
    assert abs(float((drawn == 0).float().mean()) - float(nothing)) < 0.01
    below = float(density[grid < 0.3].sum() / len(grid)) + float(nothing)
    assert abs(float((drawn <= 0.3).float().mean()) - below) < 0.015


def test_exploring_gives_every_option_its_share() -> None:
    chances = Exploring(Follower(), CHOICES, 0.3).chances(DIAL.reset(keys.from_seed(0, 5))[1])
    probability = chances.option.exp().squeeze(1).squeeze(1)  # [B, options]
    assert torch.allclose(probability.max(-1).values, torch.full((5,), 0.8))
    assert torch.allclose(probability.min(-1).values, torch.full((5,), 0.1))
    everything = uniform(CHOICES).chances(DIAL.reset(keys.from_seed(0, 5))[1])
    torch.testing.assert_close(everything.option, torch.full((5, 1, 1, 3), -math.log(3)))


@pytest.mark.parametrize("epsilon", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 1, got {epsilon}"):
        Exploring(Follower(), CHOICES, epsilon)


def test_an_agent_that_decides_by_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="random decides by chance already"):
        Exploring(Uniform(3), CHOICES, 0.1)


def test_agents_of_chance_say_how_likely_their_decisions_were() -> None:
    chart = DIAL.reset(keys.from_seed(0, 6))[1]
    for agent, log_prob in ((Uniform(3), -math.log(3)), (Uniform((2, 2, 4)), -math.log(16))):
        assert isinstance(agent, Stochastic)
        decision, told = agent.sample(chart)
        assert torch.equal(told, agent.log_prob(chart, decision))
        assert torch.allclose(told, torch.full((6,), log_prob))
    acting = Acting(dial_behaviour(DIAL), 3)
    assert isinstance(acting, Agent) and isinstance(acting, Narrowable) and isinstance(acting, Stochastic)
    decision, told = acting.sample(chart)
    acting.reset()
    assert torch.equal(told, acting.log_prob(chart, decision))


def test_softmax_follows_scores() -> None:
    class Scorer(Follower):
        def scores(self, chart):
            return torch.tensor([[0.0, 1.0, -torch.inf]]).expand(len(chart["hours"]), -1)

    chances = Softmax(Scorer(), CHOICES, 0.5).chances(DIAL.reset(keys.from_seed(0, 2))[1])
    expected = torch.tensor([0.0, 2.0, -torch.inf]).softmax(-1)
    torch.testing.assert_close(chances.option.exp()[0, 0, 0], expected)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        Softmax(Scorer(), CHOICES, 0.0)


def test_whose_patient_it_is_follows_by_bayes_rule() -> None:
    """The product of the conditional chances is the mixture of the colleagues' own products."""
    parts = [Exploring(Follower(off), CHOICES, 0.3) for off in (0, 1)]
    together = Acting(Mixture(parts, [0.6, 0.4], "stay"), 5)
    alone = [Acting(Exploring(Follower(off), CHOICES, 0.3)) for off in (0, 1)]
    state, chart = DIAL.reset(keys.from_seed(2, 50))
    total, each = torch.zeros(50), torch.zeros(50, 2)
    for _ in range(8):
        choice, log_prob = together.choose(chart)
        total += log_prob
        each += torch.stack([agent.follow(chart, choice) for agent in alone], -1)
        out = DIAL.step(state, chart, CHOICES.orders(choice))
        state, chart = out.state, out.chart
    expected = torch.logsumexp(each + torch.tensor([0.6, 0.4]).log(), -1)
    torch.testing.assert_close(total, expected)
    assert bool(
        (each - total.unsqueeze(-1) <= -torch.tensor([0.6, 0.4]).log() + 1e-4).all()
    )  # weights at most 1 / share


def test_who_goes_on_is_not_changed_by_who_has_left() -> None:
    """Narrowed, and with rows that begin anew, every row is as if all were there."""
    whole, part = (Acting(dial_behaviour(DIAL), 4) for _ in range(2))
    _, chart = DIAL.reset(keys.from_seed(2, 6))
    later = {**chart, "hours": chart["hours"] + 2.0}
    last = {**chart, "hours": chart["hours"] + 4.0}
    rows = torch.tensor([1, 4, 5])
    assert torch.equal(whole.choose(chart)[0], part.choose(chart)[0])
    part.narrow(rows)
    few = [{name: value[rows] for name, value in c.items()} for c in (later, last)]
    for full, some in zip((later, last), few, strict=True):
        mask = torch.tensor([False, True, False, False, False, False])
        whole.reset(mask)
        part.reset(mask[rows])
        (choice, log_prob), (few_choice, few_log_prob) = whole.choose(full), part.choose(some)
        assert torch.equal(choice[rows], few_choice)
        torch.testing.assert_close(log_prob[rows], few_log_prob)


def test_the_dial_moves_patients_and_not_the_shares() -> None:
    parts = [Exploring(Follower(off), CHOICES, 0.1) for off in (0, 1)]
    hidden = (torch.arange(4000) + 0.5) / 4000
    chart = DIAL.reset(keys.from_seed(2, 4000))[1]
    found = {}
    for dial in (0.0, 1.0):
        mixture = Mixture(parts, [0.6, 0.4], "stay", [0.5, -0.75], dial)
        found[dial] = mixture.chances(chart, hidden if dial else None).weight.exp()
        torch.testing.assert_close(found[dial].mean(0), torch.tensor([0.6, 0.4]), rtol=1e-3, atol=0)
    assert torch.equal(found[0.0], torch.tensor([0.6, 0.4]).expand(4000, -1))
    assert float(found[1.0][-1, 0]) > 0.85 and float(found[1.0][0, 0]) < 0.35
    with pytest.raises(ValueError, match="hidden severity .dial 1., and was told none"):
        Mixture(parts, lean=[1.0, -1.0], dial=1.0).chances(chart)
    with pytest.raises(ValueError, match="dial must be from 0 to 1"):
        Mixture(parts, dial=1.1)


@pytest.mark.parametrize("env_id", list(CASES))
def test_the_dial_ties_treatment_to_what_no_chart_shows(env_id: str) -> None:
    """At 0 the hidden rank has nothing to do with the first decision's chances; at 1 it has."""
    simulator = simulator_of(env_id)
    state, chart = simulator.reset(keys.fold(keys.from_seed(77, 256), 0))
    hidden = HiddenRank(simulator)(state)
    assert abs(float(hidden.mean()) - 0.5) < 0.07 and float(hidden.min()) > 0 and float(hidden.max()) < 1
    names = list(colleagues(env_id, simulator))
    least = min(range(len(CASES[env_id].colleagues)), key=lambda i: CASES[env_id].colleagues[i].lean)
    for dial, expected in ((0.0, False), (1.0, True)):
        mixture = behaviour(env_id, "mixed", simulator, dial)
        weight = mixture.chances(chart, hidden if dial else None).weight.exp()
        assert weight.shape == (256, len(names))
        spread = float(weight[:, least].std())
        assert (spread > 1e-6) == expected
        if expected:
            assert float(torch.corrcoef(torch.stack([weight[:, least], hidden]))[0, 1]) < -0.99


def test_ranks_are_of_what_the_chart_does_not_foretell() -> None:
    simulator = simulator_of("ECGDrug-v0")
    state, chart = simulator.reset(keys.from_seed(8, 1000))
    rank = HiddenRank(simulator)(state)
    assert abs(float(torch.corrcoef(torch.stack([rank, chart["arrhythmia_burden"]]))[0, 1])) < 0.1
    untreated = simulator.rollout(state, chart, torch.zeros(1000, 24, 4)).rewards.sum(-1)
    assert float(torch.corrcoef(torch.stack([rank, untreated]))[0, 1]) < -0.2
    with pytest.raises(ValueError, match="is learned: nobody knows what it hides"):
        HiddenRank(simulator_of("ECGDrug-v0", "learned"))
    with pytest.raises(ValueError, match="is learned|has no hidden severity"):
        HiddenRank(DIAL)


def test_choices_say_what_the_environment_can_carry_out() -> None:
    menu = Choices(simulator_of("ECGDrug-v0"))
    orders = menu.orders(torch.arange(9).unsqueeze(-1))
    assert torch.equal(menu.of(orders), torch.arange(9).unsqueeze(-1))
    with pytest.raises(ValueError, match="are no row of the menu"):
        menu.of(orders + 0.01)
    clinic = Choices(simulator_of("ECGProgression-v0"))
    levels = torch.tensor([[1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 2], [0] * 14 + [3]])
    assert torch.equal(clinic.of(clinic.orders(levels)), levels) and torch.equal(clinic.of(levels), levels)
    ward = Choices(simulator_of("EHRWard-v0"))
    switches = (torch.arange(69) % 3 == 0).to(torch.int64).expand(2, -1)
    assert torch.equal(ward.of(ward.orders(switches)), switches)
    assert torch.equal(ward.of(0.4 * ward.orders(switches)), torch.zeros_like(switches))
    doses = Choices(simulator_of("ECGDrugContinuous-v0"))
    shares = torch.tensor([[0.0, 0.5, 1.0, 0.25]])
    torch.testing.assert_close(doses.of(doses.orders(shares)), shares)
    for each, choice in ((menu, torch.tensor([[3]])), (clinic, levels), (ward, switches), (doses, shares)):
        assert torch.equal(each.of_action(each.action(choice)), choice)
        assert each.space.contains(each.action(choice)[0].numpy().astype(each.space.dtype))
