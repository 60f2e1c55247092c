"""A world on disk: config.json, model.safetensors and CARD.md in one folder. Never a pickle.

The config bears a seal over all its values and the weights file (`sealed`): neither can be changed alone, and a
released name stands for one seal. Loading is the same for every model: the config is checked, the model's skeleton is
compared with the weights' header before memory is taken, then tensors go in as they are or not at all.

    python -m world_models.checkpoint FOLDER    seals a folder again, after its config was changed on purpose
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from world_models.card_header import with_header
from world_models.files import write_text
from world_models.kept import LastMade
from world_models.sealed import Form, Opened, command_line
from world_models.tensor_file import CheckpointError, save_tensors

__all__ = ["CARD", "CONFIG", "WEIGHTS", "CheckpointError", "Opened", "load", "load_module", "main", "opened"]
__all__ += ["read_config", "save_checkpoint", "save_tensors", "seal", "sha256"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "CARD.md"
_FORM = Form(CONFIG, (WEIGHTS,), "python -m world_models.checkpoint")
_MODULES: LastMade[nn.Module] = LastMade(16)
M = TypeVar("M", bound=nn.Module)


@contextmanager
def opened(folder: str | Path | Opened) -> Iterator[Opened]:
    """A folder with its seal checked; one that is open already is passed on.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the config is no JSON object, bears no seal, or its seal is not that of config and weights.
    """
    if isinstance(folder, Opened):
        yield folder
        return
    with _FORM.opened(Path(folder)) as found:
        yield found


def sha256(folder: str | Path) -> str:
    """The folder's seal, hexadecimal, after checking it. Raises as `opened`."""
    with opened(folder) as found:
        return found.sha256


def load(folder: str | Path | Opened) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and config of a folder, whatever they are. Raises as `opened`, and for NaN or damage."""
    with opened(folder) as found:
        return found.tensors(WEIGHTS), found.config


def load_module(
    folder: str | Path | Opened,
    kind: str,
    build: Callable[[dict[str, Any]], M],
    device: torch.device | str = "cpu",
) -> M:
    """The module of a folder, in evaluation mode; one copy of the same weights a process and device.

    Args:
        kind: what the config must say it is.
        build: makes the module from the config without its seal and kind; it must also work on torch's meta device,
            where shapes are compared before memory is taken. It raises ValueError for a config that it does not accept.
            What its `from_config` names are tensors made of the config alone: the weights file must hold the same.

    Returns:
        The module, whose `weights_sha256` is the folder's seal (`world_models.protocol.HasWeights`).

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: config or weights are damaged, altered, or not of this model and version.
    """
    with opened(folder) as found:
        module = _MODULES.get((kind, found.sha256, str(device)), lambda: _module(found, kind, build, device))
        return cast(M, module)  # one kind is built by one function


def _module(found: Opened, kind: str, build: Callable[[dict[str, Any]], M], device: torch.device | str) -> M:
    plain = dict(found.config)
    said = plain.pop("kind", None)
    if said != kind:
        raise CheckpointError(f"{found.folder / CONFIG} says kind={said!r}, not {kind!r}: give a folder of that kind")
    try:
        with torch.device("meta"):
            skeleton = build(plain)
    except Exception as error:  # the config's own ValueError, or whatever torch says of sizes that do not go together
        raise CheckpointError(f"{found.folder / CONFIG} is no {kind} of this version: {error}") from error
    tensors = found.tensors(WEIGHTS, skeleton.state_dict())
    with torch.random.fork_rng(devices=[]):  # what a new module samples is overwritten: the caller's generator stays
        module = build(plain)
    told = module.state_dict()
    for name in getattr(module, "from_config", ()):
        if not torch.equal(told[name], tensors[name]):
            raise CheckpointError(
                f"{found.folder / WEIGHTS} was trained under another {CONFIG} than lies beside it: its {name!r} is not "
                "what the config says. Restore the folder, or train it again"
            )
    module.load_state_dict(tensors)
    module.weights_sha256 = found.sha256  # type: ignore[assignment]  # nn.Module declares tensors and modules alone
    return module.to(device).eval().requires_grad_(False)


def save_checkpoint(folder: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], card: str) -> str:
    """Write a world, also over another: whenever this is stopped, the folder holds the old world or the new one.

    Args:
        tensors: name -> tensor, on any device.
        config: what the loader needs to build the model; plain JSON values.
        card: the model card, Markdown; written last, under the header that belongs to it (`card_header`).

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
    folder = Path(folder)
    total = _FORM.write(folder, config, (save(plain),))
    write_text(folder / CARD, with_header(card, config))
    return total


def seal(folder: str | Path) -> str:
    """Write the seal of config and weights as they are now into config.json; returns it. Raises as `Form.seal`."""
    return _FORM.seal(Path(folder))


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's config.json, with its seal.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is no JSON object.
    """
    return _FORM.read_json(Path(folder))


main = command_line(_FORM, "a world's folder")  # (arguments) -> exit status: `python -m world_models.checkpoint`

if __name__ == "__main__":
    sys.exit(main())
