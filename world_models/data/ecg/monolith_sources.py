"""What PTB-XL, LUDB, the Challenge 2021 and the FDA trials give a monolith: records, people, times, folds, labels.

The numbers that a monolith holds, by source:

- `record`: PTB-XL's ecg_id; LUDB's record number; a Challenge record's name read in base 36 (`record_name`); of a trial
  63 bits of the SHA-256 of its EGREFID (`number_of`).
- `patient`: PTB-XL's patient_id, a trial's RANDID; LUDB and Challenge: the record's number, as every ECG counts as
  another person.
- `days` since the patient's first ECG: PTB-XL's recording dates; a trial's period and hour, periods counted as seven
  days apart (k); 0 in the others.
- `fold`, by `monolith.split` (0 to 17 train, 18 validation, 19 test): PTB-XL's 1 to 6 as they are, 7 and 8 are 18, 9
  and 10 are 19; LUDB's odd records 1, even ones 18; Challenge records 0, among them the HR records that are PTB-XL's
  own (k): do not train on both; a trial's subjects in their order spread over 0 to 19.
- `first`: a patient's first ECG; in a trial the first of each period.
- `label`: `snomed.LABELS` (PTB-XL by `scp`, LUDB's lines, the Challenge's codes); a trial has no diagnoses, there the
  label is the arm, and `treated` says of each drug whether it is on board (`ecgdmmld.on_board`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from world_models.data.ecg import ludb, ptbxl, scp, snomed
from world_models.data.ecg.diagnoses import challenge_labels, ludb_labels, person_of
from world_models.data.ecg.monolith_convert import SourceRows, mark_of
from world_models.data.ecg.trial_ecgs import load_ecgs
from world_models.data.ecg.wfdb.header import RecordError

__all__ = ["SOURCES", "number_of", "record_name"]

PERIOD_DAYS = 7.0  # washout between a trial's periods (k)
TRAIN, VALID, TEST = 1, 18, 19  # folds as `monolith.split` reads them
_PTBXL_FOLD = {**{fold: fold for fold in range(1, 7)}, 7: VALID, 8: VALID, 9: TEST, 10: TEST}
_LABELS = tuple(snomed.LABELS)
SECONDS_PER_DAY = 86_400.0


def number_of(egrefid: str) -> int:
    """A trial's ECG as a number of 63 bits."""
    return int.from_bytes(hashlib.sha256(egrefid.encode()).digest()[:8], "big") >> 1


def record_name(number: int) -> str:
    """The name of a Challenge record, of its number."""
    if number < 0:
        raise ValueError(f"{number} is no record's number; give one of the monolith's record column, at least 0")
    digits = ""
    while number or not digits:
        number, rest = divmod(number, 36)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[rest] + digits
    return digits


def _hot(said: Sequence[set[str]], codes: Sequence[str]) -> np.ndarray:
    """[M, C] bool of the labels of each ECG."""
    place = {code: i for i, code in enumerate(codes)}
    label = np.zeros((len(said), len(codes)), bool)
    for i, labels in enumerate(said):
        label[i, [place[name] for name in labels]] = True
    return label


def _known(values: Sequence[float | bool | None]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values], np.float32)


def _rows(
    paths: list[str],
    said: list[set[str]],
    name: str,
    licence: str,
    codes: tuple[str, ...] = _LABELS,
    treatments: tuple[str, ...] = (),
    **columns: np.ndarray,
) -> SourceRows:
    """Raises RecordError where two records have one number."""
    label = _hot(said, codes)
    numbers, counts = np.unique(columns["record"], return_counts=True)
    if len(numbers) < len(paths):
        raise RecordError(f"{name}: record {numbers[counts > 1][0]} is there twice; keep one of them")
    source = f"{name}, rows {mark_of(columns['record'], label)}"
    return SourceRows(paths, {"label": label, **columns}, codes, treatments, source, licence)


def ptbxl_rows(folder: Path) -> SourceRows:
    """PTB-XL, the 500 Hz records on disk. Raises RecordError: see `ptbxl.read_table`."""
    entries = ptbxl.read_table(folder).entries
    patient = np.array([entry.patient_id for entry in entries], np.int64)
    first = np.r_[True, patient[1:] != patient[:-1]]
    begun = {entry.patient_id: entry.recorded for entry in reversed(entries)}
    days = [(e.recorded - begun[e.patient_id]).total_seconds() / SECONDS_PER_DAY for e in entries]
    return _rows(
        [str(entry.record) for entry in entries],
        [scp.labels_of(entry.scp)[0] for entry in entries],
        "PTB-XL 1.0.3",
        "CC BY 4.0",
        patient=patient,
        days=np.array(days, np.float32),
        age_years=_known([entry.age_years for entry in entries]),
        sex_female=_known([entry.sex_female for entry in entries]),
        fold=np.array([_PTBXL_FOLD[entry.fold] for entry in entries], np.int8),
        first=first,
        record=np.array([entry.ecg_id for entry in entries], np.int64),
    )


