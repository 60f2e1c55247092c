"""Files written whole or not at all: under a temporary name beside their own, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "write_bytes", "write_text"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name to write to, renamed to `path` when the block ends without an error; else the old file stays.

    It ends as `path` does, since some writers choose the format by the suffix.
    """
    path = Path(path)
    # drawn anew each time: threads share a process's number, and containers on one disk are all number 1
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """A file of these bytes, whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """A UTF-8 file of this text, lines ended by a newline alone, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))
