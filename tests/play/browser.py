"""A browser for the tests, and a server for it: both are asked for once."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["chromium", "serving"]

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The path of a Chromium: of CLINENV_CHROMIUM, on the PATH, or playwright's own; None: there is none."""
    named = os.environ.get("CLINENV_CHROMIUM")
    found = [named] if named else [shutil.which(name) for name in NAMES]
    if not any(found):
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            return None
        with sync_playwright() as playwright:
            found = [playwright.chromium.executable_path]
    return next((path for path in found if path and Path(path).is_file()), None)


@contextmanager
def serving(app) -> Iterator[str]:
    """The address of a server that runs in a thread of this process until the block ends."""
    import uvicorn

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    patience = time.monotonic() + 60.0
    while not server.started:
        assert time.monotonic() < patience, "the server did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=30.0)