def _singles(
    paths: list[str], said: list[set[str]], name: str, licence: str, number: np.ndarray, fold: np.ndarray, people: list
) -> SourceRows:
    """Sources with one ECG a person, sorted by number."""
    order = np.argsort(number)
    return _rows(
        [paths[i] for i in order],
        [said[i] for i in order],
        name,
        licence,
        patient=number[order],
        days=np.zeros(len(order), np.float32),
        age_years=_known([people[i][0] for i in order]),
        sex_female=_known([people[i][1] for i in order]),
        fold=fold[order],
        first=np.ones(len(order), bool),
        record=number[order],
    )


def ludb_rows(folder: Path) -> SourceRows:
    """LUDB. Raises RecordError: see `ludb.record_names`."""
    names = ludb.record_names(folder)
    number = np.array([int(name) for name in names], np.int64)
    said, _ = ludb_labels(folder, names)
    people = ludb.people(folder)
    return _singles(
        [str(folder / "data" / name) for name in names],
        said,
        "LUDB 1.0.1",
        "ODC-By 1.0",
        number,
        np.where(number % 2 == 1, TRAIN, VALID).astype(np.int8),
        [people[name] for name in names],
    )


def challenge_rows(folder: Path) -> SourceRows:
    """Challenge-2021 records with diagnoses. Raises RecordError: see `diagnoses.challenge_labels`; a name with other
    signs than letters and digits."""
    said, _, _ = challenge_labels(folder)
    odd = [base.name for base in said if not (base.name.isascii() and base.name.isalnum() and len(base.name) <= 12)]
    if odd:
        raise RecordError(f"record {odd[0]!r} is not named as the Challenge's are (letters and digits); rename it")
    number = np.array([int(base.name, 36) for base in said], np.int64)
    return _singles(
        [str(base) for base in said],
        list(said.values()),
        "PhysioNet/CinC Challenge 2021",
        "CC BY 4.0",
        number,
        np.zeros(len(said), np.int8),
        [person_of(base) for base in said],
    )


def trial_rows(folder: Path) -> SourceRows:
    """ECGRDVQ or ECGDMMLD, the ten-second ECGs on disk. Raises RecordError where there is none, ValueError: see
    `trial_ecgs.load_ecgs`."""
    ecgs = load_ecgs(folder)
    ecgs = ecgs[ecgs["raw"]].reset_index(drop=True)
    if ecgs.empty:
        raise RecordError(f"no ten-second ECG of the table is below {folder / 'raw'}; fetch the trial's waveforms")
    arms = tuple(sorted(set(ecgs["arm"])))
    boards = [set(filter(None, drugs.split("+"))) for drugs in ecgs["on_board"]]
    drugs = tuple(sorted({drug for arm in arms for drug in arm.split("+")} - {"placebo"} | set().union(*boards)))
    subjects = {subject: i for i, subject in enumerate(sorted(ecgs["randid"].unique()))}
    when = (ecgs["period"] - 1) * PERIOD_DAYS + ecgs["hour"] / 24.0
    days = when - when.groupby(ecgs["randid"]).transform("min")
    return _rows(
        [str(path) for path in ecgs["path"]],
        [{arm} for arm in ecgs["arm"]],
        folder.resolve().name + " (FDA drug-response trial)",
        "ODC-By 1.0",
        arms,
        drugs,
        treated=_hot(boards, drugs),
        patient=ecgs["randid"].to_numpy(np.int64),
        days=days.to_numpy(np.float32),
        age_years=ecgs["age_years"].to_numpy(np.float32),
        sex_female=ecgs["sex_female"].to_numpy(np.float32),
        fold=np.array([subjects[subject] * 20 // len(subjects) for subject in ecgs["randid"]], np.int8),
        first=~ecgs.duplicated(["randid", "period"]).to_numpy(),
        record=np.array([number_of(name) for name in ecgs["egrefid"]], np.int64),
    )


SOURCES: dict[str, Callable[[Path], SourceRows]] = {
    "ptbxl": ptbxl_rows,
    "ludb": ludb_rows,
    "challenge": challenge_rows,
    "ecgrdvq": trial_rows,
    "ecgdmmld": trial_rows,
}
