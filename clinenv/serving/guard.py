"""What a web page must not do: a browser sends its requests to the loopback interface too, with the user's rights.

A page of another origin can reach a server that listens on loopback alone by a plain POST, by a WebSocket, or by a name
of its own that it lets point to 127.0.0.1. The first is kept out by asking for JSON's content type, which a browser
sends only after asking the server; the second by the Origin that it names; the third by the Host.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Guard", "is_loopback"]

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def is_loopback(host: str) -> bool:
    """Whether a server bound to this host can be reached from this machine alone."""
    return host in _LOOPBACK or host.startswith("127.")


class Guard:
    """ASGI middleware that refuses what a foreign web page could send.

    Args:
        loopback: the server is bound to loopback, so no other Host can be right.
    """

    def __init__(self, app: ASGIApp, loopback: bool) -> None:
        self._app = app
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1][:120]})  # the client sees 403
        else:
            body = json.dumps({"detail": refusal[1], "code": "VALIDATION_ERROR"}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": refusal[0], "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._loopback and not is_loopback(_name(host)):
            return 403, f"host {host[:80]!r} is none of this machine's; ask for 127.0.0.1 or localhost"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != host:
            return 403, f"origin {origin[:80]!r} is another site; ask from a program, or from this server's own pages"
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if scope.get("method") in ("POST", "PUT", "PATCH") and kind != b"application/json":
            return 415, f"content type {kind[:80].decode('latin-1')!r} is not taken; send application/json"
        return None


def _name(host: str) -> str:
    """The host without its port, an IPv6 address without its brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
