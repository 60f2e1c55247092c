"""Many ECGs with labels in one HDF5 file, written so that a killed run can go on, read into memory whole or in part.

The file holds one row an ECG: `ecg` float16 mV [N, 12, T] and `label` bool [N, C], and a column each of patient, days,
age_years, sex_female, fold, first and record; `treated` where treatments are known; `crc32`, the row's checksum
(`monolith_file`). Attributes, and `layout` with a sum of its own, name the codes (JSON), the sampling rate, the source
and its licence. Float16 resolves 1 uV at 1 mV and 4 uV at 5 mV.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from world_models.data.ecg import monolith_file
from world_models.data.ecg.monolith_file import VERSION, MonolithError
from world_models.data.ecg.pairs import Transitions, consecutive, subset_patients, transitions

__all__ = [
    "Monolith",
    "MonolithError",
    "MonolithWriter",
    "Transitions",
    "consecutive",
    "from_arrays",
    "pairs",
    "read_monolith",
    "read_records",
    "split",
    "stable_share",
    "subset_patients",
    "take",
    "transitions",
]

GROW_ROWS = 1024  # room at first where nobody says how many rows there will be; doubled when it is full
FOLDS = {"train": range(0, 18), "valid": range(18, 19), "test": range(19, 20)}  # as MIMIC-IV-ECG-Ext-ICD's authors use
LARGEST_MV = 1000.0  # beyond it something is wrong with the unit; float16 ends at 65,504


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


def _array(value: object, dtype: str) -> np.ndarray:
    return np.asarray(value.cpu() if isinstance(value, Tensor) else value).astype(dtype, copy=False)


class MonolithWriter:
    """Writes PATH.part and renames it to PATH when it is closed; opened again on a PATH.part, it goes on where that
    ends.

    After every `append` the rows and the writer's place in its source are on file, so a killed process loses at most
    the batch at hand. The file's structure is never changed: where there is no more room, or at the end too much,
    another is laid out, filled and renamed (`monolith_file`), for which the disk must hold both. Rows are checked
    against their checksums before a run goes on and before the file gets its name.
    `with MonolithWriter(...) as w:` closes at the end of the block, and leaves PATH.part behind if it raises.

    Args:
        path: the file to be; it must not exist.
        codes: names of the labels.
        rate: sampling rate, Hz.
        samples: T.
        source: what the rows are and how they were chosen; PATH.part is continued only where it is the same.
        licence: the licence of the source.
        treatments: names of the columns of `treated`; empty for a source that does not tell.
        most: how many rows there will be at most, if that is known: with room for just as many, nothing is copied.

    Attributes:
        rows: rows written so far. position: the `position` of the last append, 0 at first. skipped: the last `skipped`.

    Raises:
        MonolithError: PATH exists, its folder does not, or PATH.part is damaged, of another layout or being written.
    """

    def __init__(
        self,
        path: str | Path,
        codes: Sequence[str],
        rate: float,
        samples: int,
        source: str,
        licence: str = "",
        treatments: Sequence[str] = (),
        most: int | None = None,
    ) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(self.path.name + ".part")
        self._new = self.path.with_name(self.path.name + ".part.new")
        if not 0 < rate < float("inf") or samples < 1 or (most is not None and most < 1):
            raise MonolithError(f"rate={rate} Hz, samples={samples} and most={most} must all be finite and above 0")
        if len(set(codes)) != len(codes) or not codes:
            raise MonolithError(f"codes must be distinct and at least one, not {list(codes)}")
        if self.path.exists():
            raise MonolithError(f"{self.path} exists already; give another path or remove it")
        if not self.path.parent.is_dir():
            raise MonolithError(f"no folder {self.path.parent}; make it first")
        self._layout = {
            "version": VERSION,
            "codes": json.dumps(list(codes)),
            "sampling_rate_hz": float(rate),
            "samples": int(samples),
            "treatments": json.dumps(list(treatments)),
            "source": source,
            "licence": licence,
        }
        if not self._part.exists():
            self._write(lambda: monolith_file.lay_out(self._new, self._layout, most or GROW_ROWS))
            os.replace(self._new, self._part)
        self._file = self._continued()
        self._new.unlink(missing_ok=True)  # of a run that was killed while it laid out another size

    def _continued(self):
        """The open PATH.part; sets how far it is written."""
        try:
            file, found = monolith_file.open_checked(self._part, "r+")
        except MonolithError as error:
            if isinstance(error.__cause__, BlockingIOError):  # another run is at it: nothing is to be removed
                raise
            raise MonolithError(f"{self._part} cannot be continued ({error}); remove it and start again") from error
        try:
            other = [name for name, value in self._layout.items() if found[name] != value]
            if other:
                said = "; ".join(f"{n} there {_short(found[n])}, here {_short(self._layout[n])}" for n in other)
                raise MonolithError(
                    f"{self._part} was begun with another layout ({said}); remove it or give another path"
                )
            self.rows, self.position, self.skipped = monolith_file.read_progress(file, self._part)
            monolith_file.verify_rows(file, self._part, self._layout, self.rows)
        except MonolithError:
            file.close()
            raise
        return file

    def _resize(self, rows: int) -> None:
        """Room for so many rows and no more."""

        def another() -> None:
            monolith_file.lay_out(self._new, self._layout, rows)
            new, _ = monolith_file.open_checked(self._new, "r+")
            with new:
                monolith_file.copy_rows(self._file, new, self._layout, self.rows)
                monolith_file.write_progress(new, self.rows, self.position, self.skipped)
            monolith_file.sync(self._new)

        self._write(another)
        self._file.close()
        os.replace(self._new, self._part)
        self._file, _ = monolith_file.open_checked(self._part, "r+")

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, RuntimeError) as error:  # as h5py says that a disk is full or a folder read-only
            raise MonolithError(
                f"{self._part} cannot be written ({error}); make room or give another path, then run it again: what "
                "was written before is kept"
            ) from error

    def append(
        self,
        *,
        ecg: object,
        label: object,
        patient: object,
        days: object,
        age_years: object,
        sex_female: object,
        fold: object,
        first: object,
        treated: object = None,
        record: object = None,
        position: int | None = None,
        skipped: int | None = None,
    ) -> None:
        """Add rows (arrays or tensors, [n, ...] as in `Monolith`) and note how far the source has been read.

        Args:
            record: [n] int64 the source's own number of each ECG; -1 where there is none.
            position: kept as `self.position`; by default the rows written.
            skipped: kept as `self.skipped`: records of the source that gave no row.

        Raises:
            MonolithError: shapes that do not fit, values that are not finite or beyond 1,000 mV, or a closed writer.
        """
        if not self._file:
            raise MonolithError(f"the writer of {self.path} is closed; open another for more rows")
        given = {
            "patient": patient,
            "days": days,
            "age_years": age_years,
            "sex_female": sex_female,
            "fold": fold,
            "first": first,
            "label": label,
        }
        wave = np.asarray(ecg.cpu() if isinstance(ecg, Tensor) else ecg)
        count = len(wave)
        given["record"] = np.full(count, -1) if record is None else record
        if (treated is None) == ("treated" in self._file):
            raise MonolithError("treated must be given where the writer was opened with treatments, and only there")
        if treated is not None:
            given["treated"] = treated
        rows = {name: _array(value, self._file[name].dtype.str) for name, value in given.items()}
        for name, value in {"ecg": wave, **rows}.items():
            wanted = (count, *self._file[name].shape[1:])
            if value.shape != wanted:
                raise MonolithError(f"{name} has shape {list(value.shape)}, not {list(wanted)}")
        # NaN compares false, so this catches it too.
        if not (np.abs(wave) <= LARGEST_MV).all():
            raise MonolithError(f"an ECG holds NaN or more than {LARGEST_MV:g} mV; leave it out or correct its unit")
        end = self.rows + count
        room = monolith_file.capacity(self._file)
        if end > room:
            self._resize(max(end, 2 * room))
        position = self.position + count if position is None else int(position)
        skipped = self.skipped if skipped is None else int(skipped)

        def write() -> None:
            monolith_file.write_rows(self._file, self.rows, {"ecg": wave.astype(np.float16), **rows})
            monolith_file.write_progress(self._file, end, position, skipped)

        self._write(write)
        self.rows, self.position, self.skipped = end, position, skipped

    def close(self) -> Path:
        """Cut the file to its rows, check them and give it its name; returns the path.

        Raises:
            MonolithError: no row was written, or one is not what was written.
        """
        if not self._file:
            return self.path
        if self.rows == 0:
            raise MonolithError(f"no row was written to {self._part}; nothing is kept under {self.path.name}")
        if monolith_file.capacity(self._file) != self.rows:
            self._resize(self.rows)
        monolith_file.verify_rows(self._file, self._part, self._layout, self.rows)
        self._file.close()
        monolith_file.sync(self._part)
        os.replace(self._part, self.path)
        return self.path

    def abandon(self) -> None:
        """Leave PATH.part as it is, to be continued."""
        if self._file:
            self._file.close()

    def __enter__(self) -> MonolithWriter:
        return self

    def __exit__(self, kind, *_) -> None:
        self.close() if kind is None else self.abandon()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:50]}...{text[-25:]}"


def _open(path: str | Path):
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
    return Monolith(
        **{"treated": None, **{name: torch.from_numpy(value) for name, value in found.items()}},
        codes=tuple(json.loads(layout["codes"])),
        sampling_rate_hz=layout["sampling_rate_hz"],
    )


def read_records(path: str | Path, rows: object = None) -> Tensor:
    """The source's own number of every ECG, [N] int64; -1 where there was none (`rows` as in `read_monolith`)."""
    file, layout = _open(path)
    with file:
        index = _indices(rows, monolith_file.capacity(file))
        return torch.from_numpy(monolith_file.read_rows(file, Path(path), layout, index, ("record",))["record"])


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
    return Monolith(*(value[rows] if isinstance(value, Tensor) else value for value in m))


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
