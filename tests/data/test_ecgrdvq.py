"""The trial's table and waveforms: traps of the real file, and files made in its layout."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from world_models.data.ecg.ecgrdvq import canonical_drug, load_raw, load_trial, read_record
from world_models.ecg.lead_names import LEADS

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "ecgrdvq"


def table(**changes) -> pd.DataFrame:
    """Two times of one subject on dofetilide, three ECGs each, in the trial's columns."""
    rows = []
    for hour in (-0.5, 2.0):
        for i in range(3):
            rows.append(
                {
                    "EGREFID": f"e{hour}{i}",
                    "RANDID": 7,
                    "SEX": "F",
                    "AGE": 30,
                    "WGHT": 60.0,
                    "VISIT": "PERIOD-1-DOSING",
                    "EXTRT": "Dofetilide",
                    "EXDOSE": 500.0,
                    "EXDOSU": "ug",
                    "TPT": hour,
                    "BASELINE": "Y" if hour < 0 else "N",
                    "PCTEST": "Dofetilide" if hour > 0 else np.nan,
                    "PCSTRESN": 2000.0 if hour > 0 else np.nan,
                    "PCSTRESU": "pg/mL" if hour > 0 else np.nan,
                    "RR": 1000 + 10 * i,
                    "PR": 160.0,
                    "QT": 400.0,
                    "QRS": 90.0,
                    "JTPEAK": 230.0,
                    "TPEAKTEND": 80.0,
                }
            )
    frame = pd.DataFrame(rows)
    for name, value in changes.items():
        frame[name] = value
    return frame


def saved(frame: pd.DataFrame, folder: Path, name: str = "SCR-002.Clinical.Data.csv") -> Path:
    path = folder / name
    frame.to_csv(path, index=False)
    return path


def test_triplicates_are_averaged_after_the_corrections(tmp_path):
    saved(table(), tmp_path)
    tidy = load_trial(tmp_path)
    assert len(tidy) == 2 and list(tidy["hour"]) == [-0.5, 2.0] and list(tidy["replicates"]) == [3, 3]
    rr = np.array([1.0, 1.01, 1.02])
    assert tidy["qtcf_ms"][1] == pytest.approx(np.mean(400.0 / rr ** (1 / 3)))
    assert tidy["jt_peak_c_ms"][1] == pytest.approx(np.mean(230.0 / rr**0.58))
    assert tidy["dose_mg"][0] == pytest.approx(0.5)
    assert np.isnan(tidy["conc_ng_per_ml"][0]) and tidy["conc_ng_per_ml"][1] == pytest.approx(2.0)


def test_a_wrapped_pr_is_unwrapped_and_an_implausible_one_dropped(tmp_path, caplog):
    frame = table()
    frame["PR"] = [160.0, 160.0, 160.0 - 2.0**32, 160.0, 160.0, -5.0]
    with caplog.at_level(logging.WARNING):
        tidy = load_trial(saved(frame, tmp_path))
    assert list(tidy["pr_ms"]) == [160.0, 160.0]
    assert "32-bit" in caplog.text and "dropped" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PCSTRESU": ["pg/mL"] * 5 + ["ng/mL"]}, "mixed units"),
        ({"PCSTRESU": "furlong"}, "furlong"),
        ({"EXDOSU": ["ug"] * 5 + ["mg"]}, "mixed units"),
        ({"RR": "fast"}, "fast"),
        ({"SEX": "X"}, "SEX"),
    ],
)
def test_bad_tables_say_what_is_wrong(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_trial(saved(table(**change), tmp_path))


def test_missing_columns_empty_files_and_no_files(tmp_path):
    with pytest.raises(ValueError, match="TPEAKTEND"):
        load_raw(saved(table().drop(columns=["TPEAKTEND", "RR"]), tmp_path))
    with pytest.raises(ValueError, match="no rows"):
        load_raw(saved(table().iloc[:0], tmp_path))
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(ValueError, match="cannot be read"):
        load_raw(tmp_path / "x.csv")
    with pytest.raises(FileNotFoundError, match="neither"):
        load_raw(tmp_path / "absent.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no clinical table"):
        load_raw(tmp_path / "empty")


def test_scr003_tells_what_is_on_board_by_the_analytes(tmp_path):
    frame = table(EXTRT="Mexiletine + Dofetilide", EXDOSE=200.0, EXDOSU="mg")
    second = frame[frame["TPT"] > 0].assign(PCTEST="Mexiletine", PCSTRESN=900.0, PCSTRESU="ng/mL")
    saved(pd.concat([frame, second]), tmp_path, "SCR-003.Clinical.Data.csv")
    tidy = load_trial(tmp_path, analytes=True)
    assert list(tidy["drug"]) == ["mexiletine+dofetilide"] * 2
    assert tidy["conc_dofetilide_ng_per_ml"][1] == pytest.approx(2.0)
    assert tidy["conc_mexiletine_ng_per_ml"][1] == pytest.approx(900.0)
    assert canonical_drug("Quinidine Sulph") == "quinidine"


def test_waveforms_come_back_in_order_and_in_millivolts(tmp_path):
    generator = np.random.default_rng(0)
    mv = generator.normal(size=(10000, 12)) * 0.3
    order = [5, 3, 0, 1, 2, 4, 11, 10, 9, 8, 7, 6]
    for kind, length in (("raw", 10000), ("medians", 1200)):
        folder = tmp_path / kind / "7"
        folder.mkdir(parents=True)
        wfdb.wrsamp(
            "abc-1",
            fs=1000,
            units=["uV"] * 12,
            sig_name=[LEADS[i] for i in order],
            p_signal=1000.0 * mv[:length, order],
            fmt=["16"] * 12,
            write_dir=str(folder),
        )
        wave = read_record(tmp_path, 7, "abc-1", kind)
        assert wave.signal_mv.shape == (12, length) and wave.sampling_rate_hz == 1000 and wave.leads == LEADS
        np.testing.assert_allclose(wave.signal_mv, mv[:length].T, atol=1e-3)
    with pytest.raises(FileNotFoundError, match="abc-2"):
        read_record(tmp_path, 7, "abc-2")
    with pytest.raises(ValueError, match="averages"):
        read_record(tmp_path, 7, "abc-1", "averages")
    wfdb.wrsamp(
        "few",
        fs=1000,
        units=["mV"] * 2,
        sig_name=["I", "II"],
        p_signal=mv[:100, :2],
        fmt=["16"] * 2,
        write_dir=str(tmp_path / "raw" / "7"),
    )
    with pytest.raises(ValueError, match="V6"):
        read_record(tmp_path, 7, "few")


def test_the_real_trial():
    if not DATA.is_dir():
        pytest.skip(f"no trial at {DATA}; set CLINENV_DATA to the folder that holds ecgrdvq")
    tidy = load_trial(DATA)
    assert tidy["randid"].nunique() == 16 and set(tidy["drug"]) == {
        "placebo",
        "ranolazine",
        "dofetilide",
        "verapamil",
        "quinidine",
    }
    assert tidy["pr_ms"].between(60, 600).all() and (tidy["hour"].nunique() == 16)
    assert tidy.loc[tidy["drug"] == "dofetilide", "conc_ng_per_ml"].max() < 5
    identity = tidy["qrs_ms"] + tidy["jt_peak_ms"] + tidy["tpeak_tend_ms"]
    full = tidy["replicates"] == 3
    np.testing.assert_allclose(identity[full], tidy.loc[full, "qt_ms"], atol=0.01)
