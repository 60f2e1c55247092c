"""Plain clients: HTTP and WebSocket, without the server's own code."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

WAIT_S = 60.0  # test machines are busy

__all__ = ["Asking", "patiently"]


class Asking:
    """Asks one server."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).netloc

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, content and headers of an answer."""
        connection = http.client.HTTPConnection(self.address, timeout=WAIT_S)
        try:
            kind = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, body, {**kind, **{k.replace("_", "-"): v for k, v in headers.items()}})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The content of a page that is there."""
        status, content, _ = self.raw("GET", path)
        assert status == 200, content
        return content

    def post(self, path: str, content: Any, status: int = 200) -> Any:
        """The answer to a POST, of the status that is expected."""
        found, answer, _ = self.raw("POST", path, json.dumps(content).encode())
        assert found == status, (found, answer)
        return answer

    def refused(self, path: str, content: Any, status: int = 422) -> str:
        """What a refusal says."""
        return self.post(path, content, status)["detail"]

    @contextlib.contextmanager
    def live(self, path: str, **options: Any) -> Iterator[ClientConnection]:
        """A WebSocket."""
        with connect(f"ws://{self.address}{path}", open_timeout=WAIT_S, **options) as socket:
            yield socket


def say(socket: ClientConnection, message: Any) -> Any:
    """The answer to a message."""
    socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
    return json.loads(socket.recv(WAIT_S))


def patiently(true: Callable[[], bool]) -> bool:
    """Whether it comes true."""
    end = time.monotonic() + WAIT_S
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()
