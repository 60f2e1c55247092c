"""Imagined futures: events at their chances, and particles in runs that share a belief."""

from __future__ import annotations

import gymnasium
import pytest
import torch

import clinenv  # noqa: F401
from clinenv.simulator import Simulator
from tests.agents.bandit_world import DialTask, DialWorld
from world_models import keys, tree
from world_models.protocol import TellsFates

PATIENTS = 3


def simulator(name: str, world: str | None = None, **options) -> Simulator:
    env = gymnasium.make(name, **({} if world is None else {"world": world})).unwrapped
    return Simulator(env.world, env.task, **options)


def heavy_doses(sim: Simulator, steps: int = 10) -> torch.Tensor:
    """A milligram of dofetilide every six hours: enough for torsades in some."""
    actions = torch.zeros(PATIENTS, 1, steps, len(sim.world.orders))
    actions[:, :, ::3, 1] = 1.0
    return actions


@pytest.mark.parametrize("world", ["ecg-wm-small", "oracle"])
def test_events_at_their_chances_have_the_same_mean_and_less_spread(world: str) -> None:
    particles = 1500
    found = {}
    for events in ("drawn", "expected"):
        sim = simulator("ECGDrug-v0", world, events=events)
        state, chart = sim.reset(keys.from_seed(5, PATIENTS))
        found[events] = sim.imagine(state, chart, heavy_doses(sim), particles)
    drawn, expected = found["drawn"], found["expected"]
    assert float(drawn.terminated.float().mean()) > 0.02, "some must have died, or nothing is compared"
    for name in ("returns", "costs", "terminated"):
        one, other = getattr(drawn, name).float(), getattr(expected, name)
        error = ((one.var(-1) + other.var(-1)) / particles).sqrt()
        assert bool(((one.mean(-1) - other.mean(-1)).abs() < 3.5 * error + 1e-6).all()), name
    assert bool((expected.returns.var(-1) < 0.6 * drawn.returns.var(-1)).all())


@pytest.mark.slow
def test_death_and_discharge_of_the_ward_are_taken_at_their_chances() -> None:
    sims = {events: simulator("EHRWard-v0", events=events) for events in ("drawn", "expected")}
    found = {}
    for events, sim in sims.items():
        state, chart = sim.reset(keys.from_seed(6, PATIENTS))
        actions = torch.zeros(PATIENTS, 1, 4, len(sim.world.orders))
        actions[..., :39] = 1.0
        found[events] = sim.imagine(state, chart, actions, 400)
    drawn, expected = found["drawn"], found["expected"]
    error = ((drawn.returns.var(-1) + expected.returns.var(-1)) / 400).sqrt()
    assert bool(((drawn.returns.mean(-1) - expected.returns.mean(-1)).abs() < 3.5 * error).all())
    assert bool(((expected.terminated > 0) & (expected.terminated <= 1)).all())
    assert bool((expected.terminated.mean(-1) < 1).all())
    state, chart = sims["drawn"].reset(keys.from_seed(6, 40))
    world = sims["drawn"].world
    assert isinstance(world, TellsFates)
    action = torch.zeros(40, len(world.orders))
    for _ in range(30):  # until some have died or gone home
        before, state = state, world.transition(state, action)
        fates = world.fates(before, state)
        gone = ~before.alive | before.home
        assert bool((fates.spared.alive == before.alive).all()) and bool((fates.spared.home == before.home).all())
        assert not bool(fates.chances["alive"][gone].any()) and not bool(fates.chances["discharged"][gone].any())
        assert bool((fates.chances["alive"] + fates.chances["discharged"] <= 1.0).all())
    assert bool(gone.any())


def test_a_hazard_is_differentiated_where_events_are_expected() -> None:
    sim = simulator("ECGDrugContinuous-v0", grad=True, events="expected")
    state, chart = sim.reset(keys.from_seed(5, PATIENTS))
    actions = heavy_doses(sim).requires_grad_()
    imagined = sim.imagine(state, chart, actions, particles=2)
    (slope,) = torch.autograd.grad(imagined.terminated.sum(), actions, retain_graph=True)
    assert bool((slope[:, 0, 0, 1] > 0).all()), "more of it, more torsades"
    (slope,) = torch.autograd.grad(imagined.returns.mean(-1).sum(), actions)
    by = 0.004
    up, down = actions.detach().clone(), actions.detach().clone()
    up[:, :, 3, 1] = 1.0  # at its end: the difference is taken from below
    down[:, :, 3, 1] -= by
    with torch.no_grad():
        a, b = (sim.imagine(state, chart, x, particles=2).returns.mean(-1) for x in (up, down))
    torch.testing.assert_close(slope[:, :, 3, 1], (a - b) / by, rtol=0.05, atol=0.02)


def test_worlds_that_tell_no_chances_and_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="tells no chances of events"):
        Simulator(DialWorld(), DialTask(), events="expected")
    with pytest.raises(ValueError, match="choose one of drawn, expected"):
        Simulator(DialWorld(), DialTask(), events="mean")
    with pytest.raises(ValueError, match="at least 1 future"):
        Simulator(DialWorld(), DialTask(), chances=0)
    sim = Simulator(DialWorld(), DialTask(), chances=4)
    with pytest.raises(ValueError, match="no multiple"):
        sim.imagine(*sim.reset(keys.from_seed(0, 1)), torch.zeros(1, 1, 2, 1), particles=6)


def test_runs_of_particles_share_a_belief_and_differ_by_chance() -> None:
    """The world's own state is looked at through `rekey`: equal unknowns within a run, other ones between runs."""
    sim = simulator("ECGDrug-v0", chances=3)
    seen = []
    transition = sim.world.transition

    class Watching:
        def __getattr__(self, name):
            return getattr(sim.world, name)

        def transition(self, state, action):
            seen.append(state)
            return transition(state, action)

    state, chart = sim.reset(keys.from_seed(5, 2))
    watched = Simulator(Watching(), sim.task, chances=3)
    imagined = watched.imagine(state, chart, torch.zeros(2, 1, 1, 4), particles=6)
    assert imagined.chances == 3 and imagined.members is None
    unknown = seen[0].unknown.reshape(2, 2, 3, -1)
    assert torch.equal(unknown[:, :, 0], unknown[:, :, 1]) and torch.equal(unknown[:, :, 0], unknown[:, :, 2])
    assert not torch.equal(unknown[:, 0], unknown[:, 1])
    assert len(seen[0].key.unique()) == 12
    whole = sim.imagine(state, chart, torch.zeros(2, 3, 5, 4), particles=6)
    alone = sim.imagine(tree.take(state, slice(1, 2)), tree.take(chart, slice(1, 2)), torch.zeros(1, 3, 5, 4), 6)
    torch.testing.assert_close(whole.returns[1:], alone.returns, rtol=1e-4, atol=1e-4)
