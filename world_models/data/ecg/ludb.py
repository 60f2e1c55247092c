"""LUDB: 12-lead ECGs with cardiologists' marks of every P, QRS and T in every lead.

Lobachevsky University Electrocardiography Database 1.0.1, ODC-By; Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211.
The folder holds `ludb.csv` and `data/N.hea, N.dat, N.i ... N.v6` (500 Hz, 10 s). The marks leave out the first and
last beats of a lead. The headers' gains are no gains: each is its lead's own peak-to-peak, so that plain
`wfdb.rdrecord` gives leads all 1 mV high; `wfdb.reader.read_ecg` restores them (samples are microvolts).
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from world_models.data.ecg.wfdb.header import open_inside
from world_models.data.ecg.wfdb.reader import RecordError, parse_age_years, parse_sex_female, read_ecg
from world_models.ecg.lead_names import LEADS

__all__ = ["AnnotatedBeats", "LudbRecord", "iterate", "pair_marks", "people", "read_record", "record_names"]

SAMPLING_RATE_HZ = 500.0
SECONDS = 10.0  # length of every record
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")  # of a record, in data/ and nowhere else
_COLUMNS = ("ID", "Sex", "Age", "Rhythms")
MARK_BYTES = 1 << 20  # of one lead's marks; they have a few hundred
_WAVE = {"p": 0, "N": 1, "t": 2}


class AnnotatedBeats(NamedTuple):
    """The marked beats of one lead, in samples; each [K] float64, NaN where a mark is absent. One row a QRS."""

    p_onset: np.ndarray
    p_peak: np.ndarray
    p_offset: np.ndarray
    qrs_onset: np.ndarray
    qrs_peak: np.ndarray
    qrs_offset: np.ndarray
    t_onset: np.ndarray
    t_peak: np.ndarray
    t_offset: np.ndarray


class LudbRecord(NamedTuple):
    """One record: its ECG, the cardiologists' marks, and what its headers and table say."""

    name: str
    ecg_mv: Tensor  # [12, 5000] float32, standard order
    beats: dict[str, AnnotatedBeats]  # lead (as in LEADS) -> its marks
    rhythm: tuple[str, ...]  # e.g. ("Sinus rhythm",)
    pacing: tuple[str, ...]  # empty without a pacemaker
    conduction: tuple[str, ...]
    age_years: float | None  # 90 stands for "> 89"
    sex_female: bool | None


def _waves(samples: Sequence[int], symbols: Sequence[str]) -> list[tuple[int, float, float, float]]:
    """(kind, onset, peak, offset) of every marked wave, in time order.

    An onset is the '(' right before the peak, an offset the ')' right after; anything else between leaves it NaN.
    Doubled marks (some leads repeat them) count once: the first '(' and the
    last ')' of a run, and of peaks of one kind in a run the first.
    """
    runs: list[tuple[str, int, int]] = []  # symbol, first sample, last sample
    for sample, symbol in sorted(zip(map(int, samples), symbols, strict=True), key=lambda mark: mark[0]):
        near = runs and sample - runs[-1][2] <= 25  # 50 ms: the next wave's mark stands farther off
        if runs and runs[-1][0] == symbol and near:
            runs[-1] = (symbol, runs[-1][1], sample)
        else:
            runs.append((symbol, sample, sample))
    found = []
    for i, (symbol, first, _) in enumerate(runs):
        if symbol not in _WAVE:
            continue
        following = [run[0] for run in runs[i + 1 : i + 3]]
        onset = float(runs[i - 1][1]) if i and runs[i - 1][0] == "(" else np.nan
        offset = float(runs[i + 1][2]) if following[:1] == [")"] else np.nan
        if following == ["(", ")"]:  # paced beats: the "peak" stands on the spike, before the onset
            onset, offset = float(runs[i + 1][1]), float(runs[i + 2][2])
        found.append((_WAVE[symbol], onset, float(first), offset))
    return found


def pair_marks(samples: Sequence[int], symbols: Sequence[str]) -> AnnotatedBeats:
    """Marks of one lead -> beats: to each QRS the last P since the QRS before it and the first T until the next."""
    waves = _waves(samples, symbols)
    places = [i for i, wave in enumerate(waves) if wave[0] == 1]
    rows = np.full((len(places), 9), np.nan)
    for k, place in enumerate(places):
        before = waves[(places[k - 1] + 1 if k else 0) : place]
        after = waves[place + 1 : (places[k + 1] if k + 1 < len(places) else len(waves))]
        p = next((w for w in reversed(before) if w[0] == 0), None)
        t = next((w for w in after if w[0] == 2), None)
        for column, wave in ((0, p), (3, waves[place]), (6, t)):
            if wave is not None:
                rows[k, column : column + 3] = wave[1:]
    return AnnotatedBeats(*rows.T)


