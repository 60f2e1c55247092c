"""PTB-XL: 21,799 clinical 12-lead ECGs of ten seconds with SCP-ECG statements, in folds by patient.

Wagner 2020, doi 10.1038/s41597-020-0495-6, version 1.0.3, CC BY 4.0. The folder holds `ptbxl_database.csv` (one row an
ECG) and `records500/00000/00001_hr.hea, .dat` (500 Hz; `records100/..._lr` at 100 Hz). A copy may hold part of the
records: the table is read, and rows whose record is not on disk are left out and counted.

Traps: a patient may have several ECGs, all in one fold, so split by fold; folds 9 and 10 are the authors' validation
and test, whose labels a person checked; a likelihood of 0 means present (`scp`); sex 1 is female; an age of 300 means
over 89; dates are shifted, a patient's all by the same.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Mapping
from os.path import isfile
from pathlib import Path
from typing import NamedTuple

from world_models.data.ecg.scp import ScpError, parse_codes
from world_models.data.ecg.wfdb.reader import RecordError, Recording, parse_age_years, read_ecg

__all__ = ["SPLITS", "PtbxlEntry", "PtbxlTable", "read_entry", "read_table"]

TABLE = "ptbxl_database.csv"
SAMPLING_RATE_HZ, SECONDS = 500.0, 10.0
FOLDS = range(1, 11)
# By fold: what is learned from, what is chosen and judged by, and what the authors keep for the last judgement.
SPLITS = {"train": range(1, 7), "valid": range(7, 9), "test": range(9, 11)}
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "recording_date", "scp_codes", "strat_fold", "filename_hr")
_SEX = {"0": False, "1": True, "": None}
_PATH = re.compile(r"[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)*")  # below the folder, and nowhere else


class PtbxlEntry(NamedTuple):
    """One row of the table."""

    ecg_id: int
    patient_id: int
    age_years: float | None  # 90 stands for "over 89"
    sex_female: bool | None
    recorded: datetime.datetime  # shifted, in the table's own time
    scp: Mapping[str, float]  # statement -> likelihood, %; 0: present, how surely is not told
    fold: int  # 1 to 10
    record: Path  # without extension


class PtbxlTable(NamedTuple):
    """The table's rows, by patient and time: those whose record is on disk, and the others."""

    entries: tuple[PtbxlEntry, ...]
    without_record: tuple[PtbxlEntry, ...]


def _whole(text: str, name: str, low: int, high: int) -> int:
    """A whole number, which the table may write as 15709.0."""
    if not re.fullmatch(r"\d{1,12}(\.0*)?", text) or not low <= int(text.split(".")[0]) <= high:
        raise ValueError(f"{name} is {text!r}, not a whole number from {low} to {high}")
    return int(text.split(".")[0])


def _entry(folder: Path, row: Mapping[str, str]) -> PtbxlEntry:
    """Raises ValueError with what is wrong of a row."""
    if row["sex"] not in _SEX:
        raise ValueError(f"sex is {row['sex']!r}, neither 0 (male) nor 1 (female)")
    if not _PATH.fullmatch(row["filename_hr"]):
        raise ValueError(f"filename_hr is {row['filename_hr'][:80]!r}, not a path below the folder")
    return PtbxlEntry(
        ecg_id=_whole(row["ecg_id"], "ecg_id", 0, 10**9),
        patient_id=_whole(row["patient_id"], "patient_id", 0, 10**9),
        age_years=parse_age_years(row["age"]),
        sex_female=_SEX[row["sex"]],
        recorded=datetime.datetime.fromisoformat(row["recording_date"]),
        scp=parse_codes(row["scp_codes"]),
        fold=_whole(row["strat_fold"], "strat_fold", FOLDS.start, FOLDS.stop - 1),
        record=folder / row["filename_hr"],
    )


def _check_people(entries: list[PtbxlEntry], table: Path) -> None:
    """An ECG stands once, and a patient in one fold: else a split by folds would split him."""
    seen: set[int] = set()
    folds: dict[int, int] = {}
    for entry in entries:
        if entry.ecg_id in seen:
            raise RecordError(f"{table}: ecg_id {entry.ecg_id} stands twice; keep one row of it")
        seen.add(entry.ecg_id)
        if folds.setdefault(entry.patient_id, entry.fold) != entry.fold:
            raise RecordError(
                f"{table}: patient {entry.patient_id} is in folds {folds[entry.patient_id]} and {entry.fold}; a "
                "patient belongs to one: fetch the table again"
            )


def read_table(folder: str | Path) -> PtbxlTable:
    """The table of a folder of PTB-XL, its rows sorted by patient, time and number.

    Raises:
        RecordError: the folder does not hold PTB-XL, a column is missing, a cell is not what it should be (its line
            and value are named), a patient is in two folds, or no record is on disk.
    """
    folder = Path(folder)
    table = folder / TABLE
    if not table.is_file():
        raise RecordError(f"no {TABLE} in {folder}; give the folder of PTB-XL that holds it and records500/")
    entries: list[PtbxlEntry] = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise RecordError(f"{table} lacks the columns {', '.join(missing)}; fetch PTB-XL 1.0.3 again")
            for row in reader:
                cells = {name: (row[name] or "").strip() for name in _COLUMNS}
                try:
                    entries.append(_entry(folder, cells))
                except (ValueError, ScpError) as error:
                    raise RecordError(f"{table} line {reader.line_num}: {error}; correct the cell") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{table} is no CSV in UTF-8 ({error}); fetch PTB-XL again") from error
    _check_people(entries, table)
    entries.sort(key=lambda e: (e.patient_id, e.recorded, e.ecg_id))
    there = [isfile(f"{entry.record}.hea") for entry in entries]  # not Path's: a name may be longer than any file's
    if not any(there):
        raise RecordError(
            f"none of the {len(entries)} records of {table} is below {folder}; fetch the 500 Hz records (records500/)"
        )
    return PtbxlTable(
        entries=tuple(entry for entry, found in zip(entries, there, strict=True) if found),
        without_record=tuple(entry for entry, found in zip(entries, there, strict=True) if not found),
    )


def read_entry(entry: PtbxlEntry, sampling_rate_hz: float = SAMPLING_RATE_HZ) -> Recording:
    """The ECG of a row, [12, 10 s] mV.

    Raises:
        RecordError: the record cannot be read (`wfdb.reader.read_ecg`).
    """
    return read_ecg(entry.record, sampling_rate_hz, SECONDS)
