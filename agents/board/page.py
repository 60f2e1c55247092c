"""The board as one HTML page: no file, font, script or picture from anywhere else, and readable without its script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from agents.board.stage import OWN
from agents.board.table import FIGURES, figure
from agents.registry import CLINIC, KINDS
from clinenv.commands.html_page import page_foot, page_head, table
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

__all__ = ["COLOURS", "board_page"]

HERE = Path(__file__).parent
COLOURS = {
    "rule": "#1c549e",
    "constant": "#7d8590",
    "policy": "#0f7b5f",
    "planner": "#b3470b",
    "reference": "#8a3ea8",
}
ADVICE = (
    "No patient here is a person: all are simulated. The ranking says which program earns more in a simulation, not "
    "which treatment helps anybody. It is no medical advice, and no drug, dose or rule in it is a recommendation."
)
MOST_CONSTANTS = 25  # of an id, on the page; all are in the CSV
_SUFFIXES = ("_low", "_high")


def board_page(
    rows: Sequence[Mapping[str, Any]],
    facts: Sequence[tuple[str, str]],
    command: str,
    constants: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page.

    Args:
        rows: of `table.rows_of`.
        facts: what is told at its head, (what, value).
        command: that makes it again.
        constants: of every constant that was tried: id, steps, constant, learned and oracle return.
    """
    css = (HERE / "page.css").read_text(encoding="utf-8")
    warnings = [ADVICE]
    failed = [r for r in rows if r["status"] != "ok"]
    if failed:
        warnings.append(f"{len(failed)} rows failed; they stand below with the reason")
    lead = "Agents made in learned worlds, judged in mechanistic oracles: the same patients and the same luck for all"
    parts = [page_head("clinenv leaderboard", lead, facts, warnings, css), _how_to_read(), _filters(rows), _plots()]
    parts += [_board(rows), _tried(constants)]
    parts.append('<section><h2>What made this page</h2><div class="card">')
    parts.append(page_foot(command, ADVICE))
    page = "".join(parts)
    return page.replace("</body>", f"{_scripts(rows)}</body>")


def length(row: Mapping[str, Any]) -> str:
    """The length of an episode in words: "24 steps (48 h)"."""
    steps = row["steps"]
    if row["id"] == CLINIC:
        return f"{steps} months"
    hours = steps * row["hours_per_step"]
    if row["hours_per_step"] == 1.0:
        return f"{steps} steps"
    return f"{steps} steps ({hours:g} h)" if hours <= 48 else f"{steps} steps ({hours / 24:g} days)"


def _how_to_read() -> str:
    terms = [
        ("return", FIGURES["return"] + "; in brackets 95 % intervals, over patients and over seeds"),
        ("minus best rule", FIGURES["minus_rule"] + "; rules and constants are simple, references are not"),
        ("worst 5 %", "mean over the worst twentieth of the patients (CVaR): lowest returns, highest costs"),
        ("gap", FIGURES["gap"] + "; above 0 the world promised too much"),
        ("regret", FIGURES["regret"]),
        ("ms", "processor time to decide for one patient who is alone, and for one in a batch, on one core"),
        ("reference", "knows what no rival may: it was made in the oracle, or sees the diagnoses. Ranked with nobody"),
    ]
    listed = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in terms)
    return f'<details><summary>How to read it</summary><dl class="terms">{listed}</dl></details>'


def _filters(rows: Sequence[Mapping[str, Any]]) -> str:
    ids = list(dict.fromkeys(r["id"] for r in rows))
    options = "".join(f'<option value="{escape(i)}" data-own="{OWN.get(i, 0)}">{escape(i)}</option>' for i in ids)
    boxes = "".join(
        f'<label><input type="checkbox" name="kind" value="{kind}" checked>'
        f'<i style="background:{COLOURS[kind]}"></i>{kind}</label>'
        for kind in KINDS
    )
    return (
        '<section class="needs-script hidden"><div class="filters">'
        f'<label>Environment<select id="f-id">{options}</select></label>'
        '<label>Length of an episode<select id="f-steps"></select></label>'
        '<label>Search<input type="search" id="f-words" placeholder="name, method, source"></label></div>'
        f'<div class="kinds">{boxes}</div><p class="muted" id="caption"></p></section>'
    )


def _plots() -> str:
    def card(name: str, title: str) -> str:
        return f'<div class="card"><h3>{title}</h3><div id="{name}"></div></div>'

    first = card("plot-minus", "Return minus that of the best simple rule, the same patients, 95 % intervals")
    beside = card("plot-gap", "Return promised and earned") + card("plot-cost", "Cost and return minus the best rule's")
    return f'<section class="plots needs-script hidden">{first}<div class="stack">{beside}</div></section>'


