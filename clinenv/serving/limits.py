"""What a server may be made to do: sessions, seconds, bytes and megabytes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Limits", "resident_mb"]

_PAGES = Path("/proc/self/statm")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one server; `clinenv serve --help` names those that a command line sets."""

    max_sessions: int = 64  # at once, over all ids
    idle_s: float = 600.0  # a session that nobody asked anything for so long ends
    step_timeout_s: float = 30.0  # of a reset or a step, the wait for its turn included
    max_memory_mb: float = 4096.0  # resident; above it no session begins
    max_body_bytes: int = 1 << 16  # of a request's body, or of a message
    request_s: float = 10.0  # in which a request's head, its body, or an answer must get through
    workers: int = 2  # threads that step patients

    @property
    def max_connections(self) -> int:
        """One a session, as many again that ask over HTTP, and some to be told that the server is full."""
        return 2 * self.max_sessions + 64


def resident_mb() -> float | None:
    """Resident memory of this process in MB; its peak where the system does not tell; None where it tells neither."""
    if _PAGES.is_file():
        import resource

        return int(_PAGES.read_text().split()[1]) * resource.getpagesize() / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
