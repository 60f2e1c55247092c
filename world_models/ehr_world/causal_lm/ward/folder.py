"""A causal ward on disk: a Hugging Face checkpoint with its codec, and beside it world.json and world.safetensors.

The checkpoint is a plain one, which any server of such models reads. world.json holds the configuration and the SHA-256
of every file of the checkpoint, under one seal with the tables in world.safetensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from world_models.card_header import with_header
from world_models.checkpoint import CARD
from world_models.config_json import from_json
from world_models.ehr_world.causal_lm.ward.config import CausalWardConfig
from world_models.ehr_world.causal_lm.ward.tables import MOST_ADMISSIONS, Tables, empty_tables
from world_models.files import write_text
from world_models.sealed import Form, Opened
from world_models.tensor_file import CheckpointError

if TYPE_CHECKING:
    from world_models.ehr_world.causal_lm.model import CausalLM

__all__ = ["KIND", "REMEDY", "WORLD", "configured", "opened", "tables_in", "write"]

KIND = "causal-lm-ward"
WORLD, TABLES = "world.json", "world.safetensors"
COMMAND = "python -m world_models.ehr_world.causal_lm.ward.train"
REMEDY = f"make one with {COMMAND} --out DIR (--model FOLDER makes it of a language model that was trained already)"
_FORM = Form(WORLD, (TABLES,), COMMAND)


def write(folder: str | Path, lm: CausalLM, tables: Tables, config: CausalWardConfig, card: str) -> str:
    """The world as a folder, also over another: what is there under the name is whole, the old one or the new one.

    Returns:
        The seal.
    """
    folder = Path(folder)
    part, old = (folder.with_name(f".{folder.name}.{what}") for what in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    lm.save(part)
    plain = {
        "kind": KIND,
        "world": dataclasses.asdict(config),
        "admissions": len(tables.admissions),
        "files": {path.name: _sum(path) for path in _checkpoint(part)},
    }
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tables._asdict().items()}
    seal = _FORM.write(part, plain, (save(content),))
    write_text(part / CARD, with_header(card, plain))
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)
    return seal


@contextmanager
def opened(folder: str | Path) -> Iterator[Opened]:
    """The folder, every file of it found as it was written.

    Raises:
        ValueError: no folder. FileNotFoundError: it holds no world.
        CheckpointError (a ValueError): a file is damaged, altered, missing or was added.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"causal-lm:{folder}: there is no such folder; {REMEDY}")
    if not (folder / WORLD).is_file():
        raise FileNotFoundError(f"causal-lm:{folder}: the folder holds no {WORLD}, so it is no world; {REMEDY}")
    with _FORM.opened(folder) as found:
        if found.config.get("kind") != KIND:
            raise CheckpointError(f"{folder / WORLD} says kind={found.config.get('kind')!r}, not {KIND!r}; {REMEDY}")
        _check_files(folder, found.config.get("files"))
        yield found


def configured(found: Opened) -> CausalWardConfig:
    """Raises CheckpointError: it is no configuration of this version."""
    try:
        return from_json(CausalWardConfig, found.config.get("world"), f"{found.folder / WORLD}")
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def tables_in(found: Opened) -> Tables:
    """Raises CheckpointError: they are not of this version's ward."""
    count = found.config.get("admissions")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_ADMISSIONS:
        raise CheckpointError(f"{found.folder / WORLD}: admissions={count!r} is no number from 1 to {MOST_ADMISSIONS}")
    return Tables(**found.tensors(TABLES, empty_tables(count)))


def _checkpoint(folder: Path) -> list[Path]:
    """The files of the checkpoint, by name."""
    return sorted(path for path in folder.iterdir() if path.name not in (WORLD, TABLES, CARD))


def _check_files(folder: Path, sums: Any) -> None:
    if not isinstance(sums, dict) or not sums:
        raise CheckpointError(f"{folder / WORLD} names no files; {REMEDY}")
    there = {path.name: path for path in _checkpoint(folder)}
    odd = sorted(sums.keys() ^ there.keys())
    if odd:
        what = "is missing" if odd[0] in sums else f"is none of those that {WORLD} names"
        raise CheckpointError(f"{folder / odd[0]} {what}: restore the folder, or {REMEDY}")
    for name, path in there.items():
        if not path.is_file() or _sum(path) != sums[name]:
            raise CheckpointError(f"{path} is not what {WORLD} was sealed with: restore the folder, or {REMEDY}")


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
