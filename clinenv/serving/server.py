"""Bind, serve, and stop: what stands around the application."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import torch
import uvicorn

from clinenv.serving.app import create_app
from clinenv.serving.course import Served
from clinenv.serving.guard import is_loopback
from clinenv.serving.limits import Limits
from clinenv.serving.patience import impatient
from clinenv.serving.sessions import Sessions

__all__ = ["bind", "make_server", "running"]

_STOPPING_S = 5  # that requests under way have when the server is told to stop


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        OSError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def make_server(served: list[Served], limits: Limits, host: str) -> uvicorn.Server:
    """A server of these ids; `run(sockets=[bind(host, port)])` runs it until it is told to stop."""
    app = create_app(served, Sessions(limits), is_loopback(host))
    config = uvicorn.Config(
        app,
        http=impatient(limits.request_s),
        ws="websockets-sansio",
        ws_max_size=limits.max_body_bytes,
        ws_ping_interval=20.0,  # seconds; a client that has vanished is noticed by it
        ws_ping_timeout=20.0,
        ws_per_message_deflate=False,  # what a small message unpacks to is then as small
        h11_max_incomplete_event_size=1 << 14,  # bytes of a request's head
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=int(limits.request_s) or 1,
        timeout_graceful_shutdown=_STOPPING_S,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )
    return uvicorn.Server(config)


@contextlib.contextmanager
def running(served: list[Served], limits: Limits | None = None) -> Iterator[str]:
    """A server in a thread of this process, on a free port of the loopback interface; gives its URL."""
    listening = bind("127.0.0.1", 0)
    server = make_server(served, Limits() if limits is None else limits, "127.0.0.1")
    threads = torch.get_num_threads()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(2 * _STOPPING_S)
        torch.set_num_threads(threads)
