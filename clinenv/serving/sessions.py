"""The sessions of a server: bounded in number, in time and in memory, each by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from clinenv.serving.course import Course, Served
from clinenv.serving.errors import Ended, Full, Late, Unknown, shown
from clinenv.serving.limits import Limits, resident_mb

__all__ = ["Sessions"]

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Sessions:
    """All running courses. Its methods belong to the event loop; patients are stepped in worker threads."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.stuck = 0  # steps over their time that still run
        self._all: dict[str, Course] = {}
        self._pool = ThreadPoolExecutor(limits.workers, "patients", torch.set_num_threads, (1,))

    def __len__(self) -> int:
        return len(self._all)

    def open(self, served: Served) -> Course:
        """A new session.

        Raises:
            Full: as many are open as may be, or the server holds as much memory as it may.
        """
        limits = self.limits
        if len(self._all) >= limits.max_sessions:
            raise Full(
                f"{len(self._all)} sessions are open and the limit is {limits.max_sessions}; close one (POST /close), "
                f"come back later (idle ones end after {limits.idle_s:g} s), or start it with more --max-sessions"
            )
        resident = resident_mb()
        if resident is not None and resident > limits.max_memory_mb:
            raise Full(
                f"the server holds {resident:.0f} MB and the limit is {limits.max_memory_mb:.0f}; come back later, or "
                "start the server with more --max-memory-mb"
            )
        course = Course(served)
        self._all[course.id] = course
        return course

    def find(self, session_id: str | None, served: Served) -> Course:
        """An open session of this id.

        Raises:
            Unknown: there is none.
        """
        if session_id is None:
            raise Unknown("no session_id is given; send that which /reset answered with (metadata.session_id)")
        course = self._all.get(session_id)
        if course is None or course.served is not served:
            raise Unknown(
                f"session {shown(session_id)} of {served.id} is unknown, was closed, or has ended after "
                f"{self.limits.idle_s:g} s without a request; /reset begins a new one"
            )
        return course

    async def run(self, course: Course, work: Callable[..., T], *arguments: Any) -> T:
        """Let the course work in a thread.

        Raises:
            Ended: it is at work already.
            Full: its turn did not come in time; nothing has happened.
            Late: the work took too long, and the session has ended.
        """
        if course.busy:
            raise Ended("this session is still at work on the request before; wait for its answer")
        course.busy = True
        future = self._pool.submit(work, *arguments)
        limit = self.limits.step_timeout_s
        try:
            answer = asyncio.wrap_future(future)
            await asyncio.wait([answer], timeout=limit)
            if answer.done() or future.done():
                return await answer
            if future.cancel():
                raise Full(
                    f"the server is busy: the request waited {limit:g} s for its turn and was not begun: nothing has "
                    "happened; send it again later, or start the server with fewer --max-sessions"
                )
            self.stuck += 1
            answer.add_done_callback(self._late_work_is_done)
            self.close(course, "a step ran over its time")
            raise Late(
                f"the step took longer than {limit:g} s and the session has ended; begin a new one with /reset, or "
                "start the server with more --step-timeout-s"
            )
        finally:
            course.busy = False
            course.last_asked = time.monotonic()

    def _late_work_is_done(self, answer: asyncio.Future[Any]) -> None:
        self.stuck -= 1
        if not answer.cancelled():
            answer.exception()  # nobody waits for it any more

    def close(self, course: Course, why: str = "closed") -> None:
        """End a session; one that has ended stays so."""
        if self._all.pop(course.id, None) is not None:
            course.ended = why
            if not course.busy:
                course.close()

    def end_idle(self) -> int:
        """End the sessions that were asked nothing for `idle_s`; how many."""
        last = time.monotonic() - self.limits.idle_s
        idle = [course for course in self._all.values() if not course.busy and course.last_asked < last]
        for course in idle:
            self.close(course, f"idle for {self.limits.idle_s:g} s")
        return len(idle)

    async def watch(self) -> None:
        """End idle sessions, for as long as the server runs."""
        while True:
            await asyncio.sleep(min(5.0, self.limits.idle_s / 4))
            self.end_idle()

    async def begin_new(self, served: Served, fields: dict[str, Any]) -> Any:
        """A reset in a new session, which is kept only if the reset succeeds."""
        course = self.open(served)
        try:
            return await self.run(course, course.begin, *begun(fields))
        except BaseException:
            self.close(course, "its first reset failed")
            raise

    def shut(self) -> None:
        """End all sessions and take no more work."""
        for course in list(self._all.values()):
            self.close(course, "the server stops")
        self._pool.shutdown(wait=False, cancel_futures=True)


def begun(fields: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of `Course.begin` in their order."""
    return fields["seed"], fields["options"], fields["observation"], fields["episode_id"]
