from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb

from world_models.data import icd10
from world_models.data.ecg import ludb, snomed
from world_models.data.ecg.labelled import (
    LUDB_LABELS,
    LabelTableError,
    counts,
    keep,
    main,
    read_challenge,
    read_ludb,
    read_table,
    write_labels_csv,
)
from world_models.data.ecg.wfdb.reader import RecordError
from world_models.ecg.lead_names import LEADS

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
LUDB, CHALLENGE = DATA / "ludb", DATA / "ecg_12lead" / "cinc2021"
needs_ludb = pytest.mark.skipif(not (LUDB / "ludb.csv").is_file(), reason=f"no LUDB at {LUDB} (set CLINENV_DATA)")
needs_challenge = pytest.mark.skipif(not CHALLENGE.is_dir(), reason=f"no records at {CHALLENGE} (set CLINENV_DATA)")


def write_record(folder: Path, name: str, seconds: float = 10.0, dx: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(500 * seconds)) / 500
    wave = np.stack([np.sin(2 * np.pi * (1 + 0.1 * k) * t) for k in range(8)])
    one, two = wave[:2]
    signal = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *wave[2:]])
    wfdb.wrsamp(
        name,
        fs=500,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        p_signal=signal.T,
        fmt=["16"] * 12,
        comments=None if dx is None else ["Age: 50", "Sex: Male", f"Dx: {dx}"],
        write_dir=str(folder),
    )


def test_every_label_is_known_and_its_category_exists():
    assert len(snomed.SCORED) == 30
    said = {label for labels in snomed.SNOMED.values() for label in labels}
    assert said == set(snomed.LABELS) and set(LUDB_LABELS) < set(snomed.LABELS)
    for _, code in snomed.LABELS.values():
        assert code is None or icd10.three(code) == code
    assert (snomed.icd10_of("atrial_flutter"), snomed.icd10_of("paced")) == ("I48", None)
    # Pairs that the Challenge scores as one
    for a, b in (
        ("733534002", "164909002"),
        ("713427006", "59118001"),
        ("284470004", "63593006"),
        ("427172004", "17338001"),
    ):
        assert snomed.SCORED[a] == snomed.SCORED[b]


def test_dx_lines():
    assert snomed.parse_dx(" 164889003, 59118001") == ("164889003", "59118001")
    said, rest = snomed.labels_of(("57054005", "251187003"))
    assert said == {"ischaemia_or_infarct", "acute_infarct"} and rest == ("251187003",)
    for wrong in ("", "Unknown", "164889003,AF", "0164889003"):
        with pytest.raises(snomed.SnomedError, match="SNOMED"):
            snomed.parse_dx(wrong)


