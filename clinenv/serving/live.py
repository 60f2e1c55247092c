"""OpenEnv's WebSocket: one connection is one session, for as long as it lasts."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from clinenv.serving.course import Course, Served
from clinenv.serving.errors import Full, Garbled, Late, Refused, ServeError, Unknown, shown
from clinenv.serving.messages import fields, read, reset_fields
from clinenv.serving.sessions import Sessions, begun

__all__ = ["NO_TOOLS", "live"]

_log = logging.getLogger(__name__)
_TYPES = ("reset", "step", "state", "close", "mcp")
# JSON-RPC's answer to whoever asks for tools, as OpenEnv's own server gives it for environments without any
NO_TOOLS = {"jsonrpc": "2.0", "id": None, "error": {"code": -32601, "message": "no MCP tools; use reset and step"}}


async def live(socket: WebSocket, served: Served, sessions: Sessions) -> None:
    """Serve one connection until it is closed, idle for too long, or its session ends."""
    await socket.accept()
    course = None
    try:
        course = sessions.open(served)
        while await _answered(socket, course, sessions):
            pass
    except Full as error:
        more = {"active_sessions": len(sessions), "max_sessions": sessions.limits.max_sessions}
        await _send(socket, sessions, _error(error, more))
    except (WebSocketDisconnect, RuntimeError):  # gone, also in the middle of an answer (starlette: RuntimeError)
        pass
    finally:
        if course is not None:
            sessions.close(course, "its connection was closed")
        try:
            await asyncio.wait_for(socket.close(), sessions.limits.request_s)
        except (RuntimeError, WebSocketDisconnect, asyncio.TimeoutError):
            pass


async def _answered(socket: WebSocket, course: Course, sessions: Sessions) -> bool:
    """Answer one message; whether there may be another."""
    limits = sessions.limits
    try:
        message = await asyncio.wait_for(socket.receive(), limits.idle_s)
    except asyncio.TimeoutError:
        idle = Unknown(f"the session ended after {limits.idle_s:g} s without a message; connect again")
        await _send(socket, sessions, _error(idle))
        return False
    if message["type"] == "websocket.disconnect":
        return False
    try:
        text = message.get("text")
        if text is None:
            raise Garbled("a binary message came; send JSON as text")
        answer = await _answer(read(text), course, sessions)
    except ServeError as error:
        answer = _error(error)
    except Exception:
        _log.exception("a session of %s failed", course.served.id)
        answer = _error(ServeError("the server failed; its log says why. The session has ended"))
        course.ended = "it failed"
    if answer is None:
        return False
    await _send(socket, sessions, answer)
    return not course.ended


async def _answer(message: dict[str, Any], course: Course, sessions: Sessions) -> dict[str, Any] | None:
    """The answer to a message; None to "close"."""
    kind = message.get("type")
    if kind not in _TYPES:
        error = Refused(f"message type {shown(kind)} is unknown; it may be {', '.join(_TYPES)}")
        error.code = "UNKNOWN_TYPE"
        raise error
    fields(message, ("type",) if kind in ("state", "close") else ("type", "data"), f"a message of type {kind!r}")
    data = message.get("data", {})
    if not isinstance(data, dict):
        raise Refused(f"data {shown(data)} is no object; send one")
    if kind == "reset":
        told = await sessions.run(course, course.begin, *begun(reset_fields(data)))
        return {"type": "observation", "data": told}
    if kind == "step":
        return {"type": "observation", "data": await sessions.run(course, course.step, data)}
    if kind == "state":
        return {"type": "state", "data": course.state()}
    return {"type": "mcp", "data": NO_TOOLS} if kind == "mcp" else None


async def _send(socket: WebSocket, sessions: Sessions, answer: dict[str, Any]) -> None:
    """Send; whoever reads too slowly is let go."""
    try:
        await asyncio.wait_for(socket.send_text(json.dumps(answer, allow_nan=False)), sessions.limits.request_s)
    except asyncio.TimeoutError:
        raise WebSocketDisconnect(1008, "the answer was not read") from None


def _error(error: ServeError, more: dict[str, Any] | None = None) -> dict[str, Any]:
    code = "SESSION_ERROR" if isinstance(error, Late) else error.code
    return {"type": "error", "data": {"message": str(error), "code": code, **(more or {})}}
