"""The ward's probes: a few of them on few patients, and the table that is shipped."""

from __future__ import annotations

import pytest

from benchmarks.common.results import read_csv
from benchmarks.ward import probes as ward_probes
from benchmarks.ward.probe_cases import OWN, PUBLISHED, Row

# said on the page of the oracle ward
KNOWN_OUTSIDE = {"severe half, highest SOFA 12 to 24: died"}


@pytest.mark.parametrize("probe", [ward_probes.potassium, ward_probes.fluid], ids=lambda p: p.__name__)
def test_a_probe_finds_the_effect_on_few_patients_too(probe) -> None:
    for row in probe(16):
        width = row.high - row.low
        assert row.low - 0.5 * width <= row.measured <= row.high + 0.5 * width, row


def test_a_row_is_our_own_unless_it_says_that_it_is_published() -> None:
    row = Row("a", 1.0, 0.5, 1.5, "1", "somebody (k)")
    assert row.kind == OWN and row.inside == "yes"
    assert Row("a", 2.0, 0.5, 1.5, "1", "Somebody 2001", PUBLISHED).inside == "no"


def test_the_summary_counts_published_ranges_and_our_own_apart(capsys) -> None:
    assert ward_probes.main(["--quick", "--only", "fluid", "emboli"]) == 0
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0].startswith("published: ") and said[0].endswith("of 2 inside")
    assert said[1].startswith("our own range: ") and said[1].endswith("of 4 inside")


def test_the_shipped_table_says_what_it_found_and_whose_its_ranges_are() -> None:
    rows = read_csv(ward_probes.RESULT)
    assert len(rows) > 75 and all(row["source"] for row in rows)
    for row in rows:
        inside = float(row["low"]) <= float(row["measured"]) <= float(row["high"])
        assert row["inside"] == ("yes" if inside else "no"), row["probe"]
        assert row["kind"] in (PUBLISHED, OWN), row["probe"]
        if row["kind"] == PUBLISHED:
            assert "(k)" not in row["source"] and any(c.isdigit() for c in row["source"]), row["probe"]
    assert {row["probe"] for row in rows if row["inside"] == "no"} <= KNOWN_OUTSIDE
