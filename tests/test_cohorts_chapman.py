"""The cohorts beside real ECGs: known quantiles and differences, causes, laws, and the command on an invented table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.common.results import provenance, read_csv
from benchmarks.ecg_drug import cohorts
from benchmarks.ecg_drug.cohort_reasons import explained, law, rate_law
from benchmarks.ecg_drug.cohort_strata import FEWEST, MEASURES, RATES, Generated, Stratum, compared, strata

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[1] / "../shared/data")) / "chapman"
COUNT = 400
ALL = Stratum("sinus rhythm", "both", "all")


def ecgs(seed: int, count: int = COUNT, **shift: float) -> pd.DataFrame:
    """Adults in sinus rhythm: rate 80 +- 8, QRS 90 +- 10, QT 380 +- 20, QTcF 410 +- 20, each shifted as asked."""
    rng = np.random.default_rng(seed)
    centre = {"heart_rate_bpm": (80.0, 5.0), "qrs_ms": (90.0, 10.0), "qt_ms": (380.0, 20.0), "qtcf_ms": (410.0, 20.0)}
    frame = pd.DataFrame({m: rng.normal(mean + shift.get(m, 0.0), sd, count) for m, (mean, sd) in centre.items()})
    frame["age_years"] = rng.uniform(41.0, 59.0, count)
    frame["sex_female"] = (rng.random(count) < 0.5).astype(float)
    frame["rhythm"], frame["fibrillates"] = "sinus rhythm", False
    frame["beat_labels"] = ""
    frame["qtcb_ms"] = frame["qtcf_ms"] + 15.0
    return frame


def rows_of(real: pd.DataFrame, cohort: Generated) -> dict[str, dict]:
    """By measure: the explained rows of everyone in sinus rhythm."""
    rows = explained(list(compared(real, [cohort], 50)))
    return {r["measure"]: r for r in rows if (r["rhythm"], r["sex"], r["age"]) == (ALL.rhythm, ALL.sex, ALL.age)}


def test_quantiles_and_differences_are_those_of_the_two_sides():
    real, there = ecgs(0), ecgs(1, qtcf_ms=20.0)
    found = rows_of(real, Generated("cohort", there))["qtcf_ms"]
    assert [found[f"real_q{q:02d}"] for q in (5, 50, 95)] == pytest.approx(
        np.quantile(real["qtcf_ms"], [0.05, 0.5, 0.95])
    )
    assert found["oracle_q25"] == pytest.approx(np.quantile(there["qtcf_ms"], 0.25))
    expected = (there["qtcf_ms"].median() - real["qtcf_ms"].median()) / real["qtcf_ms"].std()
    assert found["difference_sd"] == pytest.approx(expected) and 0.8 < expected < 1.2
    assert found["difference_sd_low"] < expected < found["difference_sd_high"] and found["over_half_sd"] == 1
    assert (found["real_ecgs"], found["oracle_patients"], found["real_bazett"]) == (
        COUNT,
        COUNT,
        pytest.approx(real["qtcb_ms"].median()),
    )


def test_the_same_people_are_nowhere_apart():
    rows = explained(list(compared(ecgs(0), [Generated("cohort", ecgs(0))], 50)))
    assert {r["difference_sd"] for r in rows} == {0.0} and {r["why"] for r in rows} == {""}
    assert {(r["sex"], r["age"]) for r in rows} == {
        ("both", "all"),
        *((sex, age) for sex in ("women", "men") for age in ("all", "40-59")),
    }


def test_strata_follow_sex_age_and_the_rate():
    frame = pd.DataFrame({"sex_female": [1.0, 0.0, 1.0], "age_years": [39.9, 40.0, 75.0]})
    frame["heart_rate_bpm"] = [59.4, 59.6, 100.6]
    frame["rhythm"], frame["fibrillates"] = "sinus bradycardia", False
    assert Stratum("sinus bradycardia", "women", "18-39").real(frame).tolist() == [True, False, False]
    chosen = {r: Stratum(r, "both", "all").generated(frame).tolist() for r in RATES}
    assert chosen["sinus bradycardia"] == [True, False, False] and chosen["sinus rhythm"] == [False, True, False]
    assert chosen["sinus tachycardia"] == [False, False, True] and not any(chosen["atrial fibrillation"])
    waving = frame.assign(fibrillates=[True, False, False])
    chosen = {r: Stratum(r, "both", "all").generated(waving).tolist() for r in RATES}
    assert chosen["atrial fibrillation"] == [True, False, False] and not any(chosen["sinus bradycardia"])
    assert len(list(strata())) == len({(s.rhythm, s.sex, s.age) for s in strata()}) == 44


def test_small_strata_are_left_out():
    assert list(compared(ecgs(0, FEWEST - 1), [Generated("cohort", ecgs(1))], 50)) == []
    assert list(compared(ecgs(0), [Generated("cohort", ecgs(1, FEWEST - 1))], 50)) == []
    real = ecgs(0).assign(rhythm="atrial fibrillation")
    assert list(compared(real, [Generated("cohort", ecgs(1), conditions=False)], 50)) == []
    waving = Generated("cohort", ecgs(1).assign(fibrillates=True))
    assert len(list(compared(real, [waving], 50))) == 5 * len(MEASURES)


def test_each_cause_is_found_where_it_is_the_cause():
    real = ecgs(0)
    read = rows_of(real, Generated("c", ecgs(1, qrs_ms=10.0), {"qrs_ms": -9.0}))["qrs_ms"]
    assert read["why"].startswith("convention") and abs(read["reader_sd"]) < 0.3
    mixed = pd.concat([real, ecgs(2, age_years=0.0, qtcf_ms=80.0)], ignore_index=True)
    picked = rows_of(mixed, Generated("c", ecgs(1)[lambda f: f["qtcf_ms"] < 440.0]))["qtcf_ms"]
    assert picked["why"].startswith("selection:") and abs(picked["admissible_sd"]) < 0.5
    ill = pd.concat([real, ecgs(2, 3 * COUNT, qrs_ms=60.0).assign(beat_labels="LBBB")], ignore_index=True)
    well = rows_of(ill, Generated("c", ecgs(1), conditions=False))["qrs_ms"]
    assert well["why"].startswith("selection:") and 0.9 * COUNT < well["admissible_ecgs"] <= COUNT
    assert rows_of(real, Generated("c", ecgs(1, qt_ms=30.0)))["qt_ms"]["why"].startswith("rate: QT follows it")
    far = rows_of(real, Generated("c", ecgs(1, qtcf_ms=25.0, qt_ms=25.0)))
    assert far["qtcf_ms"]["why"].startswith("mean") and far["qt_ms"]["why"] == f"as QTcF: {far['qtcf_ms']['why']}"
    assert rows_of(real, Generated("long-qt", ecgs(1, qtcf_ms=70.0)))["qtcf_ms"]["why"].startswith("design")
    assert rows_of(real, Generated("c", ecgs(1, qtcf_ms=200.0)))["qtcf_ms"]["why"].startswith("untested")


def test_laws_are_recovered():
    frame = ecgs(3, 4000).drop(columns="qtcf_ms")
    rng = np.random.default_rng(4)
    frame["qtcf_ms"] = 410.0 + 9.0 * frame["sex_female"] + 0.4 * (frame["age_years"] - 60.0)
    frame["qtcf_ms"] += rng.normal(0.0, 15.0, len(frame)) + 200.0 * (rng.random(len(frame)) < 0.02)  # and a few far out
    found = law(frame, "qtcf_ms")
    assert found["mean"] == pytest.approx(410.0, abs=2.5) and found["female"] == pytest.approx(9.0, abs=1.5)
    assert found["per_year"] == pytest.approx(0.4, abs=0.15) and found["sd"] == pytest.approx(15.0, abs=1.0)
    rate = np.round(np.random.default_rng(5).normal(68.0, 12.0, 20_000))
    seen = pd.DataFrame({"heart_rate_bpm": rate[(rate >= 60) & (rate <= 100)]})
    found = rate_law(seen)
    assert found["mean"] == pytest.approx(68.0, abs=1.5) and found["sd"] == pytest.approx(12.0, abs=1.0)


@pytest.mark.slow
def test_the_command_on_an_invented_table(tmp_path, capsys):
    frame = ecgs(0)
    table = pd.DataFrame({"FileName": [f"e{i}" for i in range(COUNT)], "Rhythm": "SR", "Beat": "NONE"})
    table["PatientAge"] = frame["age_years"].astype(int)
    table["Gender"] = np.where(frame["sex_female"] == 1.0, "FEMALE", "MALE")
    table["VentricularRate"] = frame["heart_rate_bpm"].round().astype(int)
    table["QRSDuration"], table["QTInterval"] = frame["qrs_ms"].round(), frame["qt_ms"].round()
    table["QTCorrected"] = (table["QTInterval"] * (table["VentricularRate"] / 60.0) ** 0.5).astype(int)
    (tmp_path / "chapman").mkdir()
    table.to_csv(tmp_path / "chapman" / "Diagnostics.csv", index=False)
    command = ["--chapman", str(tmp_path / "chapman"), "--patients", "300", "--drawn", "20", "--resamples", "10"]
    rows = cohorts.main([*command, "--out", str(tmp_path / "out")])
    assert {"typical", "healthy"} <= {r["cohort"] for r in rows}
    written = read_csv(tmp_path / "out.csv")
    assert len(written) == len(rows) and all(bool(r["why"]) == (r["over_half_sd"] == "1") for r in written)
    assert {r["cohort"] for r in read_csv(tmp_path / "out_laws.csv")} == {"typical", cohorts.WITHOUT_CONDITIONS}
    made = provenance(tmp_path / "out.png")
    assert made == provenance(tmp_path / "out.csv") and "--chapman chapman" in made["command"]
    assert any("fitted" in name for name in made["files"]) and list(made["data"]) == ["Diagnostics.csv"]
    assert "over half an SD apart" in capsys.readouterr().out
    table[: FEWEST - 1].to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(SystemExit):
        cohorts.main([*command[2:], "--chapman", str(tmp_path / "few.csv"), "--out", str(tmp_path / "few")])
    assert "give a larger table" in capsys.readouterr().err and not list(tmp_path.glob("few_laws*"))
    with pytest.raises(SystemExit):
        cohorts.main(["--chapman", str(tmp_path / "absent")])
    assert "neither a file nor a folder" in capsys.readouterr().err


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no Chapman table at {DATA} (set CLINENV_DATA)")
def test_the_committed_comparison_is_of_the_real_table():
    from world_models.data.ecg.chapman import load_measurements

    frame = load_measurements(DATA).frame
    adults = frame[(frame["rhythm"] == "sinus rhythm") & (frame["age_years"] >= 18)]
    (row,) = [
        r
        for r in read_csv(cohorts.RESULTS / "cohorts_chapman.csv")
        if (r["cohort"], r["rhythm"], r["sex"], r["age"], r["measure"])
        == ("typical", "sinus rhythm", "women", "all", "qrs_ms")
    ]
    women = adults[adults["sex_female"] == 1.0]
    assert int(row["real_ecgs"]) == len(women) and float(row["real_q50"]) == women["qrs_ms"].median()
