"""The page itself: one HTML file whose scripts fill it, and what they are told of the id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from clinenv.play.game import Game

__all__ = ["ASSETS", "index", "setting"]

ASSETS = Path(__file__).parent / "assets"


def index(game: Game, scripts: str = "/assets", head: str = "") -> str:
    """The HTML of the page.

    Args:
        scripts: where style and scripts lie, as the page names it.
        head: more HTML of its head.
    """
    words = {"TITLE": game.title, "ID": game.id, "GOAL": game.goal, "SCRIPTS": scripts}
    html = (ASSETS / "index.html").read_text(encoding="utf-8")
    for name, value in words.items():
        html = html.replace("{{" + name + "}}", escape(value))
    return html.replace("{{HEAD}}", head)


def setting(game: Game, how: dict[str, Any], worlds: Sequence[str]) -> dict[str, Any]:
    """What the scripts are told of the id, as JSON values.

    Args:
        how: orders are given (`clinenv.play.game.controls`).
        worlds: to choose from, the default first.
    """
    return {
        "id": game.id,
        "controls": how,
        "cohorts": dict(game.cohorts),
        "worlds": list(worlds),
        "rows": [asdict(row) for row in game.rows],
        "trend": list(game.trend),
        "clock": game.clock,
        "reward_unit": game.reward_unit,
        "hours": game.task().horizon_hours,
        "ecg": game.ecg_rate_hz is not None,
    }
