"""A world on disk: config.json, model.safetensors and CARD.md in one folder. Never a pickle.

The config records the weights' SHA-256, so a folder whose two halves do not belong together is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

__all__ = ["CARD", "CONFIG", "WEIGHTS", "load", "read_config", "save_checkpoint", "save_tensors", "sha256"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "CARD.md"
_SUM = "weights_sha256"


def sha256(folder: str | Path) -> str:
    """Hexadecimal SHA-256 of the folder's model.safetensors."""
    path = Path(folder) / WEIGHTS
    _must_exist(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors to a safetensors file, whole or not at all; its folder is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def save_checkpoint(folder: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], card: str) -> str:
    """Write the three files, each to a temporary name first and then renamed; the config, which seals, comes last.

    Args:
        tensors: name -> tensor, on any device.
        config: what the loader needs to build the model; plain JSON values.
        card: the model card, Markdown.

    Returns:
        The weights' SHA-256.

    Raises:
        ValueError: nothing to save, a tensor with NaN or infinity, or a config that is no JSON; nothing is written.
    """
    if not tensors:
        raise ValueError("there are no tensors to save; pass the model's state_dict()")
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"tensor {name!r} holds NaN or infinity; do not save a model whose training broke")
    weights = save(plain)
    total = hashlib.sha256(weights).hexdigest()
    try:
        sealed = json.dumps({**config, _SUM: total}, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"the config must hold plain JSON values: {error}") from None
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((WEIGHTS, weights), (CARD, card.encode()), (CONFIG, sealed.encode())):
        _replace(folder / name, content)
    return total


def load(
    folder: str | Path, device: torch.device | str = "cpu", expected_sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and config of a folder.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the weights' sum is not the config's or not `expected_sha256`.
    """
    config = read_config(folder)
    found = sha256(folder)
    for wanted, whose in ((config.get(_SUM), f"{CONFIG} beside it"), (expected_sha256, "the registration")):
        if wanted is not None and wanted != found:
            raise ValueError(
                f"{Path(folder) / WEIGHTS} has SHA-256 {found}, but {whose} says {wanted}: the weights are not those "
                "they claim to be. Restore the released folder, or give your own weights by their path"
            )
    try:
        return load_file(Path(folder) / WEIGHTS, device=str(device)), config
    except SafetensorError as error:
        raise ValueError(f"{Path(folder) / WEIGHTS} is damaged ({error}); restore or train it again") from None


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's config.json."""
    path = Path(folder) / CONFIG
    _must_exist(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}); restore or train the world again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}, not an object; restore or train the world again")
    return config


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a world's folder holds {CONFIG}, {WEIGHTS} and {CARD}")


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
