"""Rollouts: a poor policy is mended where the gain is sure, a good one is followed to the letter."""

from __future__ import annotations

import pytest
import torch

from agents.baselines.constant import Constant
from agents.board.watched import outside
from agents.planning.budget import Budget
from agents.planning.edits import edits_of
from agents.planning.imagination import follow
from agents.planning.objective import ReturnAndCost
from agents.planning.oracle_owner import WatchedSimulator
from agents.planning.planners import LEFT_ALONE, edits_for
from agents.planning.policy_here import Narrowing
from agents.planning.rollout_policy import RolloutConfig, RolloutPlanner
from agents.protocol import Agent, Narrowable
from agents.rollout import judge
from clinenv.envs.ecg_drug.task import SINGLE_DOSE_MG, ECGDrugTask
from clinenv.envs.ehr_ward.orders import DOSES
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from clinenv.task import Doses
from tests.agents.bandit_world import DialTask, DialWorld
from tests.agents.pump_world import STEPS, BetTask, PumpTask, PumpWorld
from world_models import catalog, keys

CONFIG = RolloutConfig(horizon=2, particles=4, replan_every=1)


class Wasteful:
    """Gives both pumps one unit, whatever is needed; of its own memory it keeps how often it was asked."""

    name = "wasteful"

    def __init__(self):
        self.asked = 0

    def reset(self, mask=None):
        self.asked = 0

    def narrow(self, rows):
        pass

    def act(self, chart):
        self.asked += 1
        return torch.ones(len(chart["hours"]), 2)


def run(policy, kind="switches", world=None, task=None, config=CONFIG, patients=12, **more):
    simulator = Simulator(world or PumpWorld(), task or PumpTask(kind))
    planner = RolloutPlanner(simulator, policy, config, **more)
    return judge(planner, simulator, keys.from_seed(0, patients), STEPS), planner


@pytest.mark.parametrize("kind", ["switches", "levels", "menu"])
def test_leaves_out_what_is_not_needed(kind):
    policy = Wasteful() if kind != "menu" else Constant(3)
    config = RolloutConfig(horizon=1, particles=4, replan_every=1)
    found, planner = run(policy, kind, config=config)
    assert isinstance(planner, Agent) and isinstance(planner, Narrowable)
    assert torch.equal(found.returns, torch.zeros(12))
    assert float(judge(policy, planner.simulator, keys.from_seed(0, 12), STEPS).returns.mean()) < -2.0


def test_adds_what_is_missing_and_scales_amounts():
    class Stingy(Wasteful):
        def act(self, chart):
            return torch.tensor([[0.0, 1.0]]).repeat(len(chart["hours"]), 1)

    found, _ = run(Stingy(), config=RolloutConfig(horizon=1, particles=2, replan_every=1))
    assert torch.equal(found.returns, torch.zeros(12))
    doses, planner = run(Wasteful(), "doses", PumpWorld(graded=True))
    plain = judge(Wasteful(), planner.simulator, keys.from_seed(0, 12), STEPS)
    assert float((doses.returns - plain.returns).min()) >= 0.0 and float(doses.returns.mean()) > 0.5 * float(
        plain.returns.mean()
    )


def test_follows_the_policy_where_nothing_is_sure():
    """Bets are worth nothing on average, and any single one may look good on a few futures."""
    world = PumpWorld(drift=2.0)  # a bet wins in 44 of 100
    config = RolloutConfig(horizon=2, particles=6, replan_every=1, caution=3.0, screen=1.0)
    found, _ = run(Constant(0), "menu", world, BetTask("menu"), config, patients=40)
    assert float((found.ordered.sum(1) > 0).float().mean()) < 0.1
    rash = RolloutConfig(horizon=2, particles=6, replan_every=1, caution=0.0, screen=0.0, finals=1)
    bold, _ = run(Constant(0), "menu", world, BetTask("menu"), rash, patients=40)
    assert float((bold.ordered.sum(1) > 0).float().mean()) > 0.2


