"""Pairs of ECGs around a drug in MIMIC-IV: which ECGs, which doses, what was known before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("duckdb", reason="hospital tables need clinenv[ehr]")

from tests.data.small_mimic_drugs import ECGS, ROWS, write_ecgs, write_hospital
from world_models.data.ecg import mimic_iv_given
from world_models.data.ecg.mimic_iv_drug_pairs import Choice, drug_pairs, iterate, main
from world_models.data.ecg.mimic_iv_given import DRUGS, Reading, drug_of
from world_models.data.ecg.wfdb.reader import RecordError
from world_models.data.ehr.tables import EhrDataError
from world_models.ecg.delineation.delineate import delineate

DEMO = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "mimic_iv_demo"


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    return write_ecgs(tmp_path / "ecg"), write_hospital(tmp_path / "hosp")


def pairs_of(folders: tuple[Path, Path], tmp_path: Path, **choice) -> pd.DataFrame:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return drug_pairs(folders[0], Reading(folders[1], work), Choice(**choice)).frame


def run(folders: tuple[Path, Path], out: Path, *more: str) -> int:
    return main(["--ecg", str(folders[0]), "--hosp", str(folders[1]), "--out", str(out), "--quiet", *more])


def test_the_ecgs_next_to_the_first_dose_that_was_given(folders, tmp_path):
    found = pairs_of(folders, tmp_path)
    assert list(zip(found["subject_id"], found["drug"], strict=True)) == [
        (10000001, "verapamil"), (10000001, "furosemide"), (10000002, "dofetilide")
    ]  # fmt: skip
    row = found.iloc[0]
    assert (row["before_study_id"], row["after_study_id"], row["hadm_id"]) == (42, 43, 11)
    assert row["first_given"] == pd.Timestamp("2150-03-01 10:00:00"), "neither the order nor what was not given"
    assert (row["before_hours"], row["after_hours"]) == (-0.5, 4.0)
    assert (row["given_by"], row["dose"], row["unit"], row["route"]) == ("administration", 120.0, "mg", "PO")
    assert (row["doses"], row["total_mg"]) == (2, 240.0)
    assert (row["before_pr_ms"], row["after_pr_ms"], row["change_qt_ms"], row["change_qtcf_ms"]) == (160, 200, 4, 4)


def test_orders_count_where_nothing_else_is_told(folders, tmp_path):
    row = pairs_of(folders, tmp_path).iloc[2]
    assert (row["given_by"], row["dose"], row["unit"], row["dose_mg"]) == ("prescription", 500.0, "mcg", 0.5)
    assert np.isnan(row["before_pr_ms"]) and row["before_qt_ms"] == 380 and row["after_qt_ms"] == 440
    assert row["change_qtcf_ms"] == pytest.approx(60 / 0.9 ** (1 / 3))


def test_other_drugs_in_between(folders, tmp_path):
    row = pairs_of(folders, tmp_path).iloc[0]
    # norepinephrine ran before and into the pair, furosemide began in it; the rewritten propofol never ran
    assert (row["others"], row["others_new"]) == ("furosemide+norepinephrine", "furosemide")
    alone = pairs_of(folders, tmp_path, alone=True)
    assert alone["drug"].tolist() == ["dofetilide"]


def test_what_was_known_before_the_dose(folders, tmp_path):
    found = pairs_of(folders, tmp_path)
    row = found.iloc[0]
    assert (row["age_years"], row["sex_female"], row["potassium_mmol_l"]) == (52, 1.0, 4.4)
    assert row["magnesium_mmol_l"] == pytest.approx(0.823, abs=1e-3) and row["weight_kg"] == pytest.approx(
        70.0, abs=0.02
    )
    assert row["creatinine_clearance_ml_min"] == pytest.approx((140 - 52) * 70 / 72 * 0.85, rel=1e-3)
    later = found.iloc[1]
    assert later["potassium_mmol_l"] == 5.5, "furosemide began later"
    other = found.iloc[2]
    assert np.isnan(other["creatinine_mg_dl"]) and np.isnan(other["potassium_mmol_l"]), "a month old; 99 mmol/L"
    assert np.isnan(other["creatinine_clearance_ml_min"])


def test_windows(folders, tmp_path):
    late = pairs_of(folders, tmp_path, least_after_h=5.0)
    assert late.loc[late["drug"] == "verapamil", "after_study_id"].tolist() == [44]
    assert pairs_of(folders, tmp_path, before_h=0.4)["drug"].tolist() == []
    assert "dofetilide" not in set(pairs_of(folders, tmp_path, after_h=2.5)["drug"])
    for wrong in (dict(drugs=("aspirin",)), dict(drugs=()), dict(before_h=0.0), dict(after_h=2.0, least_after_h=2.0)):
        with pytest.raises(EhrDataError):
            Choice(**wrong)


def test_names_of_drugs():
    names = {
        "Insulin Human Regular": "insulin_regular",
        "Insulin (Regular) for Hyperkalemia": "insulin_regular",
        "Insulin": None,  # a sliding scale of any kind
        "HumuLIN-R Insulin": None,
        "Heparin Sodium": "heparin",
        "Heparin Flush (10 units/ml)": None,
        "Heparin Dwell (1000 Units/mL)": None,
        "NORepinephrine": "norepinephrine",
        "EPINEPHrine": None,
        "quiniDINE Gluconate E.R.": "quinidine",
        "Furosemide-Heart Failure": "furosemide",
        "Verapamil SR": "verapamil",
        "Moxifloxacin Ophth. Drops": None,
    }
    assert {name: drug_of(name) for name in names} == names


def test_waveforms_of_a_pair(tmp_path):
    folder = write_ecgs(tmp_path / "ecg", waveforms=(42, 43))
    folders = folder, write_hospital(tmp_path / "hosp")
    found = pairs_of(folders, tmp_path, waveforms=True)
    assert found["drug"].tolist() == ["verapamil", "furosemide"]
    pair = next(iterate(found, folder))
    measured = delineate(torch.stack([pair.before.ecg_mv, pair.after.ecg_mv]), 500.0)
    assert bool(measured.trusted.all())
    change = measured.pr_ms[1] - measured.pr_ms[0]
    assert float(change) == pytest.approx(pair.row["change_pr_ms"], abs=6.0)
    with pytest.raises(RecordError, match="leads out of"):
        next(iterate(found.assign(before_path="../../etc/passwd"), folder))


def test_a_stopped_run_reads_no_table_twice(folders, tmp_path, monkeypatch):
    read, scanned = mimic_iv_given.scan, []

    def stop(path, spec, **more):
        if spec.name == "labevents" and len(scanned) < 6:
            raise KeyboardInterrupt
        scanned.append(spec.name)
        return read(path, spec, **more)

    monkeypatch.setattr(mimic_iv_given, "scan", stop)
    out = tmp_path / "pairs.csv"
    with pytest.raises(KeyboardInterrupt):
        run(folders, out)
    assert not out.exists() and (tmp_path / "pairs.csv.work").is_dir()
    before = list(scanned)
    assert before == ["emar", "emar_detail", "prescriptions", "inputevents", "patients"]
    monkeypatch.setattr(
        mimic_iv_given, "scan", lambda path, spec, **more: (scanned.append(spec.name), read(path, spec, **more))[1]
    )
    assert run(folders, out) == 0
    assert scanned[len(before) :] == ["labevents", "omr"]
    assert not (tmp_path / "pairs.csv.work").exists() and len(pd.read_csv(out)) == 3
    whole = pairs_of(folders, tmp_path)
    again = pd.read_csv(out)
    assert list(again.columns) == list(whole.columns)
    pd.testing.assert_series_equal(again["change_qtcf_ms"], whole["change_qtcf_ms"])


def test_a_table_that_changed_is_read_again(folders, tmp_path):
    first = pairs_of(folders, tmp_path)
    write_hospital(folders[1], patients=[{**row, "gender": "M"} for row in ROWS["patients"]], emar=ROWS["emar"][:1])
    again = pairs_of(folders, tmp_path)
    assert first["sex_female"].tolist() == [1.0, 1.0, 0.0] and again["sex_female"].tolist() == [0.0, 0.0]
    assert again.iloc[0]["doses"] == 1


def test_a_hospital_that_lacks_tables(tmp_path):
    ecg = write_ecgs(tmp_path / "ecg")
    orders = write_hospital(tmp_path / "orders", ("emar", "emar_detail", "inputevents", "labevents", "omr"))
    found = pairs_of((ecg, orders), tmp_path)
    # the order of verapamil began at 5 o'clock, before any ECG
    assert found["drug"].tolist() == ["dofetilide"] and found["potassium_mmol_l"].isna().all()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda e, h: (e / "record_list.csv").unlink(), "no record_list.csv"),
        (lambda e, h: (e / "machine_measurements.csv").unlink(), "no machine_measurements.csv"),
        (lambda e, h: (e / "record_list.csv").write_text("subject_id,study_id\n1,2\n"), "lacks the column"),
        (lambda e, h: (e / "record_list.csv").write_text("subject_id,study_id,ecg_time,path\n1,2,,z\n"), "no row of"),
        (lambda e, h: write_ecgs(e, [*ECGS, ECGS[0]]), "study_id 41 stands in record_list.csv more than once"),
        (lambda e, h: (h / "hosp/emar.csv.gz").write_bytes(b"no gzip"), "emar.csv.gz"),
        (lambda e, h: (h / "hosp/emar.csv.gz").write_bytes((h / "hosp/emar.csv.gz").read_bytes()[:60]), "emar.csv.gz"),
        (lambda e, h: [p.unlink() for p in h.rglob("*.gz")], "has none of emar"),
        (lambda e, h: write_hospital(h, emar=ROWS["emar"][-1:], prescriptions=[], inputevents=ROWS["inputevents"][:0] or
         [{**ROWS["inputevents"][0], "subject_id": 5}]), "nobody with an ECG|has no rows"),
    ],
)  # fmt: skip
def test_wrong_files_are_errors_and_nothing_is_written(folders, tmp_path, capsys, spoil, words):
    spoil(*folders)
    out = tmp_path / "pairs.csv"
    assert run(folders, out) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and pd.Series([err]).str.contains(words).item(), err
    assert not out.exists()


def test_wrong_arguments(folders, tmp_path, capsys):
    out = tmp_path / "pairs.csv"
    assert run((tmp_path / "none", folders[1]), out) == 2 and run((folders[0], tmp_path / "none"), out) == 2
    assert run(folders, tmp_path / "pairs.h5") == 2 and run(folders, tmp_path / "none/pairs.csv") == 2
    assert run(folders, out, "--drugs", "aspirin") == 2 and "there are propofol" in capsys.readouterr().err
    assert run(folders, out, "--least-after", "30") == 2
    with pytest.raises(SystemExit) as error:
        run(folders, out, "--before", "-1")
    assert error.value.code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ecg", "hosp"]
    out.write_text("mine")
    assert run(folders, out) == 2 and out.read_text() == "mine"


def test_real_orders_of_the_demo(tmp_path):
    """Orders, patients and weights of the real demo; the ECGs beside them are made up: two an order."""
    if not (DEMO / "prescriptions.csv.gz").is_file():
        pytest.skip(f"no MIMIC-IV demo at {DEMO} (set CLINENV_DATA)")
    orders = pd.read_csv(DEMO / "prescriptions.csv.gz", low_memory=False)
    orders = orders.assign(
        wanted=orders["drug"].map(drug_of, na_action="ignore"), start=pd.to_datetime(orders["starttime"])
    )
    orders = orders[orders["wanted"].notna() & orders["start"].notna() & orders["drug_type"].eq("MAIN")]
    first = orders.sort_values("start", kind="stable").drop_duplicates(["subject_id", "hadm_id", "wanted"])
    ecgs, study = [], 40000000
    for row in first.itertuples():
        for hours in (-1.0, 2.0):
            study += 1
            ecgs.append((row.subject_id, study, str(row.start + pd.Timedelta(hours=hours)), 900, 100, 260, 350, 640))
    folders = write_ecgs(tmp_path / "ecg", ecgs), DEMO
    found = pairs_of(folders, tmp_path)
    assert len(found) == len(first) > 300 and set(found["drug"]) >= {"verapamil", "dofetilide", "quinidine", "propofol"}
    assert found["drug"].nunique() >= 9 and set(found["given_by"]) == {"prescription"}
    assert found["age_years"].between(18, 95).all() and found["sex_female"].isin([0.0, 1.0]).all()
    assert found["weight_kg"].notna().sum() > 50 and found["weight_kg"].dropna().between(25, 350).all()
    dofetilide = found[found["drug"] == "dofetilide"].iloc[0]
    assert dofetilide["dose_mg"] == pytest.approx(dofetilide["dose"] / 1000)
    assert (found["before_hours"] <= 0).all() and (found["after_hours"] > 0).all()
    assert set(found["drug"]) <= set(DRUGS)
