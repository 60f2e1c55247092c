"""The trials' ECGs one by one: table, marks and waveforms joined; what is on board in SCR-003's staged combinations."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.clinenv.records import PR_MS, QRS_MS, QT_MS, TPEAK_TEND_MS
from tests.data.small_trials import scr002, scr003, write_ecgdmmld, write_ecgrdvq
from world_models.data.ecg.ecgrdvq import load_trial
from world_models.data.ecg.trial_ecgs import baseline_changes, iterate, load_ecgs, main
from world_models.ecg.lead_names import LEADS

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "ecgrdvq"


@pytest.fixture(scope="module")
def rdvq(tmp_path_factory) -> Path:
    return write_ecgrdvq(tmp_path_factory.mktemp("trials") / "ecgrdvq")


@pytest.fixture(scope="module")
def dmmld(tmp_path_factory) -> Path:
    return write_ecgdmmld(tmp_path_factory.mktemp("trials") / "ecgdmmld")


def table_of(frame: pd.DataFrame, folder: Path, name: str = "SCR-003.Clinical.Data.csv") -> Path:
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / name, index=False, na_rep="NA")
    return folder


def aboard(ecgs: pd.DataFrame, arm: str) -> dict[float, tuple[str, str]]:
    rows = ecgs[(ecgs["arm"] == arm) & (ecgs["randid"] == ecgs["randid"].min())]
    return {row.hour: (row.on_board, row.in_doubt) for row in rows.itertuples()}


def test_the_generated_tables_have_the_published_columns():
    assert (
        list(scr002().columns)
        == (
            "EGREFID RANDID SEX AGE HGHT WGHT SYSBP DIABP RACE ETHNIC ARMCD VISIT EXTRT EXDOSE EXDOSU TPT BASELINE "
            "PCTEST PCSTRESN PCSTRESU RR PR QT QRS JTPEAK TPEAKTEND TPEAKTPEAKP ERD_30 LRD_30 Twave_amplitude "
            "Twave_asymmetry Twave_flatness"
        ).split()
    )
    if (DATA / "SCR-002.Clinical.Data.csv").is_file():
        real = pd.read_csv(DATA / "SCR-002.Clinical.Data.csv", nrows=1)
        assert list(real.columns) == list(scr002().columns)
    assert len(scr003().columns) == 33 and "EXTRT" not in scr003().columns


def test_an_ecg_with_its_marks_and_waveforms(rdvq):
    ecgs = load_ecgs(rdvq)
    assert len(ecgs) == 20 and ecgs["raw"].all() and ecgs["median"].all()
    assert list(ecgs["arm"].unique()) == ["ranolazine", "dofetilide", "verapamil", "quinidine", "placebo"]
    one = next(iterate(rdvq, ecgs[(ecgs["randid"] == 1002) & (ecgs["period"] == 2) & (ecgs["hour"] == 1.0)]))
    assert one.raw is not None and one.raw.signal_mv.shape == (12, 10000) and one.raw.leads == LEADS
    assert one.median is not None and one.median.signal_mv.shape == (12, 1200)
    row = one.row
    assert (row["on_board"], row["dose_mg"], row["weight_kg"]) == ("dofetilide", 0.5, 80.5)
    assert row["conc_dofetilide_ng_per_ml"] == pytest.approx(0.1)
    assert row["mark_t_end_ms"] - row["mark_t_peak_ms"] == pytest.approx(TPEAK_TEND_MS - 1, abs=1)
    # the marks lie on the beat they belong to
    assert abs(int(one.median.signal_mv[1].argmax()) - row["mark_r_peak_ms"]) <= 2
    assert np.isnan(ecgs["mark_t_peak_ms"]).sum() == 1 and ecgs["mark_t_second_peak_ms"].isna().all()
    assert load_ecgs(rdvq, filtered=False)["mark_t_end_ms"].iloc[0] == ecgs["mark_t_end_ms"].iloc[0] + 1


def test_what_is_on_board_is_what_was_measured_not_the_arm(dmmld):
    ecgs = load_ecgs(dmmld)
    assert len(ecgs) == 100 and ecgs["dose_mg"].dropna().unique().tolist() == [0.0]  # only placebo's is known
    mexiletine = aboard(ecgs, "mexiletine+dofetilide")
    assert mexiletine[-0.5] == ("", "")
    assert mexiletine[2.5] == ("mexiletine", "") == mexiletine[6.5]
    assert mexiletine[7.0] == ("dofetilide+mexiletine", "") == mexiletine[14.0]
    assert mexiletine[24.0] == ("", "dofetilide+mexiletine")
    lidocaine = aboard(ecgs, "lidocaine+dofetilide")
    assert lidocaine[2.5][0] == "lidocaine" and lidocaine[8.0][0] == "dofetilide+lidocaine"
    assert lidocaine[12.0] == ("dofetilide", "lidocaine")
    diltiazem = aboard(ecgs, "moxifloxacin+diltiazem")
    assert diltiazem[12.0] == ("moxifloxacin", "") and diltiazem[13.0] == ("diltiazem+moxifloxacin", "")
    assert (
        aboard(ecgs, "dofetilide")[24.0] == ("", "dofetilide") and aboard(ecgs, "dofetilide")[12.0][0] == "dofetilide"
    )
    assert set(aboard(ecgs, "placebo").values()) == {("", "")}


def test_a_gap_is_bridged_and_a_measurement_against_the_schedule_is_believed(tmp_path, caplog):
    frame = scr003()
    gap = frame["TRTA"].eq("Mexiletine + Dofetilide") & frame["TPT"].eq(8.0)
    frame.loc[gap, ["DOF", "MEXI"]] = np.nan
    early = frame["TRTA"].eq("Lidocaine + Dofetilide") & frame["TPT"].eq(2.5)
    frame.loc[early, "DOF"] = 5.0
    carried = frame["TRTA"].eq("Placebo") & frame["TPT"].eq(-0.5)
    frame.loc[carried, "MOXI"] = 3.0
    with caplog.at_level(logging.WARNING):
        ecgs = load_ecgs(table_of(frame, tmp_path / "t"))
    assert aboard(ecgs, "mexiletine+dofetilide")[8.0] == ("dofetilide+mexiletine", "")
    assert aboard(ecgs, "lidocaine+dofetilide")[2.5][0] == "dofetilide+lidocaine"
    assert aboard(ecgs, "placebo")[-0.5][0] == "moxifloxacin"
    assert "4 measurement(s)" in caplog.text, "one each of two people, twice"


def test_marks_of_annotation_files(dmmld):
    ecgs = load_ecgs(dmmld)
    marked = ecgs[ecgs["median"]]
    assert len(marked) == 10 and ecgs["mark_t_end_ms"].notna().sum() == 10
    assert (marked["mark_qrs_onset_ms"] - marked["mark_p_onset_ms"]).unique() == pytest.approx([PR_MS], abs=1)
    assert (marked["mark_t_end_ms"] - marked["mark_qrs_onset_ms"]).unique() == pytest.approx([QT_MS], abs=1)
    assert marked["mark_qrs_offset_ms"].isna().sum() == 1, "a beat without QRS offset has four marks"
    offset = (marked["mark_qrs_offset_ms"] - marked["mark_qrs_onset_ms"]).dropna()
    assert offset.to_numpy() == pytest.approx(np.full(9, QRS_MS), abs=1)


def test_a_damaged_header_of_a_median_beat_costs_that_beat_alone(tmp_path, caplog):
    folder = write_ecgdmmld(tmp_path / "t")
    ecgs = load_ecgs(folder)
    some = ecgs[ecgs["median"]].head(2)
    header = folder / "medians" / str(some["randid"].iloc[0]) / f"{some['egrefid'].iloc[0]}.hea"
    header.write_text(
        header.read_text().replace(f"{some['egrefid'].iloc[0]}.dat 16 2000.0(0)", "x 20008.dat 162000", 3)
    )
    with caplog.at_level(logging.WARNING):
        found = list(iterate(folder, some))
    assert found[0].median is None and found[0].raw is not None and found[1].median is not None
    assert "left out" in caplog.text


def test_changes_since_before_the_dose(rdvq, tmp_path):
    frame = scr002()
    frame.loc[frame["TPT"] == 1.0, "QT"] += 20.0
    changed = baseline_changes(load_ecgs(table_of(frame, tmp_path / "t", "SCR-002.Clinical.Data.csv")))
    assert changed.loc[changed["baseline"], "delta_qt_ms"].abs().max() == 0
    assert changed.loc[changed["hour"] == 1.0, "delta_qt_ms"].to_numpy() == pytest.approx(np.full(10, 20.0))
    assert {"delta_t_flatness", "delta_qtcf_ms"} <= set(changed.columns)


def test_means_of_the_second_trial_have_its_analytes(dmmld):
    tidy = load_trial(dmmld, analytes=True)
    at = tidy[(tidy["drug"] == "mexiletine+dofetilide") & (tidy["hour"] == 8.0)]
    assert at["conc_dofetilide_ng_per_ml"].to_numpy() == pytest.approx([0.95, 0.95])
    assert at["conc_mexiletine_ng_per_ml"].to_numpy() == pytest.approx([700.0, 700.0])
    alone = tidy[(tidy["drug"] == "dofetilide") & (tidy["hour"] == 1.5)]
    assert alone["conc_ng_per_ml"].to_numpy() == pytest.approx([1.8, 1.8])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns=["DILT", "LIDO"]), "columns LIDO, DILT"),
        (lambda f: f.assign(DOF="high"), "column DOF holds 'high'"),
        (lambda f: f.assign(MEXI=-1.0), "column MEXI holds '-1.0'"),
        (lambda f: f.assign(VISIT="DAY 1"), "VISIT holds 'DAY 1'"),
        (lambda f: f.assign(EGREFID="../../etc/passwd", TPT=1.0), "stands for two ECGs|no plain name"),
        (lambda f: f.head(1).assign(EGREFID="../../etc/passwd"), "no plain name"),
        (lambda f: f.assign(EGREFID=f["EGREFID"].iloc[0]), "stands for two ECGs"),
        (lambda f: f.assign(RR="fast"), "fast"),
        (lambda f: f.drop(columns=["TRTA"]), "lacks the columns EXTRT"),
    ],
)
def test_a_wrong_table_is_an_error_of_the_command_and_nothing_is_written(tmp_path, capsys, change, words):
    folder = table_of(change(scr003()), tmp_path / "t")
    assert main([str(folder), "--out", str(tmp_path / "out.csv")]) == 2
    out, err = capsys.readouterr()
    assert not out and re.search(words, err), err
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.drop(columns=["TEND"]), "lacks the columns TEND"),
        (lambda m: pd.concat([m, m]), "twice"),
        (lambda m: m.assign(TPEAK="late"), "late"),
    ],
)
def test_wrong_marks(tmp_path, change, words):
    folder = write_ecgrdvq(tmp_path / "t", hours=(-0.5,))
    marks = folder / "median_beat_fiducials.csv"
    change(pd.read_csv(marks)).to_csv(marks, index=False)
    with pytest.raises(ValueError, match=words):
        load_ecgs(folder)
    marks.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as a CSV"):
        load_ecgs(folder)


def test_the_command_writes_a_table_once(dmmld, tmp_path, capsys):
    out = tmp_path / "ecgs.csv"
    assert main([str(dmmld), "--out", str(out)]) == 0
    assert "mexiletine+dofetilide; dofetilide+mexiletine" in capsys.readouterr().out
    assert len(pd.read_csv(out)) == 100
    assert main([str(dmmld), "--out", str(out)]) == 2 and "exists already" in capsys.readouterr().err
    assert main([str(dmmld), "--out", str(tmp_path / "none/ecgs.csv")]) == 2
    assert main([str(dmmld), "--out", str(tmp_path / "ecgs.h5")]) == 2
    assert main([str(tmp_path)]) == 2 and "no clinical table" in capsys.readouterr().err


def test_the_real_trial():
    if not DATA.is_dir():
        pytest.skip(f"no trial at {DATA}; set CLINENV_DATA to the folder that holds ecgrdvq")
    ecgs = load_ecgs(DATA)
    assert len(ecgs) == 3792 and ecgs["randid"].nunique() == 16 and not ecgs["raw"].any()
    marked = ecgs.dropna(subset=["mark_t_end_ms", "qt_ms"])
    assert len(marked) > 3700
    difference = marked["mark_t_end_ms"] - marked["mark_qrs_onset_ms"] - marked["qt_ms"]
    assert abs(difference.median()) <= 4 and difference.abs().quantile(0.95) < 15
    assert set(ecgs.loc[ecgs["arm"] == "placebo", "on_board"]) == {""}
    after = ecgs[(ecgs["hour"] >= 1.0) & (ecgs["arm"] != "placebo")]
    assert (after["on_board"] == after["arm"]).mean() > 0.99
