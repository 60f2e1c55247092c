"""The ward's probes: a few of them on few patients, and the table that is shipped."""

from __future__ import annotations

import pytest

from benchmarks.common.results import read_csv
from benchmarks.ward import probes as ward_probes


@pytest.mark.parametrize("probe", [ward_probes.potassium, ward_probes.fluid], ids=lambda p: p.__name__)
def test_a_probe_finds_the_effect_on_few_patients_too(probe) -> None:
    for row in probe(16):
        width = row.high - row.low
        assert row.low - 0.5 * width <= row.measured <= row.high + 0.5 * width, row


def test_the_shipped_table_says_what_it_found() -> None:
    rows = read_csv(ward_probes.RESULT)
    assert len(rows) > 55 and all(row["source"] for row in rows)
    for row in rows:
        inside = float(row["low"]) <= float(row["measured"]) <= float(row["high"])
        assert row["inside"] == ("yes" if inside else "no"), row["probe"]
    assert sum(row["inside"] == "no" for row in rows) == 0
