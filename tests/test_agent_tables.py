"""Tables of the page on agents: who is ranked, what is left out, and what is read off files of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.common import agent_tables
from benchmarks.common.figures import Load, Row


def files(**tables: Sequence[dict[str, Any]]) -> Load:
    """A loader of these tables as `figures.load` reads them: every cell a text."""

    def load(name: str) -> Sequence[Row]:
        rows = tables[name.removesuffix(".csv")]
        names = dict.fromkeys(key for row in rows for key in row)
        return [{key: str(row.get(key, "")) for key in names} for row in rows]

    return load


def spread(name: str, value: float, half: float = 0.1) -> dict[str, float]:
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def judged(agent: str, kind: str, lead: float, steps: int = 24, **more: Any) -> dict[str, Any]:
    about = {"id": "ECGDrug-v0", "steps": steps, "agent": agent, "kind": kind, "status": "ok", "seeds": 1}
    about |= {"patients": 40, "world": "ecg-wm-small", "oracle": "oracle", "best_rule": "label rule"}
    about |= {"best_reference": "owner", "ms_single": 12.3, "promised": lead + 6.5}
    figures = (("return", 6.0 + lead), ("minus_rule", lead), ("cost", 0.5), ("gap", 0.5), ("regret", 0.2 - lead))
    return about | {k: v for name, value in figures for k, v in spread(name, value).items()} | more


BOARD = [
    judged("owner", "reference", 0.2, made_in="oracle"),
    judged("CEM", "planner", 0.15, made_in="ecg-wm-small", seeds=3, **spread("share", 0.99, 0.005)),
    judged("label rule", "rule", 0.0),
    judged("PPO", "policy", -0.3, made_in="ecg-wm-small"),
    {**{k: judged("MPPI", "planner", 0.0)[k] for k in ("id", "steps", "agent", "kind", "seeds", "patients")}},
    judged("CEM", "planner", 0.9, steps=12),
]
BOARD[4] |= {"status": "failed", "reason": "seed 0: it took 9 s\nfor a decision"}


def cells(table: str) -> list[list[str]]:
    """A table's rows below its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_board_ranks_rivals_alone_and_says_what_failed() -> None:
    found = agent_tables.board(files(leaderboard=BOARD), "ECGDrug-v0")
    rows = cells(found)
    assert [(row[0], row[1]) for row in rows] == [
        ("", "owner"),
        ("1", "CEM, 3 seeds"),
        ("2", "label rule"),
        ("3", "PPO"),
        ("", "MPPI"),
    ]
    assert rows[1][5:7] == ["6.15 [6.05, 6.25]", "0.150 [0.050, 0.250]"] and rows[1][-1] == "12"
    assert "failed: seed 0: it took 9 s for a decision" in rows[4] and len({len(row) for row in rows}) == 1
    assert "**24 steps.** Best simple rule: label rule; best reference: owner." in found and "12 steps" not in found
    assert "Rank correlation of what ecg-wm-small promises of 3 rivals with what they earn: 1.00." in found


def test_the_overview_takes_the_best_of_what_was_made_in_the_learned_world() -> None:
    load = files(leaderboard=BOARD)
    (row,) = cells(agent_tables.board_overview(load))
    assert row[1:4] == ["24", "label rule", "CEM, 3 seeds"] and row[-2:] == ["yes", "99 % [98 %, 100 %]"]
    assert agent_tables.sure_leads(load) == 1
    (row,) = cells(agent_tables.board_overview(files(leaderboard=[BOARD[2], BOARD[3]])))
    assert row[3] == "PPO" and row[-2] == "no"
    assert agent_tables.sure_leads(files(leaderboard=BOARD[2:4])) == 0
    (row,) = cells(agent_tables.board_overview(files(leaderboard=[BOARD[2]])))
    assert row[3] == "none"


def test_foresight_is_a_row_a_planner_and_a_column_a_depth() -> None:
    about = {"planner": "CEM", "transitions": 3000, "milliseconds": 12, "bias_standard_error": 0.01}
    rows = [{**about, "steps_ahead": d, "bias": -0.1 * d, "mean_absolute_error": 0.5} for d in (1, 2, 4)]
    (row,) = cells(agent_tables.foresight(files(planners_foresight=rows)))
    assert row == ["CEM", "3,000", "12", "-0.100 ± 0.020 (0.500)", "-0.400 ± 0.020 (0.500)"]


