"""Which share of the time goes into neural network passes: a clock on the outermost torch.nn.Module calls."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["network_share"]


def network_share(work: Callable[[], int], seconds: float) -> float:
    """Share (0 to 1) of the wall time of repeated `work` that was spent inside calls of network modules.

    Nested calls count once. Work a module does in plain methods, without being called, is not seen: the share is a
    lower bound.
    """
    depth, inside, entered = 0, 0.0, 0.0

    def before(module: nn.Module, args: tuple) -> None:
        nonlocal depth, entered
        if depth == 0:
            entered = time.perf_counter()
        depth += 1

    def after(module: nn.Module, args: tuple, output: object) -> None:
        nonlocal depth, inside
        depth -= 1
        if depth == 0:
            inside += time.perf_counter() - entered

    work()
    hooks = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    try:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            work()
        total = time.perf_counter() - start
    finally:
        for hook in hooks:
            hook.remove()
    return inside / total
