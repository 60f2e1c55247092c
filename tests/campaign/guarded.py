"""Trials in a child process that may take so much memory and time, and reads nothing outside the folder it was given.

The child tells of each trial before and after it, so that one that hangs or takes the process with it is known.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["LIMIT_BYTES", "LIMIT_S", "Opened", "guarded"]

LIMIT_S = 20.0  # processor time of one trial, so that a busy machine makes no failures
WAIT_S = 300.0  # wall time, after which a trial that uses no processor time is taken to wait for ever
LIMIT_BYTES = 2 << 30  # memory that the trials of one child take beyond what the child began with
_ACCESS, _OPEN, _IS_FOLDER = 0x1, 0x20, 0x40000000  # of inotify(7)


class Opened:
    """Names of the files in a folder that anything in this process opened or read, C libraries included (inotify).

    Where the system has no inotify, nothing is seen, and `works` is false.
    """

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK) if hasattr(libc, "inotify_init1") else -1
        self.works = (
            self._handle >= 0 and libc.inotify_add_watch(self._handle, os.fsencode(folder), _ACCESS | _OPEN) >= 0
        )

    def since(self) -> list[str]:
        """Those since the last call."""
        found = []
        while self.works:
            try:
                events = os.read(self._handle, 1 << 16)
            except BlockingIOError:
                break
            place = 0
            while place < len(events):
                _, mask, _, length = struct.unpack_from("iIII", events, place)
                name = events[place + 16 : place + 16 + length].rstrip(b"\0").decode(errors="replace")
                if not mask & _IS_FOLDER:
                    found.append(name)
                place += 16 + length
        return found


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _processor_s(process: int) -> float:
    """Processor time that a process has used, in s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def guarded(trial: Callable[[int], Any], numbers: list[int], a_child: int = 200) -> Iterator[tuple[int, Any]]:
    """`trial(number)` for each number, in children of `a_child` trials each; yields each number and its outcome.

    The outcome is what `trial` returned (plain JSON), or {"failed": why} for a trial that ran over the time, died, or
    took the memory. What `trial` raises is a failure too, with the end of its traceback.
    """
    left = list(numbers)
    while left:
        done = 0
        for number, outcome in _child(trial, left[:a_child]):
            done += 1
            yield number, outcome
        left = left[done:]


def _child(trial: Callable[[int], Any], numbers: list[int]) -> Iterator[tuple[int, Any]]:
    """Outcomes of one child; it ends with the first trial that killed it, whose outcome is the last one yielded."""
    receiver, sender = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _work(trial, numbers, receiver, sender)
    os.close(sender)
    now: int | None = None
    pending = b""
    began = (time.monotonic(), 0.0)  # of the trial: wall, and processor time that the child had used
    try:
        while True:
            ready, _, _ = select.select([receiver], [], [], 1.0)
            if not ready:
                waited, used = time.monotonic() - began[0], _processor_s(child) - began[1]
                if used < LIMIT_S and waited < WAIT_S:
                    continue
                os.kill(child, signal.SIGKILL)
                why = f"not done after {used:.0f} s of processor time, {waited:.0f} s in all"
                yield (now if now is not None else numbers[0]), {"failed": why}
                return
            block = os.read(receiver, 1 << 16)
            if not block:
                break
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                told = json.loads(line)
                if "outcome" in told:
                    yield told["number"], told["outcome"]
                    now = None
                else:
                    now, began = told["number"], (time.monotonic(), told["used"])
    finally:
        os.close(receiver)  # a child whose parent no longer listens ends at its next word
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        yield (now if now is not None else numbers[-1]), {"failed": f"the process died with {code}"}


def _work(trial: Callable[[int], Any], numbers: list[int], receiver: int, sender: int) -> None:
    """The child: never returns."""
    code = 1
    try:
        os.close(receiver)
        most = _virtual_bytes() + LIMIT_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in numbers:
            os.write(sender, json.dumps({"number": number, "used": time.process_time()}).encode() + b"\n")
            start = time.process_time()
            try:
                outcome = trial(number)
            except BaseException as error:
                import traceback

                outcome = {"failed": "".join(traceback.format_exception(error))[-1500:]}
            taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began
            if isinstance(outcome, dict):
                outcome |= {"seconds": round(time.process_time() - start, 3), "kilobytes": taken}
            os.write(sender, json.dumps({"number": number, "outcome": outcome}).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)
