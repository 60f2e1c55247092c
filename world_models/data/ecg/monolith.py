"""Many ECGs with labels in one HDF5 file, read into memory whole or in part; `monolith_writer` writes it.

The file holds one row an ECG: `ecg` float16 mV [N, 12, T] and `label` bool [N, C], and a column each of patient, days,
age_years, sex_female, fold, first and record; `treated` where treatments are known; `crc32`, the row's checksum
(`monolith_file`). Attributes, and `layout` with a sum of its own, name the codes (JSON), the sampling rate, the source
and its licence. Float16 resolves 1 uV at 1 mV and 4 uV at 5 mV.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.data.ecg import monolith_file
from world_models.data.ecg.monolith_file import MonolithError
from world_models.data.ecg.monolith_writer import MonolithWriter
from world_models.data.ecg.pairs import Transitions, consecutive, subset_patients, transitions

if TYPE_CHECKING:
    import h5py

__all__ = ["Monolith", "MonolithError", "MonolithIndex", "MonolithWriter", "Transitions", "consecutive", "from_arrays"]
__all__ += [
    "pairs",
    "read_index",
    "read_monolith",
    "read_records",
    "split",
    "stable_share",
    "subset_patients",
    "take",
    "transitions",
]

FOLDS = {"train": range(0, 18), "valid": range(18, 19), "test": range(19, 20)}  # as MIMIC-IV-ECG-Ext-ICD's authors use


class Monolith(NamedTuple):
    """ECGs with labels in memory, one row an ECG. NaN in age and sex stands for unknown."""

    ecg: Tensor  # [N, 12, T] float16 mV
    label: Tensor  # [N, C] bool
    patient: Tensor  # [N] int64
    days: Tensor  # [N] float32 since the patient's first ECG
    age_years: Tensor  # [N] float32
    sex_female: Tensor  # [N] float32
    fold: Tensor  # [N] int8: 0-17 train, 18 validation, 19 test
    first: Tensor  # [N] bool: the first ECG of a stay (triage)
    treated: Tensor | None  # [N, K] bool
    codes: tuple[str, ...]
    sampling_rate_hz: float


def _open(path: str | Path) -> tuple[h5py.File, dict[str, Any]]:
    """An open monolith and its layout."""
    path = Path(path)
    if not path.is_file():
        part = path.with_name(path.name + ".part")
        hint = f"{part.name} beside it is unfinished: run its command again" if part.exists() else "give a monolith"
        raise MonolithError(f"no file {path}; {hint}")
    file, layout = monolith_file.open_checked(path)
    rows, room = monolith_file.read_progress(file, path)[0], monolith_file.capacity(file)
    if rows != room:
        file.close()
        raise MonolithError(
            f"{path} holds {rows} rows of {room}: it is the .part of a run that was stopped; run it again"
        )
    return file, layout


def _indices(rows: object, count: int) -> np.ndarray:
    """The row numbers [n] int64 that None, a slice, a mask [count] or numbers name."""
    if rows is None:
        return np.arange(count)
    if isinstance(rows, slice):
        return np.arange(count)[rows]
    index = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)
    if index.dtype == bool:
        if index.shape != (count,):
            raise MonolithError(f"a mask of shape {list(index.shape)} for {count} rows; give one value a row")
        return np.flatnonzero(index)
    if index.size and (index.min() < 0 or index.max() >= count):
        raise MonolithError(f"row {int(index.max())} or {int(index.min())} is not among 0 to {count - 1}")
    return index.astype(np.int64)


def read_monolith(path: str | Path, rows: object = None) -> Monolith:
    """A monolith into memory: 24 kB an ECG of 12 x 1000.

    Args:
        rows: None for all; a slice, a mask [N] or row numbers, in the order wanted.

    Raises:
        MonolithError: no such file, not a monolith, damaged, or rows it does not have.
    """
    file, layout = _open(path)
    with file:
        index = _indices(rows, monolith_file.capacity(file))
        keep = [name for name in monolith_file.fields(layout) if name != "record"]
        found = monolith_file.read_rows(file, Path(path), layout, index, keep)
    columns: dict[str, Any] = {"treated": None, **{name: torch.from_numpy(value) for name, value in found.items()}}
    return Monolith(**columns, codes=tuple(json.loads(layout["codes"])), sampling_rate_hz=layout["sampling_rate_hz"])


def read_records(path: str | Path, rows: object = None) -> Tensor:
    """The source's own number of every ECG, [N] int64; -1 where there was none (`rows` as in `read_monolith`)."""
    file, layout = _open(path)
    with file:
        index = _indices(rows, monolith_file.capacity(file))
        return torch.from_numpy(monolith_file.read_rows(file, Path(path), layout, index, ("record",))["record"])


