"""WFDB records and tables of ECGs: whole ones, their damages, their readers."""

from __future__ import annotations

import random
from pathlib import Path

from tests.campaign.damages import OUTSIDE
from tests.campaign.mutations import names_leading_out
from tests.clinenv.records import drawn_ecg, write_record
from tests.data import small_ecg_databases, small_trials
from world_models.data.ecg import chapman, ecgrdvq, labelled, ptbxl
from world_models.data.ecg.wfdb.reader import RecordError, read_ecg
from world_models.ecg.lead_names import LEADS

__all__ = ["HEADERS", "PTBXL", "TRIAL", "names_out", "read_labels", "read_machine", "read_ptbxl", "read_records"]
__all__ += ["read_trial", "record_out", "write_labelled", "write_records"]

RECORDS = ("rec", "f212", "f24", "parts")
HEADERS = tuple(f"{name}.hea" for name in RECORDS)
PTBXL, TRIAL = "ptbxl/ptbxl_database.csv", "SCR-002.Clinical.Data.csv"


def write_records(folder: Path) -> None:
    """One ECG in three formats and in segments."""
    import wfdb

    ecg = drawn_ecg(seconds=5.0)
    write_record(folder, "rec", ecg)
    signal = {"fs": 500, "units": ["mV"] * 12, "sig_name": list(LEADS), "adc_gain": [200.0] * 12, "baseline": [0] * 12}
    for fmt in ("212", "24"):
        wfdb.wrsamp(f"f{fmt}", p_signal=ecg.T, fmt=[fmt] * 12, write_dir=str(folder), **signal)
    (folder / "parts.hea").write_text("parts/2 12 500 5000\nrec 2500\nf212 2500\n")


def names_out(folder: Path, rng: random.Random) -> str:
    """A header that names a file or a segment in another folder."""
    path = folder / rng.choice(HEADERS)
    outside = rng.choice((OUTSIDE, str(folder.parent / "outside")))
    path.write_bytes(names_leading_out(path.read_bytes(), "rec", f"{outside}/rec", rng))
    return f"names {path.name}"


def read_records(folder: Path) -> None:
    """Each record as the commands read it; the last error, if any failed."""
    failed: Exception | None = None
    for name in RECORDS:
        try:
            found = read_ecg(folder / name, whole=len(name) % 2 == 0)
            assert bool(found.ecg_mv.isfinite().any()) and found.ecg_mv.shape[0] == 12
        except RecordError as error:
            failed = error
    if failed is not None:
        raise failed


def write_labelled(folder: Path) -> None:
    """A table of labels, PTB-XL's, a trial's and a machine's, with the few records that are needed."""
    small_ecg_databases.write_ptbxl(folder / "ptbxl", records=(1,))
    for name in ("a", "b"):
        write_record(folder, name, drawn_ecg())
    (folder / "labels.csv").write_text("record,patient,I48,I10\na,1,0,1\nb,2,1,0\n")
    small_trials.scr002().to_csv(folder / TRIAL, index=False)
    rows = ["FileName,Rhythm,Beat,PatientAge,Gender,VentricularRate,QRSDuration,QTInterval,QTCorrected"]
    rows += [f"MUSE_{i},SR,NONE,{50 + i},MALE,60,90,400,400" for i in range(5)]
    (folder / "Diagnostics.csv").write_text("\n".join(rows) + "\n")


def record_out(folder: Path, rng: random.Random, name: str, record: str) -> str:
    """A table whose first record lies in another folder."""
    outside = rng.choice((OUTSIDE, "../" + OUTSIDE, str(folder.parent / "outside")))
    path = folder / name
    path.write_text(path.read_text().replace(record, f"{outside}/{record}", 1))
    return f"names {name}"


def read_labels(folder: Path) -> None:
    """A table of labels and its records."""
    labelled.read_table(folder, folder / "labels.csv")


def read_ptbxl(folder: Path) -> None:
    """PTB-XL's table and the one record that is there."""
    for entry in ptbxl.read_table(folder / "ptbxl").entries:
        ptbxl.read_entry(entry)


def read_trial(folder: Path) -> None:
    """A trial's table, with its concentrations."""
    ecgrdvq.load_trial(folder / TRIAL, analytes=True)


def read_machine(folder: Path) -> None:
    """A machine's measurements."""
    chapman.load_measurements(folder / "Diagnostics.csv")
