"""Discharge summaries as they are stored: MIMIC-IV-Note's table `discharge`, or a folder of text files."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.tables import FORMATS, EhrDataError, TableSpec, scan

__all__ = ["Note", "count_notes", "read_notes"]

_TABLE = TableSpec(
    "discharge",
    {"note_id": "text", "subject_id": "id", "hadm_id": "id", "text": "text"},
    optional=frozenset({"note_id"}),
)
_IDS = re.compile(r"(\d{1,18})[_-](\d{1,18})")  # a text file's name: SUBJECT_HADM.txt
MOST_BYTES = 1 << 22  # of a text file: a hundred times a long summary
_log = logging.getLogger(__name__)


class Note(NamedTuple):
    """One summary, and whose it is; NO_ID where the source does not say."""

    note_id: str  # the source's; of a text file its name
    subject_id: int
    hadm_id: int
    text: str

    @property
    def sha256(self) -> str:
        """Of the text, hexadecimal: what tells whether a note was read already."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def _text_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.is_file())
    if not files:
        raise EhrDataError(f"{folder} holds no .txt file; name the folder of the notes, or a table")
    return files


def _checked(path: str | Path) -> Path:
    """Raises EhrDataError: nothing there, or a file of another format."""
    path = Path(path)
    if not path.exists():
        raise EhrDataError(f"{path} does not exist; name a table of notes ({', '.join(FORMATS)}) or a folder of .txt")
    if not path.is_dir() and not path.name.lower().endswith(FORMATS):
        raise EhrDataError(f"{path} is none of {', '.join(FORMATS)}; name a table of notes or a folder of .txt")
    return path


def count_notes(path: str | Path) -> int:
    """Rows or files, empty ones included. Raises EhrDataError: as `read_notes` does."""
    path = _checked(path)
    if path.is_dir():
        return len(_text_files(path))
    rows = sum(batch.num_rows for batch in scan(path, TableSpec("discharge", {"subject_id": "id", "text": "text"})))
    if not rows:
        raise EhrDataError(f"{path} has no rows; give a table with notes")
    return rows


def read_notes(path: str | Path) -> Iterator[Note]:
    """The notes in their order, a batch in memory at a time; those without text are left out, and logged.

    A table has the columns subject_id, hadm_id and text (note_id is kept where it is there); a text file is named
    SUBJECT_HADM.txt, or its note belongs to no stay.

    Raises:
        EhrDataError: nothing there, a column missing, a file that is damaged or no UTF-8 text.
    """
    path = _checked(path)
    empty = 0
    for note in _of_folder(path) if path.is_dir() else _of_table(path):
        if note.text.strip():
            yield note
        else:
            empty += 1
    if empty:
        _log.warning("%s: %d notes without text were left out", path, empty)


def _of_table(path: Path) -> Iterator[Note]:
    for batch in scan(path, _TABLE):
        for row in batch.to_pylist():
            subject, stay = (NO_ID if row[name] is None else row[name] for name in ("subject_id", "hadm_id"))
            yield Note(row["note_id"] or "", subject, stay, row["text"] or "")


def _of_folder(folder: Path) -> Iterator[Note]:
    for path in _text_files(folder):
        if path.stat().st_size > MOST_BYTES:
            raise EhrDataError(f"{path} has more than {MOST_BYTES} bytes; a file holds one note: split it")
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise EhrDataError(f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); convert it") from None
        ids = _IDS.fullmatch(path.stem)
        subject, stay = (NO_ID, NO_ID) if ids is None else (int(ids[1]), int(ids[2]))
        yield Note(path.name, subject, stay, text)
