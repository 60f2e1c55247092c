"""Tables of the page on agents that no single row of a file can fill: they group, number or pivot rows of it.

Each is Markdown, computed from committed files of results; `derived.DERIVED` gives them their names in the template.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from scipy.stats import spearmanr

from agents.board.table import figure
from agents.registry import EVERY_ID
from benchmarks.common.figures import Load, Row, printed, verdict

__all__ = ["best_estimator", "board", "board_overview", "doors", "estimators", "foresight"]
__all__ += ["gap_halved", "pessimism", "sure_leads", "table", "tail_cut", "team_plateau", "team_trainings"]

SHORT = 12  # steps of the board's shortest courses, which stand in its own files alone
LEARNED = ("policy", "planner")  # what is made in a learned world; rules and constants are the simple ones
DEPTHS = ("1", "4", "12", "24")  # steps ahead, of those there are
TOLD = ", told"  # estimators that take chances which no analyst has
DIALS = ("0", "1")
KEPT, CUT = 0.95, 0.75  # of the return at least, of the tail's cost at most
WIDE = 0.02  # of the return: a gap that is worth a word


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their heads, as Markdown."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _interval(row: Row, name: str, spec: str) -> str:
    return f"{printed(row[name], spec)} [" + ", ".join(printed(row[f"{name}_{e}"], spec) for e in ("low", "high")) + "]"


# ---- the leaderboard


def _board(load: Load, env_id: str) -> dict[int, list[dict[str, Any]]]:
    """Rows of an id by length, in the board's order; numbers as numbers, and nothing where a cell is empty."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in load("leaderboard.csv"):
        if row["id"] == env_id and int(row["steps"]) != SHORT:
            found.setdefault(int(row["steps"]), []).append({k: _value(v) for k, v in row.items() if v != ""})
    return found


