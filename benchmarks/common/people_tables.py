"""Tables of the page about people, each from files that are committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.common.agent_tables import table
from benchmarks.common.figures import Load, Row, printed

__all__ = ["TABLES"]

NAMES = {
    "last_value": "last value",
    "first_value": "first value",
    "item_median": "item's median",
    "holt": "smoothing with a damped drift",
    "boosting": "gradient boosting, tuned",
    "grud": "GRU-D-like network",
    "all sets": "all together",
}
BASE = "last_value"


def _cell(row: Row, name: str, spec: str) -> str:
    value = row.get(name, "")
    return "" if value in ("", "nan") else printed(value, spec)


def _minus(row: Row, of: str) -> str:
    """Against the last value as it stands, with its interval."""
    if row["model"] == BASE:
        return ""
    middle, low, high = (_cell(row, f"{of}_{end}", "+.3f") for end in ("minus_last", "low", "high"))
    return f"{middle} [{low}, {high}]"


def _lines(rows: list[Row]) -> str:
    heads = [
        "set",
        "foretold by",
        "S@25",
        "minus the plain last value's",
        "S@10",
        "MAE, SD",
        "CRPS",
        "NLL",
        "status F1",
    ]
    heads += ["S@25 of what moved", "80 % interval holds"]
    columns = (("s10", ".3f"), ("mae_sd", ".3f"), ("crps", ".3f"), ("nll", ".2f"), ("status_f1", ".3f"))
    lines, last = [], ""
    for row in rows:
        name = row["set"]
        told = f"{NAMES.get(name, f'`{name}`')}, {int(float(row['stays'])):,} stays" if name != last else ""
        last = name
        cells = [_cell(row, column, spec) for column, spec in columns]
        moved, holds = _cell(row, "high_sensitivity_s25_hits", ".3f"), _cell(row, "coverage80", ".3f")
        who = NAMES.get(row["model"], f"`{row['model']}`")
        lines.append([told, who, _cell(row, "s25_hits", ".3f"), _minus(row, "s25_hits"), *cells, moved, holds])
    return table(heads, lines)


def _next(load: Load, file: str) -> str:
    return _lines([row for row in load(file) if row["setting"] == "next_step"])


def _trajectory(load: Load, file: str, setting: str, horizon: str) -> str:
    return _lines([row for row in load(file) if row["setting"] == setting and row["horizon"] == horizon])


ESTIMATORS = {"raw": "change in the treated", "naive": "naive comparison", "doubly_robust": "doubly robust"}
ESTIMATORS |= {"oracle_regularised": "drawn to the oracle", "world ": "learned world", "oracle": "oracle ward"}
EFFECTS = "people_effects.csv"


def effects(load: Load) -> str:
    """A row an order: what is known, and what every estimator says of all records together, for the usual dose."""
    rows = [row for row in load(EFFECTS) if row["record"] == "all"]
    heads = ["order", "usual dose", "known", *ESTIMATORS.values(), "verdict on the doubly robust estimate"]
    lines = []
    for question in dict.fromkeys(row["question"] for row in rows):
        mine = {row["estimator"]: row for row in rows if row["question"] == question}
        main = mine["doubly_robust"]
        known = f"{_cell(main, 'known_low', 'g')} to {_cell(main, 'known_high', 'g')}"
        cells = []
        for begins in ESTIMATORS:
            found = [
                r for name, r in mine.items() if name == begins or (begins == "world " and name.startswith(begins))
            ]
            cells.append(_effect(found[0]) if found else "")
        dose = f"{_cell(main, 'usual_dose', 'g')} {main['dose_unit']}"
        lines.append([question, dose, known, *cells, main["verdict"]])
    return table(heads, lines)


def _effect(row: Row) -> str:
    middle, low, high = (_cell(row, f"usual_dose_effect{end}", ".3g") for end in ("", "_low", "_high"))
    return middle if not low else f"{middle} [{low}, {high}]"


def ends(load: Load) -> str:
    """A row a set and who foretells, death beside discharge."""
    rows = load("people_ends.csv")
    heads = ["set", "foretold by", "deaths", "AUROC", "skill, log loss", "skill, Brier"]
    heads += ["discharges", "AUROC", "skill, log loss", "skill, Brier"]
    lines, last = [], ""
    for row in rows:
        if row["end"] != "death":
            continue
        other = next(r for r in rows if (r["end"], r["set"], r["model"]) == ("discharge", row["set"], row["model"]))
        name = row["set"]
        told = f"{NAMES.get(name, f'`{name}`')}, {int(row['steps']):,} steps" if name != last else ""
        last = name
        who = row["model"] if " " in row["model"] else f"`{row['model']}`"
        cells = [c for r in (row, other) for c in (r["ends"], _ranged(r, "auroc"), *_skills(r))]
        lines.append([told, who, *cells])
    return table(heads, lines)


def _ranged(row: Row, name: str) -> str:
    middle, low, high = (_cell(row, f"{name}{end}", ".3f") for end in ("", "_low", "_high"))
    return f"{middle} [{low}, {high}]"


def _skills(row: Row) -> list[str]:
    return ["0" if row["model"] == RATE else _ranged(row, name) for name in ("log_skill", "brier_skill")]


RATE = "rate by step"


def _language(load: Load, file: str) -> str:
    """All sets together: who foretells the same few values, and the seconds of processor time that it was trained."""
    heads = ["foretold by", "trained for, s", "S@25", "minus the plain last value's", "S@10", "MAE, SD", "CRPS", "NLL"]
    heads += ["status F1", "80 % interval holds"]
    columns = (("s10", ".3f"), ("mae_sd", ".3f"), ("crps", ".3f"), ("nll", ".2f"), ("status_f1", ".3f"))
    lines = []
    for row in load(file):
        if row["set"] == "all sets":
            cells = [_cell(row, column, spec) for column, spec in (*columns, ("coverage80", ".3f"))]
            who = NAMES.get(row["model"], f"`{row['model']}`")
            lines.append(
                [who, _cell(row, "cpu_s", ",.0f"), _cell(row, "s25_hits", ".3f"), _minus(row, "s25_hits"), *cells]
            )
    return table(heads, lines)


def ends_asked(load: Load) -> str:
    """A row a way of asking."""
    heads = ["charted at every step", "dead", "at home"]
    return table(heads, [[r["asked"], _ranged(r, "dead"), _ranged(r, "home")] for r in load("people_ends_asked.csv")])


TABLES: Mapping[str, Callable[[Load], str]] = {
    **{f"people, next step, {h} h": lambda load, h=h: _next(load, f"people_next_{h}h.csv") for h in (4, 1)},
    **{
        f"people, trajectory from {begin} h, {horizon}, {h} h": lambda load, h=h, b=begin, z=horizon: _trajectory(
            load, f"people_trajectory_{h}h.csv", f"trajectory_from_{b}h", z
        )
        for h in (4,)
        for begin in (4, 24)
        for horizon in ("24 h", "to the end")
    },
    "people, effects of orders": effects,
    "people, language models": lambda load: _language(load, "people_language_4h.csv"),
    "people, rates of language models": lambda load: _language(load, "people_language_rates_4h.csv"),
    "people, ends of stays": ends,
    "people, ends and charting": ends_asked,
}
