"""A process that is killed at a chosen line: what it leaves behind is what a power switch or `kill -9` would leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType, ModuleType

import pytest

__all__ = ["every", "kill_at", "needs_fork"]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


def every(usual: int) -> int:
    """Lines between two kills: CLINENV_KILL_EVERY=1 tries them all, in some minutes."""
    return int(os.environ.get("CLINENV_KILL_EVERY", usual))


def kill_at(line: int, run: Callable[[], object], *modules: ModuleType) -> bool:
    """`run` in a child that dies before the line executed as number `line` of these modules.

    False if it came to its end. Nothing of the child is cleaned up: no `finally`, no buffer, no handle.
    """
    files = {module.__file__ for module in modules}
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, _: object):
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os._exit(9)
            return trace

        try:
            sys.settrace(trace)
            run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), f"the child was to be killed at line {line}, and failed instead"
    return code == 9
