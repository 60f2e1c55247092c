"""Safetensors files, written whole or not at all, and read only where they hold what is expected of them.

Names, types and shapes are compared with the header alone, so that a file that does not fit is refused before memory is
taken for its tensors or for the model they belong to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from world_models.config_json import ConfigError, parse_json
from world_models.files import write_bytes

__all__ = ["CheckpointError", "TensorHeader", "read_header", "read_tensors", "save_tensors", "take_tensors"]

LONGEST_HEADER = 16 << 20  # bytes; a header of ours has some 20 kB
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_Kinds: TypeAlias = dict[str, tuple[torch.dtype, tuple[int, ...]]]  # name -> type and shape


class CheckpointError(ValueError):
    """Weights that cannot be used: damaged, altered, or of something else. The message says which, and the remedy."""


class TensorHeader(NamedTuple):
    """What a safetensors file says it holds."""

    tensors: _Kinds
    metadata: dict[str, str]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Tensors to a safetensors file, whole or not at all; its folder is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, None if metadata is None else dict(metadata)))


def read_tensors(
    path: str | Path, wanted: Mapping[str, Tensor] | None = None, optional: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; see `take_tensors`.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is damaged, or not as wanted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as file:
        return take_tensors(file, path, wanted, optional)


def take_tensors(
    file: BinaryIO,
    path: Path,
    wanted: Mapping[str, Tensor] | None = None,
    optional: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of an open file.

    Args:
        wanted: name -> tensor of the shape and type that must be there, also on the meta device; None: anything.
        optional: the same of those that may be there besides.

    Raises:
        CheckpointError: names, shapes or types are not those wanted, a number is not finite, or the file is damaged.
    """
    header = read_header(file, path)
    if wanted is not None:
        _check(header.tensors, _kinds(wanted), _kinds(optional or {}), path)
    file.seek(0)
    try:
        tensors = load(file.read())
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore or make it again") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: tensor {name!r} holds NaN or infinity; restore or make it again")
        if tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
            raise CheckpointError(
                f"{path}: tensor {name!r} holds bytes that are neither true nor false; restore or make it again"
            )
    return tensors, header.metadata


def read_header(file: BinaryIO, path: Path) -> TensorHeader:
    """What the file says it holds, for as many bytes as it has.

    Raises:
        CheckpointError: no safetensors file, or one that was cut short.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, LONGEST_HEADER):
        raise CheckpointError(
            f"{path} is damaged: {size} bytes long, it says its header has {length} (of at most {LONGEST_HEADER}); "
            "restore or make it again"
        )
    try:
        entries = parse_json(file.read(length), f"the header of {path}")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path} is damaged: its metadata are no texts; restore or make it again")
    tensors: _Kinds = {}
    end = 0
    for name, entry in entries.items():
        try:
            kind, shape, (start, stop) = _TYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            whole = all(type(n) is int and n >= 0 for n in (*shape, start, stop))
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole or stop - start != math.prod(shape) * kind.itemsize:
            raise CheckpointError(
                f"{path} is damaged: its entry {name!r} is {str(entry)[:80]}; restore or make it again"
            )
        tensors[name], end = (kind, shape), max(end, stop)
    if 8 + length + end != size:
        raise CheckpointError(
            f"{path} is damaged: {size} bytes long, its header tells of {8 + length + end}; restore or make it again"
        )
    return TensorHeader(tensors, metadata)


def _kinds(tensors: Mapping[str, Tensor]) -> _Kinds:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _check(found: _Kinds, wanted: _Kinds, optional: _Kinds, path: Path) -> None:
    """Raises CheckpointError unless both name the same tensors of the same types and shapes."""
    said = []
    known = {**wanted, **optional}
    for word, some, others in (("lacks", wanted, found), ("adds", found, known)):
        names = [name for name in some if name not in others]
        if names:
            said.append(f"it {word} {len(names)} tensors ({', '.join(names[:3])})")
    for name, (kind, shape) in known.items():
        if name in found and found[name] != (kind, shape):
            here = f"{str(found[name][0]).removeprefix('torch.')} {list(found[name][1])}"
            said.append(f"{name} is {here}, not {str(kind).removeprefix('torch.')} {list(shape)}")
    if said:
        more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
        raise CheckpointError(
            f"{path} does not hold the tensors expected here: {'; '.join(said[:3])}{more}. Restore it, use the version "
            "that made it, or train it again"
        )