def _value(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _name(row: Row) -> str:
    chosen = f" ({row['chosen']})" if "chosen" in row else ""
    return f"{row['agent']}{chosen}" + (f", {row['seeds']:.0f} seeds" if row["seeds"] > 1 else "")


def board(load: Load, env_id: str) -> str:
    """The leaderboard of an id: a table for each length. References are ranked with nobody."""
    return "\n\n".join(_length(steps, rows) for steps, rows in _board(load, env_id).items())


def _length(steps: int, rows: Sequence[dict[str, Any]]) -> str:
    heads = ["rank", "agent", "kind", "made in", "patients", "return", "minus the best simple rule", "cost"]
    heads += ["exploitation gap", "regret", "ms a decision"]
    lines, rank = [], 0
    for row in rows:
        rank += row["status"] == "ok" and row["kind"] != "reference"
        about = [_name(row), row["kind"], row.get("made_in", ""), f"{row['patients']:.0f}"]
        if row["status"] != "ok":
            lines.append(["", *about, "failed: " + " ".join(str(row["reason"]).split()), *[""] * 5])
            continue
        figures = [figure(row, name) for name in ("return", "minus_rule", "cost", "gap", "regret")]
        place = "" if row["kind"] == "reference" else str(rank)
        lines.append([place, *about, *figures, printed(row["ms_single"], "2s")])
    return f"{_caption(steps, rows)}\n\n{table(heads, lines)}"


def _caption(steps: int, rows: Sequence[dict[str, Any]]) -> str:
    first = next(row for row in rows if row["status"] == "ok")
    best, upper = first.get("best_rule", "none"), first.get("best_reference", "none")
    said = f"**{steps} steps.** Best simple rule: {best}; best reference: {upper}."
    told = [row for row in rows if "promised" in row and row["kind"] != "reference"]
    if len(told) > 2:
        rho = float(spearmanr([r["promised"] for r in told], [r["return"] for r in told]).statistic)
        promised = f"what {first['world']} promises of {len(told)} rivals"
        said += f" Rank correlation of {promised} with what they earn: {rho:.2f}."
    return said


def board_overview(load: Load) -> str:
    """By id and length: the best simple rule, and the best of what was made in the learned world beside it."""
    heads = ["environment", "steps", "best simple rule", "best made in the learned world", "patients"]
    heads += ["its return minus the rule's", "better?", "share of the best reference's return"]
    lines = []
    for env_id in EVERY_ID:
        for steps, rows in _board(load, env_id).items():
            best = next((r for r in rows if r["kind"] in LEARNED and "minus_rule" in r), None)
            if best is None:
                lines.append([f"`{env_id}`", str(steps), "", "none", "", "", "", ""])
                continue
            lead = verdict(best["minus_rule_low"], best["minus_rule_high"])
            share = _interval(best, "share", ".0%") if "share" in best else ""
            about = [f"`{env_id}`", str(steps), best["best_rule"], _name(best), f"{best['patients']:.0f}"]
            lines.append([*about, figure(best, "minus_rule"), lead, share])
    return table(heads, lines)


def sure_leads(load: Load) -> int:
    """Environments in which, over some length, what was made in the learned world surely beats every simple rule."""
    rows = [row for env_id in EVERY_ID for found in _board(load, env_id).values() for row in found]
    return len({r["id"] for r in rows if r["kind"] in LEARNED and r.get("minus_rule_low", 0.0) > 0.0})


# ---- what stands beside it


def foresight(load: Load) -> str:
    """A row a planner: what a decision took, and how far imagined rewards lay from those that came, by depth."""
    rows = load("planners_foresight.csv")
    depths = [d for d in DEPTHS if any(row["steps_ahead"] == d for row in rows)]
    heads = ["planner", "transitions a decision", "ms"]
    heads += [f"{d} ahead" for d in depths]
    lines = []
    for planner in dict.fromkeys(row["planner"] for row in rows):
        mine = {row["steps_ahead"]: row for row in rows if row["planner"] == planner}
        spent = next(iter(mine.values()))
        cells = [_error(mine[d]) if d in mine else "" for d in depths]
        lines.append([planner, printed(spent["transitions"], ",.0f"), printed(spent["milliseconds"], "2s"), *cells])
    return table(heads, lines)


def _error(row: Row) -> str:
    wide = 1.96 * float(row["bias_standard_error"])
    return f"{float(row['bias']):+.3f} ± {wide:.3f} ({float(row['mean_absolute_error']):.3f})"


def tail_cut(load: Load) -> str:
    """How many objectives cut the cost of the worst patients by a quarter or more for a twentieth of the return at
    most, and what is left by the one that cuts it most."""
    rows = load("risk_frontier.csv")
    good = [r for r in rows if _share(r, "cost_cvar") <= CUT and _share(r, "return") >= KEPT]
    if not good:
        return f"none of {len(rows) - 1} objectives does"
    best = min(good, key=lambda row: _share(row, "cost_cvar"))
    cost, kept = (_interval(best, f"{of}_share_of_reference", ".1%") for of in ("cost_cvar", "return"))
    said = f"{len(good)} of {len(rows) - 1} objectives do"
    return f'{said}, most of all "{best["arm"]}", which leaves {cost} of that cost and {kept} of the return'


def _share(row: Row, figure_of: str) -> float:
    return float(row[f"{figure_of}_share_of_reference"])


def pessimism(load: Load) -> str:
    """A row a search: the gap, and what is left of that of the same search in the same world without pessimism."""
    heads = [
        "world, pessimism",
        "promised",
        "earned",
        "gap",
        "of the return",
        "of the gap without",
        "earned more than without",
    ]
    heads.append("torsades")
    rows = {row["arm"]: row for row in load("pessimism.csv")}
    lines = []
    for arm, row in rows.items():
        plain = rows.get(_without(row))
        left = "" if plain is None or plain is row else f"{float(row['gap']) / float(plain['gap']):.2f}"
        cells = [printed(row[name], ".2f") for name in ("promised", "earned")]
        cells += [_interval(row, "gap", ".2f"), printed(row["gap_share_of_return"], ".1%"), left]
        lines.append([arm, *cells, _interval(row, "earned_minus_none", ".2f"), printed(row["torsades"], ".1%")])
    return table(heads, lines)


def gap_halved(load: Load) -> str:
    """Where the gap without pessimism is above a fiftieth of the return, and how many arms leave at most half of it."""
    rows = {row["arm"]: row for row in load("pessimism.csv")}
    wide = {a for a, row in rows.items() if a == _without(row) and float(row["gap_share_of_return"]) > WIDE}
    tried = [row for arm, row in rows.items() if _without(row) in wide and arm not in wide]
    halved = sum(float(row["gap"]) <= 0.5 * float(rows[_without(row)]["gap"]) for row in tried)
    if not wide:
        return "nowhere"
    worlds = "; ".join(sorted(arm.replace(", none", "") for arm in wide))
    return f"in these worlds ({worlds}): there {halved} of {len(tried)} arms halve it at least"


def _without(row: Row) -> str:
    """The arm of the same world and search without pessimism."""
    return f"{row['world'].removesuffix(' refitted')}, none" + (", by sampling" if "by sampling" in row["arm"] else "")


def _places(load: Load, dial: str) -> dict[str, float]:
    """Estimator -> its mean place by RMSE over the ids, among those that take what an analyst has."""
    places: dict[str, list[int]] = {}
    rows = [r for r in load("offline.csv") if r["dial"] == dial and TOLD not in r["estimator"]]
    for env_id in dict.fromkeys(row["id"] for row in rows):
        mine = sorted((float(row["rmse"]), row["estimator"]) for row in rows if row["id"] == env_id)
        for place, (_, estimator) in enumerate(mine):
            places.setdefault(estimator, []).append(place + 1)
    return {estimator: sum(found) / len(found) for estimator, found in places.items()}


def best_estimator(load: Load, dial: str) -> str:
    """The estimator of the lowest mean place."""
    places = _places(load, dial)
    return min(places, key=lambda estimator: places[estimator])


def estimators(load: Load) -> str:
    """A row an estimator, by its mean place: RMSE and rank correlation for each id and position of the dial."""
    rows = {(r["id"], r["dial"], r["estimator"]): r for r in load("offline.csv")}
    ids = list(dict.fromkeys(env_id for env_id, _, _ in rows))
    places = {dial: _places(load, dial) for dial in DIALS}
    known = {estimator for _, _, estimator in rows}

    def order(estimator: str) -> tuple[bool, float, str]:
        return TOLD in estimator, sum(places[dial].get(estimator, 0.0) for dial in DIALS), estimator

    heads = ["estimator", *(f"mean place, dial {dial}" for dial in DIALS)]
    heads += [f"`{env_id}`, dial {dial}" for env_id in ids for dial in DIALS]
    lines = []
    for estimator in sorted(known, key=order):
        mean = [f"{places[dial][estimator]:.1f}" if estimator in places[dial] else "" for dial in DIALS]
        cells = [_estimate(rows.get((env_id, dial, estimator))) for env_id in ids for dial in DIALS]
        lines.append([estimator, *mean, *cells])
    return table(heads, lines)


def _estimate(row: Row | None) -> str:
    if row is None:
        return ""
    error = _interval(row, "rmse", ".2f") if math.isfinite(float(row["rmse"])) else "not finite"
    return f"{error}, {printed(row['rank_correlation'], '.2f')}"


def doors(load: Load) -> str:
    """A row a library's checker, a column an id: what came of it, and patient-steps a second that it collects."""
    rows = [row for row in load("doors.csv") if row["library"] != "pettingzoo"]
    ids = list(dict.fromkeys(row["id"] for row in rows))
    lines = []
    for check in dict.fromkeys((row["library"], row["version"], row["check"]) for row in rows):
        mine = {r["id"]: r for r in rows if (r["library"], r["version"], r["check"]) == check}
        lines.append([f"{check[0]} {check[1]}", check[2], *(_passed(mine[i]) if i in mine else "" for i in ids)])
    return table(["library", "check", *(f"`{env_id}`" for env_id in ids)], lines)


def _passed(row: Row) -> str:
    result = row["result"].partition(":")[0]
    return f"{result}, {printed(row['steps_per_second'], '2s')}/s" if row["steps_per_second"] else result


# ---- the care team


def team_trainings(load: Load) -> str:
    """Every training of independent PPO, by what it is worth to validation patients."""
    heads = (
        "rate",
        "iterations",
        "seed",
        "acts",
        "minus the split rule",
        "minus the shorter run",
        "processor time, s",
        "",
    )
    rows = []
    for row in load("team_training.csv"):
        shorter = _interval(row, "minus_shorter", "+.2f") if row["minus_shorter"] else ""
        cells = [row["learning_rate"], row["iterations"], row["seed"], row["acts"]]
        cells += [_interval(row, "validation_minus_split", "+.2f"), shorter, printed(row["cpu_seconds"], ",.0f")]
        rows.append([*cells, "chosen" if row["chosen"] == "True" else ""])
    return table(heads, rows)


def team_plateau(load: Load) -> str:
    """Whether the setting that was chosen is as long as it need be, in a sentence."""
    rows = [row for row in load("team_training.csv") if row["chosen"] == "True"]
    chosen = next(row for row in rows if row["minus_shorter"])
    gained = (
        f"{chosen['iterations']} iterations gain {_interval(chosen, 'minus_shorter', '+.2f')} on the next shorter run"
    )
    if float(chosen["minus_shorter_low"]) > 0:
        return f"It is not surely a plateau: {gained}."
    return f"It is a plateau as far as these patients can tell: {gained}."