@needs_ludb
def test_ludb_labels_are_its_table(tmp_path):
    labelled = read_ludb(LUDB)
    n = len(ludb.record_names(LUDB))
    assert labelled.ecg.shape == (n, 12, 1000) and labelled.label.shape == (n, len(LUDB_LABELS))
    assert torch.isfinite(labelled.ecg).all() and labelled.patient is None and not labelled.skipped
    # Einthoven, which LUDB's headers break and the reader restores
    ecg = labelled.ecg
    assert (ecg[:, 1] - ecg[:, 0] - ecg[:, 2]).std() < 0.05 * ecg[:, 2].std()
    # Against the other reader of the same table
    column = {name: labelled.label[:, i] for i, name in enumerate(labelled.names)}
    for i in range(0, n, 32):
        record = ludb.read_record(LUDB, labelled.record[i])
        assert column["paced"][i] == bool(record.pacing)
        assert column["atrial_fibrillation"][i] == ("Atrial fibrillation" in record.rhythm)
        assert column["incomplete_rbbb"][i] == ("Incomplete right bundle branch block" in record.conduction)
        assert column["rbbb"][i] == ("Complete right bundle branch block" in record.conduction)
        assert column["lafb"][i] == ("Left anterior hemiblock" in record.conduction)
    assert not (column["lbbb"] & column["incomplete_lbbb"]).any()
    assert (column["st_elevation"] <= column["ischaemia_or_infarct"]).all()
    for label in (
        "atrial_fibrillation",
        "sinus_bradycardia",
        "av_block_1",
        "lafb",
        "pvc",
        "pac",
        "lvh",
        "lae",
        "old_infarct",
    ):
        assert column[label].any(), label
    # No diagnosis of rhythm, conduction or infarction is lost
    assert all(
        line.startswith(("Electric axis", "Left ventricular overload", "Aberrant")) for line in labelled.unmapped
    )
    common = keep(labelled, least=5)
    assert {"atrial_fibrillation", "lafb", "av_block_1"} < set(common.names) < set(labelled.names)
    assert min(counts(common).values()) >= 5 and common.label.shape == (n, len(common.names))
    some = labelled._replace(record=labelled.record[:10], label=labelled.label[:10])
    again = read_table(LUDB, write_labels_csv(some, tmp_path / "labels.csv"))
    assert again.names == labelled.names and again.record == labelled.record[:10]
    assert torch.equal(again.label, labelled.label[:10]) and torch.equal(again.ecg, labelled.ecg[:10])


@needs_challenge
def test_challenge_labels_are_the_headers():
    labelled = read_challenge(CHALLENGE)
    n = len(list(CHALLENGE.glob("*.hea")))
    assert labelled.ecg.shape == (n, 12, 1000) and torch.isfinite(labelled.ecg).all()
    for i, name in enumerate(labelled.record):
        header = (CHALLENGE / f"{name}.hea").read_text()
        for code in snomed.SCORED:
            for label in snomed.SCORED[code] if code in header else ():
                assert labelled.label[i, labelled.names.index(label)], (name, code)
    assert counts(labelled)["sinus_tachycardia"] > 0


def test_challenge_folders_are_checked(tmp_path, caplog):
    write_record(tmp_path / "g1", "A1", dx="426783006,17338001,999999999")
    write_record(tmp_path / "g2", "A2", seconds=9.0, dx="164889003")
    labelled = read_challenge(tmp_path)
    assert counts(keep(labelled, 1)) == {"atrial_fibrillation": 1, "pvc": 1, "sinus_rhythm": 1}
    assert labelled.unmapped == {"999999999": 1}
    # The nine seconds there are, then the lead's median
    assert labelled.ecg.shape == (2, 12, 1000)
    assert (labelled.ecg[1, :, 900:] == labelled.ecg[1, :, :900].median(dim=1, keepdim=True).values).all()
    # Records of other sources in the same folder: no diagnoses, none that are codes, an empty line
    write_record(tmp_path / "g2", "A3")
    write_record(tmp_path / "g2", "A4", dx="Unknown")
    write_record(tmp_path / "g3", "A5", dx="164889003,AF")
    write_record(tmp_path / "g3", "A6", dx="")
    again = read_challenge(tmp_path)
    assert again.record == labelled.record and torch.equal(again.label, labelled.label)
    assert sorted(again.skipped) == ["A3", "A4", "A5", "A6"] and "'AF'" in again.skipped["A5"]
    assert "4 of 6 records" in caplog.text and "A3" in caplog.text and "left out" in caplog.text
    write_record(tmp_path / "other", "B1")
    with pytest.raises(RecordError, match="1 of 1 records.*B1.*no '#Dx:' line.*--labels"):
        read_challenge(tmp_path / "other")


def test_one_damaged_header_does_not_lose_a_folder(tmp_path):
    for i in range(21):
        write_record(tmp_path, f"A{i:02}", dx="164889003")
    header = tmp_path / "A07.hea"
    header.write_text(header.read_text().replace("(0)/mV", ",0/mV", 1).replace("/mV", ",0/mV", 1))
    labelled = read_challenge(tmp_path)
    assert len(labelled.record) == 20 and "gain" in labelled.skipped["A07"]


