"""The page's server: static files, and a small JSON interface over `Sessions`. Starlette; nothing is kept on disk.

Who may ask: only pages that this server sent. The Host header must be one of ours (a name that an attacker points at
the loopback address is none), a request that changes something must be JSON and, where it says so, of our own origin,
and the page may load nothing from anywhere else (Content-Security-Policy).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clinenv.play import requests
from clinenv.play.game import Game, controls
from clinenv.play.games import ORDER_NAMES, learned_worlds
from clinenv.play.page import ASSETS, index, setting
from clinenv.play.session import ORACLE, PlayError, Session
from clinenv.play.sessions import Sessions

__all__ = ["LOOPBACK", "application"]

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_SAFE = {
    b"content-security-policy": (
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
_log = logging.getLogger(__name__)


class _Headers:
    """Adds what a browser must be told to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SAFE.items()]
            await send(message)

        await self.app(scope, receive, with_headers)


def application(game: Game, hosts: tuple[str, ...] = LOOPBACK, world: str | None = None) -> Starlette:
    """The ASGI application of one id.

    Args:
        hosts: names that the Host header may hold; "*" lifts that.
        world: a folder with weights, offered before the catalogue's.

    Raises:
        ValueError: the folder is no world of this id.
    """
    worlds = (*([world] if world else []), *learned_worlds(game.id))
    sessions = Sessions()
    told = setting(game, controls(game.task(), _orders(game), ORDER_NAMES), (*worlds, ORACLE))

    def new(body: dict[str, Any]) -> dict[str, Any]:
        asked = requests.checked_patient(game, worlds, body)
        name, session = sessions.add(lambda: Session(game, **asked))
        return {"session": name, **session.told()}

    def act(name: str, body: dict[str, Any]) -> dict[str, Any]:
        branch, step = requests.whole(body, "branch", 1000), requests.whole(body, "step", 100_000)
        with sessions.use(name) as session:
            return {"moment": session.order(branch, step, body.get("action"))}

    def fork(name: str, body: dict[str, Any]) -> dict[str, Any]:
        branch, step = requests.whole(body, "branch", 1000), requests.whole(body, "step", 100_000)
        with sessions.use(name) as session:
            return {"branch": session.fork(branch, step)}

    def look(name: str) -> dict[str, Any]:
        with sessions.use(name) as session:
            return {"session": name, **session.told()}

    def draw(name: str, branch: int, step: int, role: str) -> str | None:
        with sessions.use(name) as session:
            return session.ecg(branch, step, role)

    async def page(_: Request) -> Response:
        return Response(index(game), media_type="text/html")

    async def about(_: Request) -> Response:
        return JSONResponse(told)

    async def create(request: Request) -> Response:
        return await _answer(new, await _body(request))

    async def one(request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "DELETE":
            _own_origin(request)
            await run_in_threadpool(sessions.close, name)
            return JSONResponse({})
        return await _answer(look, name)

    async def orders(request: Request) -> Response:
        return await _answer(act, request.path_params["name"], await _body(request))

    async def branches(request: Request) -> Response:
        return await _answer(fork, request.path_params["name"], await _body(request))

    async def ecg(request: Request) -> Response:
        at = request.path_params
        svg = await run_in_threadpool(draw, at["name"], at["branch"], at["step"], at["role"])
        if svg is None:
            return JSONResponse({"error": "this world draws no ECG"}, 404)
        return Response(svg, media_type="image/svg+xml")

    root = "/api/sessions/{name}"
    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/setting", about),
            Route("/api/sessions", create, methods=["POST"]),
            Route(root, one, methods=["GET", "DELETE"]),
            Route(f"{root}/orders", orders, methods=["POST"]),
            Route(f"{root}/branches", branches, methods=["POST"]),
            Route(f"{root}/ecg/{{branch:int}}/{{step:int}}/{{role}}", ecg),
            Mount("/assets", StaticFiles(directory=Path(ASSETS))),
        ],
        middleware=[Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={ValueError: _wrong, Exception: _broken},
    )


def _orders(game: Game) -> tuple[Any, ...]:
    """The orders of the id's worlds, one Quantity a column."""
    from world_models.quantities import ecg_drug, progression, ward

    tables = (ecg_drug.ORDERS, ward.ORDERS, progression.ORDERS)
    return next(table for table in tables if tuple(order.name for order in table) == game.task().orders)


async def _answer(work: Any, *arguments: Any) -> Response:
    """What `work` gives, as JSON; it computes, so another thread does it."""
    return JSONResponse(await run_in_threadpool(work, *arguments))


async def _body(request: Request) -> dict[str, Any]:
    """The checked JSON of a request that changes something. Raises PlayError."""
    _own_origin(request)
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise PlayError("the request is no application/json; send it as that")
    read = b""
    async for piece in request.stream():
        read += piece
        if len(read) > requests.MOST_BYTES:
            break
    return requests.checked_body(read)


def _own_origin(request: Request) -> None:
    """Raises PlayError: the request comes from another site's page."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise PlayError("the request comes from a page of another site; open the page at this server's own address")


async def _wrong(_: Request, error: Exception) -> Response:
    """One sentence with the remedy, as the page shows it."""
    return JSONResponse({"error": str(error)}, 400)


async def _broken(_: Request, error: Exception) -> Response:
    _log.error("a request failed", exc_info=error)
    return JSONResponse({"error": f"the server failed ({type(error).__name__}); its log says more. Try again"}, 500)