def read_table(folder: Path) -> dict[str, dict[str, str]]:
    """ludb.csv by record name. Its fields hold quoted line breaks: several diagnoses, or one after the sex and age.

    Raises:
        RecordError: no such file, no CSV, a column missing, or a record whose name leads out of data/.
    """
    path = folder / "ludb.csv"
    if not path.is_file():
        raise RecordError(f"no ludb.csv in {folder}; give the folder of LUDB that holds ludb.csv and data/")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise RecordError(f"{path} lacks the columns {', '.join(missing)}; fetch LUDB 1.0.1 again")
            rows = [{k: (v or "") for k, v in row.items() if k} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path} is no CSV in UTF-8 ({error}); fetch LUDB 1.0.1 again") from error
    named = {row["ID"].strip(): row for row in rows}
    odd = next((name for name in named if not _NAME.fullmatch(name)), None)
    if odd is not None:
        raise RecordError(
            f"{path}: the record {odd[:60]!r} is no plain name; correct its ID, or fetch LUDB 1.0.1 again"
        )
    return named


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def record_names(folder: str | Path) -> list[str]:
    """The records that stand both in ludb.csv and in data/, in the table's order.

    Raises:
        RecordError: the folder does not hold LUDB.
    """
    folder = Path(folder)
    names = [name for name in read_table(folder) if (folder / "data" / f"{name}.hea").is_file()]
    if not names:
        raise RecordError(f"no record of ludb.csv is in {folder / 'data'}; fetch LUDB 1.0.1 again")
    return names


def people(folder: str | Path) -> dict[str, tuple[float | None, bool | None]]:
    """(age in years, sex_female) of every record of ludb.csv, None where unknown.

    Raises:
        RecordError: the folder does not hold LUDB.
    """
    table = read_table(Path(folder))
    return {name: (parse_age_years(row["Age"]), parse_sex_female(row["Sex"])) for name, row in table.items()}


def _marks(base: Path, lead: str) -> AnnotatedBeats:
    """The marks of one lead, from a file of the record's own folder."""
    import wfdb

    name = f"{base.name}.{lead.lower()}"
    if not (base.parent / name).exists():
        raise RecordError(f"{base}: the marks of lead {lead} are missing ({name}); fetch LUDB again")
    with open_inside(base.parent, name) as file:
        size = os.fstat(file.fileno()).st_size
    if size > MARK_BYTES:
        raise RecordError(f"{base.parent / name} has {size} bytes, over {MARK_BYTES}; fetch LUDB again")
    try:
        marks = wfdb.rdann(str(base), lead.lower())
    except Exception as error:  # wfdb raises whatever its parser stumbles on
        raise RecordError(f"{base.parent / name} holds no marks ({error}); fetch LUDB again") from error
    return pair_marks(marks.sample, marks.symbol)


def _read(folder: Path, name: str, row: dict[str, str]) -> LudbRecord:
    base = folder / "data" / name
    recording = read_ecg(base, SAMPLING_RATE_HZ, SECONDS)
    beats = {lead: _marks(base, lead) for lead in LEADS}
    return LudbRecord(
        name=name,
        ecg_mv=recording.ecg_mv,
        beats=beats,
        rhythm=_lines(row["Rhythms"]),
        pacing=_lines(row.get("Cardiac pacing", "")),
        conduction=_lines(row.get("Conduction abnormalities", "")),
        age_years=parse_age_years(row["Age"]),
        sex_female=parse_sex_female(row["Sex"]),
    )


def read_record(folder: str | Path, name: str) -> LudbRecord:
    """One record of LUDB with its marks and diagnoses.

    Raises:
        RecordError: the folder does not hold LUDB, there is no such record, or a file of it is missing.
    """
    folder = Path(folder)
    table = read_table(folder)
    if name not in table:
        some = ", ".join(list(table)[:5])
        raise RecordError(f"no record {name!r} in {folder / 'ludb.csv'}; it has {len(table)} records: {some}, ...")
    return _read(folder, name, table[name])


def iterate(folder: str | Path) -> Iterator[LudbRecord]:
    """Every record of `record_names`, one after the other."""
    folder = Path(folder)
    table = read_table(folder)
    for name in record_names(folder):
        yield _read(folder, name, table[name])
