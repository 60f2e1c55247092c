"""Running episodes as bytes and back: a checksum over everything, and the name of all that the numbers mean anything
in.

magic line | SHA-256 of the rest | safetensors: one tensor for each leaf, and a JSON header; nothing executable
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from clinenv.interface import Interface
from clinenv.settings import Settings
from clinenv.simulator import Simulator
from world_models import tree
from world_models.protocol import HasCohort, HasConfig, HasWeights

__all__ = ["SnapshotError", "missing", "pack", "setting", "unpack"]

T = TypeVar("T")
_MAGIC = b"clinenv-snapshot-2\n"
_EARLIER = b"clinenv-snapshot-1"  # stood in the header; had no checksum
_DIGEST = hashlib.sha256().digest_size
_COUNTS = ("t", "episode", "steps")  # fields that count from 0


class SnapshotError(ValueError):
    """Bytes that do not bring these episodes back; the message says why, and what to pass instead."""


class _Leaf(NamedTuple):
    name: str  # its place in the tree: "state.belief.mean"
    tensor: Tensor
    may_be_nan: bool


def setting(simulator: Simulator, interface: Interface, settings: Settings) -> dict[str, Any]:
    """What must be the same where a snapshot is made and where it is restored, as JSON values."""
    world = simulator.world
    return {
        "world": world.name,
        "weights": _weights(world),
        "config": _sum(world.config if isinstance(world, HasConfig) else None),
        "cohort": _sum(world.cohort if isinstance(world, HasCohort) else None),
        "hours_per_step": float(world.hours_per_step),
        "task": simulator.task.name,
        "observation": settings.observation,
        "noise": settings.noise,
        "missingness": settings.missingness,
        "columns": _sum(interface.layout.names),
    }


def missing(simulator: Simulator) -> frozenset[str]:
    """The measures of a chart that may be NaN: there is none now (PR in fibrillation)."""
    return frozenset(quantity.name for quantity in simulator.world.measures if quantity.may_be_missing)


def pack(running: Any, about: Mapping[str, Any], gaps: Collection[str] = ()) -> bytes:
    """A tree of tensors [B, ...] and its `setting` as bytes.

    Args:
        gaps: entries of dicts that may be NaN (`missing`).

    Raises:
        SnapshotError: it holds NaN or infinity where neither `gaps` nor its state (`MAY_BE_NAN`) says that it may.
    """
    leaves = list(_leaves(running, gaps))
    _check_numbers(leaves)
    named = {leaf.name: leaf.tensor.detach().cpu().contiguous().clone() for leaf in leaves}
    body = save_tensors(named, {"clinenv": json.dumps(dict(about), sort_keys=True)})
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack(snapshot: bytes, about: Mapping[str, Any], template: T, gaps: Collection[str] = ()) -> T:
    """The tree again, on the CPU, with as many rows as were saved.

    Args:
        about: the `setting` here.
        template: a tree with the leaves, types and shapes (but for the rows) that must come out.
        gaps: as in `pack`.

    Raises:
        SnapshotError: the bytes are no snapshot, are damaged, were made in another setting, or cannot be a state.
    """
    tensors, made_in = _parse(snapshot)
    for name, here in about.items():
        if made_in.get(name) != here:
            raise SnapshotError(
                f"this snapshot was made with another {name}: {_told(made_in.get(name))} there, {_told(here)} here; "
                f"make the environment as the one was made that took it (world {made_in.get('world')!r}, task "
                f"{made_in.get('task')!r})"
            )
    places = list(_leaves(template, gaps))
    if {leaf.name: _kind(leaf.tensor) for leaf in places} != {name: _kind(tensor) for name, tensor in tensors.items()}:
        raise SnapshotError("this snapshot was made with another observation or another version of the world")
    if len({len(tensor) for tensor in tensors.values()}) != 1:
        raise SnapshotError("the tensors of this snapshot hold unlike numbers of patients; take it anew")
    leaves = [leaf._replace(tensor=tensors[leaf.name]) for leaf in places]
    _check_numbers(leaves)
    queue = iter(leaves)
    return tree.map_leaves(lambda _: next(queue).tensor, template)


def _parse(snapshot: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and setting of a snapshot whose checksum is right."""
    wrong = "these bytes are no snapshot of an environment; pass what snapshot() returned"
    if not isinstance(snapshot, bytes | bytearray | memoryview):
        raise SnapshotError(f"a snapshot is bytes, not {type(snapshot).__name__}; pass what snapshot() returned")
    given = bytes(snapshot)
    if not given.startswith(_MAGIC):
        if _EARLIER in given[:65_536]:
            raise SnapshotError(
                "this snapshot is of an earlier version, which kept no checksum; take it anew with this one"
            )
        raise SnapshotError(wrong)
    digest, body = given[len(_MAGIC) :][:_DIGEST], given[len(_MAGIC) + _DIGEST :]
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotError("this snapshot is damaged: its checksum is not that of its content; take it anew")
    try:
        size = int.from_bytes(body[:8], "little")
        about = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["clinenv"])
        if not isinstance(about, dict):
            raise TypeError("the header is no object")
        return load_tensors(body), about
    except Exception as error:  # whatever is wrong with bytes that somebody summed up, the remedy is the same
        raise SnapshotError(wrong) from error


