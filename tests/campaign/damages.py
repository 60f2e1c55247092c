"""What may be done to the files of a folder, by a seeded generator; each says in a word what it did."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.campaign.mutations import damaged, in_json

__all__ = ["OUTSIDE", "Damage", "any_of", "bytes_of", "each", "header_of", "json_of", "link_of"]
__all__ += ["weights_of"]

OUTSIDE = "../outside"  # as seen from the folder that is read
Damage = Callable[[Path, random.Random], str]  # (folder, generator) -> what was done, in a word


def bytes_of(folder: Path, rng: random.Random, text: Sequence[str] = (), binary: Sequence[str] = ()) -> str:
    """One of these files with other bytes."""
    name = rng.choice((*text, *binary))
    path = folder / name
    path.write_bytes(damaged(path.read_bytes(), rng, name in text))
    return name


def link_of(folder: Path, rng: random.Random, names: Sequence[str]) -> str:
    """One of these files, which no caller names, is a link that leads out, a folder or a pipe, or is gone."""
    path = folder / rng.choice(list(names))
    path.unlink()
    match rng.randrange(5):
        case 0:
            path.symlink_to(folder.parent / "outside" / path.name)
        case 1:
            path.symlink_to(Path(OUTSIDE) / path.name)
        case 2:
            path.mkdir()
        case 3:
            os.mkfifo(path)
        case 4:
            pass
    return f"link {path.name}"


def any_of(*choices: tuple[int, Damage]) -> Damage:
    """One of several damages, by weight."""

    def damage(folder: Path, rng: random.Random) -> str:
        (chosen,) = rng.choices([d for _, d in choices], [weight for weight, _ in choices])
        return chosen(folder, rng)

    return damage


def json_of(folder: Path, rng: random.Random, name: str) -> str:
    """A JSON file: one value of it, or its bytes."""
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(in_json(content, rng) if rng.random() < 0.7 else damaged(content, rng, True))
    return name


def header_of(folder: Path, rng: random.Random, name: str) -> str:
    """The JSON header of a safetensors file, of which the length stays true or does not."""
    path = folder / name
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = in_json(content[8 : 8 + size], rng) if rng.random() < 0.7 else damaged(content[8 : 8 + size], rng, True)
    told = len(header) if rng.random() < 0.8 else rng.choice((0, 2**63, 2**32, size, len(content)))
    path.write_bytes(told.to_bytes(8, "little") + header + content[8 + size :])
    return f"header {name}"


def weights_of(folder: Path, rng: random.Random, name: str) -> str:
    """A safetensors file: its bytes, or its header."""
    return bytes_of(folder, rng, binary=(name,)) if rng.random() < 0.5 else header_of(folder, rng, name)


def each(calls: Sequence[Callable[[], Any]]) -> None:
    """All of these; the first error afterwards."""
    failed: list[Exception] = []
    for call in calls:
        try:
            call()
        except Exception as error:
            failed.append(error)
    if failed:
        raise failed[0]
