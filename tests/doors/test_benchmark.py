"""The command that prints every library's checker on every id: it passes what is right, and says what is wrong."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from benchmarks import doors
from benchmarks.common import results
from benchmarks.common.door_checks import LIBRARIES, Case
from clinenv import registration
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld


def test_every_id_is_asked_and_what_passed_has_a_speed() -> None:
    menu = Case("ECGDrug-v0", {"world": ToyWorld(hazard=0.1)}, 2)
    for name in ("gymnasium", "stable-baselines3"):
        row = doors.row_of(name, menu, 0.2)
        assert row["result"] == "passed" and row["steps_per_second"] > 0 and row["id"] == "ECGDrug-v0"
        assert row["version"][0].isdigit()


@pytest.mark.parametrize("name", [n for n in LIBRARIES if n not in ("gymnasium", "stable-baselines3", "rllib")])
def test_a_library_passes_or_says_why_not(name: str) -> None:
    row = doors.row_of(name, Case("EHRWard-v0", {"world": ToyWard(hazard=0.1)}, 2), 0.01)
    if row["result"] == "not installed" or "jax" in row["result"]:
        pytest.skip(f"{name}: {row['result']}")
    expected = "does not apply" if name in ("rsl_rl", "omnisafe") else "passed"
    assert row["result"].startswith(expected), row["result"]


def test_what_is_wrong_is_told_in_a_line(monkeypatch) -> None:
    class Broken(ToyWorld):
        def observe(self, state, also=()):
            chart = super().observe(state, also)
            return {**chart, "qtcf_ms": chart["qtcf_ms"] * np.nan}

    row = doors.row_of("gymnasium", Case("ECGDrug-v0", {"world": Broken()}, 2), 0.01)
    assert row["result"] != "passed" and "\n" not in row["result"] and "steps_per_second" not in row
    monkeypatch.setitem(
        LIBRARIES, "none", LIBRARIES["gymnasium"]._replace(module="no_such_module", distribution="none")
    )
    row = doors.row_of("none", Case("ECGDrug-v0", {"world": ToyWorld()}, 2), 0.01)
    assert row["result"] == row["version"] == "not installed"


@pytest.mark.slow
def test_pettingzoo_is_asked_about_every_team() -> None:
    rows = doors.team_rows()
    assert [row["id"] for row in rows] == [team["id"] for team in registration.TEAMS]
    assert {row["result"] for row in rows} == {"passed"}


def test_the_command_writes_what_it_found(tmp_path, capsys) -> None:
    out = tmp_path / "doors.csv"
    few = ["--ids", "EHRReplay-v0", "--libraries", "gymnasium", "--num-envs", "2", "--seconds", "0.05"]
    assert doors.main([*few, "--out", str(out)]) == 0
    (row,) = results.read_csv(out)
    assert (row["library"], row["id"], row["result"]) == ("gymnasium", "EHRReplay-v0", "passed")
    assert float(row["steps_per_cpu_second"]) > 0 and row["version"] == gymnasium.__version__
    assert results.provenance(out)["command"].startswith("python -m benchmarks.doors")
    with pytest.raises(SystemExit) as error:
        doors.main(["--ids", "NoSuch-v0"])
    assert error.value.code == 2
