"""The trial benchmark: predictions use nothing after the dose, and the command writes what it promises."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.ecg_drug.trial import main, pre_dose_rows, predict, report
from benchmarks.ecg_drug.trial_baselines import (
    best_scales,
    concentration_response,
    persistence,
    population_course,
    rescaled,
)
from benchmarks.ecg_drug.trial_folds import POOLED, RIVALS, compared, folds_of, predict_folds
from benchmarks.ecg_drug.trial_pooling import LAW_ALONE, Pooling
from benchmarks.ecg_drug.trial_rows import blind
from benchmarks.ecg_drug.trial_worlds import T_TARGETS, TARGETS, TrialPrediction, predict_oracle
from world_models.data.ecg.ecgrdvq import READINGS, load_trial
from world_models.oracles.ecg_drug.population import TrialModel

TABLE = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
TABLE = TABLE / "ecgrdvq" / "SCR-002.Clinical.Data.csv"
SUBJECTS = 4  # whom the rivals are fitted without, one after the other


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    if not TABLE.is_file():
        pytest.skip(f"no trial at {TABLE}; set CLINENV_DATA to the folder that holds ecgrdvq")
    whole = load_trial(TABLE)
    return whole[whole["randid"].isin(sorted(whole["randid"].unique())[:SUBJECTS])].reset_index(drop=True)


def test_predictions_do_not_depend_on_anything_after_the_dose(frame):
    rows = pre_dose_rows(frame)
    first = predict("oracle", rows, samples=40)
    spoiled = rows.copy()
    spoiled[[*READINGS, "conc_ng_per_ml"]] = 1.0
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


@pytest.mark.slow
def test_every_subject_is_in_one_fold_and_no_rival_sees_its_own(frame):
    rows = pre_dose_rows(frame)
    folds = folds_of(np.array(sorted(rows["randid"].unique())), 2)
    assert sorted(np.concatenate(folds)) == sorted(rows["randid"].unique())
    with pytest.raises(ValueError, match="9 folds of 4 subjects"):
        folds_of(np.arange(4), 9)
    seen = []

    def predictor(train, test):
        seen.append(set(train["randid"]) & set(test["randid"]))
        exact = {name: rows.loc[rows["randid"].isin(test["randid"]), c].to_numpy() for name, c in TARGETS.items()}
        return TrialPrediction(exact, {n: v - 1 for n, v in exact.items()}, {n: v + 1 for n, v in exact.items()})

    table = predict_folds(frame, rows, predictor, 2, progress=False)
    assert seen == [set(), set()] and len(table) == len(rows)
    summary = compared(table, frame)
    assert len(summary) == len(RIVALS) * (len(TARGETS) + 1)
    assert (summary["mae_world"] < 1e-9).all() and (summary["difference_high"] < 0).all()
    assert (summary["coverage_90"].dropna() == 1).all() and POOLED in set(summary["measure"])
    pooled = summary[summary["measure"] == POOLED]
    assert (pooled["readings"] > 4 * len(rows)).all()


def test_a_rival_on_the_working_scale_changes_an_amplitude_by_a_factor(frame):
    rows = pre_dose_rows(frame)
    first = rows["randid"] == rows["randid"].iloc[0]
    train, test = rows[~first], rows[first].reset_index(drop=True)
    found = rescaled(population_course, train, test)["Twave_amplitude"] / test["pre_t_amplitude_uv"]
    at = (test["drug"] == "quinidine") & (test["hour"] == 2.5)
    own = train[(train["drug"] == "quinidine") & (train["hour"] == 2.5)]
    ratio = np.exp(np.log(own["t_amplitude_uv"] / own["pre_t_amplitude_uv"]).mean())
    assert found[at].iloc[0] == pytest.approx(ratio)
    assert set(best_scales(population_course, train)) == set(T_TARGETS)


def test_pooling_moves_the_law_to_the_arms_means_and_widens_its_bands(frame):
    rows = blind(pre_dose_rows(frame))
    model = TrialModel.load()
    law = predict_oracle(model, rows, 40, 0, LAW_ALONE)
    arms = predict_oracle(model, rows, 40, 0, Pooling(1.0, dict.fromkeys(TARGETS, 1.0), dict.fromkeys(TARGETS, 2.0)))
    half = predict_oracle(model, rows, 40, 0, Pooling(1.0, dict.fromkeys(TARGETS, 0.5), {}))
    np.testing.assert_allclose(half.point["QTcF"], 0.5 * (law.point["QTcF"] + arms.point["QTcF"]))
    np.testing.assert_allclose(arms.high["PR"] - arms.low["PR"], 2.0 * (law.high["PR"] - law.low["PR"]))
    at = (rows["drug"] == "dofetilide") & (rows["hour"] == 3.0)
    change = (arms.point["QTcF"] - rows["pre_qtcf_ms"])[at]
    assert change.std() < 1e-3 and 40 < change.iloc[0] < 100  # the same for everyone, whoever he is
    other = predict_oracle(model, rows.assign(dose_mg=rows["dose_mg"] * 0.5), 40, 0, LAW_ALONE)
    assert (other.point["QTcF"] < law.point["QTcF"])[at].all()


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


@pytest.mark.slow
def test_the_command_writes_the_promised_columns(tmp_path, capsys):
    if not TABLE.is_file():
        pytest.skip(f"no trial at {TABLE}; set CLINENV_DATA to the folder that holds ecgrdvq")
    few, out = tmp_path / "trial.csv", tmp_path / "predictions.csv"
    whole = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
    subjects = sorted(whole["RANDID"].unique())[:SUBJECTS]
    whole[whole["RANDID"].isin(subjects)].to_csv(few, index=False)
    assert main(["--trial", str(few), "--world", "oracle", "--out", str(out), "--samples", "20"]) == 0
    table = pd.read_csv(out)
    assert list(table.columns) == ["RANDID", "EXTRT", "TPT", *[n + t for n in TARGETS for t in ("", "_q05", "_q95")]]
    assert sorted(table["RANDID"].astype(str).unique()) == subjects and not table.isna().any().any()
    periods = whole[whole["RANDID"].isin(subjects)].drop_duplicates(["RANDID", "EXTRT"])
    assert "Quinidine Sulph" in set(table["EXTRT"]) and len(table) == len(periods) * 15, "15 times after each dose"
    assert "course_r2" in capsys.readouterr().out, "the outcome is known, so the errors are told"
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    assert main(["--trial", str(bad), "--out", str(tmp_path / "none.csv")]) == 2
    assert "lacks the columns" in capsys.readouterr().err and not (tmp_path / "none.csv").exists()
    with pytest.raises(SystemExit):
        main(["--trial", str(TABLE), "--world", "crystal-ball", "--out", str(out)])
