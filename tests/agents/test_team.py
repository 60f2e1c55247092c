"""Teams of three: the rule split over them, PPO of each by itself, and the planner that edits what they say."""

from __future__ import annotations

import json
import math

import pytest
import torch

import clinenv
from agents.baselines.ward_rule import Clinician, StandardClinician
from agents.protocol import Agent, Narrowable
from agents.rollout import judge
from agents.team import ppo
from agents.team.joint_planner import JointPlanner, JointPlanning, edits
from agents.team.learned import FORM, LearnedMember, learned_team, untrained_team
from agents.team.members import CareTeam, Member
from agents.team.split_rule import RuleMember, Silent, split_rule
from benchmarks.common.results import provenance, read_csv
from benchmarks.ward import team as benchmark
from clinenv.envs.care_team.charts import RESULTS, own_chart
from clinenv.envs.care_team.rights import INTENSIVIST, NURSE, PHARMACIST, ROLES, columns, orders_of
from clinenv.envs.care_team.task import CareTeamTask
from clinenv.envs.ehr_ward.orders import SWITCHES
from clinenv.simulator import Simulator
from tests.toy_ward import InferringToyWard, ToyWard
from world_models import keys, tree
from world_models.checkpoint import CheckpointError
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import INQUIRIES, ORDERS, order_index

AMOUNTS = torch.tensor([float(SWITCHES.standard[q.name]) for q in ORDERS])
SMALL = ppo.TeamPPO(iterations=2, num_envs=6, n_steps=5, minibatches=2, epochs=2, hidden=(8,), seed=3)


@pytest.fixture(scope="module")
def ward():
    return Simulator(ToyWard(hazard=0.03), CareTeamTask())


@pytest.fixture(scope="module")
def oracle():
    return Simulator(WardOracle(), CareTeamTask())


def charts(simulator, count=12, steps=3, seed=0):
    """Patients under the rule."""
    state, chart = simulator.reset(keys.from_seed(seed, count))
    for _ in range(steps):
        out = simulator.step(state, chart, StandardClinician().act(chart))
        state, chart = out.state, out.chart
    return chart


# ---- the rule


def test_the_split_rule_orders_what_each_sees_and_may(oracle):
    chart = charts(oracle, steps=4)
    for role in ROLES:
        member = RuleMember(role)
        assert isinstance(member, Member)
        word = member.act(own_chart(role, chart))
        given = {ORDERS[c].name for c in (word.orders > 0).any(0).nonzero().flatten().tolist()}
        assert given and given <= set(orders_of(role, "order_it")) and not word.holds.any()
    hidden = dict(chart)
    for name in {q.name for q in INQUIRIES} - set(RESULTS[NURSE]):
        hidden[name] = torch.full_like(chart[name], 3.0)  # what is not in his chart changes nothing of what he says
    nurse = RuleMember(NURSE)
    assert torch.equal(nurse.act(own_chart(NURSE, hidden)).orders, nurse.act(own_chart(NURSE, chart)).orders)


@pytest.mark.slow
def test_the_team_is_close_to_the_whole_rule_and_a_member_is_missed(oracle):
    key = keys.from_seed(40, 16)
    team = split_rule(standard=False)
    assert isinstance(team, Agent) and isinstance(team, Narrowable)
    whole, split, blind = (judge(a, oracle, key, 8) for a in (Clinician(), team, split_rule(False, without=NURSE)))
    assert abs(float((split.returns - whole.returns).mean())) < 0.01
    assert float(blind.returns.mean()) < float(split.returns.mean()) - 0.01, "nobody takes vital signs"
    standard = split_rule()
    amounts = standard.act(charts(oracle))
    assert bool(((amounts == 0) | (amounts == AMOUNTS)).all())
    with pytest.raises(ValueError, match="surgeon"):
        split_rule(without="surgeon")
    with pytest.raises(ValueError, match="one of each"):
        CareTeam({role: RuleMember(NURSE) for role in ROLES}, "nurses")


def test_a_team_judged_in_a_batch_is_the_team_alone(oracle):
    key = keys.from_seed(7, 8)
    together, alone = (judge(split_rule(), oracle, k, 5) for k in (key, key[3:4]))
    assert all(torch.equal(a[3:4], b) for a, b in zip(tree.leaves(together), tree.leaves(alone), strict=True))