def test_who_cuts_the_tail_is_asked_of_both_ends() -> None:
    def arm(name: str, cost: float, kept: float) -> dict[str, Any]:
        of = {"cost_cvar_share_of_reference": cost, "return_share_of_reference": kept}
        return {"arm": name} | {k: v for n, value in of.items() for k, v in spread(n, value).items()}

    rows = [arm("mean return", 1.0, 1.0), arm("dear", 0.1, 0.9), arm("cheap", 0.6, 0.97), arm("cheaper", 0.5, 0.96)]
    said = agent_tables.tail_cut(files(risk_frontier=rows))
    assert said.startswith('2 of 3 objectives do, most of all "cheaper", which leaves 50.0 % [40.0 %, 60.0 %]')
    assert agent_tables.tail_cut(files(risk_frontier=rows[:2])) == "none of 1 objectives does"


def test_pessimism_is_compared_with_the_same_search_without() -> None:
    def arm(name: str, world: str, gap: float) -> dict[str, Any]:
        row = {"arm": name, "world": world, "promised": 6.0, "earned": 6.0 - gap, "torsades": 0.01}
        return {**row, **spread("gap", gap), "gap_share_of_return": gap / 6.0, **spread("earned_minus_none", 0.0)}

    rows = [
        arm("narrow, none", "narrow", 1.0),
        arm("narrow, MOPO 1", "narrow", 0.4),
        arm("narrow, none, by sampling", "narrow", 0.05),
        arm("narrow, MOReL 2, by sampling", "narrow", 0.01),
        arm("narrow refitted, none", "narrow refitted", 0.8),
    ]
    load = files(pessimism=rows)
    assert [row[5] for row in cells(agent_tables.pessimism(load))] == ["", "0.40", "", "0.20", "0.80"]
    assert agent_tables.gap_halved(load) == "in these worlds (narrow): there 1 of 2 arms halve it at least"
    assert agent_tables.gap_halved(files(pessimism=rows[2:4])) == "nowhere"


@pytest.fixture
def offline() -> Load:
    rows = []
    for dial, errors in (("0", {"DR": 0.1, "IS": 0.9}), ("1", {"DR": 0.5, "IS": 0.3, "DR, told": 0.05})):
        for env_id in ("ECGDrug-v0", "EHRWard-v0"):
            about = {"id": env_id, "dial": dial, "rank_correlation": 0.5}
            rows += [{**about, "estimator": name, **spread("rmse", value, 0.05)} for name, value in errors.items()]
    return files(offline=rows)


def test_estimators_that_no_analyst_has_take_no_place(offline: Load) -> None:
    assert (agent_tables.best_estimator(offline, "0"), agent_tables.best_estimator(offline, "1")) == ("DR", "IS")
    rows = {row[0]: row[1:] for row in cells(agent_tables.estimators(offline))}
    assert list(rows) == ["DR", "IS", "DR, told"] and rows["DR"][:3] == ["1.0", "2.0", "0.10 [0.05, 0.15], 0.50"]
    assert rows["DR, told"] == ["", "", "", "0.05 [0.00, 0.10], 0.50", "", "0.05 [0.00, 0.10], 0.50"]


def test_doors_are_a_row_a_check_and_a_column_an_id() -> None:
    rows = [
        {
            "library": "skrl",
            "version": "2",
            "id": "A-v0",
            "check": "wraps",
            "steps_per_second": 8123.0,
            "result": "passed",
        },
        {"library": "skrl", "version": "2", "id": "B-v0", "check": "wraps", "result": "does not apply: amounts alone"},
        {"library": "pettingzoo", "version": "1", "id": "C-v0", "check": "api", "result": "passed"},
    ]
    assert cells(agent_tables.doors(files(doors=rows))) == [["skrl 2", "wraps", "passed, 8,100/s", "does not apply"]]
