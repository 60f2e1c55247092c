"""A board's folder: opened once with a salt of its own, resumed as it was, read into rows.

board.json   salt, edition, rules, ids, lengths, seeds, submissions
cells/       one JSON file for each cell
agents/      what was trained and tuned
submitted/   what others' agents are made of, as the digest has it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agents.board.cell import Cell, Rules
from agents.board.draw import checked_salt, edition, new_salt
from agents.board.run import MADE, Group, cells_of, done, groups
from agents.board.stage import HORIZONS, learned_world
from agents.board.submission import Submission
from agents.registry import AGENTS, Entry
from clinenv.registration import WEIGHTS_SHA256
from world_models.config_json import parse_json
from world_models.files import write_text

__all__ = ["Board", "constants_tried", "open_board"]

FILE, SUBMITTED = "board.json", "submitted"


@dataclass(frozen=True)
class Board:
    """An open board."""

    folder: Path
    salt: str
    rules: Rules
    agents: tuple[Entry, ...]
    ids: tuple[str, ...]
    horizons: Mapping[str, tuple[int, ...]]
    seeds: int | None  # of each agent at most; None: as many as it has
    submissions: tuple[Submission, ...] = ()

    @property
    def groups(self) -> list[Group]:
        """All that is to be judged."""
        paths = {s.name: str(s.copy_to(self.folder / SUBMITTED).absolute()) for s in self.submissions}
        return groups(self.agents, self.ids, self.horizons, self.seeds, paths)

    def finished(self) -> tuple[list[dict[str, Any]], list[Cell]]:
        """The cells that are judged, and those that are not."""
        found, missing = [], []
        for cell in sorted(cells_of(self.groups), key=lambda c: (self.ids.index(c.env_id), c.steps)):
            result = done(self.folder, cell, self.rules)
            missing.append(cell) if result is None else found.append(result)
        return found, missing


def open_board(
    folder: Path,
    rules: Rules,
    ids: Sequence[str],
    horizons: Mapping[str, Sequence[int]] = HORIZONS,
    agents: Sequence[Entry] = AGENTS,
    seeds: int | None = None,
    submissions: Sequence[Submission] = (),
    salt: str | None = None,
) -> Board:
    """Open a board in a folder, or go on with the one that is there.

    Args:
        rules: of its cells; the edition is filled in here.
        agents: of the registry; those submitted are judged besides.
        salt: None: the folder's own, or a new one.

    Raises:
        ValueError: the folder holds a board with other settings; or an id, length, seed number or salt that is none.
    """
    lengths = {env_id: tuple(horizons[env_id]) for env_id in ids if env_id in horizons}
    if not ids or len(lengths) != len(ids):
        raise ValueError(f"ids {', '.join(ids) or 'none'}: the board has {', '.join(HORIZONS)}")
    path = folder / FILE
    old = parse_json(path.read_bytes(), str(path)) if path.exists() else None
    if old is not None and not isinstance(old.get("salt"), str):
        raise ValueError(f"{path} is no board: its salt is {old.get('salt')!r:.60}; restore it, or take another folder")
    salt = checked_salt(salt) if salt is not None else (old["salt"] if old else new_salt())
    rules = replace(rules, edition=edition(salt, [s.digest for s in submissions]))
    told = {
        "salt": salt,
        "rules": asdict(rules),
        "ids": list(ids),
        "horizons": {i: list(steps) for i, steps in lengths.items()},
        "seeds": seeds,
        "submissions": {s.name: s.digest for s in submissions},
        "weights": {name: WEIGHTS_SHA256[name] for name in sorted({learned_world(i) for i in ids})},
    }
    if old is not None and old != told:
        differing = [name for name, value in told.items() if old.get(name) != value]
        raise ValueError(
            f"{folder} holds a board with another {', '.join(differing)}; give the same, or take another folder"
        )
    if old is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(told, indent=1) + "\n")
    entries = (*agents, *(s.as_entry for s in submissions))
    return Board(folder, salt, rules, entries, tuple(ids), lengths, seeds, tuple(submissions))


def constants_tried(folder: Path) -> list[dict[str, Any]]:
    """Every constant that was tried for a board, with its mean return on the tuning patients of either world."""
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for path in sorted((folder / MADE).glob("constants-*.json")):
        tried = json.loads(path.read_text(encoding="utf-8"))
        about = tried["about"]
        world = "oracle" if about["world"] == "oracle" else "learned"
        for name, value in zip(tried["names"], tried["returns"], strict=True):
            key = (about["id"], about["steps"], name)
            row = found.setdefault(key, {"id": key[0], "steps": key[1], "constant": name})
            row[world] = value
            row[f"{world}_patients"] = about["patients"][0]
    return list(found.values())
