"""`clinenv submit`: checks a submission and judges it beside the simple rules, on patients of its own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.board.board import Board, open_board
from agents.board.cell import Cell, Rules, run_cell
from agents.board.draw import edition, new_salt
from agents.board.run import run_groups
from agents.board.stage import HORIZONS, OWN
from agents.board.submission import Submission, read_submission
from agents.board.table import as_markdown, rows_of
from agents.registry import AGENTS
from clinenv.commands.errors import UsageError
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from world_models.files import write_text

__all__ = ["check", "run"]

SIMPLE = ("rule", "constant")
FEW_PATIENTS, FEW_STEPS = 4, 3  # of a check


def check(submission: Submission, runs: Path, limit_ms: float) -> list[str]:
    """What is wrong with a submission when it is made and asked a few times, in each of its ids; nothing: []."""
    rules = Rules(edition(new_salt(), [submission.digest]), FEW_PATIENTS, FEW_PATIENTS, limit_ms, quick=True)
    path, wrong = submission.copy_to(runs), []
    for env_id in submission.ids:
        cell = Cell(submission.name, env_id, FEW_STEPS, 0)
        found = run_cell(submission.as_entry, cell, rules, runs, path.absolute())
        if found["status"] != "ok":
            wrong.append(f"{env_id}: {found['reason']}")
    return wrong


def run(given: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: the submission cannot be judged; nothing is written then.
    """
    try:
        submission = read_submission(given.file)
        target = _target(given)
        wrong = check(submission, Path(given.runs) / "checks", given.limit_ms)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if wrong:
        raise UsageError(f"{submission.name} was made and asked, and failed: {'; '.join(wrong)}")
    print(f"{submission.name}: checked in {', '.join(submission.ids)}; digest {submission.digest}")
    if given.check_only:
        return 0
    try:
        board = _board(submission, given)
    except ValueError as error:
        raise UsageError(str(error)) from None
    rows = _judged(board)
    print(f"{NOT_FOR_CLINICAL_USE}. Salt {board.salt}.\n\n{as_markdown(rows)}")
    if target is not None:
        told = {"salt": board.salt, "edition": board.rules.edition, "digest": submission.digest, "rows": rows}
        write_text(target, json.dumps(told, indent=1, allow_nan=False) + "\n")
    return 0


def _target(given: argparse.Namespace) -> Path | None:
    """Where --json is to be written. Raises UsageError: no file can be written there."""
    if given.json is None:
        return None
    path = Path(given.json)
    if not path.parent.is_dir() or path.is_dir() or path.resolve() == Path(given.file).resolve():
        raise UsageError(f"--json {path} is no new file in a folder that exists; give another name")
    return path


def _board(submission: Submission, given: argparse.Namespace) -> Board:
    """The submission beside the simple rules of its ids."""
    lengths = {i: tuple(given.steps) if given.steps else (min(OWN[i], max(HORIZONS[i])),) for i in submission.ids}
    for env_id, steps in lengths.items():
        if not 1 <= min(steps) <= max(steps) <= max(HORIZONS[env_id]):
            raise ValueError(f"--steps {steps}: {env_id} is judged over 1 to {max(HORIZONS[env_id])}")
    rules = Rules("", given.patients, given.patients, given.limit_ms, given.quick)
    simple = [e for e in AGENTS if e.kind in SIMPLE]
    folder = Path(given.runs) / submission.digest[:16]
    return open_board(folder, rules, submission.ids, lengths, simple, None, [submission], given.salt)


def _judged(board: Board) -> list[dict[str, Any]]:
    with tqdm(total=len(board.groups), desc="agents", unit="agent") as bar:
        for group, _ in run_groups(board.groups, board.rules, board.folder):
            bar.set_postfix_str(group.label[-50:])
            bar.update()
    return rows_of(board.finished()[0])