class MonolithIndex(NamedTuple):
    """All of a monolith but its waves, one row an ECG: what to look rows up by."""

    label: Tensor  # [N, C] bool
    patient: Tensor  # [N] int64
    days: Tensor  # [N] float32
    age_years: Tensor  # [N] float32
    sex_female: Tensor  # [N] float32
    fold: Tensor  # [N] int8
    first: Tensor  # [N] bool
    record: Tensor  # [N] int64
    treated: Tensor | None  # [N, K] bool
    codes: tuple[str, ...]
    treatments: tuple[str, ...]
    sampling_rate_hz: float

    def rows_of(self, patient: int, days: tuple[float, float] = (-math.inf, math.inf)) -> Tensor:
        """Row numbers [n] int64 of a patient's ECGs from one day to another, both included, in time order."""
        within = (self.patient == patient) & (self.days >= days[0]) & (self.days <= days[1])
        rows = within.nonzero().squeeze(1)
        return rows[torch.argsort(self.days[rows], stable=True)]


def read_index(path: str | Path) -> MonolithIndex:
    """All but the waves; every row is read and checked all the same, a block at a time.

    Raises:
        MonolithError: no such file, not a monolith, or damaged.
    """
    file, layout = _open(path)
    with file:
        keep = [name for name in monolith_file.fields(layout) if name != "ecg"]
        every = np.arange(monolith_file.capacity(file))
        found = monolith_file.read_rows(file, Path(path), layout, every, keep)
    columns: dict[str, Any] = {"treated": None, **{name: torch.from_numpy(value) for name, value in found.items()}}
    codes, treatments = tuple(json.loads(layout["codes"])), tuple(json.loads(layout["treatments"]))
    return MonolithIndex(**columns, codes=codes, treatments=treatments, sampling_rate_hz=layout["sampling_rate_hz"])


def from_arrays(
    *,
    ecg: object,
    label: object,
    patient: object,
    days: object,
    codes: Sequence[str],
    age_years: object = None,
    sex_female: object = None,
    fold: object = None,
    first: object = None,
    treated: object = None,
    sampling_rate_hz: float = 100.0,
) -> Monolith:
    """A monolith made in memory of arrays or tensors, checked and cast.

    What is left out: age and sex NaN, fold 0, `first` the earliest ECG of each patient.

    Raises:
        MonolithError: shapes or the number of codes do not fit.
    """
    wave = torch.as_tensor(ecg).to(torch.float16)
    count = len(wave)
    nan = torch.full((count,), float("nan"))
    person, time = torch.as_tensor(patient).to(torch.int64), torch.as_tensor(days).to(torch.float32)
    made = Monolith(
        ecg=wave,
        label=torch.as_tensor(label).to(torch.bool),
        patient=person,
        days=time,
        age_years=nan if age_years is None else torch.as_tensor(age_years).to(torch.float32),
        sex_female=nan if sex_female is None else torch.as_tensor(sex_female).to(torch.float32),
        fold=torch.zeros(count, dtype=torch.int8) if fold is None else torch.as_tensor(fold).to(torch.int8),
        first=torch.zeros(count, dtype=torch.bool) if first is None else torch.as_tensor(first).to(torch.bool),
        treated=None if treated is None else torch.as_tensor(treated).to(torch.bool),
        codes=tuple(codes),
        sampling_rate_hz=float(sampling_rate_hz),
    )
    if wave.ndim != 3 or wave.shape[1] != 12:
        raise MonolithError(f"ecg has shape {list(wave.shape)}, not [N, 12, T]")
    if made.label.shape != (count, len(made.codes)):
        raise MonolithError(f"label has shape {list(made.label.shape)}, not [{count}, {len(made.codes)}]")
    for name in ("patient", "days", "age_years", "sex_female", "fold", "first"):
        shape = list(getattr(made, name).shape)
        if shape != [count]:
            raise MonolithError(f"{name} has shape {shape}, not [{count}]")
    if made.treated is not None and (made.treated.ndim != 2 or len(made.treated) != count):
        raise MonolithError(f"treated has shape {list(made.treated.shape)}, not [{count}, K]")
    if first is None and count:
        order = np.lexsort((time.numpy(), person.numpy()))
        sorted_person = person.numpy()[order]
        new = np.concatenate(([True], sorted_person[1:] != sorted_person[:-1]))
        made.first[torch.from_numpy(order[new])] = True
    return made


def take(m: Monolith, rows: Tensor | slice) -> Monolith:
    """The rows of a monolith: an index, a mask or a slice (which copies nothing)."""
    columns: dict[str, Any] = {n: value[rows] for n, value in m._asdict().items() if isinstance(value, Tensor)}
    return m._replace(**columns)


def split(m: Monolith, name: str) -> Monolith:
    """One side by folds: "train" (0 to 17), "valid" (18) or "test" (19).

    Raises:
        MonolithError: another name.
    """
    if name not in FOLDS:
        raise MonolithError(f"no side {name!r}; there are {', '.join(FOLDS)}")
    return take(m, (m.fold >= FOLDS[name].start) & (m.fold < FOLDS[name].stop))


def pairs(m: Monolith) -> tuple[Tensor, Tensor]:
    """Row numbers (before, after), each [P] int64, of consecutive ECGs of a patient."""
    return consecutive(m.patient, m.days)


def stable_share(m: Monolith) -> float:
    """The share of those pairs in which no label changes; NaN without pairs."""
    return transitions(m.label, m.patient, m.days).stable_share
