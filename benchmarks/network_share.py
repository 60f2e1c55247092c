"""Where the time of a step goes: the outermost torch.nn.Module calls, and the verbs of the world, against all of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["time_shares"]

_VERBS = ("initial", "transition", "observe", "spread", "support", "rekey", "infer", "read")


class _Clock:
    """Adds up the time between the outermost `enter` and its `leave`."""

    def __init__(self) -> None:
        self.depth, self.total, self.entered = 0, 0.0, 0.0

    def enter(self) -> None:
        if self.depth == 0:
            self.entered = time.perf_counter()
        self.depth += 1

    def leave(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.total += time.perf_counter() - self.entered


def _clocked(verb: Callable[..., Any], clock: _Clock) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        clock.enter()
        try:
            return verb(*args, **kwargs)
        finally:
            clock.leave()

    return timed


def time_shares(work: Callable[[], int], world: Any, seconds: float) -> dict[str, float]:
    """Shares (0 to 1) of the wall time of repeated `work`.

    Args:
        world: the object whose verbs `work` uses.

    Returns:
        "modules": inside calls of torch modules (nested calls count once; what a module does in plain methods, without
        being called, is not seen); "world": inside the world's verbs, the modules among them; "rest": everything else,
        which is task, observation, infos, autoreset and numpy.
    """
    modules, verbs = _Clock(), _Clock()

    def before(module: nn.Module, args: tuple) -> None:
        modules.enter()

    def after(module: nn.Module, args: tuple, output: object) -> None:
        modules.leave()

    work()
    hooks = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    names = [n for n in _VERBS if hasattr(world, n)]
    own = {n: vars(world)[n] for n in names if n in vars(world)}
    for name in names:
        object.__setattr__(world, name, _clocked(getattr(world, name), verbs))
    try:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            work()
        total = time.perf_counter() - start
    finally:
        for name in names:
            object.__delattr__(world, name)
        for name, verb in own.items():
            object.__setattr__(world, name, verb)
        for hook in hooks:
            hook.remove()
    return {"modules": modules.total / total, "world": verbs.total / total, "rest": 1.0 - verbs.total / total}
