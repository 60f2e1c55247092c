"""Every planner, on worlds whose best plan is known: it is found, more thought does not harm, what is reported is true,
rows do not touch each other, and nobody sees the luck of a patient."""

from __future__ import annotations

import pytest
import torch

from agents.planning.base_policies import base_policy
from agents.planning.budget import Budget, Meter
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.gradient import GradientConfig
from agents.planning.icem import ICEMConfig
from agents.planning.mppi import MPPIConfig
from agents.planning.objective import ReturnAndCost
from agents.planning.oracle_owner import WatchedSimulator
from agents.planning.planners import planner_for
from agents.planning.presets import PLANNERS, config_of
from agents.planning.problem import Optimiser, repeats
from agents.planning.random_shooting import ShootingConfig
from agents.planning.risk import CVaR
from agents.planning.tree_search import TreeConfig
from agents.protocol import Agent, Narrowable
from agents.rollout import judge
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from tests.agents.pump_world import ACTIONS, STEPS, BetTask, PumpTask, PumpWorld
from world_models import catalog, keys

SHARED = dict(horizon=3, candidates=48, particles=1, nothing=0.5, every=(), finalists=2)
CONFIGS = {
    "shooting": ShootingConfig(**SHARED, iterations=8),
    "cem": CEMConfig(**SHARED, iterations=4, elites=6),
    "icem": ICEMConfig(**SHARED, iterations=4, elites=6, beta=1.0),
    "mppi": MPPIConfig(**SHARED, iterations=5, elites=6),
    "tree": TreeConfig(**SHARED, simulations=60, trees=2, widening_power=0.0),
}


def planned(config, kind="menu", world=None, task=None, patients=8, **more):
    simulator = Simulator(world or PumpWorld(), task or PumpTask(kind))
    return judge(WorldPlanner(simulator, config, **more), simulator, keys.from_seed(0, patients), STEPS)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["menu", "switches", "levels"])
def test_finds_the_best_for_every_kind_of_choice(name, kind):
    assert float(planned(CONFIGS[name], kind).returns.min()) == 0.0


@pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
def test_finds_amounts(name):
    config = type(CONFIGS[name])(**{**CONFIGS[name].__dict__, "candidates": 96, "iterations": 12, "elites": 10})
    found = planned(config, "doses", PumpWorld(graded=True))
    shot = planned(ShootingConfig(**{**SHARED, "candidates": 96}, iterations=12), "doses", PumpWorld(graded=True))
    assert float(found.returns.mean()) > max(-0.1, float(shot.returns.mean()) / 3.0)


