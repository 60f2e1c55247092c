"""A world on disk: config.json, model.safetensors and CARD.md in one folder. Never a pickle.

The config carries a seal: the SHA-256 of all other config values and of the weights file. Neither half can be changed
alone, and a released name stands for one seal. Loading is the same for every model: the config is checked, the model's
skeleton is compared with the weights' header before memory is taken, then tensors go in as they are or not at all.

    python -m world_models.checkpoint FOLDER    seals a folder again, after its config was changed on purpose
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor, nn

from world_models.config_json import ConfigError, parse_json
from world_models.kept import Kept
from world_models.tensor_file import CheckpointError, replace_file, save_tensors, take_tensors

__all__ = [
    "CARD", "CONFIG", "WEIGHTS", "CheckpointError", "Opened", "load", "load_module", "opened", "read_config",
    "save_checkpoint", "save_tensors", "seal", "sha256",
]  # fmt: skip

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "CARD.md"
NEXT = "model.next.safetensors"  # weights on their way to their name; see `save_checkpoint`
LONGEST_CONFIG = 8 << 20  # bytes
_SEAL = "seal_sha256"
_OLD_SEAL = "weights_sha256"  # of the weights file alone, until version 0.1
_MODULES: Kept[nn.Module] = Kept(16)


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder whose seal was found good, open for reading: what is loaded is what was summed up."""

    folder: Path
    config: dict[str, Any]  # without the seal
    sha256: str  # of config and weights: the seal
    path: Path  # of the weights
    file: BinaryIO

    def tensors(self, wanted: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The tensors, on the CPU; see `tensor_file.take_tensors`. Raises CheckpointError: they are not those wanted."""
        return take_tensors(self.file, self.path, wanted)[0]


@contextmanager
def opened(folder: str | Path | Opened) -> Iterator[Opened]:
    """A folder with its seal checked; one that is open already is passed on.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the config is no JSON object, has no seal, or its seal is not that of config and weights.
    """
    if isinstance(folder, Opened):
        yield folder
        return
    folder = Path(folder)
    config = read_config(folder)
    claimed = config.pop(_SEAL, None)
    places = [path for path in (folder / WEIGHTS, folder / NEXT) if path.is_file()]  # see `save_checkpoint`
    if not places:
        _must_exist(folder / WEIGHTS)
    if claimed is None:
        raise CheckpointError(
            f"{folder / CONFIG} bears no seal over config and weights: it was written by an earlier version or by hand. "
            f"If it is as you want it, seal it: {_remedy(folder)}"
        )
    found = []
    for path in places:
        with path.open("rb") as file:
            found.append(_sum(config, file))
            if found[-1] == claimed:
                yield Opened(folder, config, claimed, path, file)
                return
    raise CheckpointError(
        f"{folder / CONFIG} bears the seal {str(claimed)[:64]}, but its values and {WEIGHTS} beside it sum to {found[0]}: "
        f"one of the two was changed or belongs to another world. Restore the folder; or, if you changed it on purpose, "
        f"seal it again: {_remedy(folder)}"
    )


def sha256(folder: str | Path) -> str:
    """The folder's seal, hexadecimal, after checking it. Raises as `opened`."""
    with opened(folder) as found:
        return found.sha256


def load(folder: str | Path | Opened) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and config of a folder, whatever they are. Raises as `opened`, and for NaN or damage."""
    with opened(folder) as found:
        return found.tensors(), found.config


def load_module(
    folder: str | Path | Opened,
    kind: str,
    build: Callable[[dict[str, Any]], nn.Module],
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The module of a folder, in evaluation mode; one copy of the same weights a process and device.

    Args:
        kind: what the config must say it is.
        build: makes the module from the config without its seal and kind; it must also work on torch's meta device, where
            shapes are compared before memory is taken. It raises ValueError for a config that it does not accept. What its
            `from_config` names are tensors made of the config alone: the weights file must hold the same.

    Returns:
        The module, whose `weights_sha256` is the folder's seal.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: config or weights are damaged, altered, or not of this model and version.
    """
    with opened(folder) as found:
        return _MODULES.get((kind, found.sha256, str(device)), lambda: _module(found, kind, build, device))


def _module(found: Opened, kind: str, build: Callable, device: torch.device | str) -> nn.Module:
    plain = dict(found.config)
    said = plain.pop("kind", None)
    if said != kind:
        raise CheckpointError(f"{found.folder / CONFIG} says kind={said!r}, not {kind!r}: give a folder of that kind")
    try:
        with torch.device("meta"):
            skeleton = build(plain)
    except Exception as error:  # the config's own ValueError, or whatever torch says of sizes that do not go together
        raise CheckpointError(f"{found.folder / CONFIG} is no {kind} of this version: {error}") from error
    tensors = found.tensors(skeleton.state_dict())
    with torch.random.fork_rng(devices=[]):  # what a new module draws is overwritten, and is no one's luck
        module = build(plain)
    told = module.state_dict()
    for name in getattr(module, "from_config", ()):
        if not torch.equal(told[name], tensors[name]):
            raise CheckpointError(
                f"{found.path} was trained under another {CONFIG} than lies beside it: its {name!r} is not what the config "
                "says. Restore the folder, or train it again"
            )
    module.load_state_dict(tensors)
    module.weights_sha256 = found.sha256
    return module.to(device).eval().requires_grad_(False)


def save_checkpoint(folder: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], card: str) -> str:
    """Write a world, also over another: whenever this is stopped, the folder holds the old world or the new one.

    The weights are written under a name of their own; the config, renamed over the old one, then decides which weights
    are the world's, for they alone fit its seal; at last they get their usual name.

    Args:
        tensors: name -> tensor, on any device.
        config: what the loader needs to build the model; plain JSON values.
        card: the model card, Markdown.

    Returns:
        The seal: SHA-256 of config and weights.

    Raises:
        ValueError: nothing to save, a tensor with NaN or infinity, or a config that is no JSON; nothing is written.
    """
    if not tensors:
        raise ValueError("there are no tensors to save; pass the model's state_dict()")
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"tensor {name!r} holds NaN or infinity; do not save a model whose training broke")
    try:
        values = parse_json(json.dumps(dict(config), allow_nan=False), "the config")
    except (TypeError, ValueError) as error:
        raise ValueError(f"the config must hold plain JSON values: {error}") from None
    weights = save(plain)
    total = _sum(values, weights)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _finish(folder)
    replace_file(folder / NEXT, weights)
    _write_config(folder, values, total)
    os.replace(folder / NEXT, folder / WEIGHTS)
    replace_file(folder / CARD, card.encode())
    return total


