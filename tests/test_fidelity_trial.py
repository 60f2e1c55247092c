"""The trial benchmark: predictions use nothing after the dose, and the command writes what it promises."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.ecg_drug.trial import main, pre_dose_rows, predict, report
from benchmarks.ecg_drug.trial_baselines import concentration_response, persistence, population_course
from benchmarks.ecg_drug.trial_worlds import TARGETS
from world_models.data.ecg.ecgrdvq import INTERVALS, load_trial

TABLE = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
TABLE = TABLE / "ecgrdvq" / "SCR-002.Clinical.Data.csv"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    if not TABLE.is_file():
        pytest.skip(f"no trial at {TABLE}; set CLINENV_DATA to the folder that holds ecgrdvq")
    whole = load_trial(TABLE)
    return whole[whole["randid"].isin(sorted(whole["randid"].unique())[:4])].reset_index(drop=True)


def test_predictions_do_not_depend_on_anything_after_the_dose(frame):
    rows = pre_dose_rows(frame)
    first = predict("oracle", rows, samples=40)
    spoiled = rows.copy()
    spoiled[[*INTERVALS, "conc_ng_per_ml"]] = 1.0
    second = predict("oracle", spoiled, samples=40)
    for name in TARGETS:
        assert np.array_equal(first.point[name], second.point[name])
        assert (first.low[name] < first.point[name]).all() and (first.point[name] < first.high[name]).all()


def test_a_period_without_a_reading_before_the_dose_still_gets_a_wider_prediction(frame):
    one = frame[(frame["randid"] == frame["randid"].iloc[0]) & (frame["drug"] == "placebo")]
    read = predict("oracle", pre_dose_rows(one, keep_unread=True), samples=200)
    blank = predict("oracle", pre_dose_rows(one[one["hour"] > 0], keep_unread=True), samples=200)
    width = {k: (p.high["QTcF"] - p.low["QTcF"]).mean() for k, p in (("read", read), ("blank", blank))}
    assert width["blank"] > 1.5 * width["read"]


def test_baselines_and_report(frame):
    rows = pre_dose_rows(frame)
    train, test = rows[rows["randid"] != rows["randid"].iloc[0]], rows[rows["randid"] == rows["randid"].iloc[0]]
    test = test.reset_index(drop=True)
    assert np.array_equal(persistence(test)["QTcF"], test["pre_qtcf_ms"])
    change = population_course(train, test)["QTcF"] - test["pre_qtcf_ms"]
    at = (test["drug"] == "dofetilide") & (test["hour"] == 3.0)
    own = train[(train["drug"] == "dofetilide") & (train["hour"] == 3.0)]
    assert change[at].iloc[0] == pytest.approx((own["qtcf_ms"] - own["pre_qtcf_ms"]).mean())
    mixed = concentration_response(train, test)
    assert all(np.isfinite(mixed[name]).all() for name in TARGETS)
    assert 20 < (mixed["QTcF"] - test["pre_qtcf_ms"])[at].iloc[0] < 120
    perfect = test.copy()
    for name, column in TARGETS.items():
        perfect[name], perfect[f"{name}_q05"], perfect[f"{name}_q95"] = test[column], test[column] - 1, test[column] + 1
    summary = report(perfect)
    assert (summary["mae_world_ms"] == 0).all() and (summary["coverage_90"] == 1).all()
    assert np.allclose(summary["course_r2"].dropna(), 1.0)


def test_the_interval_of_the_coverage_is_one_over_people(frame):
    table = pre_dose_rows(frame)
    missed = table["randid"].isin(sorted(table["randid"].unique())[::2])  # all readings of every second person
    for name, column in TARGETS.items():
        table[name] = table[column]
        table[f"{name}_q05"], table[f"{name}_q95"] = table[column] + missed, table[column] + 2
    summary = report(table)
    assert summary["coverage_90"].between(0.3, 0.7).all()
    assert (summary["coverage_low"] < summary["coverage_90"] - 0.1).all()
    assert (summary["coverage_high"] > summary["coverage_90"] + 0.1).all()


def test_the_command_writes_the_promised_columns(tmp_path, capsys):
    if not TABLE.is_file():
        pytest.skip(f"no trial at {TABLE}; set CLINENV_DATA to the folder that holds ecgrdvq")
    out = tmp_path / "predictions.csv"
    assert main(["--trial", str(TABLE), "--world", "oracle", "--out", str(out), "--samples", "20"]) == 0
    table = pd.read_csv(out)
    assert list(table.columns) == ["RANDID", "EXTRT", "TPT", *[n + t for n in TARGETS for t in ("", "_q05", "_q95")]]
    assert "Quinidine Sulph" in set(table["EXTRT"]) and len(table) == 79 * 15 and not table.isna().any().any()
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    assert main(["--trial", str(bad), "--out", str(tmp_path / "none.csv")]) == 2
    assert "lacks the columns" in capsys.readouterr().err and not (tmp_path / "none.csv").exists()
    with pytest.raises(SystemExit):
        main(["--trial", str(TABLE), "--world", "crystal-ball", "--out", str(out)])
