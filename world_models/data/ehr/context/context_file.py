"""Contexts in a file of JSON lines, one a note: written note by note, resumed after a kill, read back as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from world_models.config_json import ConfigError, parse_json
from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.context.model import Extraction
from world_models.data.ehr.context.notes import Note
from world_models.data.ehr.context.schema import StaticContext, StayKey, as_json, read_context
from world_models.data.ehr.tables import EhrDataError

__all__ = ["ContextWriter", "read_contexts", "read_lines"]

_Key = tuple[str, int, int, str]  # of a note: note_id, subject_id, hadm_id, sha256 of its text


class ContextWriter:
    """`path` under way as `path.part`, which a killed run leaves and the next one goes on with; a context manager.

    It gets its name by `finish`. `made_by` says who reads the notes: a run goes on with its own lines only.

    Raises:
        EhrDataError: `path` is there already or cannot be made, or its part is another's or damaged.
    """

    def __init__(self, path: str | Path, made_by: str) -> None:
        self.path, self.made_by = Path(path), made_by
        self.part = self.path.with_name(f"{self.path.name}.part")
        if self.path.exists():
            raise EhrDataError(f"{self.path} is there already; give another --out, or remove it")
        if not self.path.absolute().parent.is_dir():
            raise EhrDataError(f"the folder of {self.path} does not exist; make it, or give another --out")
        self.done: set[_Key] = set()
        whole = 0
        if self.part.exists():
            for line in self.part.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break  # cut short by the kill
                self.done.add(self._key_of(line, f"{self.part}, line {len(self.done) + 1}"))
                whole += len(line)
        self._file = self.part.open("ab")
        self._file.truncate(whole)

    def _key_of(self, line: bytes, where: str) -> _Key:
        try:
            row = parse_json(line, where)
            key = (row["note_id"], row["subject_id"], row["hadm_id"], row["sha256"])
            made_by = row["made_by"]
        except (ConfigError, KeyError) as error:
            raise EhrDataError(f"{where} is damaged ({error}); remove the file and begin anew") from None
        if made_by != self.made_by:
            raise EhrDataError(
                f"{where} was made by {made_by!r}, this run is of {self.made_by!r}; give another --out, or remove it"
            )
        return (key[0], NO_ID if key[1] is None else key[1], NO_ID if key[2] is None else key[2], key[3])

    def __enter__(self) -> ContextWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self.part.exists() and not self.part.stat().st_size:
            self.part.unlink()  # nothing came of it

    def is_done(self, note: Note) -> bool:
        """Whether a run before has read this very text."""
        return (note.note_id, note.subject_id, note.hadm_id, note.sha256) in self.done

    def write(self, notes: Sequence[Note], found: Sequence[Extraction]) -> None:
        """Lines of a batch, on the disk when this returns."""
        for note, extraction in zip(notes, found, strict=True):
            self._file.write((json.dumps(_row(note, extraction, self.made_by), ensure_ascii=False) + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Give the file its name."""
        self._file.close()
        os.replace(self.part, self.path)


def _row(note: Note, found: Extraction, made_by: str) -> dict[str, Any]:
    subject, stay = (None if i == NO_ID else i for i in (note.subject_id, note.hadm_id))
    return {
        "note_id": note.note_id,
        "subject_id": subject,
        "hadm_id": stay,
        "sha256": note.sha256,
        "made_by": made_by,
        "speaker": found.speaker,
        "attempts": found.attempts,
        "refused": found.refused,
        "error": found.error,
        "context": as_json(found.context),
    }


def read_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The lines as the dicts that were written: whose note, who spoke, what was refused, and the context's JSON.

    Raises:
        EhrDataError: no such file, or a line that is no object of JSON.
    """
    try:
        lines = Path(path).read_bytes().decode().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EhrDataError(f"{path} cannot be read ({error}); name a file of contexts") from None
    for number, line in enumerate(lines, 1):
        try:
            yield parse_json(line, f"{path}, line {number}")
        except ConfigError as error:
            raise EhrDataError(str(error)) from None


def _rows(path: Path) -> Iterator[tuple[StayKey, StaticContext]]:
    for number, row in enumerate(read_lines(path), 1):
        where = f"{path}, line {number}"
        try:
            context = read_context(row["context"], where)
            subject, stay = row["subject_id"], row["hadm_id"]
        except ConfigError as error:
            raise EhrDataError(str(error)) from None
        except KeyError as error:
            raise EhrDataError(f"{where} lacks the field {error}; make the file again") from None
        if type(subject) is int and type(stay) is int:
            yield (subject, stay), context


def read_contexts(path: str | Path) -> Mapping[StayKey, StaticContext]:
    """The contexts by (subject_id, stay_id), of notes that name a stay; of several notes of one stay that with the most
    diagnoses, the first of equals.

    Raises:
        EhrDataError: no such file, or a line that is no context.
    """
    table: dict[StayKey, StaticContext] = {}
    for key, context in _rows(Path(path)):
        before = table.get(key)
        if before is None or sum(1 for _ in context.diagnoses()) > sum(1 for _ in before.diagnoses()):
            table[key] = context
    return table