def test_any_folder_with_a_table(tmp_path, capsys):
    for name in ("a/r1", "a/r2", "b/r1"):
        write_record(tmp_path / "ecgs" / name.split("/")[0], name.split("/")[1])
    table = tmp_path / "labels.csv"
    table.write_text("record,patient,AF,paced\nr2.hea,p7,1,0\nb/r1,p7,0,1\na/r1.dat,p3,0,0\n")
    labelled = read_table(tmp_path / "ecgs", table)
    assert labelled.label.int().tolist() == [[1, 0], [0, 1], [0, 0]]
    assert labelled.patient.tolist() == [0, 0, 1] and labelled.names == ("AF", "paced")
    copy = write_labels_csv(labelled, tmp_path / "copy.csv")
    assert copy.read_text() == "record,patient,AF,paced\nr2.hea,0,1,0\nb/r1,0,0,1\na/r1.dat,1,0,0\n"
    assert main(["--records", str(tmp_path / "ecgs"), "--labels", str(copy)]) == 0
    assert "3 ECGs, 0 left out" in capsys.readouterr().out
    for text, words in (
        ("name,AF\nr2,1\n", "column 'record'"),
        ("record\nr2\n", "column 'record'"),
        ("record,AF\n", "0 rows"),
        ("record,AF\nr2,yes\n", "line 2: AF is 'yes'"),
        ("record,AF\nr2,\n", "line 2: AF is ''"),
        ("record,AF\nr9,1\n", "1 of 1 records.*'r9'"),
        ("record,AF\nr1,1\n", "'r1'.*2 folders"),
        ("record,AF\nr2,1\na/r2,0\n", "more than once"),
        ("record,patient,AF\nr2,,1\n", "no patient"),
    ):
        table.write_text(text)
        with pytest.raises(LabelTableError, match=words):
            read_table(tmp_path / "ecgs", table)
    assert main(["--records", str(tmp_path / "ecgs"), "--labels", str(table), "--out", str(tmp_path / "no.csv")]) == 2
    assert "no patient" in capsys.readouterr().err and not (tmp_path / "no.csv").exists()


def test_unreadable_records_are_left_out_up_to_a_share(tmp_path):
    for i in range(40):
        write_record(tmp_path / "ecgs", f"r{i}", seconds=4.0 if i < 2 else 10.0)
    table = tmp_path / "labels.csv"
    table.write_text("record,odd\n" + "".join(f"r{i},{i % 2}\n" for i in range(40)))
    labelled = read_table(tmp_path / "ecgs", table)
    assert list(labelled.skipped) == ["r0", "r1"] and "4.0 s" in labelled.skipped["r0"]
    assert labelled.record[0] == "r2" and labelled.label[:, 0].int().tolist() == [i % 2 for i in range(2, 40)]
    write_record(tmp_path / "ecgs", "r2", seconds=4.0)
    with pytest.raises(RecordError, match="3 of 40"):
        read_table(tmp_path / "ecgs", table)


def test_tables_and_outputs_that_cannot_serve(tmp_path, capsys):
    folder, table = tmp_path / "ecgs", tmp_path / "labels.csv"
    write_record(folder, "a")
    for content, words in (
        ("record,gr\xf6\xdfe\na,1\n".encode("latin-1"), "UTF-8"),
        ("record,af\na,1\n".encode("utf-16"), "UTF-8"),
        (b"record,af\na,1,0\n", "line 2: more values than the 2 columns"),
    ):
        table.write_bytes(content)
        with pytest.raises(LabelTableError, match=words):
            read_table(folder, table)
    table.write_text("record,af\na,1\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for out in (tmp_path / "nowhere" / "o.csv", folder, folder / "a.hea", table):
        assert main(["--records", str(folder), "--labels", str(table), "--out", str(out)]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and str(out) in said.err and not said.out
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