def _kind(tensor: Tensor) -> tuple[torch.dtype, int, torch.Size]:
    return tensor.dtype, tensor.ndim, tensor.shape[1:]


def _leaves(node: Any, gaps: Collection[str] = (), name: str = "", may_be_nan: bool = False) -> Iterator[_Leaf]:
    """The tensors of a tree in the order of `tree.leaves`, with their places."""
    if isinstance(node, Tensor):
        yield _Leaf(name, node, may_be_nan)
    elif isinstance(node, dict):
        for key, part in node.items():
            yield from _leaves(part, gaps, f"{name}.{key}".lstrip("."), may_be_nan or key in gaps)
    elif isinstance(node, tuple):
        unknown = getattr(type(node), "MAY_BE_NAN", ())
        for key, part in zip(getattr(node, "_fields", range(len(node))), node, strict=True):
            yield from _leaves(part, gaps, f"{name}.{key}".lstrip("."), may_be_nan or key in unknown)


def _check_numbers(leaves: list[_Leaf]) -> None:
    for name, tensor, may_be_nan in leaves:
        if tensor.is_floating_point():
            wrong = tensor.isinf() if may_be_nan else ~tensor.isfinite()
            if bool(wrong.any()):
                raise SnapshotError(
                    f"{name} holds {float(tensor[wrong][0])}, which no patient's state can (a state lists under "
                    "MAY_BE_NAN which of its fields may be unknown); go back to an earlier snapshot"
                )
        elif tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
            raise SnapshotError(f"{name} holds bytes that are neither true nor false; go back to an earlier snapshot")
        elif name.rpartition(".")[2] in _COUNTS and bool((tensor < 0).any()):
            raise SnapshotError(f"{name} is {int(tensor.amin())}, but counts from 0; go back to an earlier snapshot")


def _weights(world: Any) -> str | None:
    """The seal of a world's weights; of a module that was never saved, the sum of its tensors; None without any."""
    sealed = world.weights_sha256 if isinstance(world, HasWeights) else None
    if sealed is not None or not isinstance(world, nn.Module):
        return sealed
    digest = hashlib.sha256()
    for name, tensor in world.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _sum(value: Any) -> str | None:
    """A short word for a dataclass, a name, or names; the same for the same."""
    if value is None or isinstance(value, str):
        return value
    made = dataclasses.is_dataclass(value) and not isinstance(value, type)
    plain = dataclasses.asdict(value) if made else list(value)
    name = f"{plain['name']} " if isinstance(plain, dict) and isinstance(plain.get("name"), str) else ""
    return name + hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:67]}..."
