"""The probes of the drug oracle run from a seed and say what they found, within a range or not."""

from __future__ import annotations

import csv

import pytest

from benchmarks.ecg_drug.probes import main

ENOUGH = 40  # patients: the rows of means are then within their ranges, those of rare events anywhere


@pytest.mark.slow
def test_the_table_is_written_and_most_of_it_lies_within_its_ranges(tmp_path, capsys) -> None:
    assert main(["--patients", str(ENOUGH), "--out", str(tmp_path / "probes.csv")]) == 0
    text = (tmp_path / "probes.csv").read_text()
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert len(rows) >= 45 and len({r["probe"] for r in rows}) == len(rows)
    for r in rows:
        inside = float(r["low"]) <= float(r["simulated"]) <= float(r["high"])
        assert r["source"] and (r["within"] == "True") == inside
    kinetic = [r for r in rows if r["about"] in ("kinetics", "kidneys", "interaction")]
    assert sum(r["within"] == "True" for r in kinetic) >= len(kinetic) - 2
    assert f"of {len(rows)} within their range" in capsys.readouterr().out


def test_too_few_patients_are_refused(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--patients", "3"])
    assert stopped.value.code == 2 and "--patients" in capsys.readouterr().err
