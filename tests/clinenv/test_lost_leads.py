"""Records with leads missing, flat or without samples: read, said so, and reconstructed; too few are an error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clinenv.commands.main import main
from tests.clinenv.records import drawn_ecg, write_record
from world_models.ecg.lead_names import LEADS

ORDER = ("--drug", "dofetilide", "--dose-ug", "500", "--world", "oracle", "--hours", "4", "--samples", "4")


def _lose(folder: Path, how: str, lost: tuple[str, ...], name: str = "rec") -> Path:
    ecg = drawn_ecg()
    rows = [LEADS.index(lead) for lead in lost]
    if how == "missing":
        kept = [lead for lead in LEADS if lead not in lost]
        return write_record(folder, name, ecg, order=kept)
    ecg[rows] = 0.02 if how == "flat" else np.nan
    return write_record(folder, name, ecg)


def _measure(record: Path) -> dict:
    out = record.parent / f"{record.name}.json"
    assert main(["measure", "--ecg", str(record), "--json", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("how", ["missing", "flat", "nan"])
@pytest.mark.parametrize("lost", [("V2",), ("V1", "V4"), ("V1", "V2", "V3", "V4", "V5", "V6")])
def test_a_record_without_some_leads_reads_as_the_whole_one(
    tmp_path: Path, how: str, lost: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _measure(write_record(tmp_path, "whole"))
    found = _measure(_lose(tmp_path, how, lost))
    printed = capsys.readouterr()
    assert whole["leads_reconstructed"] == [] and found["leads_reconstructed"] == list(lost)
    assert f"leads {', '.join(lost)} are missing, flat or broken and were reconstructed" in printed.err
    assert any("reconstructed" in warning for warning in found["warnings"]) and "reconstructed" in printed.out
    assert found["quality"] < whole["quality"] and found["trusted"]
    for name in ("pr_ms", "qrs_ms", "qt_ms", "heart_rate_bpm"):
        assert found[name] == pytest.approx(whole[name], abs=12.0), name


def test_a_lost_limb_lead_takes_those_that_follow_from_it_along(tmp_path: Path) -> None:
    found = _measure(_lose(tmp_path, "missing", ("I", "III", "aVR", "aVL", "aVF")))
    assert found["leads_reconstructed"] == ["I", "III", "aVR", "aVL", "aVF"]
    # a machine derives them from the lead that fell off, which then looks like II
    ecg = drawn_ecg()
    ecg[LEADS.index("I")] = 0.0
    ecg[2:6] = ecg[1] * np.array([1.0, -0.5, -0.5, 1.0])[:, None]
    assert _measure(write_record(tmp_path, "off", ecg))["leads_reconstructed"] == found["leads_reconstructed"]
    # and where two other limb leads were recorded by themselves, the lost one follows from them exactly
    assert _measure(_lose(tmp_path, "flat", ("I",), "one"))["leads_reconstructed"] == []


def test_the_report_marks_what_was_not_recorded(tmp_path: Path) -> None:
    record = _lose(tmp_path, "missing", ("V1", "V4"))
    out, numbers = tmp_path / "out.html", tmp_path / "out.json"
    assert main(["simulate", "--ecg", str(record), *ORDER, "--out", str(out), "--json", str(numbers)]) == 0
    page, held = out.read_text(), json.loads(numbers.read_text())
    assert held["measured"]["leads_reconstructed"] == ["V1", "V4"]
    assert page.count("V1 (reconstructed)") == 1 and page.count("V4 (reconstructed)") == 1
    assert "V2 (reconstructed)" not in page and any("V1, V4 are missing" in w for w in held["warnings"])


@pytest.mark.parametrize("how", ["missing", "flat", "nan"])
def test_one_good_lead_is_not_enough(tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    record = _lose(tmp_path, how, tuple(lead for lead in LEADS if lead != "V3"))
    out = tmp_path / "out.html"
    for command in (("measure",), ("simulate", *ORDER, "--out", str(out))):
        assert main([command[0], "--ecg", str(record), *command[1:]]) == 2
        error = capsys.readouterr().err
        assert error.startswith("clinenv: error: ") and "only V3" in error and "at least 2" in error
    assert not out.exists()


def test_a_lead_with_a_hole_is_left_out_where_no_window_avoids_it(tmp_path: Path) -> None:
    ecg = drawn_ecg()
    ecg[LEADS.index("V5"), 1500:4000:300] = np.nan
    for start in range(500, 4800, 600):
        ecg[LEADS.index("V5"), start : start + 60] = np.nan
    assert _measure(write_record(tmp_path, "holes", ecg))["leads_reconstructed"] == ["V5"]
