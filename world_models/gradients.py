"""Gradients through a world's verbs, where somebody asks for them.

A verb notes nothing for a backward pass: planning and training in an environment need none, and it costs memory. Inside
`passed()` the verbs of this thread leave torch's own mode as it is, so that what they give can be differentiated by the
orders handed in:

    with gradients.passed():
        chart = world.observe(world.transition(state, dose))
    chart["qtcf_ms"].sum().backward()

What a draw decides (an event struck or not, a rhythm, a whole number, a time) passes no gradient: it is held at what it
was. `Differentiable` says which of a world's orders matter by their amount at all; a `Simulator(..., grad=True)` asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from world_models import half

__all__ = ["Differentiable", "passed", "root", "unwatched", "verb"]

P = ParamSpec("P")
R = TypeVar("R")


@runtime_checkable
class Differentiable(Protocol):
    """A world whose charts can be differentiated by the amounts that were ordered."""

    @property
    def graded_orders(self) -> tuple[str, ...]:
        """The orders whose amount a gradient is passed by; of the others a chart depends by steps alone (given or not
        given), if at all."""


class _Asked(threading.local):
    wanted = False  # in each thread that never said otherwise


_ASKED = _Asked()


@contextmanager
def passed(wanted: bool = True) -> Iterator[None]:
    """Within, the verbs called by this thread pass gradients (False: again do not)."""
    before = _ASKED.wanted
    _ASKED.wanted = wanted
    try:
        yield
    finally:
        _ASKED.wanted = before


def unwatched(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a verb that passes no gradient: under `torch.no_grad`. Not while a graph is written for a compiler:
    nothing is noted there, and `torch.export` cannot write a change of mode beside a loop."""
    without = torch.no_grad()(function)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return (function if torch.compiler.is_compiling() else without)(*args, **kwargs)

    return called


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a world's verb: under `torch.no_grad`, unless the caller stands within `passed`, and in the world's
    precision (`half`)."""
    without = torch.no_grad()(function)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return half.run(args[0], function if _ASKED.wanted else without, *args, **kwargs)

    return called


def root(x: Tensor) -> Tensor:
    """The square root [...] of amounts or variances, of negative ones 0. Its slope at 0, which is infinite, is taken as
    0: where nothing is given a step leads away, not a slope, and where nothing is unsure there is nothing to follow."""
    if not x.requires_grad:
        return x.clamp_min(0.0).sqrt()
    there = x > 0
    return torch.where(there, torch.where(there, x, 1.0).sqrt(), 0.0)
