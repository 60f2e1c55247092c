"""The benchmarks of caution and pessimism: their figures on known episodes, and tiny runs that go on where they
stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents.rollout import EpisodeResults
from benchmarks.common.kept_runs import KeptRuns
from benchmarks.common.results import provenance, read_csv
from benchmarks.ecg_drug import adversary, pessimism, risk_frontier
from clinenv.envs.ecg_drug.task import SINGLE_DOSE_MG, ECGDrugTask
from clinenv.simulator import Simulator
from clinenv.task import Outcomes
from world_models import catalog, checkpoint, keys
from world_models.ecg_wm.logged import logged_courses


def episodes(returns: torch.Tensor, costs: torch.Tensor) -> EpisodeResults:
    count, nothing = len(returns), torch.zeros(len(returns))
    return EpisodeResults(
        returns, costs, torch.full((count,), 24), {"rhythm": returns}, Outcomes({"torsades": nothing}, {"max": costs}),
        torch.zeros(count, 4), torch.zeros(count, 4), nothing,
    )  # fmt: skip


def test_figures_of_known_episodes() -> None:
    returns, costs = torch.arange(100.0), torch.arange(100.0).flip(0)
    base = episodes(returns, costs)
    half = episodes(returns - 10, torch.where(costs >= 95, costs / 2, costs))
    rows = {row["arm"]: row for row in risk_frontier.rows_of({risk_frontier.REFERENCE: base, "careful": half})}
    plain, careful = rows[risk_frontier.REFERENCE], rows["careful"]
    assert plain["return"] == pytest.approx(49.5) and plain["cost_cvar"] == pytest.approx(97.0)
    assert plain["return_cvar"] == pytest.approx(2.0)
    assert plain["cost_cvar_share_of_reference"] == plain["return_share_of_reference_low"] == 1.0
    assert careful["return_minus_reference"] == careful["return_minus_reference_high"] == pytest.approx(-10.0)
    # what was the worst twentieth is halved, and the next twentieth is the worst now: 90 to 94
    assert careful["cost_cvar"] == pytest.approx(92.0)
    assert careful["cost_cvar_minus_reference_low"] <= -5.0 <= careful["cost_cvar_minus_reference_high"]
    assert careful["any_harm"] == pytest.approx(0.99)


def test_judged_groups_are_kept_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    asked: list[slice] = []

    def judged(rows: slice) -> EpisodeResults:
        asked.append(rows)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return episodes(torch.arange(7.0)[rows], torch.arange(7.0)[rows])

    runs = KeptRuns(tmp_path, {"seed": 1}, 7, 3)
    with pytest.raises(KeyboardInterrupt):
        runs.episodes("a", judged)
    found = runs.episodes("a", judged)
    assert [rows.start for rows in asked] == [0, 3, 3, 6]
    assert found.returns.tolist() == list(range(7)) and found.outcomes.peaks["max"].tolist() == list(range(7))
    assert runs.episodes("a", judged).terms["rhythm"].tolist() == list(range(7)) and len(asked) == 4
    KeptRuns(tmp_path, {"seed": 2}, 7, 3).episodes("a", judged)
    assert len(asked) == 7, "other settings, other runs"


def test_every_arm_has_a_name_of_its_own_and_the_quick_ones_are_among_them() -> None:
    for arms, quick in ((risk_frontier.arms(), risk_frontier.QUICK), (pessimism.arms(), pessimism.QUICK)):
        names = [arm.name for arm in arms]
        assert len(set(names)) == len(names) and set(quick) <= set(names)
    with pytest.raises(SystemExit) as refused:
        risk_frontier.main(["--only", "no such arm"])
    assert refused.value.code == 2


def test_a_tiny_frontier_runs_and_is_not_judged_twice(tmp_path: Path, monkeypatch) -> None:
    tiny = replace(risk_frontier.CONFIG, horizon=2, candidates=6, iterations=1, elites=2, finalists=1)
    monkeypatch.setattr(risk_frontier, "CONFIG", tiny)
    monkeypatch.setattr(risk_frontier, "ECGDrugTask", lambda: ECGDrugTask(horizon_hours=12.0))
    monkeypatch.setattr(risk_frontier, "ASCENT", replace(risk_frontier.ASCENT, rounds=2))
    arguments = ["--patients", "2", "--ascent-patients", "2", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    arguments += ["--only", "cost weight 0.05, CVaR 0.05", "P(any harm) <= 0.1"]
    assert risk_frontier.main(arguments) == 0
    first = read_csv(tmp_path / "risk_frontier.csv")
    monkeypatch.setattr(risk_frontier, "judge", None)
    assert risk_frontier.main(arguments) == 0
    again = read_csv(tmp_path / "risk_frontier.csv")
    assert [row["return"] for row in again] == [row["return"] for row in first] and len(first) == 3
    assert float(first[2]["multiplier"]) >= 0
    assert provenance(tmp_path / "risk_frontier.png") == provenance(tmp_path / "risk_frontier.csv")


@pytest.mark.slow
def test_searches_find_more_than_nothing_and_leave_small_doses_out(monkeypatch) -> None:
    monkeypatch.setattr(adversary, "STEPS", 9)
    simulator = Simulator(catalog.load("ecg-wm-small"), ECGDrugTask(), grad=True, events="expected")
    key, high = keys.from_seed(9, 6), torch.tensor(list(SINGLE_DOSE_MG.values()))
    start = simulator.reset(key)
    nothing = simulator.imagine(*start, torch.zeros(6, 1, 9, 4), 32).returns.mean()
    objective = pessimism.ReturnAndCost()
    searches = (adversary.GradientSearch(steps=14, particles=3, rate=0.4), adversary.CEMSearch(3, 16, 4, 3))
    for search in searches:
        orders = search(simulator, start, objective, high, keys.fold(key, "search"), "test")
        assert orders.shape == (6, 9, 4) and bool(((orders == 0) | (orders >= 0.02 * high)).all())
        assert bool((orders <= high).all())
        with torch.no_grad():
            found = simulator.imagine(*start, orders.unsqueeze(1), 32).returns.mean()
        assert float(found) > float(nothing), type(search).__name__


@pytest.mark.slow
def test_a_tiny_comparison_runs_with_a_trial(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(adversary, "STEPS", 4)
    short = adversary.GradientSearch(steps=2, particles=2)
    arms = [
        replace(arm, search=short)
        for arm in pessimism.arms()
        if arm.name in (*pessimism.QUICK, "narrow refitted, none")
    ]
    monkeypatch.setattr(pessimism, "arms", lambda: arms)
    monkeypatch.setattr(pessimism, "JUDGED", 4)
    monkeypatch.setattr(pessimism, "REFIT", replace(pessimism.REFIT, steps=1, event_steps=1, batch=8))
    arguments = ["--patients", "3", "--learned-from", "16", "--training", "1", "--trial-patients", "2"]
    arguments += ["--worlds", str(tmp_path / "w"), "--runs", str(tmp_path / "r"), "--out", str(tmp_path)]
    assert pessimism.main(arguments) == 0
    rows = read_csv(tmp_path / "pessimism.csv")
    assert [row["arm"] for row in rows] == [arm.name for arm in arms]
    for row in rows:
        assert float(row["gap"]) == pytest.approx(float(row["promised"]) - float(row["earned"]), abs=1e-4)
    assert rows[2]["trial_patients"] == "2" and rows[0]["trial_patients"] == ""
    world = catalog.load(tmp_path / "w" / "narrow-0")
    assert world.amount_limit.tolist()[0] == world.amount_limit.tolist()[3] == 0.0, "what was withheld was never met"
    assert checkpoint.sha256(tmp_path / "w" / "narrow-0") == world.weights_sha256


def test_logged_courses_hold_what_was_charted() -> None:
    world, oracle = catalog.load("ecg-wm-small"), Simulator(catalog.load("oracle"), ECGDrugTask())
    key = keys.from_seed(12, 5)
    actions = torch.zeros(5, 4, 4)
    actions[:, 0, 1] = 0.25
    course = oracle.rollout(*oracle.reset(key), actions)
    logged = logged_courses(world, course.charts, actions, 2.0, key)
    assert logged.u.shape[:2] == (5, 5) and torch.equal(logged.charts["qtcf_ms"], course.charts["qtcf_ms"])
    assert torch.equal(logged.actions[:, :4], actions) and not bool(logged.actions[:, 4].any())
    assert not bool(logged.measured.isnan().any())
    shown = ~logged.u[:, 0].isnan()
    torch.testing.assert_close(logged.measured[shown], logged.u[:, 0][shown], rtol=1e-3, atol=0.6)
    with pytest.raises(ValueError, match="the charts lack qrs_ms"):
        logged_courses(world, {n: v for n, v in course.charts.items() if n != "qrs_ms"}, actions, 2.0, key)
    with pytest.raises(ValueError, match="one visit more than orders"):
        logged_courses(world, course.charts, actions[:, :3], 2.0, key)