# column of the rows, title, whether the first click sorts upwards
_COLUMNS = (
    ("agent", "agent", True),
    ("kind", "kind", True),
    ("patients", "patients", False),
    ("minus_rule", "minus best rule", False),
    ("return", "return", False),
    ("cost", "cost", True),
    ("return_cvar", "return, worst 5 %", False),
    ("cost_cvar", "cost, worst 5 %", True),
    ("promised", "promised", False),
    ("gap", "gap", True),
    ("regret", "regret", True),
    ("share", "share of reference", False),
    ("ms_single", "ms alone", True),
    ("ms_batch", "ms in a batch", True),
    ("budget", "budget", True),
    ("made_in", "made in", True),
    ("source", "source", True),
    ("seal", "seals", True),
)
_WORDS = ("agent", "kind", "budget", "made_in", "source", "seal")


def _board(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = "".join(_head(*column) for column in _COLUMNS)
    body = "".join(_row(i, row) for i, row in enumerate(rows))
    return (
        '<section><h2>All figures</h2><div class="card scroll"><table class="board" id="board">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _head(name: str, title: str, up: bool) -> str:
    more = ("" if name in _WORDS else " class=n") + (" aria-sort=descending" if name == "minus_rule" else "")
    first = "up" if up else "down"
    return f'<th scope="col" tabindex="0" data-column="{name}" data-first="{first}"{more}>{title}</th>'


def _row(index: int, row: Mapping[str, Any]) -> str:
    classes = [*(["reference"] if row["kind"] == "reference" else []), *(["failed"] if row["status"] != "ok" else [])]
    cells = "".join(_cell(name, row) for name, _, _ in _COLUMNS)
    return f'<tr data-row="{index}" class="{" ".join(classes)}">{cells}</tr>'


def _cell(name: str, row: Mapping[str, Any]) -> str:
    value = row.get(name, "")
    if name == "agent":
        seeds = f"{row['seeds']} seeds" if row["seeds"] > 1 else ""
        small = "".join(f"<small>{escape(words)}</small>" for words in (seeds, row["chosen"], row["reason"]) if words)
        return f'<td>{escape(value)}<small class="place">{escape(row["id"])}, {length(row)}</small>{small}</td>'
    if name == "kind":
        return f'<td class="kind"><i style="background:{COLOURS[value]}"></i>{escape(value)}</td>'
    if name in FIGURES:
        if value == "":
            return '<td class="n"></td>'
        point, interval = figure(row, name).split(" ", 1)
        return f'<td class="n {_sure(name, row)}">{point}<small>{escape(interval)}</small></td>'
    if name in _WORDS:
        weights = f"<small>weights {escape(row['weights'])}</small>" if name == "seal" and row["weights"] else ""
        kind = "seal" if name == "seal" else "wide" if len(str(value)) > 30 else ""
        return f'<td class="{kind}">{escape(str(value))}{weights}</td>'
    return f'<td class="n">{value:.2f}</td>' if isinstance(value, float) else f'<td class="n">{escape(str(value))}</td>'


def _sure(name: str, row: Mapping[str, Any]) -> str:
    """Class of a cell whose interval lies wholly above or below 0, where that says something."""
    if name != "minus_rule" or row["kind"] in ("rule", "constant"):
        return ""
    return "up" if row["minus_rule_low"] > 0 else "down" if row["minus_rule_high"] < 0 else ""


def _tried(constants: Sequence[Mapping[str, Any]]) -> str:
    if not constants:
        return ""
    parts = []
    for env_id in dict.fromkeys(c["id"] for c in constants):
        own = [c for c in constants if c["id"] == env_id and c["steps"] <= OWN[env_id]]
        most = max(c["steps"] for c in own)
        some = sorted((c for c in own if c["steps"] == most), key=lambda c: -c.get("oracle", float("-inf")))
        head = ("constant", "return in the learned world", "in the oracle")
        lines = [(c["constant"], *(_number(c.get(w)) for w in ("learned", "oracle"))) for c in some[:MOST_CONSTANTS]]
        title = f"{env_id}, {most} steps: {len(some)} constants, the best {len(lines)} of the oracle"
        parts.append(f"<details><summary>{escape(title)}</summary>{table(head, lines, wide=False)}</details>")
    about = "Tried on few tuning patients, whom no judge draws: what looks best by a little may be luck."
    return f'<section><h2>Every constant tried</h2><p class="muted">{about}</p>{"".join(parts)}</section>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _scripts(rows: Sequence[Mapping[str, Any]]) -> str:
    wanted = {"id", "steps", "status", "agent", "kind", "chosen", "source", *(name for name, _, _ in _COLUMNS)}
    wanted |= {name + suffix for name in FIGURES for suffix in _SUFFIXES}
    told = [
        {**{k: v for k, v in row.items() if k in wanted}, "row": i, "length": length(row), "caption": _caption(row)}
        for i, row in enumerate(rows)
    ]
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return f"{_json('rows', told)}{_json('colours', COLOURS)}<script>{script}</script>"


def _json(name: str, value: Any) -> str:
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _caption(row: Mapping[str, Any]) -> str:
    sealed = f" (seal {row['world_seal'][:12]})" if row["world_seal"] else ""
    return (
        f"{NOT_FOR_CLINICAL_USE}. Learned world {row['world']}{sealed}, judged in {row['oracle']}. Best simple rule: "
        f"{row.get('best_rule', 'none')}. Best reference: {row.get('best_reference', 'none')}."
    )
