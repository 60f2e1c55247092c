"""The sessions that a server keeps: a bounded number, the longest unused given up first, one request at a time."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clinenv.play.session import PlayError, Session

__all__ = ["IDLE_SECONDS", "MOST_SESSIONS", "Sessions"]

MOST_SESSIONS = 16
IDLE_SECONDS = 3600.0


@dataclass
class _Kept:
    session: Session
    used: float  # when, by the clock handed in


class Sessions:
    """Sessions by their unguessable names.

    Args:
        most: kept at once; the longest unused goes when one more comes.
        idle_seconds: after which an unused one goes.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        most: int = MOST_SESSIONS,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._idle, self._clock = most, idle_seconds, clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        # worlds are shared by all sessions, and two steps at once on one machine would only wait for each other
        self._one_at_a_time = threading.Lock()

    def add(self, make: Callable[[], Session]) -> tuple[str, Session]:
        """Make a session and keep it: its name and itself. Raises what `make` does."""
        with self._one_at_a_time:
            session = make()
            self._sweep(self._most - 1)
            name = secrets.token_urlsafe(16)
            self._kept[name] = _Kept(session, self._clock())
            return name, session

    @contextmanager
    def use(self, name: str) -> Iterator[Session]:
        """The session of that name, for this thread alone.

        Raises:
            PlayError: there is none, or none any more.
        """
        with self._one_at_a_time:
            self._sweep(self._most)
            kept = self._kept.get(name)
            if kept is None:
                raise PlayError(
                    f"this session is over: {self._most} are kept at most, each for {self._idle / 60:g} minutes after "
                    "its last use; begin with a new patient"
                )
            kept.used = self._clock()
            self._kept.move_to_end(name)
            yield kept.session

    def close(self, name: str) -> None:
        """Give a session up; one that there is not is fine."""
        with self._one_at_a_time:
            self._kept.pop(name, None)

    def __len__(self) -> int:
        return len(self._kept)

    def _sweep(self, leave: int) -> None:
        oldest = self._clock() - self._idle
        for name in [name for name, kept in self._kept.items() if kept.used < oldest]:
            del self._kept[name]
        while len(self._kept) > leave:
            self._kept.popitem(last=False)
