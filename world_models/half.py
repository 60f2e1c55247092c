"""Learned worlds in half precision: their products of matrices in bfloat16 or float16, all else in float32.

A world whose class names the kinds it tolerates (`TakesHalf`; measured by `benchmarks.common.half_precision`) is loaded
in one of them by `catalog.load(name, dtype="bfloat16")`. Its verbs (`gradients.verb`) then run under torch's autocast:
layers multiply in half precision and add up in float32, and what a verb gives is float32. Weights stay as they lie on
disk, and the state in which a patient begins (`initial`, `infer`) is that of float32. A draw that lies within the
rounding of its threshold falls the other way, so courses part where those of float32 would have gone on together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from world_models.twins import twin

__all__ = ["DTYPES", "WHOLE", "TakesHalf", "checked_dtype", "run", "with_dtype"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WHOLE = "float32"
_HALF = (torch.bfloat16, torch.float16)
R = TypeVar("R")
W = TypeVar("W")


@runtime_checkable
class TakesHalf(Protocol):
    """A world that tolerates products in half precision."""

    halves: tuple[str, ...]  # which, of DTYPES
    dtype: str  # in which its products are now


def checked_dtype(dtype: Any) -> str:
    """The name of a precision; None: float32. Raises ValueError: another."""
    if dtype is None:
        return WHOLE
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is no precision of a world; choose {', '.join(map(repr, DTYPES))}")
    return dtype


def with_dtype(world: W, dtype: str) -> W:
    """The same world (its weights shared, not copied) in this precision.

    Raises:
        ValueError: the world does not tolerate it; the message names what it does.
    """
    if dtype == WHOLE:
        return world
    known = world.halves if isinstance(world, TakesHalf) else ()
    if dtype not in known:
        remedy = (
            f"choose from {', '.join((WHOLE, *known))}" if known else "it computes in float32 alone: leave dtype out"
        )
        name = getattr(world, "name", world)
        raise ValueError(f"dtype={dtype!r}: world {name!r} was not found to tolerate it; {remedy}")
    return twin(world, dtype=dtype)


def run(world: Any, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """What a verb gives, with the products of matrices in the world's precision."""
    dtype = getattr(world, "dtype", WHOLE)  # others' worlds may have torch's own there
    if not isinstance(dtype, str) or DTYPES.get(dtype) not in _HALF:
        return function(*args, **kwargs)
    with torch.autocast(torch.device(world.device).type, DTYPES[dtype], cache_enabled=False):
        found = function(*args, **kwargs)
    return _whole(found)


def _whole(found: Any) -> Any:
    """The same tree of tensors, those in half precision as float32."""
    if isinstance(found, torch.Tensor):
        return found.float() if found.dtype in _HALF else found
    if isinstance(found, Mapping):
        return {name: _whole(value) for name, value in found.items()}
    if isinstance(found, tuple):
        parts = [_whole(value) for value in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    return found
