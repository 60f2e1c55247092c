"""WFDB records and tables of ECGs: whole ones, their damages, their readers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.damages import OUTSIDE, each
from tests.campaign.mutations import names_leading_out
from tests.clinenv.records import drawn_ecg, write_record
from tests.data import small_ecg_databases, small_trials
from world_models.data.ecg import chapman, ecgrdvq, labelled, ptbxl
from world_models.data.ecg.wfdb.reader import RecordError, read_ecg
from world_models.ecg.lead_names import LEADS

__all__ = [
    "ECG_TABLES",
    "HEADERS",
    "ecg_names_out",
    "names_out",
    "read_labelled",
    "read_records",
    "write_labelled",
    "write_records",
]


def write_records(folder: Path) -> None:
    import wfdb

    ecg = drawn_ecg(seconds=5.0)
    write_record(folder, "rec", ecg)
    signal = {"fs": 500, "units": ["mV"] * 12, "sig_name": list(LEADS), "adc_gain": [200.0] * 12}
    for fmt in ("212", "24"):
        wfdb.wrsamp(f"f{fmt}", p_signal=ecg.T, fmt=[fmt] * 12, baseline=[0] * 12, write_dir=str(folder), **signal)
    (folder / "parts.hea").write_text("parts/2 12 500 5000\nrec 2500\nf212 2500\n")


_RECORDS = ("rec", "f212", "f24", "parts")
HEADERS = tuple(f"{name}.hea" for name in _RECORDS)


def names_out(folder: Path, rng: random.Random) -> str:
    path = folder / rng.choice(HEADERS)
    outside = rng.choice((OUTSIDE, str(folder.parent / "outside")))
    path.write_bytes(names_leading_out(path.read_bytes(), "rec", f"{outside}/rec", rng))
    return f"names {path.name}"


def read_records(folder: Path) -> None:
    """Each record as the commands read it; the last error, if any failed."""
    failed: Exception | None = None
    for name in _RECORDS:
        try:
            found = read_ecg(folder / name, whole=len(name) % 2 == 0)
            assert bool(found.ecg_mv.isfinite().any()) and found.ecg_mv.shape[0] == 12
        except RecordError as error:
            failed = error
    if failed is not None:
        raise failed


# ---- tables of ECGs


def write_labelled(folder: Path) -> None:
    small_ecg_databases.write_ptbxl(folder / "ptbxl", records=(1,))
    for name in ("a", "b"):
        write_record(folder, name, drawn_ecg(seconds=5.0))
    (folder / "labels.csv").write_text("record,patient,I48,I10\na,1,0,1\nb,2,1,0\n")
    small_trials.scr002().to_csv(folder / "SCR-002.Clinical.Data.csv", index=False)
    rows = ["FileName,Rhythm,Beat,PatientAge,Gender,VentricularRate,QRSDuration,QTInterval,QTCorrected"]
    rows += [f"MUSE_{i},SR,NONE,{50 + i},MALE,60,90,400,400" for i in range(5)]
    (folder / "Diagnostics.csv").write_text("\n".join(rows) + "\n")


def read_labelled(folder: Path) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: labelled.read_table(folder, folder / "labels.csv"),
        lambda: [ptbxl.read_entry(entry) for entry in ptbxl.read_table(folder / "ptbxl").entries],
        lambda: ecgrdvq.load_trial(folder / "SCR-002.Clinical.Data.csv"),
        lambda: chapman.load_measurements(folder / "Diagnostics.csv"),
    )
    each(calls)


ECG_TABLES = ("labels.csv", "ptbxl/ptbxl_database.csv", "SCR-002.Clinical.Data.csv", "Diagnostics.csv")


def ecg_names_out(folder: Path, rng: random.Random) -> str:
    name, old = rng.choice((("labels.csv", "a,"), ("ptbxl/ptbxl_database.csv", "records500/00000/00001_hr")))
    path, outside = folder / name, rng.choice((OUTSIDE, "../" + OUTSIDE, str(folder.parent / "outside")))
    path.write_text(path.read_text().replace(old, f"{outside}/a" + "," * old.endswith(","), 1))
    return f"names {name}"
