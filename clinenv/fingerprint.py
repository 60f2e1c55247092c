"""A name for what something is made of, so that what is built equally is called equally, in any process.

Pickled bytes would not do: they differ with what happens to be shared inside, and with what was kept along the way.
"""

from __future__ import annotations

import hashlib
import sys
import weakref
from collections.abc import Mapping
from enum import Enum
from functools import cached_property, partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["PACKAGES", "Told", "fingerprint"]

PACKAGES = ("world_models", "clinenv")
_KNOWN = {*PACKAGES, "torch", "numpy", *sys.stdlib_module_names} - {"__main__"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, PurePath)
_NAMED = (torch.dtype, torch.device, torch.Size, type, FunctionType, BuiltinFunctionType)


class Told(NamedTuple):
    """What something is made of."""

    name: str  # 64 hex digits: equal for equal values, of tensors by their numbers, of objects by class and attributes
    foreign: bool  # whether code of others is in it, of which the name says nothing


def fingerprint(*things: Any) -> Told:
    """The name of all of them together.

    Raises:
        TypeError: something of which it cannot be told.
    """
    modules: set[str] = set()
    name = _sum(repr([_told(thing, (), modules) for thing in things]).encode())
    return Told(name, any(module.partition(".")[0] not in _KNOWN for module in modules))


def _told(thing: Any, above: tuple[int, ...], modules: set[str]) -> Any:
    """A thing by what it is made of; `above` are the ids of those that hold it, `modules` takes where its code is."""
    if isinstance(thing, _PLAIN):
        return repr(thing)
    if isinstance(thing, _NAMED):
        if isinstance(thing, type | FunctionType):
            modules.update(each.__module__ for each in getattr(thing, "__mro__", (thing,)))
        return getattr(thing, "__qualname__", repr(thing)), getattr(thing, "__module__", "")
    if isinstance(thing, Tensor):
        thing = thing.detach().cpu().contiguous()
        return str(thing.dtype), tuple(thing.shape), _sum(thing.reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(thing, np.ndarray | np.generic):
        return str(thing.dtype), thing.shape, _sum(thing.tobytes())
    if isinstance(thing, weakref.ref):  # a module's to its own parameters
        return "weakref"
    if id(thing) in above:
        return "above", len(above) - above.index(id(thing))
    return _held(thing, (*above, id(thing)), modules)


def _held(thing: Any, above: tuple[int, ...], modules: set[str]) -> Any:
    """What holds other things."""
    kind = type(thing)
    modules.update(each.__module__ for each in kind.__mro__)
    if isinstance(thing, Mapping):
        return kind.__qualname__, [(repr(name), _told(value, above, modules)) for name, value in thing.items()]
    if isinstance(thing, list | tuple):
        return kind.__qualname__, [_told(value, above, modules) for value in thing]
    if isinstance(thing, set | frozenset):
        return kind.__qualname__, sorted(repr(_told(value, above, modules)) for value in thing)
    if isinstance(thing, partial):
        return kind.__qualname__, [_told(part, above, modules) for part in (thing.func, thing.args, thing.keywords)]
    if isinstance(thing, MethodType):
        return kind.__qualname__, [_told(part, above, modules) for part in (thing.__func__, thing.__self__)]
    slots = [name for each in kind.__mro__ for name in getattr(each, "__slots__", ()) if hasattr(thing, name)]
    own = {**{name: getattr(thing, name) for name in slots}, **getattr(thing, "__dict__", {})}
    if not own and not hasattr(thing, "__dict__"):
        raise TypeError(f"{thing!r}, a {kind.__name__}, cannot be told by what it is made of")
    # what a property made of the rest, and keeps, says nothing new
    own = {name: own[name] for name in sorted(own) if not isinstance(getattr(kind, name, None), cached_property)}
    return kind.__module__, kind.__qualname__, _told(own, above, modules)


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
