"""Committed results say what made them, and those that no longer stand for what ships say so."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.common import results
from clinenv.registration import WEIGHTS_SHA256

FILES = sorted(path for path in results.RESULTS.iterdir() if not path.name.startswith("."))
ALWAYS = ("command", "date", "versions", "seeds", "seals", "files")
SHA256 = re.compile(r"[0-9a-f]{64}")
MADE = {"command": "python -m benchmarks.none", "seeds": {"µ": 1}}


@cache
def ships(path: str) -> str:
    return results.sha256_of(results.ROOT / path)


def disagreeing(told: dict[str, Any]) -> list[str]:
    """Names of the weights and files that are no longer those of the result."""
    seals = [name for name, seal in told["seals"].items() if WEIGHTS_SHA256[name] != seal]
    return seals + [path for path, total in told["files"].items() if ships(path) != total]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_result_says_what_made_it(path: Path) -> None:
    told = results.provenance(path)
    assert all(name in told for name in ALWAYS), f"lacks {[n for n in ALWAYS if n not in told]}"
    module = re.match(r"python -m ((?:benchmarks|tests\.campaign)(?:\.\w+)+)(?: |$)", told["command"])
    assert module and (results.ROOT / f"{module[1].replace('.', '/')}.py").is_file(), told["command"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["date"])
    assert {"python", "torch", "numpy", "clinenv"} <= told["versions"].keys()
    sums = [*told["seals"].values(), *told["files"].values()]
    assert all(SHA256.fullmatch(total) for total in sums)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_result_is_of_what_ships_or_says_that_it_is_stale(path: Path) -> None:
    told = results.provenance(path)
    stale = told.get("stale", "")
    if disagreeing(told):
        assert stale, f"{path.name} was made with other {', '.join(disagreeing(told))}: make it anew, or say 'stale'"
        assert "changed since" in stale and "remake" in stale
    elif stale:
        assert "the code has changed since" in stale, "every sum agrees: say what else has changed"
        assert "remake" in stale, "say what will remake it"


def test_every_figure_beside_a_table_is_of_the_same_run() -> None:
    for path in FILES:
        if path.suffix == ".png":
            assert results.provenance(path) == results.provenance(path.with_suffix(".csv")), path.name


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = [{"a": 1.23456789, "b": "#"}, {"a": 2, "c": "x, y\nz"}]
    results.write_csv(tmp_path / "new" / "t.csv", rows, MADE)
    read = [{"a": "1.23457", "b": "#", "c": ""}, {"a": "2", "b": "", "c": "x, y\nz"}]
    assert results.read_csv(tmp_path / "new" / "t.csv") == read
    results.write_csv(tmp_path / "plain.csv", rows, None)
    assert results.read_csv(tmp_path / "plain.csv") == read
    assert (tmp_path / "plain.csv").read_text(encoding="utf-8").startswith("a,b,c\n")
    results.write_json(tmp_path / "t.json", {"x": float("nan"), "y": (1, 2.5)}, MADE)
    assert results.read_json(tmp_path / "t.json") == {"x": None, "y": [1, 2.5]}
    results.write_figure(tmp_path / "t.png", Figure(), MADE)
    results.write_figure(tmp_path / "sheet.png", Image.new("RGB", (2, 2)), MADE)
    for name in ("new/t.csv", "t.json", "t.png", "sheet.png"):
        assert results.provenance(tmp_path / name) == MADE, name
    for name, text in (("plain.csv", None), ("bad.csv", "# no JSON\na\n1\n"), ("bad.json", "[1]"), ("bad.md", "# A")):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match="what made it"):
            results.provenance(tmp_path / name)


def test_made_by_names_the_files_and_nothing_of_the_machine(tmp_path: Path) -> None:
    argv = ["--meds", str(tmp_path / "meds.parquet"), "--steps", "3", "--work", "../elsewhere"]
    told = results.made_by("benchmarks.ward.rollouts", argv, {"patients": 7}, ["ward-oracle", "ehr-ward-small"])
    assert told["command"] == "python -m benchmarks.ward.rollouts --meds meds.parquet --steps 3 --work elsewhere"
    assert told["seals"] == {"ehr-ward-small": WEIGHTS_SHA256["ehr-ward-small"]} and not disagreeing(told)
    assert list(told["files"]) == ["world_models/weights/ehr-ward-small/model.safetensors"]
    assert told["versions"]["torch"] and "own_weights" not in told
    clinic = results.made_by("benchmarks.progression.probes", [], {}, ["progression-oracle"])
    assert "cardiac-jepa-small" in clinic["seals"] and results.HEIGHTS in clinic["files"]


def test_results_are_written_in_one_way() -> None:
    others = re.compile(r"csv\.(writer|DictWriter)|\.savefig\(|\.to_csv\(|csv\.(reader|DictReader)")
    wrong = [
        str(path.relative_to(results.ROOT))
        for path in (results.ROOT / "benchmarks").rglob("*.py")
        if path != Path(results.__file__) and others.search(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, f"benchmarks.common.results writes and reads: {wrong}"
