"""Folders of a JSON file and tensor files that stand or fall together: one seal over all, replaced as one.

The JSON object bears the SHA-256 of its own other values and of the files beside it, so no part can be changed alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from world_models.config_json import ConfigError, parse_json
from world_models.files import write_bytes, write_text
from world_models.tensor_file import CheckpointError, take_tensors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Form", "Opened", "command_line"]

LONGEST_JSON = 8 << 20  # bytes
_SEAL = "seal_sha256"
_EARLIER = "weights_sha256"  # of one weights file alone, until version 0.1


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder whose seal was found good, open for reading: what is loaded is what was summed up."""

    folder: Path
    config: dict[str, Any]  # without the seal
    sha256: str  # the seal
    files: dict[str, BinaryIO]  # by their names in the form

    def tensors(
        self, name: str, wanted: Mapping[str, Tensor] | None = None, optional: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The tensors of a file, on the CPU; arguments and errors are those of `tensor_file.take_tensors`."""
        return take_tensors(self.files[name], self.folder / name, wanted, optional)[0]


@dataclass(frozen=True, slots=True)
class Form:
    """Which files such a folder has, and which command seals one again after it was changed on purpose."""

    json: str
    tensors: tuple[str, ...]
    command: str

    def write(self, folder: Path, config: Mapping[str, Any], contents: Sequence[bytes]) -> str:
        """Write all files, also over others: whenever this is stopped, the folder holds the old ones or the new ones.

        The tensor files are written under names of their own; the JSON, renamed over the old one, then decides which of
        them count, for these alone fit its seal; at last they get their usual names.

        Returns:
            The seal.

        Raises:
            ConfigError (a ValueError): the config is no plain JSON; nothing is written.
        """
        try:
            values = parse_json(json.dumps(dict(config), allow_nan=False), "the config")
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the config must hold plain JSON values: {error}") from None
        digest = _started(values)
        for name, content in zip(self.tensors, contents, strict=True):
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
        total = digest.hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        with _held(folder):
            self._finish(folder)
            for name, content in zip(self.tensors, contents, strict=True):
                write_bytes(_next(folder / name), content)
            self._write_json(folder, values, total)
            for name in self.tensors:
                os.replace(_next(folder / name), folder / name)
        return total

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Opened]:
        """The folder with its seal checked.

        Raises:
            FileNotFoundError: a file is missing.
            CheckpointError: the JSON is no object, bears no seal, or its seal is not that of what lies beside it.
        """
        with ExitStack() as stack:
            with _held(folder, shared=True):  # what is open then stays what it was, whoever writes later
                opened = self._open(folder, stack)
            yield opened

    def _open(self, folder: Path, stack: ExitStack) -> Opened:
        config = self.read_json(folder)
        claimed = config.pop(_SEAL, None)
        found = ""
        for paths in self._candidates(folder):
            with ExitStack() as trial:
                files: dict[str, BinaryIO] = {n: trial.enter_context(path.open("rb")) for n, path in paths.items()}
                if claimed is None:
                    raise CheckpointError(
                        f"{folder / self.json} bears no seal over itself and {' and '.join(self.tensors)}: it was "
                        f"written by an earlier version or by hand. If it is as you want it, seal it: {self.command} "
                        f"{folder}"
                    )
                found = _sum(config, files)
                if found == claimed:
                    stack.enter_context(trial.pop_all())
                    return Opened(folder, config, found, files)
        raise CheckpointError(
            f"{folder / self.json} bears the seal {str(claimed)[:64]}, but its values and {' and '.join(self.tensors)} "
            f"beside it sum to {found}: one of them was changed or belongs to another. Restore the folder; or, if you "
            f"changed it on purpose, seal it again: {self.command} {folder}"
        )

    def seal(self, folder: Path) -> str:
        """Write the seal of everything as it is now; returns it.

        Raises:
            FileNotFoundError: a file is missing.
            CheckpointError: no JSON, or the tensors are not those that a seal of an earlier version was made for.
        """
        config = self.read_json(folder)
        config.pop(_SEAL, None)
        earlier = config.pop(_EARLIER, None)
        with ExitStack() as stack:
            files = {name: stack.enter_context((folder / name).open("rb")) for name in self.tensors}
            alone = _fed(hashlib.sha256(), next(iter(files.values()))).hexdigest()
            if earlier not in (None, alone):
                raise CheckpointError(
                    f"{folder / self.json} was sealed for a {self.tensors[0]} of SHA-256 {str(earlier)[:64]}, but the "
                    f"one beside it has {alone}: the two do not belong together. Restore the folder"
                )
            total = _sum(config, files)
        self._write_json(folder, config, total)
        return total

    def read_json(self, folder: Path) -> dict[str, Any]:
        """The JSON object, with its seal.

        Raises:
            FileNotFoundError: there is none.
            CheckpointError: it is no JSON object.
        """
        path = folder / self.json
        self._must_exist(path)
        if path.stat().st_size > LONGEST_JSON:
            raise CheckpointError(
                f"{path} has {path.stat().st_size} bytes, more than {LONGEST_JSON}; restore the folder"
            )
        try:
            return parse_json(path.read_bytes(), str(path))
        except ConfigError as error:
            raise CheckpointError(str(error)) from None

    def _candidates(self, folder: Path) -> list[dict[str, Path]]:
        """Which files may be meant: the usual ones, or those that an interrupted write left waiting for their names."""
        usual = {name: folder / name for name in self.tensors}
        waiting = {name: _next(path) if _next(path).is_file() else path for name, path in usual.items()}
        there = [paths for paths in (usual, waiting) if all(path.is_file() for path in paths.values())]
        if not there:
            for path in usual.values():
                self._must_exist(path)
        return there if usual != waiting else there[:1]

    def _finish(self, folder: Path) -> None:
        """Bring a write that was stopped before its last rename to its end, so that another may use the same names."""
        try:
            with ExitStack() as stack:
                found = self._open(folder, stack)
                names = [name for name, file in found.files.items() if Path(file.name) == _next(folder / name)]
        except (FileNotFoundError, CheckpointError):  # nothing whole is here, so there is nothing to keep
            return
        for name in names:
            os.replace(_next(folder / name), folder / name)

    def _write_json(self, folder: Path, config: Mapping[str, Any], total: str) -> None:
        write_text(folder / self.json, json.dumps({**config, _SEAL: total}, indent=2) + "\n")

    def _must_exist(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; such a folder holds {self.json} and {' and '.join(self.tensors)}"
            )


def command_line(form: Form, what: str) -> Callable[..., int]:
    """A `main(arguments=None)` that seals the folder it is given and returns the exit status."""

    def main(arguments: list[str] | None = None) -> int:
        parser = argparse.ArgumentParser(prog=form.command, description=f"Seal {what} that was changed on purpose.")
        parser.add_argument("folder", type=Path, help=f"with {form.json} and {' and '.join(form.tensors)}")
        folder = parser.parse_args(arguments).folder
        try:
            print(f"{folder} is sealed: {form.seal(folder)}")
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    return main


def _sum(config: Mapping[str, Any], files: Mapping[str, BinaryIO]) -> str:
    """SHA-256 over the config as canonical JSON, and of each file its name, its size and its bytes."""
    digest = _started(config)
    for name, file in files.items():
        digest.update(f"{name} {file.seek(0, os.SEEK_END)}\n".encode())
        _fed(digest, file)
    return digest.hexdigest()


def _started(config: Mapping[str, Any]) -> Any:
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)  # no line break is in it
    return hashlib.sha256(text.encode() + b"\n")


def _fed(digest: Any, file: BinaryIO) -> Any:
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


@contextmanager
def _held(folder: Path, shared: bool = False) -> Iterator[None]:
    """One process writes a folder at a time, and none reads it meanwhile; without file locks, nothing is held."""
    if fcntl is None or not folder.is_dir():
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have none
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _next(path: Path) -> Path:
    """Where a file waits for its name: model.safetensors at model.next.safetensors."""
    return path.with_name(f"{path.stem}.next{path.suffix}")