def test_gradients_find_amounts_and_round_to_what_can_be_ordered():
    world = PumpWorld(graded=True)
    config = GradientConfig(**{**SHARED, "candidates": 12}, starts=3, ascents=40)
    simulator = Simulator(world, PumpTask("doses"), grad=True)
    found = judge(WorldPlanner(simulator, config), simulator, keys.from_seed(0, 8), STEPS)
    assert float(found.returns.min()) > -0.05
    simulator = Simulator(PumpWorld(), PumpTask("switches"), grad=True)
    assert float(judge(WorldPlanner(simulator, config), simulator, keys.from_seed(0, 8), STEPS).returns.min()) == 0.0
    blind = WorldPlanner(Simulator(world, PumpTask("doses")), config)
    with pytest.raises(ValueError, match="grad=True"):
        blind.act(simulator.reset(keys.from_seed(0, 2))[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_more_budget_is_not_worse(name):
    world = PumpWorld(drift=0.2)

    def mean(transitions):
        budget = Budget(transitions=transitions)
        more = {"particles": 2, "candidates": 16} | ({"widening_power": 0.5} if name == "tree" else {})
        config = type(CONFIGS[name])(**{**CONFIGS[name].__dict__, **more})
        return float(planned(config, "switches", world, patients=12, budget=budget).returns.mean())

    few, many = mean(60), mean(900)
    assert many > few - 0.05 and many > -0.6


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("budget", [None, Budget(transitions=400)])
def test_the_report_counts_what_was_imagined(name, budget):
    world, patients = PumpWorld(), 5
    simulator = Simulator(world, PumpTask("menu"))
    planner = WorldPlanner(simulator, CONFIGS[name], budget=budget)
    chart = simulator.reset(keys.from_seed(0, patients))[1]
    world.rows = 0
    planner.act(chart)
    report = planner.report
    assert bool(report.decided.all()) and bool((report.milliseconds > 0).all())
    used = int(report.transitions[0])
    # a tree that has reached the horizon has nothing left to imagine
    assert world.rows == patients * used or (name == "tree" and 0.8 * used * patients < world.rows <= used * patients)
    if budget is not None:
        assert used <= budget.transitions
        assert used > 0.6 * budget.transitions
    torch.testing.assert_close(report.promised, report.rewards.sum(1)), "nothing is left to chance here"
    assert report.costs.shape == (patients, 3)


@pytest.mark.parametrize("name", [*CONFIGS, "gradient"])
def test_a_row_is_planned_as_it_would_be_alone(name):
    config = CONFIGS.get(name, GradientConfig(**SHARED, starts=3))
    simulator = Simulator(PumpWorld(graded=True, drift=0.3), PumpTask("switches"), grad=True)
    chart = simulator.reset(keys.from_seed(3, 4))[1]
    together, alone = WorldPlanner(simulator, config, seed=7), WorldPlanner(simulator, config, seed=9)
    orders = together.act(chart)
    row = {name: value[2:3] for name, value in chart.items()}
    assert torch.equal(alone.act(row), orders[2:3])  # key of row 2 from seed 7 is that of row 0 from seed 9
    torch.testing.assert_close(alone.report.promised, together.report.promised[2:3])


@pytest.mark.parametrize("name", CONFIGS)
def test_nobody_sees_the_luck_to_come(name):
    world = PumpWorld(drift=0.5)  # a stake of 1 wins when the drift is above 0.3: in 27 of 100
    config = type(CONFIGS[name])(**{**CONFIGS[name].__dict__, "particles": 96, "candidates": 12, "finalists": 3})
    results = planned(config, "menu", world, BetTask("menu"), patients=6)
    assert torch.equal(results.ordered, torch.zeros(6, 2))


def test_who_owns_the_state_still_has_other_luck():
    world, task = PumpWorld(drift=0.5), BetTask("menu")
    judged = WatchedSimulator(world, task)
    config = CEMConfig(**{**SHARED, "particles": 64})
    owner = WorldPlanner(Simulator(world, task), config, state_of=lambda: judged.state)
    assert torch.equal(judge(owner, judged, keys.from_seed(0, 6), STEPS).ordered, torch.zeros(6, 2))


def test_who_owns_the_state_knows_what_no_chart_shows():
    class Hidden(PumpWorld):
        def observe(self, state, also=()):
            shown = super().observe(state)
            return {**shown, "needed_mg": torch.zeros_like(state.needed), "truth_mg": state.needed}

        def infer(self, history, key, factors=None):
            return super().infer(history, key)._replace(needed=self.initial(key).needed)

        def rekey(self, state, key):  # who knows the state knows the need
            return state._replace(key=key)

    class Told(PumpTask):
        def reward(self, before, action, after):
            return super().reward(before, action, {**after, "needed_mg": after["truth_mg"]})

    world, task = Hidden(), Told("menu")
    judged, key = WatchedSimulator(world, task), keys.from_seed(0, 8)
    owner = WorldPlanner(Simulator(world, task), CONFIGS["cem"], state_of=lambda: judged.state)
    assert float(judge(owner, judged, key, STEPS).returns.min()) == 0.0
    assert float(judge(WorldPlanner(Simulator(world, task), CONFIGS["cem"]), judged, key, STEPS).returns.mean()) < -1.0


def test_patients_who_leave_are_dropped_and_change_nothing():
    class Mortal(PumpWorld):
        def transition(self, state, action):
            odd = torch.remainder(state.key, 2) == 1
            return super().transition(state, action)._replace(dead=(odd & (state.t > 0)).to(torch.float32))

        def rekey(self, state, key):
            return state

    simulator = Simulator(Mortal(), PumpTask("menu"))
    planner = WorldPlanner(simulator, CONFIGS["icem"])
    assert isinstance(planner, Agent) and isinstance(planner, Narrowable)

    class Carried:  # as one that cannot be narrowed
        name, act, reset = "carried", planner.act, planner.reset

    key = keys.from_seed(0, 9)
    dropped, carried = judge(planner, simulator, key, STEPS), judge(Carried(), simulator, key, STEPS)
    assert torch.equal(dropped.returns, carried.returns) and 1 < float(dropped.lengths.min()) < STEPS
    owner = WatchedSimulator(Mortal(), PumpTask("menu"))
    known = WorldPlanner(simulator, CONFIGS["icem"], state_of=lambda: owner.state)
    assert float(judge(known, owner, key, STEPS).returns.min()) == 0.0


def test_an_optimiser_of_ones_own():
    class First:
        """Gives the first row of the menu, always."""

        def plan(self, problem):
            from agents.planning.problem import second_look

            plans = torch.ones(problem.patients, 1, 3, dtype=torch.int64)
            return second_look(problem, plans, problem.evaluate(plans, 0), problem.belief, 0)

    assert isinstance(First(), Optimiser)
    results = planned(CONFIGS["cem"], planner=First())
    assert torch.equal(results.ordered, torch.tensor([[4.0, 0.0]]).expand(8, 2))


def test_a_plan_that_appears_twice_is_found():
    plans = torch.tensor([[[0, 1], [1, 0], [0, 1], [1, 1]], [[2, 2], [2, 2], [2, 2], [0, 0]]])
    assert repeats(plans).tolist() == [[False, False, True, False], [False, True, True, False]]
    assert repeats(plans.to(torch.float32) / 3.0).tolist() == repeats(plans).tolist()


def test_time_is_a_budget_too(monkeypatch):
    class Clock:  # a millisecond a look, however busy the machine is
        ms = 0

        def perf_counter(self) -> float:
            self.ms += 1
            return self.ms / 1000.0

    def transitions(milliseconds: float) -> int:
        simulator = Simulator(PumpWorld(), PumpTask("menu"))
        planner = WorldPlanner(simulator, CONFIGS["shooting"], budget=Budget(milliseconds=milliseconds))
        planner.act(simulator.reset(keys.from_seed(0, 1))[1])
        assert float(planner.report.milliseconds[0]) < milliseconds + 20, "it looks at the clock in time"
        return int(planner.report.transitions[0])

    monkeypatch.setattr("agents.planning.budget.time", Clock())
    few, more, most = (transitions(ms) for ms in (1.0, 60.0, 120.0))
    assert few < more < most, (few, more, most)
    assert more > 48 * 3 * 2, "more than one round in 60 ms"


@pytest.mark.parametrize("name", [*PLANNERS, "rollout"])
def test_a_small_budget_scores_a_plan_beside_the_policy(name):
    """What the policy proposes is imagined first; it must not use up what the first round of plans is due."""
    simulator = Simulator(catalog.load("ecg-wm-small"), ECGDrugTask(), grad=name == "gradient")
    chart = simulator.reset(keys.from_seed(0, 2))[1]
    policy = base_policy(simulator)
    planner = planner_for(simulator, name, "fast", policy=policy, budget=Budget(milliseconds=0.01))
    assert planner.act(chart).shape[0] == 2 and int(planner.report.transitions[0]) > 0
    try:
        planner_for(simulator, name, "fast", policy=policy, budget=Budget(transitions=300)).act(chart)
    except ValueError as error:
        assert "after" in str(error) and "for what the policy proposes; raise it to" in str(error)


def test_a_rollout_weighs_a_tail_in_drawn_futures():
    simulator = Simulator(catalog.load("ecg-wm-small"), ECGDrugTask())
    chart = simulator.reset(keys.from_seed(0, 2))[1]
    averse = planner_for(simulator, "rollout", "fast", objective=ReturnAndCost(CVaR(0.25)))
    assert averse.act(chart).shape[0] == 2


def test_budgets_and_presets_refuse_nonsense():
    for bad in ({}, {"transitions": 0}, {"milliseconds": -1.0}):
        with pytest.raises(ValueError, match="budget"):
            Budget(**bad)
    with pytest.raises(ValueError, match="does not pay for one plan"):
        Meter(Budget(transitions=10)).affords(4, 11)
    with pytest.raises(ValueError, match="there are: shooting"):
        config_of(ECGDrugTask(), "magic", "small")
    with pytest.raises(ValueError, match="objective"):
        WorldPlanner(Simulator(PumpWorld(), PumpTask()), CONFIGS["cem"], cost_weight=1.0, objective=lambda x: x.returns)
    for kind, bad in ((TreeConfig, {"width": 1}), (MPPIConfig, {"temperature": 0.0}), (GradientConfig, {"starts": 0})):
        with pytest.raises(ValueError):
            kind(**bad)
    for planner in PLANNERS:
        for preset in ("fast", "small", "careful"):
            assert config_of(ECGDrugTask(), planner, preset).horizon >= 6
    assert set(ACTIONS) == {"menu", "levels", "switches", "doses"}