def test_an_edit_holds_until_the_next_plan_and_the_policy_sees_every_chart():
    policy = Wasteful()
    config = RolloutConfig(horizon=STEPS, particles=2, replan_every=2)
    found, planner = run(policy, config=config, patients=6)
    assert policy.asked == 0, "the planner works with copies"
    plain = judge(policy, planner.simulator, keys.from_seed(0, 6), STEPS)
    assert bool((found.returns >= plain.returns).all()) and float((found.returns - plain.returns).mean()) > 0.5
    assert planner.report.decided.tolist() == [False] * 6  # the last visit is the second of its plan


def test_a_policy_that_remembers_is_shown_the_past_again():
    class Counts:
        """Gives what its own count of visits says: nothing, then one more at each."""

        name = "counts"

        def __init__(self):
            self.visits = None

        def reset(self, mask=None):
            self.visits = None

        def narrow(self, rows):
            self.visits = self.visits[rows]

        def act(self, chart):
            if self.visits is None:
                self.visits = torch.zeros(len(chart["hours"]))
            now, self.visits = self.visits, self.visits + 1
            return now.clamp_max(2.0).unsqueeze(1)

    simulator = Simulator(DialWorld(), DialTask())
    planner = RolloutPlanner(simulator, Counts(), RolloutConfig(horizon=2, particles=2, replan_every=1, edits=1))
    seen = []
    state, chart = simulator.reset(keys.from_seed(0, 3))
    for _ in range(3):
        planner.act(chart)
        seen.append(planner._imagined.visits.max().item())
        out = simulator.step(state, chart, torch.zeros(3, 1))
        state, chart = out.state, out.chart
    assert seen == [2.0, 3.0, 4.0], "visits so far and two imagined"


def test_the_report_counts_what_was_imagined_and_rows_are_their_own():
    world = PumpWorld(drift=0.2)
    simulator = Simulator(world, PumpTask("switches"))
    chart = simulator.reset(keys.from_seed(2, 5))[1]
    together = RolloutPlanner(simulator, Wasteful(), CONFIG, seed=3)
    world.rows = 0
    orders = together.act(chart)
    assert world.rows == int(together.report.transitions.sum()) > 0
    alone = RolloutPlanner(simulator, Wasteful(), CONFIG, seed=5, max_rows=8)
    assert torch.equal(alone.act({name: value[2:3] for name, value in chart.items()}), orders[2:3])
    for name in ("promised", "rewards", "transitions"):
        assert torch.equal(getattr(alone.report, name), getattr(together.report, name)[2:3])
    torch.testing.assert_close(together.report.rewards.sum(1), together.report.promised)
    limited = RolloutPlanner(simulator, Wasteful(), CONFIG, budget=Budget(transitions=80))
    limited.act(chart)
    assert int(limited.report.transitions.max()) <= 80 < int(together.report.transitions.max())


def test_costs_count_and_the_owner_of_the_state_needs_no_belief():
    objective = ReturnAndCost(cost_weight=10.0)
    cheap, _ = run(Wasteful(), objective=objective)
    assert torch.equal(cheap.ordered, torch.zeros(12, 2)), "every order costs more than it is worth"
    judged = WatchedSimulator(PumpWorld(), PumpTask("switches"))
    owner = RolloutPlanner(
        Simulator(PumpWorld(), PumpTask("switches")), Wasteful(), CONFIG, state_of=lambda: judged.state
    )
    config = judge(owner, judged, keys.from_seed(0, 12), STEPS)
    assert torch.equal(config.returns, run(Wasteful())[0].returns)


def test_a_course_followed_is_the_simulators_own():
    simulator = Simulator(DialWorld(drift=0.4), DialTask())
    state, chart = simulator.reset(keys.from_seed(0, 4))
    plan = torch.tensor([[[1.0], [0.0], [2.0]]]).repeat(4, 1, 1)
    told = simulator.rollout(state, chart, plan)
    followed = follow(simulator, state, chart, lambda step, _, rows: plan[rows, step], 3, discount=0.9)
    torch.testing.assert_close(followed.rewards, told.rewards)
    torch.testing.assert_close(followed.returns, told.rewards @ torch.tensor([1.0, 0.9, 0.81]))
    assert torch.equal(followed.orders, plan) and not bool(followed.terminated.any())


