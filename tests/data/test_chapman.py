"""The Chapman-Shaoxing measurements: an invented table, what is refused, what is counted, and the real file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from world_models.data.ecg.chapman import FILES, RHYTHMS, find_table, load_measurements

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "chapman"
needs_chapman = pytest.mark.skipif(not DATA.is_dir(), reason=f"no Chapman table at {DATA} (set CLINENV_DATA)")


def row(**changes) -> dict:
    """A man of 60 in sinus rhythm at 75 bpm, QT 380 ms: Bazett 424.9, Fridericia 409.3."""
    made = {
        "FileName": "a",
        "Rhythm": "SR",
        "Beat": "NONE",
        "PatientAge": 60,
        "Gender": "MALE",
        "VentricularRate": 75,
        "QRSDuration": 90,
        "QTInterval": 380,
        "QTCorrected": 424,
    }
    return made | changes


def write(folder: Path, rows: list[dict]) -> Path:
    path = folder / FILES[1]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_names_units_and_fridericia(tmp_path):
    rows = [row(), row(FileName="b", Rhythm="AFIB", Beat="RBBB TWC", Gender="FEMALE", VentricularRate=60)]
    rows[1] |= {"QTInterval": 400, "QTCorrected": 400}
    found = load_measurements(write(tmp_path, rows).parent)
    frame = found.frame
    assert frame["rhythm"].tolist() == ["sinus rhythm", "atrial fibrillation"]
    assert frame["beat_labels"].tolist() == ["", "RBBB TWC"] and frame["sex_female"].tolist() == [0.0, 1.0]
    assert frame["qtcf_ms"].tolist() == pytest.approx([380 * (75 / 60) ** (1 / 3), 400.0])
    assert frame["qtcb_ms"].tolist() == [424.0, 400.0] and frame["heart_rate_bpm"].tolist() == [75.0, 60.0]
    assert (found.rows.read, found.rows.kept, dict(found.rows.dropped)) == (2, 2, {})


def test_parquet_and_csv_give_the_same(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [row(), row(FileName="b", Gender="FEMALE")]
    pd.DataFrame(rows).to_parquet(tmp_path / FILES[0])
    one = load_measurements(tmp_path / FILES[0])
    pd.testing.assert_frame_equal(one.frame, load_measurements(write(tmp_path, rows)).frame)
    assert find_table(tmp_path).name == FILES[0]


def test_flutter_and_fibrillation_are_told_apart():
    assert (RHYTHMS["AF"], RHYTHMS["AFIB"]) == ("atrial flutter", "atrial fibrillation")


def test_rows_that_cannot_be_true_are_counted(tmp_path):
    rows = [
        row(),
        row(FileName="b", QRSDuration=18),
        row(FileName="c", VentricularRate=300, QTInterval=170, QTCorrected=380),
        row(FileName="d", QTCorrected=480),
        row(FileName="e", PatientAge=np.nan),
        row(FileName="f", Rhythm="VF"),
        row(FileName="g", Gender="U"),
        row(),
    ]
    found = load_measurements(write(tmp_path, rows))
    assert len(found.frame) == found.rows.kept == 1 and found.rows.read == 8
    assert found.rows.read == found.rows.kept + found.rows.dropped.total()
    assert found.rows.dropped == {
        "QRSDuration is not within 40 to 250": 1,
        "VentricularRate is not within 20 to 250": 1,
        "QTCorrected is not Bazett's": 1,
        "PatientAge is missing": 1,
        "Rhythm is no known code": 1,
        "Gender is neither FEMALE nor MALE": 1,
        "FileName stands above already": 1,
    }


def test_what_is_no_such_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
        load_measurements(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="looked for machine_measurements.parquet"):
        load_measurements(tmp_path)
    (tmp_path / "Diagnostics.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match="workbook.*save its sheet as Diagnostics.csv"):
        load_measurements(tmp_path / "Diagnostics.xlsx")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="empty.csv cannot be read as a table"):
        load_measurements(tmp_path / "empty.csv")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="torn.parquet"):
        load_measurements(tmp_path / "torn.parquet")
    short = row()
    del short["QTInterval"], short["Gender"]
    with pytest.raises(ValueError, match="lacks the columns Gender, QTInterval"):
        load_measurements(write(tmp_path, [short]))
    with pytest.raises(ValueError, match="column QTInterval: '380 ms' is no number"):
        load_measurements(write(tmp_path, [row(), row(QTInterval="380 ms")]))
    with pytest.raises(ValueError, match="no row of 1 can be used, 1 since QRSDuration is not within"):
        load_measurements(write(tmp_path, [row(QRSDuration=0.09, QTInterval=380)]))
    whole = gzip.compress(pd.DataFrame([row() for _ in range(200)]).to_csv(index=False).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.csv.gz cannot be read as a table"):
        load_measurements(tmp_path / "cut.csv.gz")
    (tmp_path / "heads.csv").write_text(",".join(row()) + "\n")
    with pytest.raises(ValueError, match="has no rows"):
        load_measurements(tmp_path / "heads.csv")


@needs_chapman
def test_the_real_table():
    found = load_measurements(DATA)
    frame = found.frame
    assert found.rows.read == found.rows.kept + found.rows.dropped.total()
    assert found.rows.kept > 8000 and found.rows.dropped.total() < 20
    sinus = frame[frame["rhythm"] == "sinus rhythm"]
    assert 73 <= sinus["heart_rate_bpm"].median() <= 75 and 84 <= sinus["qrs_ms"].median() <= 88
    assert (frame["qtcb_ms"] - frame["qtcf_ms"])[frame["heart_rate_bpm"] > 62].min() > 0  # Bazett over-corrects
    by_sex = frame[frame["rhythm"] == "sinus rhythm"].groupby("sex_female")["qtcf_ms"].median()
    assert 5 < by_sex[1.0] - by_sex[0.0] < 15