def test_the_rule_through_the_environment_is_the_rule_judged(oracle):
    env = clinenv.make_team("CareTeam-v0", world=oracle.world, max_cycles=5)
    env.reset(seed=11)
    total = 0.0
    team = split_rule()
    while env.agents:
        words = team.words(env.team.ward.chart)
        actions = {role: env.team.episodes.codecs[role].encode(words[role])[0].numpy() for role in ROLES}
        total += env.step(actions)[1][NURSE]
    key = keys.fold(keys.from_seed(11), 0)
    assert total == pytest.approx(float(judge(team, oracle, key, 5).returns), abs=1e-5)


# ---- independent PPO


def test_advantages_are_discounted_surprises_until_an_end():
    config = ppo.TeamPPO(gamma=0.5, gae_lambda=0.5)
    rewards, values = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [1.0], [2.0]])
    ends = torch.tensor([[False], [True], [False]])
    found = ppo.advantages(rewards, values, torch.tensor([8.0]), ends, config).squeeze(1)
    third = 4.0 + 0.5 * 8.0 - 2.0
    second = 2.0 - 1.0  # nothing after the end
    first = 1.0 + 0.5 * 1.0 - 0.5 + 0.25 * second
    torch.testing.assert_close(found, torch.tensor([first, second, third]))


