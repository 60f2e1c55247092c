"""Where a command writes: paths that are checked before the work, and files that are written whole after it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from clinenv.commands.errors import UsageError
from world_models.files import write_text

__all__ = ["output_paths", "write_whole"]

RECORD_FILES = (".hea", ".dat", ".mat")
LONGEST_NAME = 200  # bytes, of the 255 that file systems take: a temporary name beside it has to fit, too


def output_paths(given: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """Where --out and --json are to be written (None: not asked for), each known to take a file.

    Checked before an hour of work, not after. The commands may run with all rights, so nothing but a plain file is ever
    replaced, and none that they read.

    Raises:
        UsageError: the folder does not exist or is not writable, the path is a folder, a device or a file that is read,
            or both are one file.
    """
    out, numbers = (
        None if path is None else _writable(path, flag, given)
        for flag, path in (("--out", getattr(given, "out", None)), ("--json", given.json))
    )
    if out is not None and numbers is not None and numbers.resolve() == out.resolve():
        raise UsageError(f"--out and --json both name {out}; give two files")
    return out, numbers


def _writable(path: str, flag: str, given: argparse.Namespace) -> Path:
    target, folder = Path(path), Path(path).parent
    if not path or "\0" in path or len(os.fsencode(target.name)) > LONGEST_NAME:
        raise UsageError(f"{flag} {path[:40]!r} is not a file name (1 to {LONGEST_NAME} bytes); give another")
    if not folder.is_dir():
        raise UsageError(f"{flag} {target}: the folder {folder} does not exist; make it first or choose another")
    if target.is_dir():
        raise UsageError(f"{flag} {target} is a folder; give the name of a file in it")
    if target.exists() and not target.is_file():
        raise UsageError(f"{flag} {target} is a device or a pipe, not a plain file; give the name of a file")
    if _is_input(target.resolve(), given):
        raise UsageError(f"{flag} {target} is a file of the record or the world that is read; give another name")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{flag} {target}: the folder {folder} is not writable; choose another")
    return target


def _is_input(target: Path, given: argparse.Namespace) -> bool:
    """Whether a command would write over its own input, or over another record."""
    folders = [Path(getattr(given, name, None) or "") for name in ("world", "risk_predictor", "vlm")]
    weights = target.is_file() and any(f.parts and target.parent == f.resolve() for f in folders)
    return target.suffix.lower() in RECORD_FILES or target == Path(given.ecg).resolve() or weights


def write_whole(path: str | Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all: under a temporary name beside it, then renamed.

    Raises:
        OSError: the folder is missing or not writable, or the path is a device or a pipe, which renaming would replace;
            nothing is left behind.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is not a plain file; give the name of one")
    write_text(path, text)
