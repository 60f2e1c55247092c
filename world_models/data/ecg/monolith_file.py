"""The HDF5 file of a monolith: laid out once, never changed in its structure, each row with a checksum.

HDF5 does not grow its data sets in one step, so a file that grows while its writer is killed may be unreadable or hold
rows of nothing. Here all space and all metadata are on file before the first row; whoever needs another size lays out
another file and renames it. Data sets are contiguous and lie in the file itself: one that says its rows are elsewhere
(a soft or external link, external storage, a virtual data set) is refused, for it would read what its reader may and
its author may not.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py

__all__ = ["COLUMNS", "VERSION", "MonolithError", "capacity", "copy_rows", "fields", "lay_out", "open_checked"]
__all__ += ["read_progress", "read_rows", "row_sums", "sync", "verify_rows", "write_progress", "write_rows"]

VERSION = 2  # 1, until version 0.1, grew and had no checksums
COLUMNS = {
    "patient": "int64",
    "days": "float32",
    "age_years": "float32",
    "sex_female": "float32",
    "fold": "int8",
    "first": "bool",
    "record": "int64",
}
SUM = "crc32"  # of the row's number and all that stands in it
LAID_OUT = "layout"  # JSON text and its SHA-256, as bytes
PROGRESS = "progress"  # rows, position in the source, records skipped, checksum of the three
BLOCK = 1024  # rows read at a time
LAYOUT = {
    "version": int,
    "codes": str,
    "sampling_rate_hz": float,
    "samples": int,
    "treatments": str,
    "source": str,
    "licence": str,
}
# Metadata with checksums of their own, and no mark of an open file, which a killed process would leave behind.
_FORMAT = ("v108", "v108")


class MonolithError(ValueError):
    """A monolith that cannot be read, written or continued; the message names the value, the limit and the remedy."""


def fields(layout: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """name -> (shape of a row, dtype) of everything that a row holds."""
    treatments = json.loads(layout["treatments"])
    return {
        "ecg": ((12, layout["samples"]), "float16"),
        "label": ((len(json.loads(layout["codes"])),), "bool"),
        **{name: ((), dtype) for name, dtype in COLUMNS.items()},
        **({"treated": ((len(treatments),), "bool")} if treatments else {}),
    }


def lay_out(path: Path, layout: Mapping[str, Any], rows: int) -> None:
    """Write a file with room for so many rows, all of its structure included; one that stands there is replaced."""
    import h5py

    with h5py.File(path, "w", libver=_FORMAT) as file:
        file.attrs.update(layout)
        text = json.dumps(dict(layout), sort_keys=True).encode()
        file.create_dataset(LAID_OUT, data=np.frombuffer(text + hashlib.sha256(text).digest(), np.uint8))
        for name, (shape, dtype) in {**fields(layout), SUM: ((), "uint32")}.items():
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_layout(h5py.h5d.CONTIGUOUS)
            plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple((rows, *shape))
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype), logical=True), space, plan)
        file.create_dataset(PROGRESS, data=_summed(0, 0, 0))
    sync(path)


def sync(path: Path) -> None:
    """Wait until the file is on the disk: else a power cut could leave a new name on a file without its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def open_checked(path: Path, mode: str = "r") -> tuple[h5py.File, dict[str, Any]]:
    """An open monolith and its layout; "r+" for writing.

    Raises:
        MonolithError: it is none, is damaged, keeps rows elsewhere, or another process is writing it.
    """
    import h5py

    try:
        file = h5py.File(path, mode, libver=_FORMAT)
    except BlockingIOError as error:
        raise MonolithError(f"{path} is open in another process ({error}); let that one end first") from error
    except Exception as error:  # of any kind: HDF5 says it of bytes that make no sense
        raise MonolithError(f"{path} is not an HDF5 file ({error}); make it again") from error
    try:
        return file, _check(file, path)
    except MonolithError:
        file.close()
        raise
    except Exception as error:  # as above
        file.close()
        raise MonolithError(f"{path} is damaged ({error}); make it again") from error


def _check(file: h5py.File, path: Path) -> dict[str, Any]:
    lacking = [name for name in ("ecg", "label", *COLUMNS, LAID_OUT) if file.get(name, getlink=True) is None]
    version = file.attrs.get("version", None)
    if lacking or version is None or int(version) != VERSION:
        raise MonolithError(
            f"{path} is not a monolith of version {VERSION} (version {version}, without "
            f"{', '.join(lacking) or 'nothing'}); make it again"
        )
    layout = _read_layout(file, path)
    if not layout["samples"] >= 1 or not 0 < layout["sampling_rate_hz"] < math.inf:
        raise MonolithError(f"{path} has samples={layout['samples']} at {layout['sampling_rate_hz']} Hz; make it again")
    rows = None
    for name, (shape, dtype) in {**fields(layout), SUM: ((), "uint32"), PROGRESS: (None, "int64")}.items():
        data = _at_hand(file, path, name)
        rows = len(data) if rows is None else rows
        wanted = (4,) if shape is None else (rows, *shape)
        if data.dtype != np.dtype(dtype) or data.shape != wanted:
            raise MonolithError(
                f"{path}: {name} is {data.dtype} {list(data.shape)}, not {dtype} {list(wanted)}; make it again"
            )
    return layout


