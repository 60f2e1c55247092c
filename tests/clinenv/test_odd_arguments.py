"""Outputs that would do harm, and options out of range: one line, exit 2, nothing written and nothing replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from clinenv.commands.main import main
from clinenv.commands.output import write_whole
from tests.clinenv.records import write_record

DOSE = ("--drug", "dofetilide", "--dose-ug", "500", "--world", "oracle", "--hours", "4", "--samples", "4")
COMMANDS = {
    "measure": ("--json", ()),
    "simulate": ("--out", DOSE),
    "counterfactual": ("--out", ("--onset", "I48")),
}


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        status = main(list(arguments))
    except SystemExit as stopped:  # argparse's
        status = stopped.code
    error = capsys.readouterr().err
    assert status == 2 and error.startswith("clinenv: error: ") and error.count("\n") == 1, error
    return error


def test_what_a_command_does_not_take_is_said_by_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: foo; clinenv envs --help" in _refused(capsys, "envs", "foo")
    assert "unrecognized arguments: --nope; clinenv --help" in _refused(capsys, "--nope")


def test_a_file_of_another_kind_is_told_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.csv").write_text("0.1,0.2\n")
    error = _refused(capsys, "measure", "--ecg", str(tmp_path / "mine.csv"))
    assert "is not a WFDB record" in error and "clinenv.ecg.measure(array, rate_hz=...)" in error


@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_replace_neither_an_input_nor_a_device(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = write_record(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.json").symlink_to(tmp_path / "rec.hea")
    flag, more = COMMANDS[command]
    before = {path.name: path.read_bytes() for path in tmp_path.glob("rec.*")}
    cases = {
        "rec.hea": "is read",
        "rec.dat": "is read",
        "other.HEA": "is read",
        "link.json": "is read",
        "pipe": "not a plain file",
        "nowhere/x": "does not exist",
        "x" * 256: "not a file name",
        "a\0b": "not a file name",
    }
    for name, words in cases.items():
        assert words in _refused(capsys, command, "--ecg", str(record), *more, flag, str(tmp_path / name))
    assert "not a file name" in _refused(capsys, command, "--ecg", str(record), *more, flag, "")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("rec.*")}
    assert {path.name for path in tmp_path.iterdir()} == {"rec.hea", "rec.dat", "pipe", "link.json"}


def test_the_weights_that_are_read_are_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, world = write_record(tmp_path), tmp_path / "world"
    world.mkdir()
    (world / "config.json").write_text("{}")
    order = ("--drug", "dofetilide", "--dose-ug", "500", "--world", str(world), "--out", str(tmp_path / "r.html"))
    assert "is read" in _refused(capsys, "simulate", "--ecg", str(record), *order, "--json", str(world / "config.json"))
    assert (world / "config.json").read_text() == "{}"


def test_a_device_is_not_renamed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="not a plain file"):
        write_whole(tmp_path / "pipe", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--every-hours", "1e-320"), "less than a step"),
        (("--every-hours", "1e-9"), "give a multiple of 2"),
        (("--seed", "-1"), "--seed -1 is outside 0 to"),
        (("--seed", str(2**64)), "outside 0 to 18446744073709551612"),
        (("--lambda", "1e308"), "outside 0 to 1000"),
        (("--sex", "X"), "choose from"),
        (("--dose-mg", "1"), "not allowed"),
    ],
)
def test_options_out_of_range(
    more: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = write_record(tmp_path)
    out = ("--out", str(tmp_path / "r.html"))
    assert words in _refused(capsys, "simulate", "--ecg", str(record), *DOSE, *out, *more)
    assert not (tmp_path / "r.html").exists()


def test_a_sex_that_is_not_understood_is_not_called_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = write_record(tmp_path, comments=("Age: 61", "Sex: w"))
    said = _refused(capsys, "simulate", "--ecg", str(record), *DOSE, "--out", str(tmp_path / "r.html"))
    assert "sex 'w' is neither" in said and "--sex F" in said
