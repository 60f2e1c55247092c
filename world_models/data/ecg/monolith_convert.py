"""WFDB records into a monolith, whatever their database: read by several processes, written in order, resumable.

A source says which records there are and what stands beside each (`SourceRows`, made by `monolith_sources` and
`mimic_iv_ecg`); this module reads them to one rate and length as float16 and appends them. A run that was stopped goes
on when it is given the same rows.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from tqdm import tqdm

from world_models.data.ecg.monolith import MonolithWriter, read_monolith, read_records
from world_models.data.ecg.wfdb.reader import RecordError, read_ecg

__all__ = ["RoundTrip", "SourceRows", "convert", "mark_of", "round_trip"]

BLOCK = 64  # records a task of a worker and an append
_Block: TypeAlias = tuple[np.ndarray, np.ndarray, str]  # what `_read_block` returns


class SourceRows(NamedTuple):
    """The ECGs of a source in the order of the monolith (by patient, then time), M of them."""

    paths: list[str]  # records without extension
    columns: Mapping[str, np.ndarray]  # [M, ...] each: those of `monolith.Monolith` but ecg, and record
    codes: tuple[str, ...]  # of columns["label"]
    treatments: tuple[str, ...]  # of columns["treated"]; empty where the source does not tell
    source: str  # what the rows are and how they were chosen: a run goes on only where it is the same
    licence: str


class RoundTrip(NamedTuple):
    """Records read again beside what the monolith holds of them."""

    ecgs: int
    largest_uv: float
    rms_uv: float


def mark_of(record: np.ndarray, label: np.ndarray) -> str:
    """16 hex digits that change with the records [M] int64 and their labels [M, C] bool."""
    return hashlib.sha256(record.tobytes() + label.tobytes()).hexdigest()[:16]


def _read(path: str, rate: float, samples: int) -> np.ndarray:
    """[12, samples] float32 mV. Raises RecordError."""
    ecg = read_ecg(path, rate, samples / rate).ecg_mv
    if ecg.shape[1] != samples:
        raise RecordError(f"{path}: {ecg.shape[1] / rate:.2f} s without a gap, not {samples / rate:g} s")
    return ecg.numpy()


def _read_block(paths: list[str], rate: float, samples: int) -> _Block:
    """(float16 [k, 12, samples], which of the paths they are [k], why the first of the others is not among them)."""
    torch.set_num_threads(1)
    waves, kept, reason = [], [], ""
    for i, path in enumerate(paths):
        try:
            waves.append(_read(path, rate, samples).astype(np.float16))
            kept.append(i)
        except RecordError as error:
            reason = reason or str(error)
    wave = np.stack(waves) if waves else np.empty((0, 12, samples), np.float16)
    return wave, np.array(kept, np.int64), reason


def _blocks(paths: list[str], start: int, rate: float, samples: int, workers: int) -> Iterator[tuple[int, _Block]]:
    """(end of the block, what `_read_block` returned) in order; few blocks wait in memory at a time."""
    blocks = [(i, min(i + BLOCK, len(paths))) for i in range(start, len(paths), BLOCK)]
    if workers <= 1:
        for low, high in blocks:
            yield high, _read_block(paths[low:high], rate, samples)
        return
    # Spawned, not forked: torch and HDF5 have threads and locks of their own here.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[tuple[int, Future[_Block]]] = deque()
        for low, high in blocks:
            waiting.append((high, pool.submit(_read_block, paths[low:high], rate, samples)))
            if len(waiting) > 4 * workers:
                end, future = waiting.popleft()
                yield end, future.result()
        for end, future in waiting:
            yield end, future.result()


def convert(
    rows: SourceRows,
    out: str | Path,
    *,
    rate: float,
    seconds: float,
    workers: int = 2,
    most_unreadable: float = 0.01,
    quiet: bool = True,
) -> tuple[int, int]:
    """Read, check, convert and write; (rows written, records left out since they cannot be read).

    Raises:
        RecordError: no row, or more than the share `most_unreadable` of all records cannot be read or are too short.
        MonolithError: `out` exists, its folder does not, its .part was begun with other arguments or is damaged.
    """
    if not rows.paths:
        raise RecordError(f"{rows.source}: no record to convert; give a folder that has some")
    samples = round(rate * seconds)
    writer = MonolithWriter(
        out, rows.codes, rate, samples, rows.source, rows.licence, rows.treatments, most=len(rows.paths)
    )
    total = len(rows.paths)
    with writer, tqdm(total=total, initial=writer.position, unit=" ECGs", disable=quiet, smoothing=0.05) as bar:
        for end, (wave, kept, reason) in _blocks(rows.paths, writer.position, rate, samples, workers):
            where = np.arange(writer.position, end)
            skipped = writer.skipped + len(where) - len(kept)
            # judged against all records, so that one bad block does not stop a run of eight hundred thousand
            if skipped > most_unreadable * total:
                raise RecordError(
                    f"{skipped} of {total} records cannot be read, more than {most_unreadable:.1%}; the last: "
                    f"{reason}. Fetch them again, or allow it with --most-missing"
                )
            taken = {name: value[where[kept]] for name, value in rows.columns.items()}
            writer.append(ecg=wave, **taken, position=end, skipped=skipped)
            bar.update(len(where))
    return writer.rows, writer.skipped


def round_trip(rows: SourceRows, out: str | Path, rate: float, seconds: float, most: int = 64) -> RoundTrip:
    """Up to `most` records, evenly spread, read again and compared with their rows in the monolith.

    Raises:
        RecordError: a record cannot be read any more, or is not in the monolith.
        MonolithError: the monolith is damaged.
    """
    held = {int(number): row for row, number in enumerate(read_records(out).tolist())}
    there = [i for i, number in enumerate(rows.columns["record"].tolist()) if number in held]
    chosen = [there[i] for i in np.unique(np.linspace(0, len(there) - 1, min(most, len(there))).round().astype(int))]
    largest, squares, count = 0.0, 0.0, 0
    kept = read_monolith(out, [held[int(rows.columns["record"][i])] for i in chosen]).ecg.float().numpy()
    for i, wave in zip(chosen, kept, strict=True):
        error = 1000.0 * (wave - _read(rows.paths[i], rate, round(rate * seconds)))
        largest, squares, count = (
            max(largest, float(np.abs(error).max())),
            squares + float((error**2).sum()),
            count + error.size,
        )
    return RoundTrip(len(chosen), largest, float(np.sqrt(squares / max(count, 1))))
