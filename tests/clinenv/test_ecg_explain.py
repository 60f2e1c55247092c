"""ECGExplain: the world of problems, the task on it, and that its solvers find what there is to find."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence

from agents.baselines.explain_nearest import MostCommon, NearestPair
from agents.planning.explain_beam import ExplainBeam, SetFollower
from agents.planning.explain_fit import fit, fit_metric, fit_prior, missed
from agents.planning.explain_posterior import ExplainPosterior, TransitionPrior, singles_and_pairs
from benchmarks.progression import explain as benchmark
from clinenv.envs.ecg_explain.env import ECGExplainEnv, ECGExplainVectorEnv, explain_world
from clinenv.envs.ecg_explain.task import ECGExplainTask
from clinenv.simulator import Simulator
from clinenv.testing import check_simulator, check_vector_env
from tests.toy_progression import ToyClinic
from tests.toy_world import ToyWorld
from world_models import keys, tree
from world_models.cardiac_jepa.explain import COMPOSITIONS, ExplainWorld
from world_models.protocol import History
from world_models.quantities.progression import CODES
from world_models.testing import check_world

C = len(CODES)


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make(**kwargs) -> ECGExplainEnv:
    return ECGExplainEnv(**{"world": ToyClinic(), **kwargs})


def true_moves(info: dict) -> list[int]:
    sought = info["true_transitions"]
    return [int(1 + c if sought[c] > 0 else 1 + C + c) for c in np.flatnonzero(sought)]


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_it_keeps_the_contract_of_a_world_and_the_simulator_its_own(compose: str) -> None:
    world = ExplainWorld(ToyClinic(), compose)
    check_world(world, batch=5, steps=4, stochastic=False)
    check_simulator(Simulator(world, ECGExplainTask()), batch=4, horizon=3, stochastic=False)


def test_checkers_are_silent_and_it_is_n_single_environments() -> None:
    env = make()
    check_env(env, skip_render_check=True)
    pytest.importorskip("stable_baselines3.common.env_checker").check_env(env)
    world = ToyClinic()
    check_vector_env(
        lambda **kwargs: ECGExplainVectorEnv(world=world, **kwargs),
        lambda: ECGExplainEnv(world=world),
        num_envs=3,
        steps=14,
    )


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_the_true_transitions_explain_it(compose: str) -> None:
    env = make(compose=compose)
    _, info = env.reset(seed=3)
    assert not info["explained"] and info["latent_distance"] == pytest.approx(1.0)
    moves = true_moves(info)
    total = 0.0
    for move in moves:
        assert info["action_mask"][move] == 1
        _, reward, terminated, _, info = env.step(move)
        total += reward
        assert not terminated
    assert info["explained"] and np.array_equal(info["found_transitions"], info["true_transitions"])
    assert total == pytest.approx(1 - info["latent_distance"] - 0.02 * len(moves), abs=1e-5)
    _, reward, terminated, _, info = env.step(0)
    assert terminated and reward == 0 and info["explained"]


def test_a_transition_can_be_taken_back_and_nonsense_moves_nothing() -> None:
    env = make(compose="joint")
    _, info = env.reset(seed=5)
    absent = int(np.flatnonzero(env.chart["condition_before"][0].numpy() < 0.5)[0])
    onset, resolution = 1 + absent, 1 + C + absent
    assert info["action_mask"][onset] == 1 and info["action_mask"][resolution] == 0
    before = env.chart["z_now"]
    _, reward, _, _, info = env.step(resolution)
    assert info["refused_orders"] == 1 and torch.equal(env.chart["z_now"], before)
    assert reward == pytest.approx(-0.02) and env.refusals() == [
        (f"resolution_{CODES[absent]}", f"{CODES[absent]} is not present")
    ]
    env.step(onset)
    assert not torch.equal(env.chart["z_now"], before)
    _, _, _, _, info = env.step(resolution)
    assert not info["found_transitions"].any()
    for _ in range(4):
        *_, terminated, _, _ = env.step(resolution)
    assert not terminated and env.step(resolution)[2], "eight steps end it"


def test_the_answer_is_in_no_observation_and_a_problem_can_be_posed() -> None:
    env = make()
    observation, info = env.reset(seed=3)
    assert "true_transitions" not in env.chart and not any("true" in name for name in env.describe(observation))
    problem = {name: env.chart[name][0].numpy() for name in ("z_before", "z_goal", "condition_before", "days")}
    posed, told = env.reset(options=problem)
    assert np.array_equal(posed, observation) and not told["true_transitions"].any()
    assert info["true_transitions"].any()
    with pytest.raises(ValueError, match="given whole.*z_before"):
        env.reset(options={"z_goal": problem["z_goal"]})


def test_the_state_of_a_chart_is_inferred_exactly() -> None:
    simulator = Simulator(ExplainWorld(ToyClinic()), ECGExplainTask())
    state, chart = simulator.reset(keys.from_seed(0, 4))
    action = torch.zeros(4, 2 * C + 1)
    action[:, 3] = 1.0
    out = simulator.step(state, chart, action)
    history = History(tree.map_leaves(lambda x: x.unsqueeze(1), out.chart), action.unsqueeze(1), torch.zeros(4, 1))
    again = simulator.world.infer(history, state.key)
    for name in ("t", "z_before", "z_now", "z_goal", "condition_before", "found", "days", "stopped"):
        assert torch.equal(getattr(again, name), getattr(out.state, name)), name


def test_a_snapshot_brings_everything_back() -> None:
    env = make()
    env.reset(seed=3)
    shown = env.step(4)[0]
    kept = env.snapshot()
    future = [env.step(a) for a in (7, 30, 0)]
    other = make()
    assert data_equivalence(other.restore(kept), shown, exact=True)
    assert data_equivalence([other.step(a) for a in (7, 30, 0)], future, exact=True)


def test_the_page_states_the_spaces_as_they_are() -> None:
    env = make()
    page, layout = ECGExplainEnv.__doc__, env.episodes.interface.layout
    rows = re.findall(r"^ *\| ([a-z_]+) \|" + r"(.+?)\|" * 6 + "$", page, re.MULTILINE)
    place = 0
    width = (env.observation_space.shape[0] - 50) // 3
    for label, entries, unit, *stated in rows:
        assert layout.names[place].split("[")[0] == label and layout.units[place] == unit.strip()
        found = [float(x[place]) for x in (layout.low, layout.high, layout.centre, layout.scale)]
        assert [float(x) for x in stated] == pytest.approx(found), label
        place += width if entries.strip() == "Z" else int(entries)
    assert place == len(layout.names) and env.action_space.n == 2 * C + 1
    assert page.split("24 codes ")[1].split(";")[0].split() == list(CODES)


def test_a_world_without_pairs_is_told_so() -> None:
    with pytest.raises(ValueError, match="'toy' has no jepa, codes and explain_pairs"):
        explain_world(None, ToyWorld())
    with pytest.raises(ValueError, match="chain, joint"):
        make(compose="both")


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_beam_search_finds_what_the_nearest_pair_misses(compose: str) -> None:
    task, world = explain_world(None, ToyClinic(), compose)
    simulator = Simulator(world, task)
    pairs = benchmark.sample_pairs(simulator, 1, 40)
    known = benchmark.sample_pairs(simulator, 5000, 300, pairs.state.z_before)
    hits = {}
    nearest = NearestPair(known.state.z_goal - known.state.z_before, known.sought)
    for solver in (ExplainBeam(simulator, width=6, depth=3), nearest, MostCommon(known.sought)):
        answer = solver.solve(pairs.chart)
        hits[solver.name] = float((answer == pairs.sought).all(-1).float().mean())
        # the agent that follows it proposes the same, in the environment's own steps
        assert torch.equal(benchmark.answers(SetFollower(solver), simulator, pairs), answer)
    beam, near, prior = hits.values()
    assert beam > 0.9 and beam > near > prior


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_a_set_leads_where_its_steps_lead(compose: str) -> None:
    simulator = Simulator(ExplainWorld(ToyClinic(), compose), ECGExplainTask())
    pairs = benchmark.sample_pairs(simulator, 1, 30)
    state, left = pairs.state, pairs.sought
    while bool(left.any()):
        first = torch.zeros_like(left).scatter(1, (left != 0).to(torch.int8).argmax(-1, keepdim=True), 1.0) * left
        action = torch.cat([torch.zeros(len(left), 1), first.clamp(min=0), (-first).clamp(min=0)], -1)
        state, left = simulator.world.transition(state, action), left - first
    led = simulator.world.lead(pairs.state.z_before, pairs.sought, pairs.state.days)
    assert torch.allclose(led, state.z_now, atol=1e-5)
    still = torch.zeros_like(pairs.sought)
    assert torch.equal(simulator.world.lead(pairs.state.z_before, still, pairs.state.days), pairs.state.z_before)


class NoisyClinic(ToyClinic):
    """Its second latents are off, by much in half of the directions: what a plain distance does not know."""

    def explain_pairs(self, key):
        before, after, *rest = super().explain_pairs(key)
        size = torch.where(torch.arange(after.shape[1]) % 2 == 0, 6.0, 0.3)
        return before, after + size * keys.normal(key, 0, "noise", (after.shape[1],)), *rest


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_the_posterior_knows_which_directions_say_something(compose: str) -> None:
    simulator = Simulator(ExplainWorld(NoisyClinic(), compose), ECGExplainTask())
    known = benchmark.sample_pairs(simulator, 5000, 200)
    test = benchmark.sample_pairs(simulator, 1, 60, known.state.z_before)
    how = fit(simulator, known.chart, known.sought)
    assert how.reciprocal_rank > how.prior_reciprocal_rank
    variance = (how.metric @ how.metric.T).diagonal()
    assert variance[0::2].min() > 3 * variance[1::2].max(), "the metric is the noise's"

    def top1(solver) -> float:
        return float((solver.solve(test.chart) == test.sought).all(-1).float().mean())

    ours = ExplainPosterior(simulator, how.prior, how.metric, how.tau, width=6, depth=3)
    assert top1(ours) > 0.1 + max(
        top1(ExplainPosterior(simulator, how.prior_alone, tau=0.0)), top1(ExplainBeam(simulator, width=6, depth=3))
    )
    ranked = ours.ranked(test.chart, 5)
    assert torch.equal(ranked[:, 0], ours.solve(test.chart))
    scores = ours.score(test.chart, ranked != 0)
    assert bool((scores[:, :-1] >= scores[:, 1:] - 1e-3).all()) and len(ranked[0].unique(dim=0)) == 5
    after = test.chart["condition_before"].unsqueeze(1) + ranked
    assert bool(((after == 0) | (after == 1)).all()), "nothing impossible is proposed"
    assert torch.equal(benchmark.answers(SetFollower(ours), simulator, test), ranked[:, 0])
    few = ExplainPosterior(simulator, how.prior, how.metric, how.tau, width=6, depth=3, max_rows=1)
    assert torch.equal(few.solve(tree.take(test.chart, slice(3, 7))), ranked[3:7, 0]), "each problem by itself"


def test_larger_sets_grow_and_are_looked_at_once() -> None:
    simulator = Simulator(ExplainWorld(ToyClinic()), ECGExplainTask())
    chart = benchmark.sample_pairs(simulator, 1, 5).chart
    odds = torch.full((1, C), -2.0)
    odds[0, [1, 4, 9, 20]] = torch.tensor([2.0, 1.0, 0.5, 0.25])
    prior = TransitionPrior(torch.zeros(0), odds, odds)
    best = ExplainPosterior(simulator, prior, tau=0.0, width=3, depth=6).ranked(chart, 3) != 0
    wanted = torch.zeros(3, C, dtype=torch.bool)
    wanted[0, [1, 4, 9, 20]] = wanted[1, [1, 4, 9]] = wanted[2, [1, 4, 20]] = True
    assert torch.equal(best, wanted.expand(5, 3, C))
    assert ExplainPosterior(simulator, prior, tau=0.0, depth=2).solve(chart).abs().sum(-1).tolist() == [2.0] * 5
    assert ExplainPosterior(simulator, prior, tau=0.0, depth=1).solve(chart).abs().sum(-1).tolist() == [1.0] * 5
    assert len(singles_and_pairs(C)) == C + C * (C - 1) // 2 == len(singles_and_pairs(C).unique(dim=0))


def test_the_prior_counts_those_at_risk_and_bad_arguments_are_named() -> None:
    n = 3000
    condition = torch.zeros(n, 2)
    condition[: n // 2, 1] = 1.0
    days = torch.linspace(1.0, 300.0, n)[torch.arange(n).reshape(2, -1).T.flatten() % n]
    action = torch.zeros(n, 2)
    action[::5, 0] = 1.0  # a fifth sets in
    action[: n // 2 : 2, 1] = -1.0  # a half resolves; nobody's returns
    prior = fit_prior(condition, action, days, smoothing=1.0, groups=1)
    assert torch.sigmoid(prior.onset[0, 0]) == pytest.approx(0.2, abs=0.01)
    assert torch.sigmoid(prior.resolution[0, 1]) == pytest.approx(0.5, abs=0.01)
    assert torch.sigmoid(prior.onset[0, 1]) < 0.01
    odds = prior.log_odds(torch.tensor([[0.0, 1.0]]), torch.tensor([5.0]))
    assert torch.equal(odds[0], torch.stack([prior.onset[0, 0], prior.resolution[0, 1]]))
    early = fit_prior(condition, (days < 100).float().unsqueeze(1) * (1 - condition), days, smoothing=5.0)
    assert bool((early.onset[0] > early.onset[1]).all() and early.onset.isfinite().all())
    simulator = Simulator(ExplainWorld(ToyClinic()), ECGExplainTask())
    _, chart = simulator.reset(keys.from_seed(20, 6))
    with pytest.raises(ValueError, match="smoothing above 0"):
        fit_prior(condition, action, days, smoothing=0.0)
    with pytest.raises(ValueError, match="shrinkage"):
        fit_metric(missed(simulator, chart, torch.zeros(6, C)), 0.0)
    with pytest.raises(ValueError, match="3 pairs and 4 folds"):
        fit(simulator, tree.take(chart, slice(0, 3)), torch.zeros(3, C))
    with pytest.raises(ValueError, match="of 2 conditions"):
        ExplainPosterior(simulator, prior)
    whole = TransitionPrior(torch.zeros(0), torch.zeros(1, C), torch.zeros(1, C))
    for wrong in ({"tau": -1.0}, {"depth": 9}, {"metric": torch.eye(3)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ExplainPosterior(simulator, whole, **wrong)


def test_the_beam_solves_each_problem_by_itself_and_length_must_be_earned() -> None:
    simulator = Simulator(ExplainWorld(ToyClinic()), ECGExplainTask())
    _, chart = simulator.reset(keys.from_seed(20, 6))
    beam = ExplainBeam(simulator, width=4, depth=3, max_rows=200)
    together = ExplainBeam(simulator, width=4, depth=3).solve(chart)
    assert torch.equal(beam.solve(chart), together)
    assert torch.equal(beam.solve(tree.take(chart, slice(2, 3)))[0], together[2])
    assert not ExplainBeam(simulator, penalty=2.0).solve(chart).any(), "no transition is worth twice the whole way"
    still = {**chart, "z_goal": chart["z_before"], "difference": chart["difference"] * 0, "distance": chart["days"] * 0}
    assert not beam.solve(still).any()
    with pytest.raises(ValueError, match="penalty"):
        ExplainBeam(simulator, penalty=-1.0)


def test_the_model_free_solvers_propose_nothing_impossible() -> None:
    simulator = Simulator(ExplainWorld(ToyClinic()), ECGExplainTask())
    pairs = benchmark.sample_pairs(simulator, 1, 60)
    known = benchmark.sample_pairs(simulator, 5000, 200)
    difference = known.state.z_goal - known.state.z_before
    for solver in (NearestPair(difference, known.sought, "l2"), MostCommon(known.sought)):
        after = pairs.chart["condition_before"] + solver.solve(pairs.chart)
        assert bool(((after == 0) | (after == 1)).all())
    own = NearestPair(pairs.state.z_goal - pairs.state.z_before, pairs.sought)
    assert torch.equal(own.solve(pairs.chart), pairs.sought), "a pair of the library is its own nearest"
    with pytest.raises(ValueError, match="cosine, l2"):
        NearestPair(difference, known.sought, "dot")


@pytest.mark.slow
def test_the_benchmark_compares_on_equal_pairs_and_writes_its_table(tmp_path, capsys) -> None:
    task, world = explain_world(None, ToyClinic())
    rows = benchmark.compare(Simulator(world, task), 12, 60, width=3, depth=2)
    first = ["posterior beam with readings", "posterior beam", benchmark.CLASSIFIER, benchmark.FLOOR, "prior alone"]
    assert [r["solver"] for r in rows[:7]] == [*first, "beam search", "CEM"]
    assert len({r["solver"] for r in rows}) == len(rows) == 12 and {r["pairs"] for r in rows} == {12.0}
    assert all(r["top1_low"] <= r["top1"] <= r["top1_high"] for r in rows)
    assert rows[0]["over_prior"] == pytest.approx(rows[0]["top1"] - rows[4]["top1"])
    assert rows[0]["over_floor"] == pytest.approx(rows[0]["top1"] - rows[3]["top1"]) and rows[3]["over_floor"] == 0
    assert rows[0]["top1"] <= rows[0]["top3"] and rows[0]["top1"] <= rows[0]["reciprocal_rank"] <= 1
    assert np.isnan(rows[5]["top3"]), "one answer has no second"
    perfect = benchmark.row("all", torch.ones(4, C), torch.ones(4, C), 1.0, 10)
    assert perfect["top1"] == perfect["precision"] == perfect["recall"] == 1.0
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["--world", "no-such-world", "--out", str(tmp_path / "x.csv")])
    assert stopped.value.code == 2 and not list(tmp_path.iterdir()) and "error" in capsys.readouterr().err


def test_it_is_drawn() -> None:
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    for action in (3, 9, 0):
        env.step(action)
        frames.append(env.render())
    assert {(f.dtype, f.shape) for f in frames} == {(np.dtype(np.uint8), frames[0].shape)}
    assert all(not np.array_equal(a, b) for a, b in zip(frames, frames[1:], strict=False))
