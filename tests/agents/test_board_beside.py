"""An id judged anew beside an earlier table's rows of the others."""

from pathlib import Path

import pytest

from agents.board.page import board_page
from agents.board.table import as_markdown, read_rows
from benchmarks.common.results import RESULTS
from benchmarks.leaderboard import _earlier, main

TABLE = RESULTS / "leaderboard.csv"
SALT = "24b675083d485833c9e3e3d765dbbbb7"


def _without_numbers(text: str) -> list[str]:
    """Its lines of tables, each up to its figures: what is read is rounded to six digits."""
    return ["|".join(line.split("|")[:4]) for line in text.splitlines() if line.startswith("|")]


def test_rows_that_are_read_make_the_tables_they_came_from():
    rows = read_rows(TABLE)
    published = (RESULTS / "leaderboard.md").read_text(encoding="utf-8")
    assert _without_numbers(as_markdown(rows)) == _without_numbers(published)
    alone = next(r for r in rows if r["kind"] == "reference")
    assert "promised" not in alone and isinstance(alone["return"], float) and isinstance(alone["seeds"], int)
    constants = read_rows(RESULTS / "leaderboard_constants.csv", ("id", "constant"))
    assert all(isinstance(c["learned"], float) for c in constants)
    assert board_page(rows, [], "", constants).count("<tr") > len(rows)


def test_rows_of_other_ids_stay_and_another_salt_is_refused():
    rows, constants = _earlier(TABLE, SALT, ["EHRWard-v0"])
    ids = {r["id"] for r in rows}
    assert "EHRWard-v0" not in ids and {"ECGDrug-v0", "ECGProgression-v0"} <= ids
    assert {c["id"] for c in constants} <= ids
    with pytest.raises(ValueError, match=f"salt {SALT}"):
        _earlier(TABLE, "0" * 32, [])


def test_a_table_of_something_else_is_refused_before_anything_is_judged(tmp_path: Path, capsys):
    other = tmp_path / "other.csv"
    other.write_text("name,value\na,1\n")
    told = ["--quick", "--ids", "ECGDrug-v0", "--beside", str(other), "--runs", str(tmp_path / "runs")]
    assert main([*told, "--out", str(tmp_path / "out")]) == 2
    assert str(other) in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "runs").exists()
    assert main([*told[:3], "--beside", str(tmp_path / "none.csv"), *told[5:]]) == 2
    assert "is no file" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no column"):
        read_rows(other)
