"""A monolith is written so that a killed run can go on; see `monolith` for what the file holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from world_models.data.ecg import monolith_file
from world_models.data.ecg.monolith_file import VERSION, MonolithError

if TYPE_CHECKING:
    import h5py

__all__ = ["MonolithWriter"]

GROW_ROWS = 1024  # room at first where nobody says how many rows there will be; doubled when it is full
LARGEST_MV = 1000.0  # beyond it something is wrong with the unit; float16 ends at 65,504


def _array(value: object) -> np.ndarray:
    return np.asarray(value.cpu() if isinstance(value, Tensor) else value)


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

    def _continued(self) -> h5py.File:
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
        """Call `write`; what the disk says is told as a MonolithError."""
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
        wave = _array(ecg)
        count = len(wave)
        given["record"] = np.full(count, -1) if record is None else record
        if (treated is None) == ("treated" in self._file):
            raise MonolithError("treated must be given where the writer was opened with treatments, and only there")
        if treated is not None:
            given["treated"] = treated
        rows = {name: _array(value).astype(self._file[name].dtype, copy=False) for name, value in given.items()}
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:50]}...{text[-25:]}"