def test_chances_of_switches_leave_out_what_is_forbidden():
    logits, action = torch.tensor([[0.3, -2.0, 5.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    chance = torch.distributions.Bernoulli(logits=logits).log_prob(action)
    torch.testing.assert_close(ppo.log_chance(logits, action, torch.ones(1, 3)), chance.sum(-1))
    torch.testing.assert_close(ppo.log_chance(logits, action, torch.tensor([[1.0, 1.0, 0.0]])), chance[:, :2].sum(-1))


def test_an_untrained_team_is_the_rule_with_noise(ward):
    chart = charts(ward, count=40)
    exact = untrained_team(ward, 4.0, seed=None)
    rule = split_rule().act(chart)
    mask = torch.stack([columns(role, "order_it", torch.device("cpu")) for role in ROLES]).any(0)
    assert torch.equal(exact.act(chart), rule) and bool(mask.all())
    noisy = untrained_team(ward, 4.0, seed=1)
    changed = ((noisy.act(chart) > 0) != (rule > 0)).float().mean()
    assert 0.005 < float(changed) < 0.05
    noisy.reset()
    first = noisy.act(chart)
    assert not torch.equal(first, noisy.act(chart))
    noisy.reset()
    assert torch.equal(noisy.act(chart), first), "its chance begins anew"
    noisy.reset()
    noisy.act(chart)
    second = noisy.act(chart)
    noisy.reset()
    noisy.act(chart)
    rows = torch.tensor([3, 9])
    noisy.narrow(rows)
    assert torch.equal(noisy.act(tree.take(chart, rows)), second[rows])


def test_training_goes_on_after_a_kill_as_if_there_had_been_none(tmp_path, ward, monkeypatch):
    world = ward.world
    ppo.train(tmp_path / "whole", SMALL, world, save_every=1)
    update, calls = ppo._Role.update, []

    def killed(self, *arguments):
        calls.append(self.role)
        if len(calls) > len(ROLES):
            raise KeyboardInterrupt
        return update(self, *arguments)

    monkeypatch.setattr(ppo._Role, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        ppo.train(tmp_path / "killed", SMALL, world, save_every=1)
    monkeypatch.undo()
    ppo.train(tmp_path / "killed", SMALL, world, save_every=1)
    found = []
    for name in ("whole", "killed"):
        with FORM.opened(tmp_path / name) as opened:
            assert opened.config["done"] == 2
            found.append(opened.tensors(FORM.tensors[0]))
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(bool(v.any()) for name, v in found[0].items() if "actor" in name), "something was learned"
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [0, 1]
    before = (tmp_path / "whole" / FORM.json).read_bytes()
    ppo.train(tmp_path / "whole", SMALL, world)
    assert (tmp_path / "whole" / FORM.json).read_bytes() == before, "what is finished is kept"
    with pytest.raises(ValueError, match="another seed"):
        ppo.train(tmp_path / "whole", ppo.TeamPPO(**{**vars(SMALL), "seed": 4}), world)
    team = learned_team(tmp_path / "whole", ward)
    assert isinstance(team.members[PHARMACIST], LearnedMember)
    results = judge(team, ward, keys.from_seed(0, 4), 4)
    assert torch.isfinite(results.returns).all()
    (tmp_path / "whole" / FORM.tensors[0]).write_bytes(b"0" * 100)
    with pytest.raises(CheckpointError):
        learned_team(tmp_path / "whole", ward)
    with pytest.raises(FileNotFoundError, match="train a team first"):
        learned_team(tmp_path / "nothing", ward)
    with pytest.raises(ValueError, match="at least 1"):
        ppo.TeamPPO(n_steps=0)


@pytest.mark.slow
def test_training_learns_what_pays(tmp_path):
    """A world in which nothing is worth what it costs: the learned team orders less than the rule."""
    world = ToyWard(hazard=0.0, leaves=0.0)
    config = ppo.TeamPPO(
        iterations=8, num_envs=48, n_steps=6, minibatches=2, learning_rate=1e-2, confidence=1.0, hidden=(16,)
    )
    ppo.train(tmp_path / "team", config, world)
    simulator = Simulator(world, CareTeamTask())
    key = keys.from_seed(0, 32)
    before = judge(untrained_team(simulator, config.confidence), simulator, key, 6)
    after = judge(learned_team(tmp_path / "team", simulator), simulator, key, 6)
    gain = after.returns - before.returns
    assert float(gain.mean()) > 3 * float(gain.std()) / math.sqrt(len(key))


# ---- the joint planner


def test_edits_change_one_entry_each_of_what_is_ones_own(ward):
    chart = charts(ward, count=6)
    words = split_rule().words(chart)
    allowed = ward.task.admissible(chart)
    for role in ROLES:
        every = edits(role, words, allowed, keys.from_seed(2, 6), 4, AMOUNTS)
        tried, word = every[role], words[role]
        assert tried.orders.shape == (6, 6, len(ORDERS))
        assert torch.equal(tried.orders[:, 0], word.orders) and torch.equal(tried.holds[:, 0], word.holds)
        assert not tried.orders[:, 1, : len(INQUIRIES)].any()
        other = (tried.orders[:, 2:] != word.orders[:, None]) | (tried.holds[:, 2:] != word.holds[:, None])
        assert int(other.sum(-1).max()) == 1 and not other[..., : len(INQUIRIES)].any()
        mine = columns(role, "order_it", torch.device("cpu")) | columns(role, "hold", torch.device("cpu"))
        assert not other.any(0).any(0)[~mine].any()
        less = (word.orders[:, None] > 0) & (tried.orders[:, 2:] == 0)
        for who in ROLES:
            assert not ((every[who].orders[:, 2:] > 0) & less).any(), "what is left out is left out by all"
            if who != role:
                same = every[who].orders[:, 2:] == words[who].orders[:, None]
                assert bool((same | less).all()) and torch.equal(
                    every[who].orders[:, :2], words[who].orders[:, None].repeat(1, 2, 1)
                )


@pytest.mark.slow
def test_the_planner_leaves_out_what_harms_and_keeps_what_helps():
    """In a ward where a drug that the base gives to all lowers the pressure and nothing else, the planner drops it."""

    class Harmful(RuleMember):
        def act(self, chart):
            word = super().act(chart)
            word.orders[:, order_index("metoprolol_mg")] = 5.0
            return word

    world = InferringToyWard(hazard=0.0, leaves=0.0)
    simulator = Simulator(world, CareTeamTask())
    base = CareTeam({r: Harmful(r) if r == INTENSIVIST else RuleMember(r) for r in ROLES}, "harmful")
    config = JointPlanning(horizon=2, particles=16, edits=10, caution=0.5)
    planner = JointPlanner(simulator, base, config)
    assert isinstance(planner, Agent) and isinstance(planner, Narrowable)
    _, chart = simulator.reset(keys.from_seed(1, 24))
    metoprolol = order_index("metoprolol_mg")
    allowed = simulator.task.admissible(chart)[:, metoprolol]
    given = planner.act(chart)[:, metoprolol] > 0
    assert float(given[allowed].float().mean()) < 0.5, "the base gives it to all"
    assert planner.edited["decisions"] == 24 and sum(planner.edited[role] for role in ROLES) > 8
    planner.reset()
    again = judge(planner, simulator, keys.from_seed(1, 6), 3)
    twice = judge(planner, simulator, keys.from_seed(1, 6), 3)
    assert torch.equal(again.returns, twice.returns)
    edited = []
    for caution in (0.0, 10.0, 1000.0):  # most of what is edited saves dollars for sure
        cautious = JointPlanner(simulator, base, JointPlanning(horizon=3, particles=4, edits=2, caution=caution))
        cautious.act(chart)
        edited.append(sum(cautious.edited[role] for role in ROLES))
    assert edited[0] > edited[1] > edited[2]


def test_what_the_planner_refuses(ward):
    with pytest.raises(ValueError, match="cannot infer"):
        JointPlanner(ward, split_rule())
    for wrong in ({"horizon": 0}, {"particles": 1}, {"caution": -1.0}):
        with pytest.raises(ValueError, match="particles >= 2"):
            JointPlanning(**wrong)
    planner = JointPlanner(Simulator(InferringToyWard(), CareTeamTask()), split_rule())
    with pytest.raises(ValueError, match="without a mask"):
        planner.reset(torch.tensor([True]))
    assert Silent(NURSE).role == NURSE


# ---- the benchmark


@pytest.mark.slow
def test_the_table_is_paired_and_goes_on_where_it_was_stopped(tmp_path):
    sizes = "--patients 3 --max-steps 2 --num-envs 4 --seeds 2 --horizon 1 --particles 2 --edits 1"
    training = "--iterations 1 2 --rates 1e-3 3e-4 --validation 4"
    arguments = [*sizes.split(), *training.split(), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    assert benchmark.main(arguments) == 0
    rows = {row["decider"]: row for row in read_csv(tmp_path / "team.csv")}
    assert len(rows) == 11 and {"joint planner", "independent PPO, seed 0", benchmark.SPLIT} <= rows.keys()
    assert float(rows[benchmark.SPLIT]["return_minus_split"]) == float(rows[benchmark.SPLIT]["exploitation"]) == 0.0
    for row in rows.values():
        assert float(row["return_low"]) <= float(row["return"]) <= float(row["return_high"]) and row["patients"] == "3"
        gap = float(row["learned_minus_split"]) - float(row["return_minus_split"])
        assert float(row["exploitation"]) == pytest.approx(gap, abs=1e-4)
    assert "ehr-ward-small" in provenance(tmp_path / "team.csv")["seals"]
    trained = read_csv(tmp_path / "team_training.csv")
    settings = [(row["learning_rate"], row["iterations"], row["acts"], row["seed"]) for row in trained]
    assert len(set(settings)) == 2 * 2 * 2 + 2, "the second seed has the chosen setting alone, in both ways to act"
    taken = [row for row in trained if row["chosen"] == "True"]
    assert [row["seed"] for row in taken] == ["0", "1"]
    assert all(taken[0][name] == taken[1][name] for name in ("learning_rate", "iterations", "acts"))
    first = [row for row in trained if row["seed"] == "0"]
    assert taken[0] == max(first, key=lambda row: float(row["validation_minus_split"]))
    assert [row["minus_shorter"] != "" for row in first] == 4 * [False] + 4 * [True]
    report = json.loads((tmp_path / "team.json").read_text())
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.*") if p.is_file()}
    assert len(made) > 20
    next(p for p in made if p.name == "planner-1-2-1-1.5-0.99.json").unlink()  # as if it had been stopped there
    assert benchmark.main(arguments) == 0
    assert json.loads((tmp_path / "team.json").read_text())["rows"] == report["rows"]
    kept = [p for p in made if "planner-" not in p.name]
    assert all(p.stat().st_mtime_ns == made[p] for p in kept)


def test_the_benchmark_refuses_what_it_cannot_use(tmp_path, capsys):
    rest = ["--out", str(tmp_path / "o"), "--runs", str(tmp_path / "r")]
    for wrong, words in (
        (["--world", "no-such-ward"], "no-such-ward"),
        (["--patients", "1"], "--patients 1 is below 2"),
        (["--particles", "1"], "particles >= 2"),
    ):
        with pytest.raises(SystemExit) as end:
            benchmark.main([*wrong, *rest])
        assert end.value.code == 2 and words in capsys.readouterr().err and not list(tmp_path.iterdir())
