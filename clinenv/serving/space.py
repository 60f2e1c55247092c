"""The application by its name, `clinenv.serving.space:app`, for OpenEnv's runtimes, which start uvicorn themselves.

It is made when it is asked for, so that importing this loads no world. The environment variables CLINENV_IDS (ids,
separated by commas; without it all that need no recorded stays) and CLINENV_WORLD say what is served.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from clinenv.registration import ENVIRONMENTS
from clinenv.serving.app import create_app
from clinenv.serving.course import Served
from clinenv.serving.limits import Limits
from clinenv.serving.sessions import Sessions

if TYPE_CHECKING:
    from fastapi import FastAPI

    app: FastAPI

__all__ = ["app"]

_NEEDS_STAYS = "EHRReplay-v0"


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "app" not in globals():
        named = [env_id.strip() for env_id in os.environ.get("CLINENV_IDS", "").split(",") if env_id.strip()]
        ids = named or [row["id"] for row in ENVIRONMENTS if row["id"] != _NEEDS_STAYS]
        world = os.environ.get("CLINENV_WORLD")
        served = [Served(env_id, {"world": world} if world else {}) for env_id in ids]
        # whoever starts it decides where it listens: a proxy's or a container's Host is not this machine's
        globals()["app"] = create_app(served, Sessions(Limits()), loopback=False)
    return globals()["app"]
