"""torch after a fork: the child has none of its parent's threads, and waits for ever for work that it hands to them.

Gymnasium's AsyncVectorEnv and Stable-Baselines3's SubprocVecEnv make their environments in forked children. A child
therefore works on one thread of its own, as PyTorch's data loaders do in theirs; with an environment a process there
are threads enough.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from functools import cache

__all__ = ["guard_forks"]


@cache
def guard_forks() -> None:
    """From now on children of this process work on one thread; so does this process, if it is a forked child itself."""
    if not hasattr(os, "register_at_fork"):
        return
    os.register_at_fork(after_in_child=_one_thread)
    if type(multiprocessing.current_process()).__name__ == "ForkProcess":
        _one_thread()


def _one_thread() -> None:
    """A torch that the parent has loaded is set to one thread; one that is loaded later has threads of its own."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)
