"""`clinenv serve`: environments by URL, for agents in other processes and other languages."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from clinenv.serving.course import Served

__all__ = ["add_arguments", "run"]

_REPLAY = "EHRReplay-v0"
_PORT = 8000  # OpenEnv's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv serve`."""
    from world_models.command_line import number, whole

    parser.add_argument("ids", nargs="*", metavar="ID", help="environments (default: all); the first answers at / too")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=whole(0, 65535), default=_PORT, help=f"default {_PORT}; 0: a free one")
    parser.add_argument("--world", help="a name, a folder, or oracle (default: the learned world of each id)")
    parser.add_argument("--stays", metavar="FOLDER", help=f"recorded stays in MEDS, which {_REPLAY} needs")
    sessions = "sessions at once; further ones are refused (default 64)"
    parser.add_argument("--max-sessions", type=whole(1, 10_000), default=64, help=sessions)
    idle = "seconds after which a session that is asked nothing ends (default 600)"
    parser.add_argument("--idle-s", type=number(0, 1e6, above=True), default=600.0, help=idle)
    slow = "seconds that a reset or a step may take, its turn included (default 30)"
    parser.add_argument("--step-timeout-s", type=number(0, 1e6, above=True), default=30.0, help=slow)
    memory = "resident memory above which no session begins (default 4096)"
    parser.add_argument("--max-memory-mb", type=number(0, 1e9, above=True), default=4096.0, help=memory)


def run(given: argparse.Namespace) -> int:
    """Serve until interrupted.

    Raises:
        UsageError: an id, a world or an address that cannot be served, or what serves is not installed.
    """
    try:
        from clinenv.serving import guard, server
    except ImportError as error:
        raise UsageError(
            f'clinenv serve needs {error.name or "a library"}, which is not installed: pip install "clinenv[serve]"'
        ) from error
    from clinenv.serving.limits import Limits, resident_mb

    limits = Limits(
        max_sessions=given.max_sessions,
        idle_s=given.idle_s,
        step_timeout_s=given.step_timeout_s,
        max_memory_mb=given.max_memory_mb,
    )
    try:
        listening = server.bind(given.host, given.port)  # before the worlds are loaded: an address taken is soon told
    except OSError as error:
        raise UsageError(
            f"--host {given.host} --port {given.port}: {error}; give others (--port 0: a free one)"
        ) from error
    with listening:
        served = _served(given)
        resident = resident_mb()
        if resident is not None and resident > limits.max_memory_mb:
            raise UsageError(
                f"--max-memory-mb {limits.max_memory_mb:g}: {resident:.0f} MB are held before any session; give more"
            )
        if not guard.is_loopback(given.host):
            print(
                f"clinenv: warning: --host {given.host} lets every machine that reaches this one start sessions, "
                "without a password or encryption; use 127.0.0.1 unless that is meant",
                file=sys.stderr,
            )
        port = listening.getsockname()[1]
        host = f"[{given.host}]" if ":" in given.host else given.host
        for one in served:
            print(f"{one.id:22s} {one.world:20s} http://{host}:{port}/{one.id}")
        print(f"{NOT_FOR_CLINICAL_USE}. Ctrl-C stops the server.", flush=True)
        server.make_server(served, limits, given.host).run(sockets=[listening])
    return 0


def _served(given: argparse.Namespace) -> list[Served]:
    """What is to be served, loaded."""
    from clinenv.registration import ENVIRONMENTS, TEAMS
    from clinenv.serving.course import Served

    known, teams = [row["id"] for row in ENVIRONMENTS], [row["id"] for row in TEAMS]
    for env_id in given.ids:
        if env_id in teams:
            raise UsageError(f"{env_id} has several agents, and a session has one; serve one of {', '.join(known)}")
        if env_id not in known:
            raise UsageError(f"no environment {env_id!r}; serve one of {', '.join(known)}")
    wanted = list(dict.fromkeys(given.ids)) or [i for i in known if given.stays or i != _REPLAY]
    if _REPLAY in wanted and not given.stays:
        raise UsageError(f"{_REPLAY} needs recorded stays: give --stays FOLDER as well")
    served = []
    for env_id in wanted:
        arguments: dict[str, Any] = {} if given.world is None else {"world": given.world}
        arguments |= {"stays": given.stays} if env_id == _REPLAY else {}
        try:
            served.append(Served(env_id, arguments))
        except (ValueError, TypeError, FileNotFoundError) as error:
            raise UsageError(f"{env_id} cannot be served: {error}") from error
    return served