def test_edits_by_kind_and_what_is_refused():
    menu = edits_of(Simulator(PumpWorld(), PumpTask("menu")))
    assert len(menu) == 8 and not menu.together
    doses = edits_of(Simulator(PumpWorld(), PumpTask("doses")))
    assert doses.names == tuple(
        f"{how} {which}_mg" for which in ("first", "second") for how in ("without", "0.5 x", "1.5 x")
    )
    only = doses.of(["second_mg"])
    given = torch.tensor([[1.0, 1.5]])
    both = only.applied(given, torch.tensor([[False, True, True]]), 1)
    torch.testing.assert_close(both, torch.tensor([[1.0, 1.125]]))
    assert torch.equal(doses.applied(given, torch.zeros(1, 6, dtype=torch.bool), 0), given)
    with pytest.raises(ValueError, match="no edit"):
        doses.of(["third_mg"])
    for bad in ({"particles": 1}, {"horizon": 2, "replan_every": 3}, {"caution": -1.0}, {"edits": 0}):
        with pytest.raises(ValueError):
            RolloutConfig(**bad)


class Odd(PumpWorld):
    """Patients of an odd key die at their second step."""

    def transition(self, state, action):
        dies = (torch.remainder(state.key, 2) == 1) & (state.t > 0)
        return super().transition(state, action)._replace(dead=dies.to(torch.float32))

    def rekey(self, state, key):  # other luck, the same fate
        return state._replace(key=key - torch.remainder(key, 2) + torch.remainder(state.key, 2))


def test_any_policy_can_go_on_with_some_of_its_patients():
    class Grows:
        """Gives more at each visit that it remembers; it cannot be narrowed."""

        name = "grows"

        def reset(self, mask=None):
            self.visits = None if mask is None else torch.where(mask, 0.0, self.visits)

        def act(self, chart):
            count = len(chart["hours"])
            visits = getattr(self, "visits", None)
            self.visits = torch.zeros(count) if visits is None or len(visits) != count else visits
            now, self.visits = self.visits, self.visits + 0.25
            return now.unsqueeze(1).expand(-1, 2).clone()

    simulator = Simulator(Odd(drift=0.1), PumpTask("doses"))
    config = RolloutConfig(horizon=1, particles=2, replan_every=1, caution=1e9)  # the policy, whatever is imagined
    found = judge(RolloutPlanner(simulator, Grows(), config), simulator, keys.from_seed(0, 9), STEPS)
    plain = judge(Grows(), simulator, keys.from_seed(0, 9), STEPS)
    assert torch.equal(found.ordered, plain.ordered) and 1 < float(found.lengths.min()) < STEPS

    agent = Narrowing(Grows())
    chart = simulator.reset(keys.from_seed(0, 4))[1]
    agent.act(chart)
    agent.narrow(torch.tensor([1, 3]))
    assert agent.act({n: v[[1, 3]] for n, v in chart.items()}).tolist() == [[0.25, 0.25]] * 2
    agent.reset(torch.tensor([False, True]))
    assert agent.act({n: v[[1, 3]] for n, v in chart.items()}).tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_scaled_doses_are_still_actions_of_the_id():
    task = ECGDrugTask(actions=Doses(SINGLE_DOSE_MG))
    simulator = Simulator(catalog.load("ecg-wm-small"), task)
    edits = edits_of(simulator)
    largest = torch.tensor([list(SINGLE_DOSE_MG.values())]).expand(len(edits), -1)
    edited = edits.applied(largest, torch.eye(len(edits), dtype=torch.bool), 0)
    assert not outside(edited, task.actions, simulator.world.orders).any(), "the world takes more, the action does not"


def test_on_the_ward_what_pays_late_is_left_to_the_rule():
    simulator = Simulator(catalog.load("ehr-ward-small"), EHRWardTask(actions=DOSES))
    edits = edits_for(simulator)
    edited = {word for name in edits.names for word in name.split()}
    assert not edited & set(LEFT_ALONE["EHRWard"])
    assert {"inquire_crp", "furosemide_mg"} <= edited <= {word for n in edits_of(simulator).names for word in n.split()}
    drug = Simulator(catalog.load("ecg-wm-small"), ECGDrugTask())
    assert edits_for(drug).names == edits_of(drug).names
