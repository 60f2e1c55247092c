"""The routes: OpenEnv's for every id under /ID, and for the first id at the top, where OpenEnv's clients look."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import clinenv
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from clinenv.serving.course import Served
from clinenv.serving.errors import Late, Refused, ServeError, shown
from clinenv.serving.guard import Guard
from clinenv.serving.limits import resident_mb
from clinenv.serving.live import NO_TOOLS, live
from clinenv.serving.messages import fields, read, reset_fields, session_id
from clinenv.serving.schema import RESET, STEP, described, listed, schemas
from clinenv.serving.sessions import Sessions, begun

__all__ = ["create_app"]

_log = logging.getLogger(__name__)
_VERSION = "1.0.0"  # of the HTTP interface, as OpenEnv's validation reads it from the OpenAPI document
_BUSY: dict[int | str, dict[str, Any]] = {
    503: {"description": "no room: the answer says which limit was met, and Retry-After when to come back"}
}


def create_app(all_served: list[Served], sessions: Sessions, loopback: bool) -> FastAPI:
    """The application.

    Args:
        all_served: at least one; the first also answers at the top.
        loopback: it is bound to the loopback interface.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(sessions.watch())
        yield
        watching.cancel()
        sessions.shut()

    # no pages with scripts from elsewhere: the document itself is at /openapi.json
    about = f"clinenv {clinenv.__version__}. {NOT_FOR_CLINICAL_USE}."
    app = FastAPI(
        title="clinenv", version=_VERSION, description=about, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.add_middleware(Guard, loopback=loopback)
    app.add_exception_handler(ServeError, _refused)
    app.add_exception_handler(HTTPException, _no_such_path)
    app.add_exception_handler(Exception, _failed)

    @app.get("/envs")
    async def envs() -> Response:
        return _json(listed(all_served))

    @app.get("/list_environments")
    async def list_environments() -> Response:
        return _json([served.id for served in all_served])

    for prefix, served in [("", all_served[0]), *((f"/{served.id}", served) for served in all_served)]:
        _tell(app, prefix, served, sessions)
        _act(app, prefix, served, sessions)
    return app


def _tell(app: FastAPI, prefix: str, served: Served, sessions: Sessions) -> None:
    """What can be asked without a session."""

    @app.get(f"{prefix}/health")
    async def health() -> Response:
        resident = resident_mb()
        about = {
            "status": "degraded" if sessions.stuck else "healthy",
            "sessions": len(sessions),
            "max_sessions": sessions.limits.max_sessions,
            "resident_mb": None if resident is None else round(resident, 1),
        }
        return _json(about)

    @app.get(f"{prefix}/metadata")
    async def metadata() -> Response:
        return _json(described(served))

    @app.get(f"{prefix}/schema")
    async def schema() -> Response:
        return _json(schemas(served))

    @app.post(f"{prefix}/mcp")
    async def mcp(request: Request) -> Response:
        return _json(NO_TOOLS)


def _act(app: FastAPI, prefix: str, served: Served, sessions: Sessions) -> None:
    """Reset, step, state and close; and all of them by WebSocket."""

    @app.post(f"{prefix}/reset", openapi_extra=_body(RESET), responses=_BUSY)
    async def reset(request: Request) -> Response:
        given = await _given(request, sessions)
        wanted, known = reset_fields(given), session_id(given.get("session_id"))
        if known is None:
            return _json(await sessions.begin_new(served, wanted))
        course = sessions.find(known, served)
        return _json(await sessions.run(course, course.begin, *begun(wanted)))

    @app.post(f"{prefix}/step", openapi_extra=_body(STEP), responses=_BUSY)
    async def step(request: Request) -> Response:
        given = await _given(request, sessions)
        fields(given, tuple(STEP["properties"]), "a step")
        course = sessions.find(session_id(given.get("session_id")), served)
        return _json(await sessions.run(course, course.step, given.get("action")))

    @app.get(f"{prefix}/state")
    async def state(request: Request) -> Response:
        course = sessions.find(session_id(request.query_params.get("session_id")), served)
        return _json(course.state())

    @app.post(f"{prefix}/close", openapi_extra=_body({"type": "object", "required": ["session_id"]}))
    async def close(request: Request) -> Response:
        given = await _given(request, sessions)
        fields(given, ("session_id",), "a close")
        sessions.close(sessions.find(session_id(given.get("session_id")), served))
        return _json({"closed": True})

    @app.websocket(f"{prefix}/ws")
    async def ws(socket: WebSocket) -> None:
        await live(socket, served, sessions)


async def _given(request: Request, sessions: Sessions) -> dict[str, Any]:
    """The object of a request's body; {} where there is none.

    Raises:
        Refused: more bytes than may be, or what `read` refuses.
        Late: it did not come in time.
    """
    limits = sessions.limits

    async def all_of_it() -> bytes:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > limits.max_body_bytes:
                error = Refused(f"the body has more than {limits.max_body_bytes} bytes; send less")
                error.status = 413
                raise error
        return bytes(body)

    try:
        body = await asyncio.wait_for(all_of_it(), limits.request_s)
    except asyncio.TimeoutError:
        slow = Late(f"the body did not come within {limits.request_s:g} s; send the request again")
        slow.status = 408
        raise slow from None
    except ClientDisconnect:
        raise Refused("the client has gone") from None
    return read(body) if body.strip() else {}


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content, allow_nan=False), status, headers, "application/json")


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServeError)
    headers = {"Connection": "close"} if error.status in (408, 413) else {}  # the rest of the body is not read
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return _json({"detail": str(error), "code": error.code}, error.status, headers)


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = "is no path here" if error.status_code == 404 else f"does not take {request.method}"
    detail = f"{shown(request.url.path)} {what}; GET /envs lists the ids, /openapi.json the paths"
    return _json({"detail": detail, "code": "VALIDATION_ERROR"}, error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("%s failed", request.url.path, exc_info=error)
    return _json({"detail": "the server failed; its log says why", "code": "EXECUTION_ERROR"}, 500)
