"""The records that tell of orders, read into stays; decision points of each kept on disk."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.people.questions import Question
from benchmarks.people.stays import HOURLY_SOURCES, Stay, stay_of
from world_models.files import replacing

if TYPE_CHECKING:
    from world_models.data.ehr.episode import PatientEpisode

__all__ = ["NAMES", "WITHOUT_TREATMENTS", "Record", "kept", "records_of"]

# argument -> name of the record
NAMES = {"eicu": "eICU", "meds": "MIMIC-IV", "mimic3": "MIMIC-III", "challenge2019": "Challenge 2019"}
WITHOUT_TREATMENTS = frozenset({"challenge2019"})  # charted settings alone
LAYOUT = 1  # of what is kept: another number makes it anew


@dataclass(frozen=True)
class Record:
    """One source of stays, read when it is first asked for."""

    key: str  # of NAMES
    paths: dict[str, str]  # arguments of `load_episodes`

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return NAMES[self.key]

    @cached_property
    def episodes(self) -> list[PatientEpisode]:
        """Its stays. Raises EhrDataError: it cannot be read."""
        from world_models.data.ehr.load import load_episodes

        return load_episodes(hours_per_step=1.0, **self.paths)[0]

    @cached_property
    def stays(self) -> list[Stay]:
        """The same as arrays."""
        lag_h = 1.0 if self.key in HOURLY_SOURCES else 0.0
        return [stay_of(e, lag_h) for e in self.episodes]

    @cached_property
    def mark(self) -> str:
        """A short sum of its files by path, size and time."""
        rows = []
        for name, path in sorted(self.paths.items()):
            files = [Path(path)] if Path(path).is_file() else sorted(f for f in Path(path).rglob("*") if f.is_file())
            rows += [[name, str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def records_of(
    eicu: Path | None, meds: Path | None, tables: Path | None, mimic3: Path | None, challenge2019: Path | None
) -> list[Record]:
    """The records of the given paths, in the order of NAMES.

    Raises:
        ValueError: none is given, one is not there, `tables` without `meds`.
    """
    given = {"eicu": eicu, "meds": meds, "mimic3": mimic3, "challenge2019": challenge2019}
    if tables is not None and meds is None:
        raise ValueError(f"--tables {tables} is read beside --meds, which is not given; give it, or leave --tables out")
    if all(path is None for path in given.values()):
        raise ValueError("no record is given; give one or more of --eicu, --meds, --mimic3, --challenge2019")
    for name, path in {**given, "tables": tables}.items():
        if path is not None and not path.exists():
            raise ValueError(f"--{name} {path} is not there; give the source's file or folder")
    out = []
    for name, path in given.items():
        if path is not None:
            more = {"tables": str(tables)} if name == "meds" and tables is not None else {}
            out.append(Record(name, {name: str(path), **more}))
    return out


def kept(
    work: Path | None,
    record: Record,
    q: Question,
    what: str,
    settings: object,
    make: Callable[[], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """What `make` gives, read back from `work` while record, question and settings are the same."""
    if work is None:
        return make()
    told = json.dumps([LAYOUT, record.mark, asdict(q), what, settings], sort_keys=True)
    path = work / f"{what}-{record.key}-{hashlib.sha256(told.encode()).hexdigest()[:12]}.npz"
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, zipfile.BadZipFile):
            path.unlink()  # cut short
    made = make()
    work.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **made)
    return made