def seal(folder: str | Path) -> str:
    """Write the seal of config and weights as they are now into config.json; returns it.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: no JSON, or the weights are not those that a seal of an earlier version was made for.
    """
    folder = Path(folder)
    config = read_config(folder)
    _must_exist(folder / WEIGHTS)
    config.pop(_SEAL, None)
    old = config.pop(_OLD_SEAL, None)
    with (folder / WEIGHTS).open("rb") as file:
        alone = _digest(hashlib.sha256(), file)
        if old not in (None, alone):
            raise CheckpointError(
                f"{folder / CONFIG} was sealed for weights of SHA-256 {str(old)[:64]}, but {WEIGHTS} beside it has {alone}: "
                "the two do not belong together. Restore the folder"
            )
        total = _sum(config, file)
    _write_config(folder, config, total)
    return total


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's config.json, with its seal.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is no JSON object.
    """
    path = Path(folder) / CONFIG
    _must_exist(path)
    if path.stat().st_size > LONGEST_CONFIG:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, more than {LONGEST_CONFIG}; restore the folder")
    try:
        return parse_json(path.read_bytes(), str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _sum(config: Mapping[str, Any], weights: bytes | BinaryIO) -> str:
    """SHA-256 over the config as canonical JSON, which has no line break, a line break, and the weights file."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n")
    return _digest(digest, io.BytesIO(weights) if isinstance(weights, bytes) else weights)


def _digest(digest: Any, file: BinaryIO) -> str:
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _write_config(folder: Path, config: Mapping[str, Any], total: str) -> None:
    replace_file(folder / CONFIG, (json.dumps({**config, _SEAL: total}, indent=2) + "\n").encode())


def _finish(folder: Path) -> None:
    """Bring a save that was stopped before its last rename to its end, so that the next one may use the same name."""
    try:
        with opened(folder) as found:
            path = found.path
    except (FileNotFoundError, CheckpointError):  # no world is here, so there is none to keep
        return
    if path.name == NEXT:
        os.replace(path, folder / WEIGHTS)


def _remedy(folder: Path) -> str:
    return f"python -m world_models.checkpoint {folder}"


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a world's folder holds {CONFIG}, {WEIGHTS} and {CARD}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m world_models.checkpoint", description="Seal a world's folder.")
    parser.add_argument("folder", type=Path, help="with config.json and model.safetensors")
    folder = parser.parse_args(arguments).folder
    try:
        print(f"{folder} is sealed: {seal(folder)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