def _at_hand(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """A data set whose content lies in this file, in one piece."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise MonolithError(
            f"{path}: {name} is a link to somewhere else; a monolith holds its rows itself: make it again"
        )
    data = file[name]
    plan = data.id.get_create_plist()
    if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_external_count():
        raise MonolithError(
            f"{path}: the content of {name} is not kept in one piece in this file (chunks, external storage or a "
            "virtual data set); make it again"
        )
    place, size = data.id.get_offset(), path.stat().st_size
    if place is None or place + data.nbytes > size:
        raise MonolithError(
            f"{path}: {name} is said to be {data.nbytes} bytes from byte {place} on, not within the file of {size}; "
            "make it again"
        )
    return data


def _read_layout(file: h5py.File, path: Path) -> dict[str, Any]:
    """What the attributes tell as well; their texts stand in a heap without checksum, on which HDF5 may run in
    circles."""
    content = _at_hand(file, path, LAID_OUT)[:].tobytes()
    text, digest = content[:-32], content[-32:]
    if hashlib.sha256(text).digest() != digest:
        raise MonolithError(f"{path}: its layout is not the one it was written with; make it again")
    layout = json.loads(text)
    if {name: type(value) for name, value in layout.items()} != LAYOUT or layout["version"] != VERSION:
        raise MonolithError(f"{path} has the layout {str(layout)[:80]}; make it again")
    return layout


def capacity(file: h5py.File) -> int:
    """Rows that there is room for."""
    return len(file[SUM])


def read_progress(file: h5py.File, path: Path) -> tuple[int, int, int]:
    """Rows written, position in the source, records skipped.

    Raises:
        MonolithError: the note is damaged.
    """
    found = file[PROGRESS][:]
    rows, position, skipped = (int(value) for value in found[:3])
    if not np.array_equal(found, _summed(rows, position, skipped)) or not 0 <= rows <= capacity(file):
        raise MonolithError(f"{path}: its note of how far it was written is damaged; make it again")
    return rows, position, skipped


def write_progress(file: h5py.File, rows: int, position: int, skipped: int) -> None:
    """Note how far the file is written, in one write, after all before it are on file."""
    file.flush()
    file[PROGRESS][...] = _summed(rows, position, skipped)
    file.flush()


def write_rows(file: h5py.File, start: int, rows: Mapping[str, np.ndarray]) -> None:
    """Rows and their checksums, from row `start` on; they count once `write_progress` says so."""
    end = start + len(rows["ecg"])
    for name, value in rows.items():
        file[name][start:end] = value
    file[SUM][start:end] = row_sums(np.arange(start, end), rows)


def copy_rows(source: h5py.File, to: h5py.File, layout: Mapping[str, Any], rows: int) -> None:
    """The first rows of one file, with their checksums as they are, to another."""
    for name in (*fields(layout), SUM):
        for start in range(0, rows, BLOCK):
            block = np.s_[start : min(start + BLOCK, rows)]
            to[name][block] = source[name][block]


def row_sums(numbers: np.ndarray, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """CRC-32 of each row [n] uint32: of its number and its bytes, fields in the order of their names."""
    if not len(numbers):
        return np.zeros(0, np.uint32)
    parts = [np.ascontiguousarray(rows[name]).view(np.uint8).reshape(len(numbers), -1) for name in sorted(rows)]
    whole = np.concatenate([np.asarray(numbers, "<i8").view(np.uint8).reshape(-1, 8), *parts], axis=1)
    return np.fromiter((zlib.crc32(row) for row in whole), np.uint32, count=len(whole))


def read_rows(
    file: h5py.File, path: Path, layout: Mapping[str, Any], index: np.ndarray, keep: Collection[str]
) -> dict[str, np.ndarray]:
    """What `keep` names of the rows of these numbers, in this order; all of each row is read and checked, a block at a
    time.

    Raises:
        MonolithError: a row is not what was written.
    """
    names = {**fields(layout), SUM: ((), "uint32")}
    out = {name: np.empty((len(index), *names[name][0]), names[name][1]) for name in keep}
    order = np.argsort(index, kind="stable")
    where = index[order]
    for start, stop in _blocks(where):
        low, high = int(where[start]), int(where[stop - 1]) + 1
        part = {name: file[name][low:high][where[start:stop] - low] for name in names}
        _verify(path, where[start:stop], part)
        for name in keep:
            out[name][order[start:stop]] = part[name]
    return out


def verify_rows(file: h5py.File, path: Path, layout: Mapping[str, Any], rows: int) -> None:
    """Raises MonolithError if one of the first rows is not what was written."""
    names = (*fields(layout), SUM)
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        _verify(path, np.arange(start, end), {name: file[name][start:end] for name in names})


def _verify(path: Path, numbers: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
    found = row_sums(numbers, {name: value for name, value in rows.items() if name != SUM})
    wrong = np.flatnonzero(found != rows[SUM])
    if len(wrong):
        raise MonolithError(f"{path}: row {int(numbers[wrong[0]])} is not what was written there; make the file again")
    for name, value in rows.items():
        if value.dtype == bool and value.size and int(value.view(np.uint8).max()) > 1:
            raise MonolithError(f"{path}: {name} holds bytes that are neither true nor false; make the file again")


def _blocks(where: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of the ascending row numbers that lie in one block of the file."""
    start = 0
    while start < len(where):
        stop = int(np.searchsorted(where, where[start] - where[start] % BLOCK + BLOCK))
        yield start, stop
        start = stop


def _summed(rows: int, position: int, skipped: int) -> np.ndarray:
    told = np.array([rows, position, skipped], "<i8")
    return np.append(told, zlib.crc32(told.tobytes())).astype("int64")
